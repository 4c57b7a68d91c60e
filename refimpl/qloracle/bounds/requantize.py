"""Which scales and codes a merge into a quantized weight may give. Clause: ``[bounds.requantize]``.

The merged value of an element lies in an interval [lo, hi] of numbers of the format (see `bounds.merge`, and rounding
is monotone). A largest magnitude lies between those of the nearest and the farthest ends of its group. Given the scale
that was written, every quantizer is monotone, so that the code lies between those of lo and of hi.
"""

import numpy as np

from qloracle.blocks import block_absmax
from qloracle.blockwise import QuantizedBlocks
from qloracle.bounds.merge import lora_merge_bound
from qloracle.double_quant import DoubleQuantized
from qloracle.formats import Array
from qloracle.int8 import QuantizedInt8, int8_absmax
from qloracle.packing import unpack_4bit
from qloracle.qlora import QuantizedWeight
from qloracle.quantizing_like import quantize_like
from qloracle.rounding import decode, encode
from qloracle.tables import codebook_named
from qloracle.tracking.interval import Interval
from qloracle.tracking.roundings import Roundings


def merged_values_bound(
    values: Array,
    lora_a: Array,
    lora_b: Array,
    *,
    alpha: float,
    rank_stabilized: bool = False,
    fan_in_fan_out: bool = False,
    fmt: str,
    unmerge: bool = False,
    roundings: Roundings = Roundings(),
) -> Interval:
    """Bound the merged weight that is quantized: numbers of its format, ends included.

    Parameters
    ----------
    values : array, shape (d_out, d_in)
        The dequantized weight, or the original.
    lora_a, lora_b, alpha, rank_stabilized, fan_in_fan_out, unmerge, roundings
        As for `bounds_merge.lora_merge_bound`.
    fmt : str
        Format of the weight.

    Returns
    -------
    Interval

    Notes
    -----
    Clause ``[bounds.requantize]``.

    Examples
    --------
    >>> one = np.ones((1, 1), np.float32)
    >>> found = merged_values_bound(one, one, one, alpha=1, fmt="float32")
    >>> bool(found.lo[0, 0] < 2 < found.hi[0, 0])
    True
    """
    found = lora_merge_bound(values, lora_a, lora_b, alpha=alpha, rank_stabilized=rank_stabilized,
                             fan_in_fan_out=fan_in_fan_out, fmt=fmt, unmerge=unmerge, roundings=roundings)  # fmt: skip
    lo, hi = (decode(encode(end, fmt), fmt) for end in (found.lo, found.hi))
    return Interval(lo, hi, found.judged)


def absmax_bound(values: Interval, like: QuantizedBlocks | DoubleQuantized | QuantizedInt8) -> Interval:
    """Bound the absmax of every block or group of merged values; float32 numbers, ends included.

    Parameters
    ----------
    values : Interval
        As `merged_values_bound` returns it.
    like : QuantizedBlocks, DoubleQuantized or QuantizedInt8
        The record whose settings are used.

    Returns
    -------
    Interval
        Of the shape of the absmax; not judged where an element of the group is not.

    Notes
    -----
    Clause ``[bounds.requantize]``. Roundings on a path: none; an absmax is one of the values, and theirs are in their
    interval.

    Examples
    --------
    >>> from qloracle import quantize_blockwise
    >>> values = Interval(np.array([[-2.0, -1.0]]), np.array([[1.0, 3.0]]), np.ones((1, 2), bool))
    >>> found = absmax_bound(values, quantize_blockwise(np.zeros((1, 2), np.float32)))
    >>> found.lo, found.hi
    (array([0.]), array([3.]))
    """
    far = np.maximum(np.abs(values.lo), np.abs(values.hi)).astype(np.float32)
    near = np.minimum(np.abs(values.lo), np.abs(values.hi)).astype(np.float32)
    near = np.where((values.lo < 0) & (values.hi > 0), np.float32(0), near)
    doubt = (~values.judged).astype(np.float32)
    ends = [_largest(part, like).astype(np.float64) for part in (near, far, doubt)]
    return Interval(ends[0], ends[1], ends[2] == 0)


def code_bound(values: Interval, own: QuantizedWeight) -> tuple[Array, Array]:
    """Bound the codes of merged values, given the scales that were written with them.

    Parameters
    ----------
    values : Interval
        As `merged_values_bound` returns it.
    own : QuantizedBlocks, DoubleQuantized, QuantizedInt8 or QuantizedAffine
        The record that was written, with its scales.

    Returns
    -------
    lo, hi : arrays of int64, 1-d
        Positions in value order for a codebook, codes otherwise. Where the value is not judged they say nothing.

    Notes
    -----
    Clause ``[bounds.requantize]``. For doubly quantized blocks given the restored absmax, as for kept scales.

    Examples
    --------
    >>> from qloracle import quantize_int8
    >>> values = Interval(np.array([[0.0, 1.0]]), np.array([[0.5, 1.0]]), np.ones((1, 2), bool))
    >>> code_bound(values, quantize_int8(np.ones((1, 2), np.float32)))
    (array([  0, 127]), array([ 64, 127]))
    """
    ends = (quantize_like(end.astype(np.float32), own, scales="kept") for end in (values.lo, values.hi))
    lo, hi = (code_positions(end) for end in ends)
    return np.minimum(lo, hi), np.maximum(lo, hi)


def code_positions(weight: QuantizedWeight) -> Array:
    """Return the codes of a record as a vector: positions in value order for a codebook, else the codes themselves."""
    if not isinstance(weight, QuantizedBlocks | DoubleQuantized):
        return weight.codes.reshape(-1).astype(np.int64)
    table, size = codebook_named(weight.codebook), int(np.prod(weight.shape, dtype=np.int64))
    codes = unpack_4bit(weight.data, size) if table.code_bits == 4 else weight.data.reshape(-1)
    return table.position[codes]


def _largest(magnitudes: Array, like: QuantizedBlocks | DoubleQuantized | QuantizedInt8) -> Array:
    if isinstance(like, QuantizedInt8):
        return int8_absmax(magnitudes, like.granularity, like.block_size)
    return block_absmax(magnitudes, like.block_size)
