"""[bounds.adamw]: every evaluation of a step lies inside, and right ones use up much of it."""

from fractions import Fraction

import numpy as np
import pytest

from qloracle.bounds.adamw import adamw_moments_bound
from qloracle.bounds.adamw_parameter import adamw_parameter_bound
from qloracle.formats import Array
from qloracle.optim.adamw import adamw_moments, adamw_parameter
from qloracle.optim.options import AdamwOptions
from qloracle.tracking.interval import Interval
from qloracle.tracking.roundings import Roundings

from . import rational_adamw as exactly
from .adamw_evaluations import PLANS, ROUNDINGS, Hyperparameters, moments, parameter
from .rationals import exact

SETTINGS = (
    Hyperparameters(1e-3, 0.9, 0.999, 1e-8, 0.01),
    Hyperparameters(0.1, 0.9, 0.95, 1e-2, 0.1),
    Hyperparameters(0.3, 0.1, 0.0, 0.5, 0.0),
    Hyperparameters(1e-4, 0.99, 0.9999, 1e-6, 0.0),
    Hyperparameters(2.0, 0.6, 0.7, 3.0, 0.3),
)


def operands(seed: int, spread: int, count: int = 100) -> tuple[Array, Array, Array, Array]:
    rng = np.random.default_rng([221, seed])
    parts = [np.ldexp(rng.standard_normal(count), rng.integers(-spread, spread + 1, count)) for _ in range(4)]
    p, g, m, v = (part.astype(np.float32) for part in parts)
    return p, g, m, np.abs(v)


def options(h: Hyperparameters, most: float | None = None) -> AdamwOptions:
    return AdamwOptions(h.lr, h.beta1, h.beta2, h.eps, h.weight_decay, max_update_norm=most)


def used_part(interval: Interval, got: Array, what: str) -> float:
    """The largest part of the half width that the results use; an error if one lies outside."""
    outside = np.flatnonzero(~((interval.lo <= got) & (got <= interval.hi)) & interval.judged)
    if outside.size:
        i = int(outside[0])
        raise AssertionError(f"{what}: {got[i]!r} is right, but not in [{interval.lo[i]!r}, {interval.hi[i]!r}]")
    half, centre = (interval.hi - interval.lo) / 2, (interval.hi + interval.lo) / 2
    return float(np.max(np.abs(got - centre) / np.where(half > 0, half, 1)))


@pytest.mark.proof("bounds.adamw", by="evaluations in float32")
@pytest.mark.parametrize("spread", [4, 40])
@pytest.mark.parametrize("h", SETTINGS)
def test_every_form_of_the_step_lies_inside(h: Hyperparameters, spread: int) -> None:
    rnd = ROUNDINGS["float32"]
    for number, plan in enumerate(PLANS):
        step, (p, g, m, v) = (1, 2, 7)[number % 3], operands(number, spread)
        roundings = Roundings(hyperparameters="float64" if plan.scalars == "double" else "float32")
        bounds = adamw_moments_bound(g, m, v, options(h), roundings=roundings)
        wide = [part.astype(np.float64) for part in (p, g, m, v)]
        new = moments(*wide[1:], h, plan, rnd)
        for name, bound, got in zip("mv", bounds, new, strict=True):
            used_part(bound, got, f"{name}, {plan}")
        got = parameter(wide[0], *new, h, step, plan, rnd)
        own = (new[0].astype(np.float32), new[1].astype(np.float32))
        for given in (own, bounds):
            bound = adamw_parameter_bound(p, *given, options(h), step=step, roundings=roundings)
            used_part(bound, got, f"p at step {step}, {plan}, given {type(given[0]).__name__}")


@pytest.mark.proof("bounds.adamw", by="evaluations in bfloat16")
@pytest.mark.parametrize("h", SETTINGS[1:3])
def test_a_declared_accumulation_in_bfloat16_lies_inside(h: Hyperparameters) -> None:
    rnd, how = ROUNDINGS["bfloat16"], Roundings(accumulate="bfloat16")
    for number, plan in enumerate(plan for plan in PLANS if plan.scalars == "double"):
        p, g, m, v = (rnd(part).astype(np.float32) for part in operands(number, 3))
        wide = [part.astype(np.float64) for part in (p, g, m, v)]
        new = moments(*wide[1:], h, plan, rnd)
        for name, bound, got in zip("mv", adamw_moments_bound(g, m, v, options(h), roundings=how), new, strict=True):
            used_part(bound, got, f"{name}, {plan}")
        bound = adamw_parameter_bound(p, *(n.astype(np.float32) for n in new), options(h), step=3, roundings=how)
        used_part(bound, parameter(wide[0], *new, h, 3, plan, rnd), f"p, {plan}")


