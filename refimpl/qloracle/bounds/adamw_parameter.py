"""How far the parameter after an AdamW step may lie from its exact value, given the moments after that step.

Clause: ``[bounds.adamw]``; what is counted, and for which forms of the step, stands in `adamw_bounds`.
"""

from dataclasses import dataclass

import numpy as np

from qloracle.bounds.adamw import correction_cost, radius_around
from qloracle.errors import require_positive_integer
from qloracle.formats import Array, Format
from qloracle.operands import real_operand
from qloracle.optim.clipping import real_norm
from qloracle.optim.operands import require_moments
from qloracle.optim.options import AdamwOptions, bias_correction
from qloracle.tracking.interval import Interval
from qloracle.tracking.roundings import Roundings, accumulation_format


@dataclass(frozen=True)
class _Quotient:
    """m̂/(√(v̂ + η) + eps + η') over intervals of both moments and of what underflows."""

    lo: Array
    hi: Array
    denominator: Array  # the smallest √v̂ + eps, positive where it fits
    fits: Array  # nothing on the way to it overflows

    @property
    def magnitude(self) -> Array:
        largest: Array = np.maximum(np.abs(self.lo), np.abs(self.hi))
        return largest


def adamw_parameter_bound(
    p: Array,
    m: Array | Interval,
    v: Array | Interval,
    options: AdamwOptions,
    *,
    step: int,
    fmt: str | None = None,
    roundings: Roundings = Roundings(),
) -> Interval:
    """Bound every evaluation of `optim.adamw_parameter` that has the declared rounding points.

    Parameters
    ----------
    p, options, step, fmt
        As for `optim.adamw_parameter`.
    m, v : array of float32, or Interval
        The moments after the step: the implementation's own, which it may have had in a finer format before it stored
        them; or where it does not return them, the intervals of `adamw_moments_bound`.
    roundings : Roundings

    Returns
    -------
    Interval
        For p' before its rounding to the format of the parameter. Not judged where an intermediate result could
        overflow, with a limit on the norm where squares that matter could underflow, and where forms of the step make
        an infinity or NaN of the same infinite operand.

    Notes
    -----
    Clause ``[bounds.adamw]``. Roundings on the longest path to the update, those of the corrections aside: 13½ (lr, its
    product with a root and its quotient by a correction, the moment, √v and half of v's own, eps times a root, their
    sum, a reciprocal, the products, the last subtraction). What v̂ = v/(1 − β₂^t) loses below the normal range is
    inside the root, √(v̂ ± η₀), and what eps and eps·√(1 − β₂^t) lose there is beside it, η₀·(1 + 1/√(1 − β₂^t)): no
    exponent covers either where the denominator is as small. Not judged where nothing may be left of the denominator.
    The decay costs five on lr·wd·p and three on p·(1 − lr·wd), and nothing where lr·wd = 0. A limit on the norm that
    may be active costs twice the update's roundings, and n + 6 for squares, sums and roots over n elements.

    Examples
    --------
    >>> one, options = np.ones(1, np.float32), AdamwOptions()
    >>> bound = adamw_parameter_bound(one, 0 * one, 0 * one, options, step=1)
    >>> bound.lo, bound.hi
    (array([1.]), array([1.]))
    """
    work, step = accumulation_format(roundings), require_positive_integer("step", step)
    p64 = real_operand(p, "p", fmt)
    with np.errstate(invalid="ignore", over="ignore"):
        quotient = _quotient(m, v, options, step, work)
        fits, scale, error = quotient.fits, 1.0, _update_error(options, step, work, roundings)
        if options.max_update_norm is not None:
            scale, more, usable = _limit(quotient, p64, options.max_update_norm, error, work)
            fits, error = fits & usable, error + more
        lr, decay = options.lr * scale, options.lr * options.weight_decay
        rest, moved = p64 * (1 - decay), quotient.magnitude > 0
        radius = np.expm1(error) * lr * quotient.magnitude + _decay_error(p64, options, decay, moved, work)
        radius = radius_around(
            rest + quotient.magnitude, radius + np.where(moved, _underflow(quotient, options, step, work), 0.0)
        )
        lo, hi = rest - lr * quotient.hi - radius, rest - lr * quotient.lo + radius
        fits = fits & (np.abs(p64) * max(1, decay) + lr * quotient.magnitude + radius < work.largest_finite)
        return Interval(lo, hi, np.asarray(fits | _known(p64, rest - quotient.lo, options, step, work)))


def _known(p: Array, value: Array, options: AdamwOptions, step: int, work: Format) -> Array:
    """Return where a result that is not finite is the same for every form.

    Not where an infinite p meets itself in p − lr·wd·p, or an infinite update an lr that underflows to 0.
    """
    lost = options.lr * bias_correction(options.beta2, step) ** 0.5 <= 2 * work.half_smallest_subnormal
    unsure = (np.isinf(p) & (options.lr * options.weight_decay > 0)) | lost
    known: Array = np.isnan(value) | (np.isinf(value) & ~unsure)
    return known


