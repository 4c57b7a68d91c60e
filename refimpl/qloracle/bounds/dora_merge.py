"""Which merged DoRA weights are allowed.

Clause: ``[bounds.dora_merge]``. An evaluation of V = W + s B A differs from it by at most ρ (see `tracking`), so that

    n̂ ∈ [‖max(|V| − ρ, 0)‖, ‖|V| + ρ‖]

but for the roundings of the norm itself: K squares are added up in any order, which costs K roundings on n², half as
many on n; four more for the root and for a scaling by the largest element (two quotients, one product, which lose K η₀
of n); and each square may underflow. Then one rounding for g = m/n, which may underflow, and one for its product with
V, which may be another evaluation of V, g multiplied into W and B A, or B, first; a reciprocal of n is the spare one of
these. So may (V/n)·m be, whose quotients lose η₀·m, and (m·V)/n, whose products lose η₀/n. A declared format of V, n
and g rounds each of them: it loses u' of it and η₀', and may overflow where the accumulation does not. Where V may
vanish (‖|V| − ρ‖ = 0) g is anything, and nothing is said.
"""

import numpy as np

from qloracle.dora import over_norms, row_norms
from qloracle.dora_merging import real_magnitude
from qloracle.formats import Array, format_named
from qloracle.merge_operands import merge_operands
from qloracle.tracking.adapter import Factors, factors, tracked_delta
from qloracle.tracking.interval import Interval, Tracked, exact_input, interval, loses
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
    rows, lost_rows, absent = _tracked_rows(w64, a64, b64, how, coarse)
    norms = _norms(rows, how, coarse)
    m64 = real_magnitude(magnitude, len(w64), fmt)
    gain = _quotient(m64, norms, coarse, lost_by_quotients(how))
    lo, hi = _product(gain, rows, lost_rows, how)
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        other = how.fmt.half_smallest_subnormal * (np.abs(m64) + np.where(m64 == 0, 0.0, 1 / norms.lo))
        lo, hi = lo - other[:, np.newaxis], hi + other[:, np.newaxis]
        judged = (
            rows.judged
            & (norms.judged & (norms.lo > 0) & _in_range(gain, m64, rows, w64, a64, b64, how))[:, np.newaxis]
        )
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


def _tracked_rows(w64: Array, a64: Array, b64: Array, how: Factors, coarse: float) -> tuple[Interval, Array, Array]:
    """Return the interval of V, g multiplied into its terms or not, what it loses, and the rows whose terms are 0."""
    delta, fit = tracked_delta(a64, b64, how)
    base, norm = exact_input(w64), format_named(how.declared.norm, "norm")
    terms = [_with(term, how.fmt.unit_roundoff) for term in (base, delta)]
    found = interval(how.fmt, (terms[0], 1), (terms[1], len(a64)))
    present = base.magnitude + delta.magnitude > 0
    absent = np.all(~present & fit & np.isfinite(base.value + delta.value), axis=1)
    under, judged, extra = (
        delta.underflow * np.exp(terms[1].exponent),
        found.judged & fit,
        coarse - how.fmt.unit_roundoff,
    )
    if not loses(norm, how.fmt):
        return Interval(found.lo, found.hi, judged), under, absent
    with np.errstate(invalid="ignore"):
        far = np.maximum(np.abs(found.lo), np.abs(found.hi))
        rounding = extra * far + np.where(present, norm.half_smallest_subnormal, 0.0)
        judged = judged & ~(far + rounding >= norm.largest_finite)
        return Interval(found.lo - rounding, found.hi + rounding, judged), under, absent


def _with(term: Tracked, roundoff: float) -> Tracked:
    return Tracked(term.value, term.magnitude, term.exponent + roundoff, term.underflow, term.unsure)


