"""Affine quantization: codes from qmin to qmax with a scale and a zero point.

Clauses: ``[affine.quantize]``, ``[affine.dequantize]``; those of scale and zero point stand in `affine_scale`.

A group with any NaN or ±inf is poisoned, as a block is: its scale is NaN, its zero point and its codes are those of
zeros, and every dequantized value of that group, and of no other, is NaN.

Lemma (quantize). For float32 x and scale, rint(RN_float64(x/scale)) is the integer nearest to the real x/scale, ties to
even, wherever it is not clipped: k + ½ with |k| < 2^9 has at most 10 bits, and the argument of `blockwise` holds. ∎
"""

from dataclasses import dataclass
from functools import partial

import numpy as np

from qloracle.affine_scale import affine_parameters, require_code_range, require_range
from qloracle.errors import reject_value, require_dtype, require_one_of, require_pair, require_record
from qloracle.formats import TENSOR_FORMATS, Array, format_named, tensor_format
from qloracle.groups import by_groups, group_shape
from qloracle.observers import minmax_range
from qloracle.records import require_fields
from qloracle.rounding import round_to, widen

GRANULARITIES = ("tensor", "row", "column", "group")


@dataclass(frozen=True)
class QuantizedAffine:
    """A tensor as integer codes with scale and zero point of each group."""

    codes: Array  # int8 where qmin < 0, else uint8; one code an element, the shape of the original
    scale: Array  # float32: () for tensor, one a row, one a column, or one a flat group
    zero_point: Array  # int32, the shape of the scale; the code of 0
    qmin: int  # smallest code
    qmax: int  # largest code
    granularity: str  # one of GRANULARITIES
    group_size: int | None  # elements in a group, for granularity "group"
    dtype: str  # format name of the original

    def __post_init__(self) -> None:
        """Refuse fields of other types."""
        require_fields(self)


def quantize_affine_codes(x: Array, scale: Array, zero_point: Array, qmin: int, qmax: int) -> Array:
    """Return the code of every element, given scale and zero point that broadcast to `x`.

    q = clip(RN_int(x/scale) + zero_point, qmin, qmax), ties to even; the code of zero, clip(zero_point), where the
    scale is 0, NaN or ±inf, or x is NaN.

    Notes
    -----
    Clause ``[affine.quantize]``. Rounding points: one, to an integer; the float64 quotient decides exactly (lemma).
    """
    usable = np.isfinite(scale) & (scale != 0)
    divisor = np.where(usable, scale, np.float32(np.inf)).astype(np.float64)
    with np.errstate(invalid="ignore"):
        quotient = x.astype(np.float64) / divisor
    steps = np.rint(np.where(np.isnan(quotient), 0.0, quotient))
    return np.asarray(np.clip(steps + zero_point, qmin, qmax).astype(code_dtype(qmin)))


def dequantize_affine_codes(codes: Array, scale: Array, zero_point: Array, dtype: str) -> Array:
    """Return the value of every code, given scale and zero point that broadcast to `codes`.

    value = RN_dtype(fl32((q − zero_point)·scale)); the code of zero is +0, and all are NaN where the scale is.

    Notes
    -----
    Clause ``[affine.dequantize]``. Rounding points, in order: the product to float32; to `dtype`.
    """
    steps = codes.astype(np.float64) - zero_point
    with np.errstate(over="ignore", invalid="ignore"):
        product = steps * scale.astype(np.float64)  # exact: 33 bits are needed (9 + 24), float64 has 53
        single = np.where(product == 0, 0.0, product).astype(np.float32)
    return round_to(single, dtype)


