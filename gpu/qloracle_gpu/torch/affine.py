"""Affine quantization: codes from qmin to qmax with a scale and a zero point.

Clauses: ``[affine.quantize]``, ``[affine.dequantize]``; those of scale and zero point stand in `affine_scale`.
A group with any NaN or ±inf is poisoned: its scale is NaN, its zero point and its codes are those of zeros, and every
dequantized value of that group, and of no other, is NaN. Quotients and products are taken in float64, piece by piece,
which decides codes and float32 values exactly (lemmas of `qloracle.affine`).
"""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from qloracle.errors import reject_value, require_pair, require_record
from qloracle_gpu.torch.affine_scale import parameters_of, require_code_range, require_range
from qloracle_gpu.torch.compiling import compiles_as_operator
from qloracle_gpu.torch.formats import NAMES, dtype_named, require_device, require_dtype, require_tensor_format
from qloracle_gpu.torch.groups import group_shape, write_by_groups
from qloracle_gpu.torch.observers import range_of_groups


@dataclass(frozen=True)
class QuantizedAffine:
    """A tensor as integer codes with scale and zero point of each group."""

    codes: Tensor  # int8 where qmin < 0, else uint8; one code an element, the shape of the original
    scale: Tensor  # float32: () for tensor, one a row, one a column, or one a flat group
    zero_point: Tensor  # int32, the shape of the scale; the code of 0
    qmin: int  # smallest code
    qmax: int  # largest code
    granularity: str  # one of groups.GRANULARITIES
    group_size: int | None  # elements in a group, for granularity "group"
    dtype: str  # format name of the original


@compiles_as_operator
def quantize_affine(
    x: Tensor, *, qmin: int = -128, qmax: int = 127, granularity: str = "tensor", group_size: int | None = None,
    value_range: tuple[Tensor, Tensor] | None = None,
) -> QuantizedAffine:  # fmt: skip
    """Quantize a tensor to codes with scale and zero point.

    q = clip(RN_int(x/scale) + zero_point, qmin, qmax), ties to even.

    Parameters
    ----------
    x : tensor of float32, float16 or bfloat16, any strides
    qmin, qmax : int
        Smallest and largest code, see `affine_parameters`.
    granularity : {"tensor", "row", "column", "group"}
        Which elements share a scale; "group" is flat, over the row-major order.
    group_size : int, optional
        Elements in a flat group; the last one may be short.
    value_range : (lo, hi), tensors of float32, optional
        The range of each group, from an observer; by default the minimum and maximum of the group itself. Given ones
        are used as they are: x does not poison them, what lies outside saturates, and a NaN gets the code of zero.

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
    >>> q = quantize_affine(torch.tensor([-1.0, 0.0, 1.0, 3.0]), qmin=0, qmax=15)
    >>> q.codes, q.scale, q.zero_point
    (tensor([ 0,  4,  8, 15], dtype=torch.uint8), tensor(0.2667), tensor(4, dtype=torch.int32))
    """
    values = require_tensor_format("x", x)
    shape, limits = group_shape(values.shape, granularity, group_size), require_code_range(qmin, qmax)
    if value_range is None:
        lo, hi = range_of_groups(values, granularity, group_size)
    else:
        lo, hi = require_range(*require_pair("value_range", value_range))
        if lo.shape != shape:
            reject_value("value_range", f"two tensors of shape {shape}", f"shape {tuple(lo.shape)}")
        require_device("value_range", lo, values.device)
    return coded(values, *parameters_of(lo, hi, limits), limits, granularity, group_size)


@compiles_as_operator
def dequantize_affine(quantized: QuantizedAffine, *, dtype: str | None = None) -> Tensor:
    """Restore a tensor from its codes, scale and zero point.

    value = RN_dtype(fl32((q − zero_point)·scale)); the code of zero is +0, and all are NaN where the scale is.

    Parameters
    ----------
    quantized : QuantizedAffine
    dtype : {"float32", "float16", "bfloat16"}, optional
        Output format; by default that of the original.

    Returns
    -------
    tensor of `dtype`, the shape of the codes

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If codes, scale and zero point do not belong together, or the format is unknown. Codes and zero points outside
        of qmin to qmax are refused on a CPU only: anywhere else a look would wait for the device, and they read as NaN,
        zero points for their whole group.

    Notes
    -----
    Clause ``[affine.dequantize]``. Rounding points, in order: the product to float32; to `dtype`.

    Examples
    --------
    >>> dequantize_affine(quantize_affine(torch.tensor([-1.0, 0.0, 1.0, 3.0]), qmin=0, qmax=15))
    tensor([-1.0667,  0.0000,  1.0667,  2.9333])
    """
    require_record("quantized", quantized, QuantizedAffine)
    target = dtype_named(quantized.dtype if dtype is None else dtype, "dtype")
    codes, *parameters = require_affine(quantized)
    values = torch.empty(codes.shape, dtype=target, device=codes.device)
    rule = affine_values if codes.device.type == "cpu" else partial(_values_within, limits=_limits(quantized))
    write_by_groups(rule, [codes], parameters, values, quantized.granularity, quantized.group_size)
    return values