@pytest.mark.proof("bounds.adamw", by="exact rationals")
@pytest.mark.parametrize("h", SETTINGS)
def test_the_exact_results_lie_inside(h: Hyperparameters) -> None:
    p, g, m, v = operands(3, 30, 30)
    mean, square = adamw_moments_bound(g, m, v, options(h))
    bound = adamw_parameter_bound(p, m, v, options(h), step=5)
    for i in range(30):
        real = exactly.moments(exact(g[i]), exact(m[i]), exact(v[i]), h)
        for interval, value in ((mean, real[0]), (square, real[1])):
            assert exact(interval.lo[i]) <= value <= exact(interval.hi[i])
        value = exactly.parameter(exact(p[i]), exact(m[i]), exact(v[i]), h, 5)
        assert exact(bound.lo[i]) <= value <= exact(bound.hi[i])


@pytest.mark.proof("bounds.adamw", by="the same bound without a limit")
@pytest.mark.parametrize("poisoned", ["p", "m", "v"])
def test_a_norm_that_is_not_finite_limits_nothing_and_leaves_the_other_elements_judged(poisoned: str) -> None:
    parts = {name: np.ones(4, np.float32) for name in "pmv"}
    parts[poisoned][2] = np.nan
    limited, free = (
        adamw_parameter_bound(parts["p"], parts["m"], parts["v"], AdamwOptions(lr=0.5, max_update_norm=most), step=1)
        for most in (0.01, None)
    )
    assert limited.judged.all()
    assert np.array_equal(limited.lo, free.lo, equal_nan=True)
    assert np.array_equal(limited.hi, free.hi, equal_nan=True)
    assert np.isnan(limited.lo).tolist() == [False, False, True, False]


# The most that right evaluations are seen to use; a bound that grows needs a derivation that does.
LEAST_USED = {"m": 0.6, "v": 0.5, "p": 0.33}


def test_right_evaluations_use_these_parts_of_the_bounds() -> None:
    h, rnd, used = Hyperparameters(0.3, 0.55, 0.57, 0.7), ROUNDINGS["float32"], dict.fromkeys(LEAST_USED, 0.0)
    p, g, m, v = operands(11, 2, 20000)
    p = np.zeros_like(p)
    wide = [part.astype(np.float64) for part in (p, g, m, v)]
    bounds = adamw_moments_bound(g, m, v, options(h))
    for plan in PLANS:
        if plan.scalars == "single":
            continue
        new = moments(*wide[1:], h, plan, rnd)
        bound = adamw_parameter_bound(p, *(n.astype(np.float32) for n in new), options(h), step=2)
        results = {"m": (bounds[0], new[0]), "v": (bounds[1], new[1])}
        results["p"] = (bound, parameter(wide[0], *new, h, 2, plan, rnd))
        used = {name: max(used[name], used_part(*results[name], f"{name}, {plan}")) for name in used}
    assert all(LEAST_USED[name] <= used[name] <= 1 for name in used), f"used {used}, at least {LEAST_USED}"


def test_the_update_counts_thirteen_and_a_half_roundings_and_one_of_each_correction() -> None:
    one = np.ones(1, np.float32)
    bound = adamw_parameter_bound(0 * one, one, one, AdamwOptions(lr=1.0, beta1=0.5, beta2=0.5, eps=1.0), step=1)
    value = adamw_parameter(0 * one, one, one, AdamwOptions(lr=1.0, beta1=0.5, beta2=0.5, eps=1.0), step=1)
    roundings = exact(float((bound.hi - bound.lo)[0])) / 2 / abs(exact(value[0])) * 2**24
    assert Fraction(155, 10) <= roundings <= Fraction(155, 10) * (1 + Fraction(1, 10**5)), float(roundings)