def _quotient(m: Array | Interval, v: Array | Interval, options: AdamwOptions, step: int, work: Format) -> _Quotient:
    (m_lo, m_hi), (v_lo, v_hi) = (_ends(moment) for moment in (m, v))
    if isinstance(m, np.ndarray) and isinstance(v, np.ndarray):
        require_moments(m, v, m.shape)
    first, second = bias_correction(options.beta1, step), bias_correction(options.beta2, step)
    # A quotient v̂ below the normal range is off by η₀, and its root by more than any factor near 1; 0 is exact.
    squares = (np.maximum(end, 0) / second for end in (v_lo, v_hi))
    lost = work.half_smallest_subnormal
    shifted = (np.where(end <= 0, 0.0, end + by) for end, by in zip(squares, (-lost, lost), strict=True))
    beside = lost * (1 + 1 / np.sqrt(second))
    ends = (np.sqrt(np.maximum(end, 0)) + options.eps for end in shifted)
    smallest, largest = (end + by for end, by in zip(ends, (-beside, beside), strict=True))
    left = smallest > 0
    smallest = np.where(left | np.isnan(smallest), smallest, beside)
    lo = m_lo / first / np.where(m_lo < 0, smallest, largest)
    hi = m_hi / first / np.where(m_hi > 0, smallest, largest)
    moment = np.maximum(np.maximum(np.abs(m_lo), np.abs(m_hi)), 1)
    reached = moment * max(1, options.lr) / first / np.minimum(1, smallest * np.sqrt(second))
    fits = left & (reached * 2 < work.largest_finite) & (v_hi / second * 2 < work.largest_finite)
    for given in (m, v):
        fits = fits & given.judged if isinstance(given, Interval) else fits
    return _Quotient(lo, hi, smallest, fits)


def _ends(moment: Array | Interval) -> tuple[Array, Array]:
    if isinstance(moment, Interval):
        return moment.lo, moment.hi
    wide = real_operand(moment, "moment")
    return wide, wide


def _update_error(options: AdamwOptions, step: int, work: Format, roundings: Roundings) -> float:
    """Return the exponent of lr·m̂/(√v̂ + eps), with what lr, its product with a small root and its quotient lose."""
    corrections = [correction_cost(beta, step, work, roundings) for beta in (options.beta1, options.beta2)]
    root = bias_correction(options.beta2, step) ** 0.5
    lost = work.half_smallest_subnormal / options.lr * (2 + 1 / root) if options.lr else 0.0
    return float(13.5 * work.unit_roundoff + sum(corrections) + lost)


def _underflow(quotient: _Quotient, options: AdamwOptions, step: int, work: Format) -> Array:
    """Return what quotients and products below the normal range lose, times what multiplies it later."""
    later = 1 + options.lr / bias_correction(options.beta1, step) + (1 + options.lr) / quotient.denominator
    under: Array = 2 * work.half_smallest_subnormal * later
    return under


def _decay_error(p: Array, options: AdamwOptions, decay: float, moved: Array, work: Format) -> Array:
    """Return the error of p·(1 − lr·wd), and of the last subtraction where there is anything to subtract.

    Below the normal range lr is off by η₀·wd, wd by η₀·lr and their product by η₀, all times p.
    """
    size, unit = np.where(np.isfinite(p), np.abs(p), 0.0), work.unit_roundoff
    if decay == 0:
        return np.where(moved, size * np.expm1(unit), 0.0)
    rates = 1 + options.lr + options.weight_decay
    under = np.where(size > 0, (2 + size * rates) * work.half_smallest_subnormal, 0.0)
    error: Array = size * (decay * np.expm1(5 * unit) + abs(1 - decay) * np.expm1(3 * unit)) + under
    return error


def _limit(quotient: _Quotient, p: Array, most: float, error: float, work: Format) -> tuple[float, float, bool]:
    """Return the factor of a limit on the norm, what it adds to the exponent, and whether it can be judged.

    An update, or a parameter, of which an element is NaN or infinite in every form has no finite norm: no limit.
    """
    lost = np.isnan(quotient.lo) & np.isnan(quotient.hi) | np.isinf(quotient.lo) & (quotient.lo == quotient.hi)
    if lost.any() or not np.isfinite(p).all():
        return 1.0, 0.0, True
    update = (quotient.lo + quotient.hi) / 2
    norm, limit, terms = real_norm(update), most * real_norm(p), update.size
    extra = error + (terms + 6) * work.unit_roundoff
    small = terms * work.half_smallest_subnormal * 2.0**26
    usable = all(n == 0 or small < n * n < work.largest_finite / 2 for n in (norm, real_norm(p)))
    if not usable or norm * np.exp(extra) <= limit:
        return 1.0, 0.0, usable
    return min(1.0, limit / norm), extra, usable
