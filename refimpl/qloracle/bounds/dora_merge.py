"""Which merged DoRA weights are allowed.

Clause: ``[bounds.dora_merge]``. An evaluation of V = W + s B A differs from it by at most ρ (see `tracking`), so that

    n̂ ∈ [‖max(|V| − ρ, 0)‖, ‖|V| + ρ‖]

but for the roundings of the norm itself: K squares are added up in any order, which costs K roundings on n², half as
many on n; four more for the root and for a scaling by the largest element (two quotients, one product); and each square
may underflow. Then one rounding for g = m/n, which may underflow, and one for its product with V, which may be another
evaluation of V, g multiplied into W and B A first. Where V may vanish (‖|V| − ρ‖ = 0) g is anything, and nothing is
said.
"""

import numpy as np

from qloracle.bounds.merge import tracked_delta
from qloracle.dora import over_norms, row_norms
from qloracle.dora_merging import MergedDora, real_magnitude, unmerge_factor
from qloracle.formats import Array, Format, format_named
from qloracle.merge_operands import merge_operands
from qloracle.tracking.adapter import Factors, factors
from qloracle.tracking.interval import Interval, Tracked, exact_input, interval, scaled
from qloracle.tracking.roundings import Roundings

_ROOT = 4.0  # roundings of a norm beside those of its sum of squares


def dora_merge_bound(
    weight: Array,
    lora_a: Array,
    lora_b: Array,
    magnitude: Array,
    *,
    alpha: float,
    rank_stabilized: bool = False,
    fan_in_fan_out: bool = False,
    fmt: str | None = None,
    roundings: Roundings = Roundings(),
) -> tuple[Interval, Interval]:
    """Bound every evaluation of `dora_merge` that has the declared rounding points.

    Parameters
    ----------
    weight, lora_a, lora_b, magnitude, alpha, rank_stabilized, fan_in_fan_out, fmt
        As for `dora_merging.dora_merge`.
    roundings : Roundings
        `adapter` is what B A and s B A are rounded to, `norm` what V, n and g are rounded to.

    Returns
    -------
    (Interval, Interval)
        Of the merged weight, in its shape, and of the norms, before the rounding to their formats. Not judged where a
        sum or a square could overflow, or V may vanish without being 0 in every term.

    Notes
    -----
    Clause ``[bounds.dora_merge]``, derived at the head of this module. Roundings on a path: those of `tracking.norm`,
    of B A and of the sums, as counted there.

    Examples
    --------
    >>> one = np.ones((1, 1), np.float32)
    >>> merged, norms = dora_merge_bound(3 * one, one, one, 8 * one[0], alpha=1)
    >>> bool(merged.lo[0, 0] < 8 < merged.hi[0, 0]), bool(norms.lo[0] < 4 < norms.hi[0])
    (True, True)
    """
    w64, a64, b64 = merge_operands(weight, lora_a, lora_b, fan_in_fan_out=fan_in_fan_out, fmt=fmt)
    how = factors(alpha, len(a64), (), rank_stabilized=rank_stabilized, roundings=roundings)
    coarse = how.fmt.unit_roundoff + max(format_named(roundings.norm, "norm").unit_roundoff - how.fmt.unit_roundoff, 0)
    rows, absent = _tracked_rows(w64, a64, b64, how, coarse)
    norms = _norms(rows, how.fmt, coarse)
    gain = _quotient(real_magnitude(magnitude, len(w64), fmt), norms, coarse, _lost(how))
    lo, hi = _product(gain, rows, 2 * how.fmt.unit_roundoff, how.fmt.half_smallest_subnormal)
    judged = rows.judged & (norms.judged & (norms.lo > 0))[:, np.newaxis]
    judged = judged & (np.maximum(np.abs(lo), np.abs(hi)) < how.fmt.largest_finite)
    # A NaN in a row reaches its norm, and by that all of it.
    lost = np.any(np.isnan(rows.lo) & rows.judged, axis=1)
    sure = np.where(lost, np.nan, 0.0)[:, np.newaxis]
    known = (absent | lost)[:, np.newaxis]
    merged = Interval(np.where(known, sure, lo), np.where(known, sure, hi), judged | known)
    norms = Interval(np.where(lost, np.nan, norms.lo), np.where(lost, np.nan, norms.hi), norms.judged | lost)
    if fan_in_fan_out:
        merged = Interval(merged.lo.T, merged.hi.T, merged.judged.T)
    return merged, norms


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
    the declared format of a norm; the rest as in `bounds_merge.lora_merge_bound`.

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
    coarse = format_named(roundings.norm, "norm").unit_roundoff / how.fmt.unit_roundoff
    base = scaled(exact_input(w64), factor[:, np.newaxis], 2 + max(coarse, 1.0), how.fmt, 1.0)
    delta, fit = tracked_delta(a64, b64, how)
    found = interval(how.fmt, (base, 1), (delta, len(a64)))
    judged = found.judged & fit
    return Interval(found.lo.T, found.hi.T, judged.T) if fan_in_fan_out else Interval(found.lo, found.hi, judged)