def _norms(rows: Interval, how: Factors, coarse: float) -> Interval:
    """Return the interval of the row norms."""
    count, fmt, norm = rows.lo.shape[1], how.fmt, format_named(how.declared.norm, "norm")
    far = np.maximum(np.abs(rows.lo), np.abs(rows.hi))
    near = np.where((rows.lo < 0) & (rows.hi > 0), 0.0, np.minimum(np.abs(rows.lo), np.abs(rows.hi)))
    lost = count * fmt.half_smallest_subnormal  # of n², by squares that underflow
    relative = np.exp((count / 2 + _ROOT) * fmt.unit_roundoff + coarse + lost)
    rounded = norm.half_smallest_subnormal if loses(norm, fmt) else 0.0
    with np.errstate(invalid="ignore", over="ignore"):
        low, high = row_norms(near) / relative, row_norms(far) * relative
        lo, hi = np.sqrt(np.maximum(low * low - lost, 0.0)), np.sqrt(high * high + lost * relative**2)
        judged = rows.judged.all(axis=1) & (hi * hi * relative < fmt.largest_finite)
        lo, hi = np.maximum(lo - rounded, 0.0), hi + np.where(high > 0, rounded, 0.0)
        judged = judged & ~(hi >= norm.largest_finite)
    return Interval(lo, hi, judged)


def lost_by_quotients(how: Factors) -> float:
    """Return what a quotient may underflow by: by itself, and in its rounding to a declared format."""
    norm = format_named(how.declared.norm, "norm")
    rounded = norm.half_smallest_subnormal if loses(norm, how.fmt) else 0.0
    return how.fmt.half_smallest_subnormal + rounded


def _quotient(magnitude: Array, norms: Interval, coarse: float, lost: float) -> Interval:
    """Return the interval of g = m/n; it is exactly 0 where m is."""
    ends = [over_norms(magnitude, end) for end in (norms.lo, norms.hi)]
    lo, hi = np.minimum(*ends), np.maximum(*ends)
    width = np.expm1(coarse) * np.maximum(np.abs(lo), np.abs(hi))
    width = width + np.where(np.maximum(np.abs(lo), np.abs(hi)) > 0, lost, 0.0)
    return Interval(lo - width, hi + width, norms.judged)


def _product(gain: Interval, rows: Interval, lost_rows: Array, how: Factors) -> tuple[Array, Array]:
    """Return the ends of g·V; what V's terms underflow by is not multiplied by a g below 1 that came first."""
    with np.errstate(invalid="ignore", over="ignore"):
        corners = [g[:, np.newaxis] * v for g in (gain.lo, gain.hi) for v in (rows.lo, rows.hi)]
        lo, hi = np.minimum.reduce(corners), np.maximum.reduce(corners)
        size = np.maximum(np.abs(gain.lo), np.abs(gain.hi))[:, np.newaxis]
        width = np.expm1(2 * how.fmt.unit_roundoff) * np.maximum(np.abs(lo), np.abs(hi)) * (1 + 2.0**-20)
        slack = 3 * how.fmt.half_smallest_subnormal * np.maximum(1.0, size) + np.where(size < 1, lost_rows, 0.0)
    return lo - width - slack, hi + width + slack


def _in_range(
    gain: Interval, magnitude: Array, rows: Interval, w64: Array, a64: Array, b64: Array, how: Factors
) -> Array:
    """Return the rows in which neither g, nor g times W, B or B A, nor m times V overflows."""
    norm = format_named(how.declared.norm, "norm")
    size = np.maximum(np.abs(gain.lo), np.abs(gain.hi))
    far = np.maximum(np.abs(rows.lo), np.abs(rows.hi)).max(axis=1, initial=0.0)
    with np.errstate(over="ignore", invalid="ignore"):
        entries = (w64, how.largest * b64, how.largest * (np.abs(b64) @ np.abs(a64)))
        most = np.maximum.reduce([np.abs(part).max(axis=1, initial=0.0) for part in entries])
        reached = np.maximum.reduce([size, size * most * 2, np.abs(magnitude) * far * 2])
    fit: Array = (reached < how.fmt.largest_finite) & (size < norm.largest_finite)
    return fit
