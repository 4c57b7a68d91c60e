"""[clip.norm], [bounds.clip]: tensors with one norm, against rationals, a closed form and evaluations in float32."""

from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from qloracle.errors import ArgumentTypeError, ArgumentValueError
from qloracle.formats import Array
from qloracle.optim.clipping import clip_by_norm, clip_by_norm_bound, real_norm
from qloracle.tracking.roundings import Roundings

from .evaluations import ORDERS, ROUNDINGS, total
from .rational_adamw import norm
from .rationals import exact


def tensors(seed: int, scale: float = 1.0) -> list[Array]:
    rng = np.random.default_rng([241, seed])
    return [(rng.standard_normal(shape) * scale).astype(np.float32) for shape in ((5, 7), (30,), ())]


@pytest.mark.proof("clip.norm", by="rationals with roots to 60 digits")
@pytest.mark.parametrize("most", [1e-3, 1.0, 7.0, 1e3])
@pytest.mark.parametrize("scale", [1.0, 2.0**-100, 2.0**90])
def test_all_tensors_are_scaled_by_the_limit_over_their_common_norm(most: float, scale: float) -> None:
    parts = tensors(1, scale)
    real = norm([exact(x) for part in parts for x in part.reshape(-1)])
    factor = min(Fraction(1), Fraction(most) / real)
    for part, got in zip(parts, clip_by_norm(parts, most), strict=True):
        assert got.shape == part.shape
        for x, y in zip(part.reshape(-1), got.reshape(-1), strict=True):
            assert abs(exact(y) - factor * exact(x)) <= abs(exact(x)) * factor * Fraction(80, 2**53)


@pytest.mark.proof("clip.norm", by="closed form: Pythagorean quadruples")
@pytest.mark.parametrize(("sides", "whole"), [((3, 4), 5), ((2, 3, 6), 7), ((1, 4, 8), 9), ((2, 6, 9), 11)])
@pytest.mark.parametrize("times", [1, 2, 4])
def test_whole_norms_scale_exactly_and_a_norm_at_the_limit_changes_nothing(
    sides: tuple[int, ...], whole: int, times: int
) -> None:
    parts = [np.array([side], np.float32) for side in sides]
    assert clip_by_norm(parts, whole / times) == [np.array([side / times]) for side in sides]
    assert clip_by_norm(parts, whole * 2) == [np.array([float(side)]) for side in sides]


def test_elements_that_are_not_finite_switch_the_limit_off() -> None:
    for bad in (np.nan, np.inf, -np.inf):
        got = clip_by_norm([np.array([100, bad], np.float32), np.array([50], np.float32)], 1.0)
        assert got[0][0] == 100
        assert got[1][0] == 50
        assert np.array_equal(got[0][1:], [bad], equal_nan=True)


@pytest.mark.parametrize("exponent", [-149, -100, 0, 100, 120])
def test_norms_neither_overflow_nor_underflow(exponent: int) -> None:
    assert real_norm(np.ldexp(np.array([3.0, -4.0]), exponent)) == np.ldexp(5.0, exponent)


def clipped(parts: list[Array], most: float, order: str, name: str, *, by_tensor: bool) -> list[Array]:
    """One evaluation in low precision, numbers held in float64."""
    rnd = ROUNDINGS[name]
    addends = [[(np.asarray(x, np.float64),) * 2 for x in part.reshape(-1)] for part in parts]
    if by_tensor:
        roots = [rnd(np.sqrt(total(part, order, rnd))) for part in addends]
        size = rnd(np.sqrt(total([(root, root) for root in roots], order, rnd)))
    else:
        size = rnd(np.sqrt(total([a for part in addends for a in part], order, rnd)))
    limit = rnd(np.array(most))
    factor = rnd(limit / size) if size > limit else np.ones(())
    return [np.asarray(rnd(part.astype(np.float64) * factor)) for part in parts]


