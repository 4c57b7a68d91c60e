"""Affine quantization: codes from qmin to qmax with a scale and a zero point.

Clauses: ``[affine.quantize]``, ``[affine.dequantize]``; those of scale and zero point stand in `affine_scale`.
A group with any NaN or ±inf is poisoned: its scale is NaN, its zero point and its codes are those of zeros, and every
dequantized value of that group, and of no other, is NaN.
"""

from dataclasses import dataclass

import numpy as np

from qloracle.errors import reject_value, require_one_of, require_pair, require_record
from qloracle.formats import TENSOR_FORMATS, Format, format_named
from qloracle_gpu.cupy.affine_scale import parameters_of_ranges, require_code_range, require_range
from qloracle_gpu.cupy.arrays import carrier, flat_items, flat_words, require_dtype, require_tensor
from qloracle_gpu.cupy.groups import group_runs, group_shape
from qloracle_gpu.cupy.launcher import Array, Operation, operation
from qloracle_gpu.cupy.observers import GRANULARITIES, range_of_groups
from qloracle_gpu.cupy.vectors import ITEMS


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


@dataclass(frozen=True)
class Coding:
    """How a tensor is coded: the range of its codes, and what shares a scale."""

    qmin: int
    qmax: int
    granularity: str
    group_size: int | None

    def arguments(self, run: Operation, shape: tuple[int, ...], scale: Array, zero_point: Array) -> tuple[object, ...]:
        """Return what the kernels of `affine.cu` take for a tensor of a shape."""
        length, column = group_runs(shape, self.granularity, self.group_size)
        size = np.int64(np.prod(shape, dtype=np.int64))
        parameters = (flat_items(run, scale), flat_items(run, zero_point), np.int32(self.qmin), np.int32(self.qmax))
        return size, np.int64(length), np.int32(column), *parameters


def quantize_affine(
    x: Array, *, qmin: int = -128, qmax: int = 127, granularity: str = "tensor", group_size: int | None = None,
    value_range: tuple[Array, Array] | None = None, fmt: str | None = None,
) -> QuantizedAffine:  # fmt: skip
    """Quantize a tensor to codes with scale and zero point.

    q = clip(RN_int(x/scale) + zero_point, qmin, qmax), ties to even.

    Parameters
    ----------
    x : array of float32, float16 or bfloat16, any strides
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
    Clauses ``[affine.scale]``, ``[affine.zero_point]``, ``[affine.quantize]``, in this order. Only looking at given
    ranges waits for the device.
    """
    array, named = require_tensor("x", x, fmt)
    shape = group_shape(array.shape, granularity, group_size, GRANULARITIES)
    given = None
    if value_range is not None:
        given = require_range(*require_pair("value_range", value_range))
        if given[0].shape != shape:
            reject_value("value_range", f"two arrays of shape {shape}", f"shape {given[0].shape}")
    coding = Coding(*require_code_range(qmin, qmax), granularity, group_size)
    with operation("quantize_affine", x=array, lo=given and given[0], hi=given and given[1]) as run:
        words = flat_words(run, array)
        lo, hi = given or range_of_groups(run, words, named, array.shape, granularity, group_size)
        scale, zero_point = parameters_of_ranges(run, lo, hi, coding.qmin, coding.qmax)
        codes = codes_given(run, words, named, array.shape, scale, zero_point, coding)
        parameters = (scale.reshape(shape), zero_point.reshape(shape))
    return QuantizedAffine(codes, *parameters, coding.qmin, coding.qmax, granularity, group_size, named.name)


def codes_given(
    run: Operation, words: Array, named: Format, shape: tuple[int, ...], scale: Array, zero_point: Array, coding: Coding
) -> Array:
    """Return the codes of 1-d words of a tensor, given scale and zero point of its groups."""
    codes = run.empty(words.size, code_dtype(coding.qmin))
    arguments = (words, *coding.arguments(run, shape, scale, zero_point), codes)
    run.launch("affine", f"quantize_affine_{named.name}", -(-words.size // ITEMS), arguments)
    return codes.reshape(shape)


def dequantize_affine(quantized: QuantizedAffine, *, dtype: str | None = None) -> Array:
    """Restore a tensor from its codes, scale and zero point.

    value = RN_dtype(fl32((q − zero_point)·scale)); the code of zero is +0, and all are NaN where the scale is.

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
    Clause ``[affine.dequantize]``. Rounding points, in order: the product to float32; to `dtype`. Looking at codes and
    zero points waits for the device; codes that fill their dtype need no look.
    """
    require_record("quantized", quantized, QuantizedAffine)
    dtype = require_one_of("dtype", quantized.dtype if dtype is None else dtype, TENSOR_FORMATS)
    codes, scale, zero_point, coding = require_affine(quantized)
    with operation("dequantize_affine", codes=codes, scale=scale, zero_point=zero_point) as run:
        out = run.empty(codes.size, carrier(format_named(dtype)))
        parameters = coding.arguments(run, codes.shape, scale, zero_point)
        arguments = (flat_items(run, codes), np.int32(coding.qmin < 0), *parameters, out)
        run.launch("affine", f"dequantize_affine_{dtype}", -(-codes.size // ITEMS), arguments)
        return out.reshape(codes.shape)


def require_affine(quantized: QuantizedAffine) -> tuple[Array, Array, Array, Coding]:
    """Return codes, scale and zero point of a record, and how it is coded, if they belong together, else raise."""
    low, high = require_code_range(quantized.qmin, quantized.qmax)
    codes = require_dtype("codes", quantized.codes, code_dtype(low).name)
    if codes.size and (low, high) != (np.iinfo(codes.dtype).min, np.iinfo(codes.dtype).max):
        _require_within("codes", codes, low, high)
    shape = group_shape(codes.shape, quantized.granularity, quantized.group_size, GRANULARITIES)
    scale, zero_point = require_parameters(quantized.scale, quantized.zero_point, shape, low, high)
    return codes, scale, zero_point, Coding(low, high, quantized.granularity, quantized.group_size)


def require_parameters(
    scale: object, zero_point: object, shape: tuple[int, ...], qmin: int, qmax: int
) -> tuple[Array, Array]:
    """Return scale and zero point if they are float32 and int32 of `shape` and the zero point is a code, else raise."""
    found = []
    for argument, value, dtype in (("scale", scale, "float32"), ("zero_point", zero_point, "int32")):
        found.append(require_dtype(argument, value, dtype))
        if found[-1].shape != shape:
            reject_value(argument, f"of shape {shape}", found[-1].shape)
    if found[1].size:
        _require_within("zero_point", found[1], qmin, qmax)
    return found[0], found[1]


def code_dtype(qmin: int) -> np.dtype[np.int8] | np.dtype[np.uint8]:
    """Return int8 where codes are signed, else uint8."""
    return np.dtype(np.int8) if qmin < 0 else np.dtype(np.uint8)


def _require_within(argument: str, integers: Array, low: int, high: int) -> None:
    with operation("require_codes", **{argument: integers}):
        least, most = int(integers.min()), int(integers.max())
    if not low <= least <= most <= high:
        reject_value(argument, f"from {low} to {high}", f"{least} to {most}")
