"""Absmax INT8: symmetric codes from −127 to 127.

Clauses: ``[int8.absmax]``, ``[int8.quantize]``, ``[int8.dequantize]``.

Lemma (quantize). For float32 x and a > 0, rint(RN_float64(127·x/a)) is the integer nearest to the real 127·x/a, ties to
even. *Proof.* 127·x has at most 31 significant bits, so float64 holds it. A boundary h = k + ½ with |k| < 128 has at
most 8 bits; by the argument in `blockwise`, a quotient other than h differs from it by more than |h|·2^−32, which no
rounding to 53 bits bridges, and a quotient equal to h is a float64 number. ∎
Lemma (dequantize). RN_float32(RN_float64(q·a/127)) = RN_float32(q·a/127). *Proof.* q·a has at most 31 bits, float64
holds it. A midpoint of neighbouring float32 numbers has at most 25 bits; a quotient by 127 other than the midpoint
differs from it by more than 2^−33 of itself, so the first rounding does not reach it, and equality is exact. ∎
"""

from dataclasses import dataclass
from functools import partial

import numpy as np

from qloracle.blocks import block_absmax, poison
from qloracle.errors import reject_value, require_dtype, require_one_of, require_record
from qloracle.formats import TENSOR_FORMATS, Array, format_named, tensor_format
from qloracle.groups import by_groups, group_shape, reduce_groups
from qloracle.records import require_fields
from qloracle.rounding import round_to, widen

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

    def __post_init__(self) -> None:
        """Refuse fields of other types."""
        require_fields(self)


def int8_absmax(x: Array, granularity: str = "tensor", block_size: int | None = None) -> Array:
    """Return the absmax of every group that shares a scale.

    tensor: max |x|; row: over the last axis; column: over all axes but the last; block: over flat blocks. NaN for a
    group with any NaN or ±inf, 0 for an empty group.

    Parameters
    ----------
    x : array of float32
    granularity : {"tensor", "row", "column", "block"}
        "row" and "column" need at least one axis.
    block_size : int, optional
        For "block" only.

    Returns
    -------
    array of float32
        Shape (), x.shape[:-1], x.shape[-1:] or (⌈x.size / block_size⌉,).

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If `x` is not float32, or the granularity is unknown or does not go with the shape or the block size.

    Notes
    -----
    Clause ``[int8.absmax]``. Rounding points: none.
    """
    require_dtype("x", x, "float32")
    require_one_of("granularity", granularity, GRANULARITIES)
    if granularity == "block":
        group_shape(x.shape, granularity, block_size, GRANULARITIES)
        return block_absmax(x, int(block_size or 0))

    def largest(groups: Array) -> Array:
        return np.asarray(np.max(np.abs(groups), axis=1, initial=0.0))

    return poison(reduce_groups(x, granularity, block_size, GRANULARITIES, largest).astype(np.float32))


def quantize_int8_codes(x: Array, absmax: Array) -> Array:
    """Return the INT8 code of every element, given an absmax that broadcasts to `x`.

    q = the integer nearest to the real number 127·x/absmax, ties to even, saturated to ±127. Where absmax is 0, NaN or
    ±inf, or x is NaN: 0.

    Notes
    -----
    Clause ``[int8.quantize]``. Rounding points: one, to an integer; the float64 quotient decides exactly (first lemma).
    """
    usable = np.isfinite(absmax) & (absmax != 0)
    divisor = np.where(usable, absmax, np.float32(np.inf)).astype(np.float64)
    with np.errstate(invalid="ignore"):
        quotient = np.array(x, np.float64)  # one copy, worked on in place: memory for three times the input
        quotient *= LARGEST_CODE
        quotient /= divisor
    quotient[np.isnan(quotient)] = 0.0
    np.rint(quotient, out=quotient)
    return np.clip(quotient, -LARGEST_CODE, LARGEST_CODE, out=quotient).astype(np.int8)


def dequantize_int8_codes(codes: Array, absmax: Array, dtype: str) -> Array:
    """Return the value of every INT8 code, given an absmax that broadcasts to `codes`.

    value = RN_dtype(fl32(q·absmax/127)), the quotient real; +0 where absmax is 0, NaN where it is NaN.

    Notes
    -----
    Clause ``[int8.dequantize]``. Rounding points, in order: the quotient to float32 (second lemma); to `dtype`.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        quotient = codes.astype(np.float64) * absmax.astype(np.float64) / LARGEST_CODE
        # q = 0 and absmax = 0 give +0 whatever the sign of the other factor.
        single = np.where(quotient == 0, 0.0, quotient).astype(np.float32)
    return round_to(single, dtype)


def quantize_int8(
    x: Array, *, granularity: str = "tensor", block_size: int | None = None, fmt: str | None = None
) -> QuantizedInt8:
    """Quantize a tensor to INT8 by absmax.

    Parameters
    ----------
    x : array of float32, float16 or bfloat16
    granularity : {"tensor", "row", "column", "block"}
        Which elements share an absmax, see `int8_absmax`.
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
    Clauses ``[int8.absmax]``, ``[int8.quantize]``. The code −128 never occurs.

    References
    ----------
    Dettmers et al. 2022, "LLM.int8()", section 2.1, absmax quantization.

    Examples
    --------
    >>> q = quantize_int8(np.array([1.2, -0.5, -4.3, 1.2, -3.1, 0.8, 2.4, 5.4], np.float32))
    >>> q.codes.tolist(), float(q.absmax)
    ([28, -12, -101, 28, -73, 19, 56, 127], 5.400000095367432)
    """
    name = tensor_format(x, fmt, "x").name
    wide = widen(x, fmt, "x")
    absmax = int8_absmax(wide, granularity, block_size)
    codes = by_groups(quantize_int8_codes, np.dtype(np.int8), wide, (absmax,), granularity, block_size)
    return QuantizedInt8(codes, absmax, granularity, block_size, name)


def dequantize_int8(quantized: QuantizedInt8, *, dtype: str | None = None) -> Array:
    """Restore a tensor from its INT8 codes and absmax.

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
    Clause ``[int8.dequantize]``. The code −128, which ``[int8.quantize]`` never gives, is restored like any other.

    Examples
    --------
    >>> dequantize_int8(quantize_int8(np.array([1, -2], np.float32)))
    array([ 1.007874, -2.      ], dtype=float32)
    """
    require_record("quantized", quantized, QuantizedInt8)
    dtype = quantized.dtype if dtype is None else dtype
    require_one_of("dtype", dtype, TENSOR_FORMATS)
    require_int8(quantized)
    restore, how = partial(dequantize_int8_codes, dtype=dtype), (quantized.granularity, quantized.block_size)
    return by_groups(restore, format_named(dtype).carrier, quantized.codes, (quantized.absmax,), *how)


def require_int8(quantized: QuantizedInt8) -> None:
    """Raise unless codes and absmax are int8 and float32 of shapes that belong together; any code can be restored."""
    codes, absmax = quantized.codes, quantized.absmax
    require_dtype("codes", codes, "int8")
    require_dtype("absmax", absmax, "float32")
    expected = group_shape(codes.shape, quantized.granularity, quantized.block_size, GRANULARITIES)
    if absmax.shape != expected:
        reject_value("absmax", f"of shape {expected}", absmax.shape)