@pytest.mark.proof("bounds.clip", by="evaluations in low precision")
@pytest.mark.parametrize("name", ["float32", "bfloat16"])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("by_tensor", [False, True])
def test_every_order_of_the_sum_of_squares_lies_inside(order: str, name: str, by_tensor: bool) -> None:
    rnd, used = ROUNDINGS[name], 0.0
    for seed in range(8):
        parts = [np.asarray(rnd(part)).astype(np.float32) for part in tensors(seed)]
        whole = real_norm(np.concatenate([part.reshape(-1) for part in parts]).astype(np.float64))
        for times in (0.1, 0.3, 0.999, 1 - 2.0**-22, 1.0, 1 + 2.0**-22, 2.0):
            bounds = clip_by_norm_bound(parts, whole * times, roundings=Roundings(accumulate=name))
            got = clipped(parts, whole * times, order, name, by_tensor=by_tensor)
            for bound, values in zip(bounds, got, strict=True):
                assert np.all((bound.lo <= values) & (values <= bound.hi) & bound.judged), f"{order} at {times}"
                half = np.maximum(bound.hi - bound.lo, 1e-300) / 2
                used = max(used, float(np.max(np.abs(values - (bound.hi + bound.lo) / 2) / half)))
    assert used <= 1


@pytest.mark.proof("bounds.clip", by="exact rationals: a sum that rounds one way")
def test_a_sum_that_always_rounds_up_uses_half_of_the_bound() -> None:
    # Squares of 1 and then of numbers a little above 2^-12: every addition of 2^-24·(1 + …) rounds up to 2^-23.
    count = 4000
    nudge = np.float32(2.0**-12 * (1 + 2.0**-20))
    values = np.full(count, nudge)
    values[0] = 1
    running = np.float32(0)
    for square in values * values:
        running = np.float32(running + square)
    got = exact(np.float32(np.float32(0.5) / np.sqrt(running)))
    (bound,) = clip_by_norm_bound([values], 0.5)
    real = Fraction(1, 2) / norm([exact(x) for x in values])
    lo, hi = exact(bound.lo[0]), exact(bound.hi[0])
    assert lo <= got <= hi
    part = abs(got - real) / ((hi - lo) / 2)
    assert part >= Fraction(95, 100), f"only {float(part):.3f} of the bound is used"


def test_below_the_limit_nothing_may_be_rounded_and_near_it_both_sides_are_allowed() -> None:
    parts = tensors(3)
    whole = real_norm(np.concatenate([part.reshape(-1) for part in parts]).astype(np.float64))
    for bound, part in zip(clip_by_norm_bound(parts, whole * 1.01), parts, strict=True):
        assert np.array_equal(bound.lo, part)
        assert np.array_equal(bound.hi, part)
    assert all(np.all(bound.lo < bound.hi) for bound in clip_by_norm_bound(parts, whole))


@pytest.mark.parametrize("scale", [2.0**64, 2.0**-80])
def test_norms_whose_squares_leave_the_range_are_not_judged(scale: float) -> None:
    assert not any(bound.judged.any() for bound in clip_by_norm_bound(tensors(4, scale), scale))


def test_bad_arguments_are_rejected_by_name() -> None:
    one: Any = np.ones(2, np.float32)
    for name, values, most, error in (
        ("values", one, 1.0, ArgumentTypeError),
        ("values", [one.astype(np.float64)], 1.0, ArgumentTypeError),
        ("max_norm", [one], 0.0, ArgumentValueError),
        ("max_norm", [one], np.inf, ArgumentValueError),
        ("max_norm", [one], "1", ArgumentTypeError),
    ):
        with pytest.raises(error, match=f"^{name} must be "):
            clip_by_norm(values, most)
    assert clip_by_norm([], 1.0) == []


@pytest.mark.parametrize(
    ("value", "most", "name"),
    [(2.0**30, 1.37 * 2.0**-110, "float32"), (150.0, 2.0003e-4, "float16"), (150.0, 1.37e-5, "float16")],
)
def test_a_factor_or_a_limit_that_underflows_is_multiplied_by_the_whole_value(
    value: float, most: float, name: str
) -> None:
    values = [np.array([value], np.float32)]
    (bound,) = clip_by_norm_bound(values, most, roundings=Roundings(accumulate=name))
    (got,) = clipped(values, most, "sequential", name, by_tensor=False)
    assert bound.judged.all()
    assert bound.lo[0] <= got[0] <= bound.hi[0], f"{got[0]!r} is right, not in [{bound.lo[0]!r}, {bound.hi[0]!r}]"
