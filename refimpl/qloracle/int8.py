"""Absmax INT8: symmetric codes from −127 to 127, and the integer matmul with its scales.

Clauses: ``[int8.absmax]``, ``[int8.quantize]``, ``[int8.dequantize]``, ``[int8.matmul]``, ``[int8.scale]``.

Lemma (quantize). For float32 x and a > 0, rint(RN_float64(127·x/a)) is the integer nearest to the real 127·x/a, ties to
even. *Proof.* 127·x has at most 31 significant bits, so float64 holds it. A boundary h = k + ½ with |k| < 128 has at
most 8 bits; by the argument in `blockwise`, a quotient other than h differs from it by more than |h|·2^−32, which no
rounding to 53 bits bridges, and a quotient equal to h is a float64 number. ∎
Lemma (dequantize). RN_float32(RN_float64(q·a/127)) = RN_float32(q·a/127). *Proof.* q·a has at most 31 bits, float64
holds it. A midpoint of neighbouring float32 numbers has at most 25 bits; a quotient by 127 other than the midpoint
differs from it by more than 2^−33 of itself, so the first rounding does not reach it, and equality is exact. ∎
"""

from dataclasses import dataclass

import numpy as np

from qloracle.blocks import block_absmax, poison, spread
from qloracle.errors import reject_type, reject_value, require_dtype, require_positive_integer
from qloracle.formats import TENSOR_FORMATS, Array, format_of
from qloracle.rounding import round_to, widen

LARGEST_CODE = 127
GRANULARITIES = ("tensor", "row", "column", "block")
# The largest inner dimension whose int32 accumulation cannot overflow: ⌊(2^31 − 1) / 127²⌋, and with −128 in play.
LARGEST_INNER = (2**31 - 1) // 127**2
LARGEST_INNER_WITH_MINUS_128 = (2**31 - 1) // 128**2


@dataclass(frozen=True)
class QuantizedInt8:
    """A tensor as INT8 codes with the absmax of each group that shares a scale."""

    codes: Array  # int8, the shape of the original, −127 to 127
    absmax: Array  # float32: () for tensor, one a row, one a column, or one a flat block
    granularity: str  # one of GRANULARITIES
    block_size: int | None  # for granularity "block"
    dtype: str  # format name of the original


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
    if granularity not in GRANULARITIES:
        reject_value("granularity", f"one of {', '.join(GRANULARITIES)}", repr(granularity))
    if granularity == "block":
        return block_absmax(x, require_positive_integer("block_size", block_size))
    if block_size is not None:
        reject_value("block_size", f"None for granularity {granularity!r}", block_size)
    if granularity != "tensor" and x.ndim == 0:
        reject_value("granularity", "'tensor' or 'block' for a 0-d array", repr(granularity))
    axes = {"tensor": tuple(range(x.ndim)), "row": (x.ndim - 1,), "column": tuple(range(x.ndim - 1))}[granularity]
    return poison(np.max(np.abs(x), axis=axes, initial=0.0).astype(np.float32))


