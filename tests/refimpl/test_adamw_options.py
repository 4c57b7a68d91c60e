"""[adamw.nonfinite], [adamw.stochastic], [clip.update]: what an AdamW step does beside its formula."""

from fractions import Fraction
from types import ModuleType

import numpy as np
import pytest

from qloracle.formats import Array
from qloracle.optim.adamw import AdamwState, adamw_init, adamw_moments, adamw_parameter, adamw_step
from qloracle.optim.options import AdamwOptions
from qloracle.rounding import decode

from . import rational_adamw as exactly
from .rationals import exact

BAD = (np.nan, np.inf, -np.inf)
ONE = np.ones(1, np.float32)


def with_bad(bad: float) -> Array:
    """Ordinary gradients with one that is not finite."""
    g = np.array([0.5, 1, -2, 0.25], np.float32)
    g[2] = bad
    return g


def three_steps(bad: float, nonfinite: str) -> list[tuple[Array, AdamwState]]:
    """One step with a bad gradient, then two with good ones; decay on."""
    p, state = np.full(4, 8, np.float32), AdamwState(np.full(4, 0.5, np.float32), np.full(4, 0.25, np.float32), 0)
    chosen, after = AdamwOptions(lr=0.5, weight_decay=0.25, nonfinite=nonfinite), []
    for gradient in (with_bad(bad), np.ones(4, np.float32), np.ones(4, np.float32)):
        p, state = adamw_step(p, gradient, state, chosen)
        after.append((p, state))
    return after


@pytest.mark.proof("adamw.nonfinite", by="classes of IEEE arithmetic")
@pytest.mark.parametrize("bad", BAD)
def test_propagate_makes_the_element_nan_for_good_and_touches_no_other(bad: float) -> None:
    good = np.array([0, 1, 3])
    for p, state in three_steps(bad, "propagate"):
        assert np.isnan(p[2])
        assert np.isnan(state.m[2]) if np.isnan(bad) else state.m[2] == bad
        assert np.isnan(state.v[2]) if np.isnan(bad) else state.v[2] == np.inf
        assert all(np.isfinite(part[good]).all() for part in (p, state.m, state.v))


@pytest.mark.proof("adamw.nonfinite", by="torch.optim.AdamW in float64")
@pytest.mark.parametrize("bad", BAD)
def test_propagation_is_that_of_pytorch(torch: ModuleType, bad: float) -> None:
    parameter = torch.nn.Parameter(torch.full((4,), 8.0, dtype=torch.float64))
    optimizer = torch.optim.AdamW([parameter], lr=0.5, weight_decay=0.25)
    mine, state = np.full(4, 8, np.float32), adamw_init((4,))
    for gradient in (with_bad(bad), np.ones(4, np.float32)):
        parameter.grad = torch.tensor(gradient.astype(np.float64))
        optimizer.step()
        mine, state = adamw_step(mine, gradient, state, AdamwOptions(lr=0.5, weight_decay=0.25))
        assert np.array_equal(np.isnan(mine), np.isnan(parameter.detach().numpy()))


@pytest.mark.proof("adamw.nonfinite", by="the same step without the element")
@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize(("policy", "m", "v"), [("skip", 0.5, 0.25), ("reset", 0.0, 0.0)])
def test_skip_and_reset_leave_the_parameter_and_keep_or_clear_the_moments(
    policy: str, m: float, v: float, bad: float
) -> None:
    p, state = three_steps(bad, policy)[0]
    assert (p[2], state.m[2], state.v[2]) == (8, m, v), "the element must not even decay"
    others = three_steps(1.0, policy)[0]
    good = np.array([0, 1, 3])
    assert np.array_equal(p[good], others[0][good])
    assert np.array_equal(state.m[good], others[1].m[good])
    p, state = three_steps(bad, policy)[2]
    assert np.isfinite(p).all(), "good gradients move it again"
    assert p[2] != 8


def words_of_parameters(fmt: str) -> tuple[Array, AdamwOptions, Array]:
    """Parameters, and gradients with which p' = p − g/4·2^−10·… falls between two numbers of the format."""
    p = np.array([1.0, -1.5, 1.25, -1.0, 1.75], np.float32)
    g = np.array([0.125, 0.125, -0.125, -0.125, 0.125], np.float32)
    chosen = AdamwOptions(lr=2.0**-9, beta1=0.0, beta2=0.0, eps=0.375)  # the update is ±1/4
    return np.stack([p, g]), chosen, (p.astype(np.float64) - np.sign(g) * 2.0**-11)


def rounded_with(fmt: str, bits: Array) -> Array:
    pair, chosen, _ = words_of_parameters(fmt)
    words = (pair.view(np.uint32) >> 16).astype(np.uint16) if fmt == "bfloat16" else pair.astype(np.float16)
    new, _ = adamw_step(words[0], words[1], adamw_init((5,)), chosen, fmt=fmt, random_bits=bits)
    return decode(new, fmt)


