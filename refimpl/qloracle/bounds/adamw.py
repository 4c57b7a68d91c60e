"""How far any float32 evaluation of an AdamW step may lie from its exact value.

Clause: ``[bounds.adamw]``. Counted as in `tracking`: every operation, divisions and roots included, returns (exact)·
(1 + δ) + η with |δ| ≤ u; a root halves the relative error of its operand; n roundings on a path cost a factor within
exp(±n·u). Hyperparameters are real numbers. An implementation rounds them once to the format that it declares
(`Roundings.hyperparameters`), computes 1 − β and 1 − β^t in that format, and then rounds to the accumulation format:

    1 − β     costs  [β rounded]·u_h·β/(1 − β) + u_h + u
    1 − β^t   costs  ([β rounded]·t + max(t, 4))·u_h·β^t/(1 − β^t) + u_h + u     (a power by t products, or in 4 units)

and where it lies below the normal range of the accumulation format, x = η₀/(1 − β) of itself besides: at most a factor
exp(x) as a weight, 1/(1 − x) as a divisor. A β that small is off by η₀, times the old moment.
With float32 hyperparameters and β = 0.999 that is a thousand roundings; with float64 ones, the default, a single one.
The bounds hold for moments as weighted sums or as m + (1 − β)·(g − m), for β < 1/2 as g − β·(g − m); for bias
corrections that divide the moments, or are folded into lr and eps (lr·√(1 − β₂^t)/(1 − β₁^t), eps·√(1 − β₂^t)), or into
the roots; for division or multiplication by a reciprocal; with or without fused multiply-adds; for p·(1 − lr·wd)
or p − lr·wd·p.
"""

from math import inf, log1p

import numpy as np

from qloracle.formats import Array, Format, format_named
from qloracle.operands import real_operand
from qloracle.optim.adamw import adamw_moments
from qloracle.optim.options import AdamwOptions, bias_correction
from qloracle.rounding import decode, encode
from qloracle.tracking.interval import Interval
from qloracle.tracking.roundings import Roundings, accumulation_format

SLACK = 1 + 2.0**-20  # covers the float64 rounding of the bound itself, as in `tracking.interval`


def adamw_moments_bound(
    gradient: Array,
    m: Array,
    v: Array,
    options: AdamwOptions,
    *,
    fmt: str | None = None,
    roundings: Roundings = Roundings(),
) -> tuple[Interval, Interval]:
    """Bound every evaluation of `optim.adamw_moments` that has the declared rounding points.

    Parameters
    ----------
    gradient, m, v, options, fmt
        As for `optim.adamw_moments`.
    roundings : Roundings
        `accumulate` and `hyperparameters` are what counts here.

    Returns
    -------
    tuple of two Interval
        For m' and v', the rounding of the result itself included. Not judged where g² or a difference could overflow,
        or an infinity meets itself in m + (1 − β)·(g − m) or g − β·(g − m), which then give NaN.

    Notes
    -----
    Clause ``[bounds.adamw]``. Roundings on a path to m': the constant, and three of product, sum and, in the form
    m + (1 − β)·(g − m), the difference; the rounding of 1 − β counts on m too, which matters where β < 1/2. For v' one
    more, the square. Underflow: two products; two more for g².

    Examples
    --------
    >>> one, options = np.ones(1, np.float32), AdamwOptions(beta1=0.5)
    >>> low, high = adamw_moments_bound(one, one, one, options)[0].lo, adamw_moments_bound(one, one, one, options)[0].hi
    >>> float(((high - low) / 2 * 2**24).round(3)[0])
    3.0
    """
    work = accumulation_format(roundings)
    values = adamw_moments(gradient, m, v, options, fmt=fmt)
    g, found = real_operand(gradient, "gradient", fmt), []
    kept = np.zeros(g.shape, np.bool_) if options.nonfinite == "propagate" else ~np.isfinite(g)
    with np.errstate(invalid="ignore", over="ignore"):
        parts = ((values[0], m, g, options.beta1, 3, 2), (values[1], v, g * g, options.beta2, 4, 4))
        for value, old, new, beta, count, products in parts:
            before = real_operand(old, "moment")
            size, addend = np.abs(before), np.abs(new)
            cost = weight_cost(beta, work, roundings)
            magnitude = max(beta, (1 - beta) * (cost > 0)) * size + (1 - beta) * addend
            exponent = count * work.unit_roundoff + cost
            under = np.where(magnitude > 0, (products + size * (beta > 0)) * work.half_smallest_subnormal, 0.0)
            radius = radius_around(value, np.expm1(exponent) * magnitude + under)
            fits = (size + addend) * (1 + 2.0**-16) < work.largest_finite
            radius = np.where(kept, 0.0, radius)
            judged = fits | kept | np.isnan(value) | (np.isinf(g) & np.isfinite(before) & (beta >= 0.5))
            found.append(Interval(value - radius, value + radius, np.asarray(judged)))
    return found[0], found[1]


def weight_cost(beta: float, work: Format, roundings: Roundings) -> float:
    """Return the relative error, to first order, of 1 − β as an implementation has it."""
    how = format_named(roundings.hyperparameters, "hyperparameters")
    inexact = not _is_exact(beta, how)
    if not inexact and _is_exact(1 - beta, work):
        return 0.0
    rounded = inexact * how.unit_roundoff * beta / (1 - beta) + how.unit_roundoff + work.unit_roundoff
    return rounded + work.half_smallest_subnormal / (1 - beta)


def correction_cost(beta: float, step: int, work: Format, roundings: Roundings) -> float:
    """Return the relative error, to first order, of 1 − β^t as an implementation has it."""
    if beta == 0:
        return 0.0
    how, correction = format_named(roundings.hyperparameters, "hyperparameters"), bias_correction(beta, step)
    powers = step * (not _is_exact(beta, how)) + max(step, 4)
    rounded = powers * how.unit_roundoff * (1 - correction) / correction + how.unit_roundoff + work.unit_roundoff
    lost = work.half_smallest_subnormal / correction
    return rounded - log1p(-lost) if lost < 1 else inf


def radius_around(value: Array, radius: Array) -> Array:
    """Return a radius enlarged by the float64 rounding of a bound; 0 where the value is not finite."""
    return np.where(np.isfinite(value), radius * SLACK, 0.0)


def _is_exact(value: float, fmt: Format) -> bool:
    return bool(decode(encode(np.array(value, np.float64), fmt.name), fmt.name) == value)