def spread_groups(absmax: Array, shape: tuple[int, ...], granularity: str, block_size: int | None) -> Array:
    """Return the absmax of every element's group, broadcastable to `shape`."""
    if granularity == "block":
        size = int(np.prod(shape, dtype=np.int64))
        return spread(absmax, size, require_positive_integer("block_size", block_size)).reshape(shape)
    return absmax[..., np.newaxis] if granularity == "row" else absmax


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
        quotient = LARGEST_CODE * x.astype(np.float64) / divisor
    quotient = np.where(np.isnan(quotient), 0.0, quotient)
    return np.clip(np.rint(quotient), -LARGEST_CODE, LARGEST_CODE).astype(np.int8)


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
    name = format_of(x, fmt, "x").name
    wide = widen(x, fmt, "x")
    absmax = int8_absmax(wide, granularity, block_size)
    codes = quantize_int8_codes(wide, spread_groups(absmax, wide.shape, granularity, block_size))
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
    Clause ``[int8.dequantize]``.

    Examples
    --------
    >>> dequantize_int8(quantize_int8(np.array([1, -2], np.float32)))
    array([ 1.007874, -2.      ], dtype=float32)
    """
    dtype = quantized.dtype if dtype is None else dtype
    codes, absmax = quantized.codes, quantized.absmax
    if dtype not in TENSOR_FORMATS:
        reject_value("dtype", f"one of {', '.join(TENSOR_FORMATS)}", repr(dtype))
    require_dtype("codes", codes, "int8")
    require_dtype("absmax", absmax, "float32")
    expected = int8_absmax(np.zeros(codes.shape, np.float32), quantized.granularity, quantized.block_size).shape
    if absmax.shape != expected:
        reject_value("absmax", f"of shape {expected}", absmax.shape)
    return dequantize_int8_codes(
        codes, spread_groups(absmax, codes.shape, quantized.granularity, quantized.block_size), dtype
    )


def int8_matmul(a: Array, b: Array) -> Array:
    """Multiply INT8 matrices with int32 accumulation: acc = a bᵀ, exact.

    Parameters
    ----------
    a : array of int8, shape (..., K)
    b : array of int8, shape (N, K)

    Returns
    -------
    array of int32, shape (..., N)

    Raises
    ------
    ArgumentTypeError
        If an operand is not int8.
    ArgumentValueError
        If the inner dimensions differ, or K is so large that int32 could overflow: above 133144, or above 131071 if
        the code −128 occurs.

    Notes
    -----
    Clause ``[int8.matmul]``. Rounding points: none.

    Examples
    --------
    >>> int8_matmul(np.array([[1, 2]], np.int8), np.array([[3, 4], [-127, 127]], np.int8))
    array([[ 11, 127]], dtype=int32)
    """
    for argument, operand in (("a", a), ("b", b)):
        require_dtype(argument, operand, "int8")
    if a.ndim < 1 or b.ndim != 2 or a.shape[-1] != b.shape[1]:
        reject_value("b", f"of shape (N, K) with K the last dimension of a {a.shape}", b.shape)
    extreme = any(operand.size and operand.min() == -128 for operand in (a, b))
    largest = LARGEST_INNER_WITH_MINUS_128 if extreme else LARGEST_INNER
    if a.shape[-1] > largest:
        reject_value("K", f"at most {largest} for an exact int32 accumulation", a.shape[-1])
    # Every product and partial sum is an integer below 2^31, which float64 holds: exact in any order.
    return (a.astype(np.float64) @ b.astype(np.float64).T).astype(np.int32)


def scale_int8_matmul(acc: Array, row_absmax: Array, column_absmax: Array, bias: Array | None = None) -> Array:
    """Turn an int32 accumulator into real numbers: y = acc · row · column / 127² + bias.

    Parameters
    ----------
    acc : array of int32, shape (M, N)
    row_absmax : array of float32, shape (M,)
    column_absmax : array of float32, shape (N,)
    bias : array of float32, shape (N,), optional

    Returns
    -------
    array of float64, shape (M, N)
        The real value up to float64 rounding; `bounds.scale_int8_matmul_bound` says which outputs are allowed.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If a dtype or shape is another.

    Notes
    -----
    Clause ``[int8.scale]``. Rounding points of an implementation: at most six in float32, in any order, see the bound.

    Examples
    --------
    >>> scale_int8_matmul(np.array([[16129]], np.int32), np.array([2], np.float32), np.array([3], np.float32))
    array([[6.]])
    """
    require_dtype("acc", acc, "int32")
    if acc.ndim != 2:
        reject_type("acc", "a 2-d int32 array", f"{acc.ndim}-d")
    rows, columns = acc.shape
    vectors = (("row_absmax", row_absmax, rows), ("column_absmax", column_absmax, columns), ("bias", bias, columns))
    for argument, vector, length in vectors:
        if vector is not None:
            require_dtype(argument, vector, "float32")
            if vector.shape != (length,):
                reject_value(argument, f"of shape ({length},)", vector.shape)
    with np.errstate(invalid="ignore"):
        scale = row_absmax.astype(np.float64)[:, np.newaxis] * column_absmax.astype(np.float64)
        y: Array = acc.astype(np.float64) * scale / LARGEST_CODE**2
        return y if bias is None else y + bias.astype(np.float64)