def quantize_affine(
    x: Array, *, qmin: int = -128, qmax: int = 127, granularity: str = "tensor", group_size: int | None = None,
    value_range: tuple[Array, Array] | None = None, fmt: str | None = None,
) -> QuantizedAffine:  # fmt: skip
    """Quantize a tensor to codes with scale and zero point.

    Parameters
    ----------
    x : array of float32, float16 or bfloat16
    qmin, qmax : int
        Smallest and largest code, see `affine_parameters`.
    granularity : {"tensor", "row", "column", "group"}
        Which elements share a scale; "group" is flat, over the row-major order.
    group_size : int, optional
        Elements in a flat group; the last one may be short.
    value_range : (lo, hi), arrays of float32, optional
        The range of each group, from an observer; by default the minimum and maximum of the group itself. Given ones
        are used as they are: x does not poison them, what lies outside saturates, and a NaN gets the code of zero.
    fmt : str, optional
        Format of `x` where it is given as bit patterns.

    Returns
    -------
    QuantizedAffine

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        For another dtype, codes that do not fit 8 bits, a granularity that does not go with the shape or the group
        size, or a range that does not.

    Notes
    -----
    Clauses ``[affine.scale]``, ``[affine.zero_point]``, ``[affine.quantize]``, in this order.

    Examples
    --------
    >>> q = quantize_affine(np.array([-1, 0, 1, 3], np.float32), qmin=0, qmax=15)
    >>> q.codes, q.scale, q.zero_point
    (array([ 0,  4,  8, 15], dtype=uint8), array(0.26666668, dtype=float32), array(4, dtype=int32))
    """
    name, wide = tensor_format(x, fmt, "x").name, widen(x, fmt, "x")
    shape = group_shape(wide.shape, granularity, group_size, GRANULARITIES)
    if value_range is None:
        lo, hi = minmax_range(wide, granularity=granularity, group_size=group_size)
    else:
        lo, hi = require_pair("value_range", value_range)
    if require_range(lo, hi)[0].shape != shape:
        reject_value("value_range", f"two arrays of shape {shape}", f"shape {lo.shape}")
    scale, zero_point = affine_parameters(lo, hi, qmin=qmin, qmax=qmax)
    return coded(wide, scale, zero_point, (qmin, qmax, granularity, group_size, name))


def dequantize_affine(quantized: QuantizedAffine, *, dtype: str | None = None) -> Array:
    """Restore a tensor from its codes, scale and zero point.

    Parameters
    ----------
    quantized : QuantizedAffine
    dtype : {"float32", "float16", "bfloat16"}, optional
        Output format; by default that of the original.

    Returns
    -------
    array of `dtype`, the shape of the codes; bfloat16 as uint16 words

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If codes, scale and zero point do not belong together, codes lie outside qmin to qmax, or the format is unknown.

    Notes
    -----
    Clause ``[affine.dequantize]``.

    Examples
    --------
    >>> dequantize_affine(quantize_affine(np.array([-1, 0, 1, 3], np.float32), qmin=0, qmax=15))
    array([-1.0666667,  0.       ,  1.0666667,  2.9333334], dtype=float32)
    """
    require_record("quantized", quantized, QuantizedAffine)
    dtype = quantized.dtype if dtype is None else dtype
    require_one_of("dtype", dtype, TENSOR_FORMATS)
    codes, (low, high) = quantized.codes, require_code_range(quantized.qmin, quantized.qmax)
    require_dtype("codes", codes, code_dtype(low).name)
    if codes.size and not (low <= codes.min() and codes.max() <= high):
        reject_value("codes", f"from {low} to {high}", f"{codes.min()} to {codes.max()}")
    shape = group_shape(codes.shape, quantized.granularity, quantized.group_size, GRANULARITIES)
    scale, zero_point = require_parameters(quantized.scale, quantized.zero_point, shape, low, high)
    restore, how = partial(dequantize_affine_codes, dtype=dtype), (quantized.granularity, quantized.group_size)
    return by_groups(restore, format_named(dtype).carrier, codes, (scale, zero_point), *how)


def code_dtype(qmin: int) -> np.dtype[np.int8] | np.dtype[np.uint8]:
    """Return int8 where codes are signed, else uint8."""
    return np.dtype(np.int8) if qmin < 0 else np.dtype(np.uint8)


def require_parameters(
    scale: Array, zero_point: Array, shape: tuple[int, ...], qmin: int, qmax: int
) -> tuple[Array, Array]:
    """Return scale and zero point if they are float32 and int32 of `shape` and the zero point is a code, else raise."""
    for argument, array, dtype in (("scale", scale, "float32"), ("zero_point", zero_point, "int32")):
        require_dtype(argument, array, dtype)
        if array.shape != shape:
            reject_value(argument, f"of shape {shape}", array.shape)
    if zero_point.size and not (qmin <= zero_point.min() and zero_point.max() <= qmax):
        reject_value("zero_point", f"from {qmin} to {qmax}", f"{zero_point.min()} to {zero_point.max()}")
    return np.asarray(scale), np.asarray(zero_point)


def coded(x: Array, scale: Array, zero_point: Array, how: tuple[int, int, str, int | None, str]) -> QuantizedAffine:
    """Return the record of a float32 tensor; `how` is qmin, qmax, granularity, group_size and the original's format."""
    qmin, qmax, granularity, group_size, name = how
    quantize = partial(quantize_affine_codes, qmin=qmin, qmax=qmax)
    codes = by_groups(quantize, code_dtype(qmin), x, (scale, zero_point), granularity, group_size)
    return QuantizedAffine(codes, scale, zero_point, qmin, qmax, granularity, group_size, name)
