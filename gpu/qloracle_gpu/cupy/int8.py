"""Absmax INT8: symmetric codes from −127 to 127.

Clauses: ``[int8.absmax]``, ``[int8.quantize]``, ``[int8.dequantize]``.
"""

from dataclasses import dataclass
from math import prod

import numpy as np

from qloracle.errors import reject_value, require_one_of, require_record
from qloracle.formats import TENSOR_FORMATS, Format, format_named
from qloracle_gpu.cupy.arrays import carrier, flat_items, flat_words, require_dtype, require_tensor
from qloracle_gpu.cupy.blocks import absmax_of_blocks, absmax_of_columns
from qloracle_gpu.cupy.groups import group_runs, group_shape
from qloracle_gpu.cupy.launcher import Array, Operation, operation
from qloracle_gpu.cupy.vectors import ITEMS

LARGEST_CODE = 127
GRANULARITIES = ("tensor", "row", "column", "block")


@dataclass(frozen=True)
class QuantizedInt8:
    """A tensor as INT8 codes with the absmax of each group that shares a scale."""

    codes: Array  # int8, the shape of the original, −127 to 127
    absmax: Array  # float32: () for tensor, one a row, one a column, or one a flat block
    granularity: str  # one of GRANULARITIES
    block_size: int | None  # for granularity "block"
    dtype: str  # format name of the original


def quantize_int8(
    x: Array, *, granularity: str = "tensor", block_size: int | None = None, fmt: str | None = None
) -> QuantizedInt8:
    """Quantize a tensor to INT8 by absmax.

    q = the integer nearest to the real number 127·x/absmax, ties to even.

    Parameters
    ----------
    x : array of float32, float16 or bfloat16, any strides
    granularity : {"tensor", "row", "column", "block"}
        Which elements share an absmax: all, those of one position in all axes but the last, those of one position in
        the last axis, or those of a flat block.
    block_size : int, optional
        Elements in a flat block, for granularity "block".
    fmt : str, optional
        Format of `x` where it is given as bit patterns.

    Returns
    -------
    QuantizedInt8

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        For another dtype, or a granularity that does not go with the shape or the block size.

    Notes
    -----
    Clauses ``[int8.absmax]``, ``[int8.quantize]``. Rounding points: one, to an integer. A group with any NaN or ±inf
    has absmax NaN and codes 0. The code −128 never occurs.
    """
    array, named = require_tensor("x", x, fmt)
    shape = group_shape(array.shape, granularity, block_size, GRANULARITIES)
    with operation("quantize_int8", x=array) as run:
        words = flat_words(run, array)
        absmax = _absmax(run, words, named, array.shape, granularity, block_size)
        codes = codes_given_absmax(run, words, named, absmax, *group_runs(array.shape, granularity, block_size))
    return QuantizedInt8(codes.reshape(array.shape), absmax.reshape(shape), granularity, block_size, named.name)


def codes_given_absmax(run: Operation, words: Array, named: Format, absmax: Array, length: int, column: bool) -> Array:
    """Return the INT8 codes of 1-d words given the absmax of their groups."""
    codes = run.empty(words.size, "int8")
    arguments = (words, np.int64(words.size), np.int64(length), np.int32(column), absmax, codes)
    run.launch("int8", f"quantize_int8_{named.name}", -(-words.size // ITEMS), arguments)
    return codes


def dequantize_int8(quantized: QuantizedInt8, *, dtype: str | None = None) -> Array:
    """Restore a tensor from its INT8 codes and absmax.

    value = RN_dtype(fl32(q·absmax/127)), the quotient real; +0 where absmax is 0, NaN where it is NaN.

    Parameters
    ----------
    quantized : QuantizedInt8
    dtype : {"float32", "float16", "bfloat16"}, optional
        Output format; by default that of the original.

    Returns
    -------
    array of `dtype`, the shape of the codes; bfloat16 as uint16 words

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If codes and absmax are not int8 and float32 of shapes that belong together, or the format is unknown.

    Notes
    -----
    Clause ``[int8.dequantize]``. Rounding points, in order: the quotient to float32; to `dtype`.
    """
    require_record("quantized", quantized, QuantizedInt8)
    dtype = require_one_of("dtype", quantized.dtype if dtype is None else dtype, TENSOR_FORMATS)
    codes, absmax = require_int8(quantized)
    length, column = group_runs(codes.shape, quantized.granularity, quantized.block_size)
    with operation("dequantize_int8", codes=codes, absmax=absmax) as run:
        out = run.empty(codes.size, carrier(format_named(dtype)))
        items, scales = flat_items(run, codes), flat_items(run, absmax)
        arguments = (items, np.int64(items.size), np.int64(length), np.int32(column), scales, out)
        run.launch("int8", f"dequantize_int8_{dtype}", -(-items.size // ITEMS), arguments)
        return out.reshape(codes.shape)


def require_int8(quantized: QuantizedInt8) -> tuple[Array, Array]:
    """Return codes and absmax if they are int8 and float32 of shapes that belong together, else raise."""
    codes = require_dtype("codes", quantized.codes, "int8")
    absmax = require_dtype("absmax", quantized.absmax, "float32")
    expected = group_shape(codes.shape, quantized.granularity, quantized.block_size, GRANULARITIES)
    if absmax.shape != expected:
        reject_value("absmax", f"of shape {expected}", absmax.shape)
    return codes, absmax


def _absmax(
    run: Operation, words: Array, named: Format, shape: tuple[int, ...], granularity: str, block_size: int | None
) -> Array:
    length, column = group_runs(shape, granularity, block_size)
    if column:
        return absmax_of_columns(run, words, named, words.size // length if shape[-1] else 0, shape[-1])
    count = prod(group_shape(shape, granularity, block_size, GRANULARITIES))
    if words.size == 0:
        zeros = run.empty(count, "float32")
        zeros[...] = 0
        return zeros
    return absmax_of_blocks(run, words, named, length)