@pytest.mark.proof("adamw.stochastic", by="exact rationals")
@pytest.mark.parametrize("fmt", ["float16", "bfloat16"])
def test_the_magnitude_goes_up_if_and_only_if_the_bits_lie_below_the_part_of_the_way(fmt: str) -> None:
    digits = {"float16": 10, "bfloat16": 7}[fmt]
    real = words_of_parameters(fmt)[2]
    for i, value in enumerate(map(exact, real)):
        unit = Fraction(1, 2**digits) if abs(value) >= 1 else Fraction(1, 2 ** (digits + 1))
        below = abs(value) // unit * unit
        threshold = int((abs(value) - below) / unit * 2**32)
        for bits in {0, max(threshold - 1, 0), threshold, 2**32 - 1}:
            expected = below + unit * (bits < threshold)
            got = rounded_with(fmt, np.full(5, bits, np.uint32))[i]
            assert abs(exact(got)) == expected, f"{fmt}, p' = {float(value)}, bits {bits:#x}: {got}"
            assert np.sign(got) == np.sign(float(value))


@pytest.mark.proof("adamw.stochastic", by="the mean over all bits")
@pytest.mark.parametrize("fmt", ["float16", "bfloat16"])
def test_the_mean_over_all_upper_bits_is_the_real_parameter(fmt: str) -> None:
    # p' has at most 16 bits beyond the format, so the upper 16 random bits decide: 2^16 equally likely outcomes.
    every = (np.arange(1 << 16, dtype=np.uint32) << np.uint32(16)).repeat(5).reshape(-1, 5)
    pair, chosen, real = words_of_parameters(fmt)
    words = (pair.view(np.uint32) >> 16).astype(np.uint16) if fmt == "bfloat16" else pair.astype(np.float16)
    p, g = (np.broadcast_to(row, every.shape) for row in words)
    new, _ = adamw_step(p, g, adamw_init(every.shape), chosen, fmt=fmt, random_bits=every)
    values = decode(new, fmt)
    for i in range(5):
        total = sum(
            (
                exact(value) * int(count)
                for value, count in zip(*np.unique(values[:, i], return_counts=True), strict=True)
            ),
            Fraction(0),
        )
        assert total / 2**16 == exact(real[i]), f"{fmt}: the mean of element {i} is {float(total / 2**16)}"


def test_rounding_to_nearest_loses_what_stochastic_rounding_keeps() -> None:
    pair, chosen, _ = words_of_parameters("bfloat16")
    words = (pair.view(np.uint32) >> 16).astype(np.uint16)
    new, _ = adamw_step(words[0], words[1], adamw_init((5,)), chosen, fmt="bfloat16")
    assert np.array_equal(new, words[0]), "an update below half a unit must be lost to nearest"
    # Magnitudes that grow need bits below the part of the way, magnitudes that fall bits beyond it.
    bits = np.where(pair[0] * pair[1] < 0, 0, 2**32 - 1).astype(np.uint32)
    assert np.all(rounded_with("bfloat16", bits) != decode(words[0], "bfloat16"))


def limited(update: Array, p: Array, most: float) -> Array:
    """lr = 1 and no memory: p' = p − c·update exactly, with updates g/(|g| + eps)."""
    chosen = AdamwOptions(lr=1.0, beta1=0.0, beta2=0.0, eps=1.0, max_update_norm=most)
    moments = tuple(m.astype(np.float32) for m in adamw_moments(update, 0 * update, 0 * update, chosen))
    return np.asarray(adamw_parameter(p, *moments, chosen, step=1)) - p


@pytest.mark.proof("clip.update", by="closed form: equal elements")
@pytest.mark.parametrize(("most", "factor"), [(0.25, 0.5), (0.5, 1.0), (0.5000001, 1.0), (1.0, 1.0), (0.125, 0.25)])
def test_an_update_is_scaled_to_its_limit_and_left_alone_at_it(most: float, factor: float) -> None:
    # Four updates of 1/2 have norm 1, the parameter [2, 0, 0, 0] has norm 2.
    p = np.array([2, 0, 0, 0], np.float32)
    assert limited(np.ones(4, np.float32), p, most).tolist() == [-0.5 * factor] * 4


@pytest.mark.proof("clip.update", by="rationals with roots to 60 digits")
@pytest.mark.parametrize("most", [0.01, 0.3, 10.0])
def test_the_limit_is_that_of_real_norms(most: float) -> None:
    rng = np.random.default_rng(211)
    g, p = (rng.standard_normal(50).astype(np.float32) for _ in range(2))
    updates = [exact(x) / (exactly.root(exact(np.float32(np.float64(x) ** 2))) + 1) for x in g]
    norm, limit = exactly.norm(updates), Fraction(most) * exactly.norm([exact(x) for x in p])
    factor = min(Fraction(1), limit / norm)
    for i, change in enumerate(limited(g, p, most)):
        error = abs(exact(change) + factor * updates[i])
        assert error <= Fraction(8, 2**53) * (abs(exact(p[i])) + 1), f"element {i} is off by {float(error)}"


def test_a_parameter_of_zeros_stays_under_a_limit_and_norms_that_are_not_finite_limit_nothing() -> None:
    assert limited(np.ones(4, np.float32), np.zeros(4, np.float32), 0.5).tolist() == [0.0] * 4
    bad = np.array([1, np.nan, 1, 1], np.float32)
    assert limited(bad, np.array([2, 0, 0, 0], np.float32), 0.01)[[0, 2, 3]].tolist() == [-0.5] * 3
