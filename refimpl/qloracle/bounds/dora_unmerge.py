"""Which weights are allowed after a DoRA adapter is taken out of them. Clause: ``[bounds.dora_merge]``."""

import numpy as np

from qloracle.bounds.dora_merge import lost_by_quotients
from qloracle.dora_merging import MergedDora, unmerge_factor
from qloracle.formats import Array, format_named
from qloracle.merge_operands import merge_operands
from qloracle.tracking.adapter import Factors, factors, tracked_delta
from qloracle.tracking.interval import Interval, Tracked, exact_input, interval
from qloracle.tracking.roundings import Roundings


def dora_unmerge_bound(
    merged: MergedDora,
    lora_a: Array,
    lora_b: Array,
    magnitude: Array,
    *,
    alpha: float,
    rank_stabilized: bool = False,
    fan_in_fan_out: bool = False,
    fmt: str | None = None,
    roundings: Roundings = Roundings(),
) -> Interval:
    """Bound every evaluation of `dora_unmerge` that has the declared rounding points.

    Parameters
    ----------
    merged, lora_a, lora_b, magnitude, alpha, rank_stabilized, fan_in_fan_out, fmt
        As for `dora_merging.dora_unmerge`.
    roundings : Roundings

    Returns
    -------
    Interval
        Arrays of the weight's shape, before the rounding to its format.

    Notes
    -----
    Clause ``[bounds.dora_merge]``. Three roundings for (n/m)∘W' (g = m/n, its reciprocal, the product), one of them to
    the declared format of a norm; the rest as in `bounds_merge.lora_merge_bound`. Not judged where n/m or m/n could
    overflow, or m/n lose half of itself below the normal range.

    Examples
    --------
    >>> one = np.ones((1, 1), np.float32)
    >>> found = dora_unmerge_bound(MergedDora(8 * one, 4 * one[0]), one, one, 8 * one[0], alpha=1)
    >>> bool(found.lo[0, 0] < 3 < found.hi[0, 0])
    True
    """
    w64, a64, b64 = merge_operands(merged.weight, lora_a, lora_b, fan_in_fan_out=fan_in_fan_out, fmt=fmt)
    how = factors(-alpha, len(a64), (), rank_stabilized=rank_stabilized, roundings=roundings)
    factor = unmerge_factor(merged.norms, magnitude, len(w64), fmt)
    base, usable = _unscaled(w64, factor, how)
    delta, fit = tracked_delta(a64, b64, how)
    found = interval(how.fmt, (base, 1), (delta, len(a64)))
    judged = found.judged & fit & usable[:, np.newaxis]
    return Interval(found.lo.T, found.hi.T, judged.T) if fan_in_fan_out else Interval(found.lo, found.hi, judged)


def _unscaled(w64: Array, factor: Array, how: Factors) -> tuple[Tracked, Array]:
    """Track f·W' with f = n/m, and return the rows in which neither f nor 1/f, which may be computed first, overflows.

    A ĝ = m/n that is off by at most h makes n/m wrong by h·f of itself, and 1/ĝ by h·f/(1 − h·f); f rounded to below
    the normal range loses h·|W'|, and the products three η₀.
    """
    norm = format_named(how.declared.norm, "norm")
    coarse = max(norm.unit_roundoff, how.fmt.unit_roundoff)
    size, lost = np.abs(factor), lost_by_quotients(how)
    largest = min(how.fmt.largest_finite, norm.largest_finite)
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        usable = (size == 0) | ~np.isfinite(size) | ((size * lost < 0.5) & (2 * size < largest) & (2 / size < largest))
        less = np.where(usable & np.isfinite(size), size * lost, 0.0)[:, np.newaxis]
        base = exact_input(w64)
        magnitude = base.magnitude * np.where(np.isfinite(size), size, 0.0)[:, np.newaxis]
        under = magnitude * less / (1 - less) + base.magnitude * lost + 3 * how.fmt.half_smallest_subnormal
        under = np.where(magnitude > 0, under, 0.0)
        value = base.value * factor[:, np.newaxis]
    return Tracked(value, magnitude, 2 * how.fmt.unit_roundoff + coarse, under, base.unsure), usable