def _tracked_rows(w64: Array, a64: Array, b64: Array, how: Factors, coarse: float) -> tuple[Interval, Array]:
    """Return the interval of V, g multiplied into its terms or not, and the rows all of whose terms are 0."""
    delta, fit = tracked_delta(a64, b64, how)
    base = exact_input(w64)
    terms = [_with(term, how.fmt.unit_roundoff) for term in (base, delta)]
    found = interval(how.fmt, (terms[0], 1), (terms[1], len(a64)))
    absent = np.all((base.magnitude + delta.magnitude == 0) & fit & np.isfinite(base.value + delta.value), axis=1)
    extra = coarse - how.fmt.unit_roundoff
    if extra == 0:
        return Interval(found.lo, found.hi, found.judged & fit), absent
    with np.errstate(invalid="ignore"):
        rounding = extra * np.maximum(np.abs(found.lo), np.abs(found.hi))
        return Interval(found.lo - rounding, found.hi + rounding, found.judged & fit), absent


def _with(term: Tracked, roundoff: float) -> Tracked:
    return Tracked(term.value, term.magnitude, term.exponent + roundoff, term.underflow, term.unsure)


def _norms(rows: Interval, fmt: Format, coarse: float) -> Interval:
    """Return the interval of the row norms."""
    count = rows.lo.shape[1]
    far = np.maximum(np.abs(rows.lo), np.abs(rows.hi))
    near = np.where((rows.lo < 0) & (rows.hi > 0), 0.0, np.minimum(np.abs(rows.lo), np.abs(rows.hi)))
    relative = np.exp((count / 2 + _ROOT) * fmt.unit_roundoff + coarse)
    lost = count * fmt.half_smallest_subnormal  # of n², by squares that underflow
    with np.errstate(invalid="ignore", over="ignore"):
        low, high = row_norms(near) / relative, row_norms(far) * relative
        lo, hi = np.sqrt(np.maximum(low * low - lost, 0.0)), np.sqrt(high * high + lost)
        judged = rows.judged.all(axis=1) & (hi * hi * relative < fmt.largest_finite)
    return Interval(lo, hi, judged)


def _lost(how: Factors) -> float:
    """Return what g may underflow by: in the quotient, and in its rounding to a declared format."""
    norm = format_named(how.declared.norm, "norm")
    rounded = norm.half_smallest_subnormal if norm.unit_roundoff > how.fmt.unit_roundoff else 0.0
    return how.fmt.half_smallest_subnormal + rounded


def _quotient(magnitude: Array, norms: Interval, coarse: float, lost: float) -> Interval:
    """Return the interval of g = m/n; it is exactly 0 where m is."""
    ends = [over_norms(magnitude, end) for end in (norms.lo, norms.hi)]
    lo, hi = np.minimum(*ends), np.maximum(*ends)
    width = np.expm1(coarse) * np.maximum(np.abs(lo), np.abs(hi))
    width = width + np.where(np.maximum(np.abs(lo), np.abs(hi)) > 0, lost, 0.0)
    return Interval(lo - width, hi + width, norms.judged)


def _product(gain: Interval, rows: Interval, roundoff: float, underflow: float) -> tuple[Array, Array]:
    """Return the ends of g·V."""
    with np.errstate(invalid="ignore", over="ignore"):
        corners = [g[:, np.newaxis] * v for g in (gain.lo, gain.hi) for v in (rows.lo, rows.hi)]
        lo, hi = np.minimum.reduce(corners), np.maximum.reduce(corners)
        width = np.expm1(roundoff) * np.maximum(np.abs(lo), np.abs(hi)) * (1 + 2.0**-20)
        slack = 3 * underflow * np.maximum(1.0, np.maximum(np.abs(gain.lo), np.abs(gain.hi)))[:, np.newaxis]
    return lo - width - slack, hi + width + slack
