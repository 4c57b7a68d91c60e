"""The row norms of a DoRA layer, and g = m/n, with what computing them costs.

Clause: ``[bounds.dora]``. Let V = W + sBA and V̂ what an implementation computes, |V̂ − V| ≤ E element by element by the
derivation in `tracking`, the roundings of an adapter included where they are declared. By the triangle inequality
| ‖V̂‖ − ‖V‖ | ≤ ‖E‖ =: Δ. A sum of K squares of V̂, in any order, has K roundings on a path, and the root halves what it
is given and rounds once; an implementation that divides by the largest element first, so that no square leaves the
range, has four more, and loses K η₀ of n relative to n. So, with k = K (u + 2η₀),

    n̂ lies between √((n − Δ)²·exp(−k) − K η₀)·exp(−5u) and √((n + Δ)²·exp(k) + K η₀)·exp(5u)

and ĝ = m/n̂ within two roundings (a quotient, or a reciprocal and a product). A declared format with roundoff u' and η₀'
moves V̂ by u'·|V̂| + η₀' and n̂ likewise. Where (n + Δ)² could overflow the accumulation, or V̂, n̂ or ĝ the declared
format, or the lower end is 0 and n is not, g is *unbounded*: there a layer may return any number, but not NaN.
"""

from dataclasses import dataclass

import numpy as np

from qloracle.dora import merged_rows, over_norms, row_norms
from qloracle.formats import Array, Format, format_named
from qloracle.tracking.adapter import Factors, tracked_delta
from qloracle.tracking.interval import Tracked, exact_input, interval, largest_result, loses, rounded_to

NORM_ROUNDINGS = 5.0  # beside those of the sum: the root, and four of an implementation that scales


@dataclass(frozen=True)
class Gain:
    """What multiplies the outputs of a DoRA layer; matrices of one row."""

    gain: Tracked  # g
    less_one: Tracked  # g − 1
    inverse: Tracked  # 1/n, 0 where n = 0
    bounded: Array  # bool: whether the three are bounded at all
    in_range: Array  # bool: whether V fits the declared format, and g times a row of W, B, B A or V the accumulation


def tracked_gain(weight: Array, lora_a: Array, lora_b: Array, magnitude: Array, how: Factors) -> Gain:
    """Track g, g − 1 and 1/n of the merged rows."""
    fmt, target = how.fmt, format_named(how.declared.norm, "norm")
    merged, off, fit, held = _tracked_rows(weight, lora_a, lora_b, target, how)
    narrow, lost = (target.unit_roundoff, target.half_smallest_subnormal) if loses(target, fmt) else (0.0, 0.0)
    norms = row_norms(merged)
    least, most = _norm_limits(norms, row_norms(np.nan_to_num(off, posinf=0.0)), merged.shape[1], how)
    overflows = (most * most >= fmt.largest_finite) | (most * (1 + narrow) + lost >= target.largest_finite)
    least = least * (1 - narrow) - lost
    exact, finite = norms == 0, np.isfinite(norms)
    bounded = ((exact & (most == 0)) | ((least > 0) & ~overflows) | ~finite) & fit & held
    usable = bounded & finite & ~exact
    inverse = _over(np.ones_like(norms), norms, least, usable, how)
    gain = rounded_to(
        _over(magnitude, norms, least, usable & np.isfinite(magnitude), how), how.declared.norm, fmt, "norm"
    )
    room = min(fmt.largest_finite / 4, target.largest_finite / 2)
    size = largest_result(gain)[0]
    bounded = bounded & (size < room)
    with np.errstate(over="ignore", invalid="ignore"):
        entries = (weight, how.largest * lora_b, how.largest * (np.abs(lora_b) @ np.abs(lora_a)), merged)
        fits = [size * np.max(np.abs(part), axis=1, initial=0.0) * 2 < fmt.largest_finite for part in entries]
    in_range = held & (np.all(fits, axis=0) | ~bounded | ~finite)
    return Gain(gain, _less_one(gain, how), inverse, bounded[np.newaxis], in_range[np.newaxis])


def _tracked_rows(
    weight: Array, lora_a: Array, lora_b: Array, target: Format, how: Factors
) -> tuple[Array, Array, Array, Array]:
    """Return V, by how much it may be off, the rows in which it cannot overflow, and those that the format holds."""
    fmt = how.fmt
    merged = merged_rows(weight, lora_a, lora_b, how.scale)
    delta, fit = tracked_delta(lora_a, lora_b, how)
    rows = interval(fmt, (exact_input(weight), 1), (delta, lora_a.shape[0]))
    with np.errstate(invalid="ignore", over="ignore"):
        off = (rows.hi - rows.lo) / 2
        if loses(target, fmt):
            present = np.abs(merged) + off
            off = off + target.unit_roundoff * present + (present > 0) * target.half_smallest_subnormal
        held = (np.abs(merged) + off < target.largest_finite) | ~np.isfinite(merged)
    return merged, off, np.all(rows.judged & fit, axis=1), np.all(held, axis=1)


def _norm_limits(norms: Array, off: Array, terms: int, how: Factors) -> tuple[Array, Array]:
    """Return the least and the most that a computed norm can be."""
    unit, under = how.fmt.unit_roundoff, terms * 2 * how.fmt.half_smallest_subnormal
    summed = terms * unit + under
    with np.errstate(invalid="ignore", over="ignore"):
        below = np.maximum(norms - off, 0.0) ** 2 * np.exp(-summed) - under
        above = (norms + off) ** 2 * np.exp(summed) + under * ((norms + off) > 0)
    rounded = np.exp(NORM_ROUNDINGS * unit)
    return np.sqrt(np.maximum(below, 0.0)) / rounded, np.sqrt(above) * rounded


def _over(values: Array, norms: Array, least: Array, usable: Array, how: Factors) -> Tracked:
    """Track values/n: what a norm may be too small by is the larger error."""
    value = over_norms(values, norms)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        off = np.abs(values) * np.where(usable, 1 / least - 1 / norms, 0.0)
    under = np.where(usable, off + how.fmt.half_smallest_subnormal, 0.0)
    size = np.where(usable, np.abs(value), 0.0)
    row, unit = np.newaxis, 2 * how.fmt.unit_roundoff
    return Tracked(value[row], size[row], unit, under[row], np.zeros_like(usable)[row])


def _less_one(gain: Tracked, how: Factors) -> Tracked:
    """Track g − 1: one subtraction, and the declared rounding."""
    less = Tracked(
        gain.value - 1, gain.magnitude + 1, gain.exponent + how.fmt.unit_roundoff, gain.underflow, gain.unsure
    )
    return rounded_to(less, how.declared.norm, how.fmt, "norm")
