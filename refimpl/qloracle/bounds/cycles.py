"""How far a weight may drift while an adapter is merged into it and taken out again.

Clauses: ``[bounds.merge_cycles]``, ``[bounds.requantize_cycles]``.
"""

import numpy as np

from qloracle.blockwise import QuantizedBlocks
from qloracle.bounds.merge import sum_with
from qloracle.bounds.requantize import absmax_bound, merged_values_bound
from qloracle.errors import reject_type, reject_value, require_integer
from qloracle.formats import Array, format_named, format_of
from qloracle.groups import spread_groups
from qloracle.int8 import LARGEST_CODE, QuantizedInt8
from qloracle.merge_operands import merge_operands
from qloracle.quantizing_like import dequantized_weight, shape_of
from qloracle.rounding import decode, round_to
from qloracle.tables import codebook_named
from qloracle.tracking.adapter import factors, tracked_delta
from qloracle.tracking.interval import Interval
from qloracle.tracking.roundings import Roundings


def merge_cycles_bound(
    weight: Array,
    lora_a: Array,
    lora_b: Array,
    *,
    alpha: float,
    cycles: int,
    rank_stabilized: bool = False,
    fan_in_fan_out: bool = False,
    fmt: str | None = None,
    roundings: Roundings = Roundings(),
) -> Interval:
    """Bound the weight after it has been merged and unmerged so many times.

    Parameters
    ----------
    weight, lora_a, lora_b, alpha, rank_stabilized, fan_in_fan_out, fmt
        As for `merging.lora_merge`.
    cycles : int
        At least 0.
    roundings : Roundings

    Returns
    -------
    Interval
        Numbers of the weight's format, ends included. Not judged where any step could overflow.

    Notes
    -----
    Clause ``[bounds.merge_cycles]``. A step from a weight X in [lo, hi] lies between what lo and hi give: the lower end
    X ± s B A − ρ(|X|) rises with X, for ρ grows by less than |X| does, and so does its rounding. A cycle moves X by at
    most 2ρ + u·(|X + s B A| + |X|) with the unit roundoff u of the format, so that drift grows no faster than linearly.
    (Where both steps add the very same number of the format, nothing moves after the first cycle: Knuth 1997, "The Art
    of Computer Programming" 2, section 4.2.2, theorem D.) Roundings on a path: those of
    `bounds_merge.lora_merge_bound`, twice a cycle.

    Examples
    --------
    >>> one = np.ones((1, 1), np.float32)
    >>> found = merge_cycles_bound(2.0**-24 * one, one, one, alpha=1, cycles=1)
    >>> bool(found.lo[0, 0] <= 0 <= found.hi[0, 0] <= 2.0**-20)
    True
    """
    real, a64, b64 = merge_operands(weight, lora_a, lora_b, fan_in_fan_out=fan_in_fan_out, fmt=fmt)
    cycles = _require_count("cycles", cycles)
    name, lo, hi, judged = format_of(weight, fmt, "weight").name, real, real, np.ones(real.shape, np.bool_)
    hows = [factors(sign * alpha, len(a64), (), rank_stabilized=rank_stabilized, roundings=roundings)
            for sign in (1, -1)]  # fmt: skip
    steps = [(how, *tracked_delta(a64, b64, how)) for how in hows]
    for how, delta, fit in steps * cycles:
        low, high = (sum_with(end, delta, len(a64), how, fit) for end in (lo, hi))
        lo, hi = (decode(round_to(end, name), name) for end in (low.lo, high.hi))
        judged = judged & low.judged & high.judged & np.isfinite(lo) & np.isfinite(hi)
    return Interval(lo.T, hi.T, judged.T) if fan_in_fan_out else Interval(lo, hi, judged)