def coded(
    values: Tensor, scale: Tensor, zero_point: Tensor, limits: tuple[int, int], granularity: str, group_size: int | None
) -> QuantizedAffine:
    """Return the record of a tensor, given scale and zero point of its groups; `limits` are qmin and qmax."""
    codes = torch.empty(values.shape, dtype=code_dtype(limits[0]), device=values.device)
    rule = partial(affine_codes, limits=limits)
    write_by_groups(rule, [values], [scale, zero_point], codes, granularity, group_size)
    return QuantizedAffine(codes, scale, zero_point, *limits, granularity, group_size, NAMES[values.dtype])


def affine_codes(x: Tensor, scale: Tensor, zero_point: Tensor, *, limits: tuple[int, int]) -> Tensor:
    """Return the codes of elements, as float64, given scale and zero point that broadcast to them.

    The code of zero, clip(zero_point), where the scale is 0, NaN or ±inf, or x is NaN.
    """
    steps = affine_steps(x, scale).nan_to_num_(nan=0.0)  # ±inf becomes the largest float64, which saturates likewise
    return steps.add_(zero_point).clamp_(*limits)


def affine_steps(x: Tensor, scale: Tensor) -> Tensor:
    """Return RN_int(x/scale), ties to even, as float64: ±0, or NaN of a NaN or an infinity, where no scale divides."""
    usable = scale.isfinite() & (scale != 0)
    divisor = torch.where(usable, scale, torch.inf).to(torch.float64)
    return x.to(torch.float64).div_(divisor).round_()


def affine_values(codes: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
    """Return fl32((q − zero_point)·scale), given scale and zero point that broadcast to the codes."""
    product = (codes.to(torch.float64) - zero_point).mul_(scale.to(torch.float64))  # exact: 9 + 24 bits
    return product.add_(0.0).to(torch.float32)  # −0 becomes +0


def _values_within(codes: Tensor, scale: Tensor, zero_point: Tensor, *, limits: tuple[int, int]) -> Tensor:
    """Return `affine_values`, and NaN for what is no code."""
    values = affine_values(codes, scale, zero_point)
    return values.masked_fill_((codes < limits[0]) | (codes > limits[1]), torch.nan)


def _limits(quantized: QuantizedAffine) -> tuple[int, int]:
    return quantized.qmin, quantized.qmax


def require_affine(quantized: QuantizedAffine) -> tuple[Tensor, Tensor, Tensor]:
    """Return codes, scale and zero point of a record if they belong together, else raise."""
    limits = require_code_range(quantized.qmin, quantized.qmax)
    codes = require_dtype("codes", quantized.codes, code_dtype(limits[0]))
    held = torch.iinfo(codes.dtype)
    if codes.device.type == "cpu" and limits != (held.min, held.max):
        require_codes("codes", codes, limits)
    shape = group_shape(codes.shape, quantized.granularity, quantized.group_size)
    return codes, *require_parameters(quantized.scale, quantized.zero_point, shape, limits, codes.device)


def require_parameters(
    scale: Tensor, zero_point: Tensor, shape: tuple[int, ...], limits: tuple[int, int], device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return scale and zero point if dtype, shape and device are right and the zero point is a code, else raise.

    On another device than a CPU the scale is NaN where the zero point is no code.
    """
    found = []
    for argument, value, dtype in (("scale", scale, torch.float32), ("zero_point", zero_point, torch.int32)):
        tensor = require_dtype(argument, value, dtype)
        if tensor.shape != shape:
            reject_value(argument, f"of shape {shape}", tuple(tensor.shape))
        found.append(require_device(argument, tensor, device))
    if device.type == "cpu":
        return found[0], require_codes("zero_point", found[1], limits)
    outside = (found[1] < limits[0]) | (found[1] > limits[1])
    return torch.where(outside, torch.nan, found[0]), found[1]


def require_codes(argument: str, codes: Tensor, limits: tuple[int, int]) -> Tensor:
    """Return integers if all lie within limits, which waits for the device, else raise."""
    if codes.numel():
        least, most = (int(end) for end in codes.aminmax())
        if not limits[0] <= least <= most <= limits[1]:
            reject_value(argument, f"from {limits[0]} to {limits[1]}", f"{least} to {most}")
    return codes


def code_dtype(qmin: int) -> torch.dtype:
    """Return int8 where codes are signed, else uint8."""
    return torch.int8 if qmin < 0 else torch.uint8