def test_float32_hyperparameters_cost_a_thousand_roundings_of_a_beta_of_0999_and_must_be_declared() -> None:
    one, chosen = np.ones(1, np.float32), AdamwOptions(beta2=0.999)
    strict, declared = (
        adamw_moments_bound(one, 0 * one, 0 * one, chosen, roundings=Roundings(hyperparameters=how))[1]
        for how in ("float64", "float32")
    )
    wrong = np.float32(1) - np.float32(0.999)  # off by more than a hundred units of the real 0.001
    assert not strict.lo[0] <= wrong <= strict.hi[0]
    assert declared.lo[0] <= wrong <= declared.hi[0]


def test_nothing_is_allowed_where_nothing_is_rounded() -> None:
    p, zero = np.array([1.1, -3e38, 1e-45], np.float32), np.zeros(3, np.float32)
    mean, square = adamw_moments_bound(zero, zero, zero, AdamwOptions())
    bound = adamw_parameter_bound(p, zero, zero, AdamwOptions(), step=3)
    assert mean.lo.tolist() == mean.hi.tolist() == square.lo.tolist() == square.hi.tolist() == [0.0] * 3
    assert bound.lo.tolist() == bound.hi.tolist() == p.astype(np.float64).tolist()


def test_what_could_overflow_is_not_judged() -> None:
    huge, one, chosen = np.array([1e20], np.float32), np.ones(1, np.float32), AdamwOptions()
    mean, square = adamw_moments_bound(huge, one, one, chosen)
    assert (bool(mean.judged[0]), bool(square.judged[0])) == (True, False)
    # m̂/(√v̂ + eps) = 10^38·10^8 overflows before lr makes it small.
    steep = adamw_parameter_bound(one, np.array([1e38], np.float32), 0 * one, chosen, step=100)
    assert not steep.judged[0]


@pytest.mark.parametrize("times", [0.3, 0.999999, 1.0, 1.000001, 3.0])
def test_a_limited_update_in_float32_lies_inside(times: float) -> None:
    h, plan, rnd = SETTINGS[2], PLANS[0], ROUNDINGS["float32"]
    p, g, m, v = operands(13, 2, 500)
    wide = [part.astype(np.float64) for part in (p, g, m, v)]
    new = moments(*wide[1:], h, plan, rnd)
    own = tuple(part.astype(np.float32) for part in new)
    update = -np.asarray(adamw_parameter(0 * p, *own, AdamwOptions(1.0, h.beta1, h.beta2, h.eps), step=2))
    ratio = times * float(np.linalg.norm(update) / np.linalg.norm(p))
    low = update.astype(np.float32)
    norm, size = (np.sqrt(np.sum(np.square(part), dtype=np.float32)) for part in (low, p))
    limit = np.float32(ratio) * size
    factor = limit / norm if norm > limit else np.float32(1)
    got = (p - np.float32(h.lr) * (low * factor)).astype(np.float64)
    bound = adamw_parameter_bound(p, *own, options(h, ratio), step=2)
    assert bound.judged.all()
    used_part(bound, got, f"limit at {times} of the norm")


def test_the_reference_lies_inside_its_own_bound() -> None:
    _, g, m, v = operands(17, 20)
    for h in SETTINGS:
        reals = adamw_moments(g, m, v, options(h))
        for real, bound in zip(reals, adamw_moments_bound(g, m, v, options(h)), strict=True):
            used_part(bound, real, "moments")


@pytest.mark.parametrize("step", [3, 1000, 2301, 5000])
def test_a_subnormal_quotient_under_the_root_lies_inside_beside_an_eps_as_small(step: int) -> None:
    # v̂ of a few subnormals rounds by a tenth of itself, and so does √v̂ + eps.
    h, rnd = Hyperparameters(1.0, 0.9, 0.999, 2.0**-126), ROUNDINGS["float32"]
    p, m, v = (np.array([number]) for number in (1.0, 2.0**-75, 5 * 2.0**-149))
    bound = adamw_parameter_bound(*(part.astype(np.float32) for part in (p, m, v)), options(h), step=step)
    assert bound.judged.all()
    for plan in PLANS:
        if plan.scalars == "double":
            used_part(bound, parameter(p, m, v, h, step, plan, rnd), f"p at step {step}, {plan}")