def requantize_cycles_bound(
    weight: QuantizedBlocks | QuantizedInt8,
    lora_a: Array,
    lora_b: Array,
    *,
    alpha: float,
    cycles: int,
    rank_stabilized: bool = False,
    fan_in_fan_out: bool = False,
    roundings: Roundings = Roundings(),
) -> Interval:
    """Bound the dequantized weight after it was merged, and unmerged, into its quantized form so many times.

    Parameters
    ----------
    weight : QuantizedBlocks or QuantizedInt8, of a 2-d tensor
    lora_a, lora_b, alpha, rank_stabilized, fan_in_fan_out
        As for `merge_requantize`, with fresh scales.
    cycles : int
        At least 0.
    roundings : Roundings

    Returns
    -------
    Interval
        Of the values, shape (d_out, d_in). Not judged where a step could overflow.

    Notes
    -----
    Clause ``[bounds.requantize_cycles]``. One quantization of x in a group of largest magnitude at most a leaves |x̂ −
    x| ≤ (h + 2u)·a + η: h is half the widest gap of the codebook (the ends ±1 included; 1/254 for INT8), 2u the
    roundings of the product to float32 and of the value to the format, η the smallest subnormal of the format. A cycle
    quantizes twice; each adds that much to both sides of the interval of `bounds_merge.merge_cycles_bound`. Roundings
    on a path: those of `merge_cycles_bound`, and the two of each quantization.

    Examples
    --------
    >>> from qloracle import quantize_blockwise
    >>> one, base = np.ones((1, 1), np.float32), quantize_blockwise(np.ones((1, 1), np.float32))
    >>> found = requantize_cycles_bound(base, one, one, alpha=1, cycles=1)
    >>> bool(found.lo[0, 0] < 1 < found.hi[0, 0])
    True
    """
    if not isinstance(weight, QuantizedBlocks | QuantizedInt8):
        reject_type("weight", "QuantizedBlocks or QuantizedInt8", type(weight).__name__)
    name, count = weight.dtype, _require_count("cycles", cycles)
    start = decode(dequantized_weight(weight), name)
    state = Interval(start, start, np.ones(start.shape, np.bool_))
    for unmerge in (False, True) * count:
        ends = [merged_values_bound(round_to(end, name), lora_a, lora_b, alpha=alpha, unmerge=unmerge, fmt=name,
                                    rank_stabilized=rank_stabilized, fan_in_fan_out=fan_in_fan_out,
                                    roundings=roundings) for end in (state.lo, state.hi)]  # fmt: skip
        judged = state.judged & ends[0].judged & ends[1].judged
        state = _requantized(Interval(ends[0].lo, ends[1].hi, judged), weight)
    return state


def _requantized(values: Interval, like: QuantizedBlocks | QuantizedInt8) -> Interval:
    """Widen an interval by what quantizing and dequantizing moves its elements at most."""
    fmt = format_named(like.dtype)
    largest = absmax_bound(values, like)
    absmax, known = (_spread(part, like) for part in (largest.hi, largest.judged))
    step = (_half_gap(like) + 2 * fmt.unit_roundoff) * absmax * (1 + 2.0**-20) + 2 * fmt.half_smallest_subnormal
    lo, hi = (decode(round_to(end, like.dtype), like.dtype) for end in (values.lo - step, values.hi + step))
    return Interval(lo, hi, values.judged & known & np.isfinite(lo) & np.isfinite(hi))


def _half_gap(like: QuantizedBlocks | QuantizedInt8) -> float:
    if isinstance(like, QuantizedInt8):
        return 0.5 / LARGEST_CODE
    table = codebook_named(like.codebook)
    values = np.sort(table.entries.astype(np.float64))
    return float(max(np.max(np.diff(values)) / 2, 1 - values[-1], values[0] + 1))


def _spread(per_group: Array, like: QuantizedBlocks | QuantizedInt8) -> Array:
    shape = shape_of(like)
    granularity = like.granularity if isinstance(like, QuantizedInt8) else "block"
    return np.broadcast_to(spread_groups(per_group, shape, granularity, like.block_size), shape)


def _require_count(argument: str, value: object) -> int:
    """Return `value` if it is an integer of at least 0, else raise."""
    count = require_integer(argument, value, "an integer, 0 or more")
    if count < 0:
        reject_value(argument, "an integer, 0 or more", count)
    return count
