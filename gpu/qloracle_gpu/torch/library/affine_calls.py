"""What functions of affine quantization, observers and fake quantization do under a compiler, see `calls`."""

from typing import Any

import torch
from torch import Tensor

from qloracle.errors import require_number, require_pair
from qloracle_gpu.torch.affine import QuantizedAffine
from qloracle_gpu.torch.formats import NAMES, require_tensor, require_tensor_format

OPERATORS = torch.ops.qloracle


def affine_parameters(lo: Tensor, hi: Tensor, *, qmin: int, qmax: int) -> tuple[Tensor, Tensor]:
    """See `qloracle_gpu.torch.affine_parameters`."""
    scale, zero_point = OPERATORS.affine_parameters(require_tensor("lo", lo), require_tensor("hi", hi), qmin, qmax)
    return scale, zero_point


def quantize_affine(
    x: Tensor, *, qmin: int = -128, qmax: int = 127, granularity: str = "tensor", group_size: int | None = None,
    value_range: tuple[Tensor, Tensor] | None = None,
) -> QuantizedAffine:  # fmt: skip
    """See `qloracle_gpu.torch.quantize_affine`."""
    values, how = require_tensor_format("x", x), (qmin, qmax, granularity, group_size)
    ends = (None, None) if value_range is None else require_pair("value_range", value_range)
    given = [None if end is None else require_tensor("value_range", end) for end in ends]
    codes, scale, zero_point = OPERATORS.quantize_affine(values, *how, *given)
    return QuantizedAffine(codes, scale, zero_point, *how, NAMES[values.dtype])


def dequantize_affine(quantized: QuantizedAffine, *, dtype: str | None = None) -> Tensor:
    """See `qloracle_gpu.torch.dequantize_affine`."""
    q = quantized
    how = (q.qmin, q.qmax, q.granularity, q.group_size, q.dtype if dtype is None else dtype)
    found: Tensor = OPERATORS.dequantize_affine(q.codes, q.scale, q.zero_point, *how)
    return found


def symmetric_scale(clip: Tensor, *, qmax: int) -> Tensor:
    """See `qloracle_gpu.torch.symmetric_scale`."""
    found: Tensor = OPERATORS.symmetric_scale(require_tensor("clip", clip), qmax)
    return found


def quantize_symmetric(
    x: Tensor, *, clip: Tensor, qmin: int = -127, qmax: int = 127, granularity: str = "tensor",
    group_size: int | None = None,
) -> QuantizedAffine:  # fmt: skip
    """See `qloracle_gpu.torch.quantize_symmetric`."""
    values, how = require_tensor_format("x", x), (qmin, qmax, granularity, group_size)
    codes, scale, zero_point = OPERATORS.quantize_symmetric(values, require_tensor("clip", clip), *how)
    return QuantizedAffine(codes, scale, zero_point, *how, NAMES[values.dtype])


def minmax_range(x: Tensor, **options: Any) -> tuple[Tensor, Tensor]:
    """See `qloracle_gpu.torch.minmax_range`."""
    lo, hi = OPERATORS.minmax_range(require_tensor_format("x", x), **options)
    return lo, hi


def percentile_range(x: Tensor, lower: float, upper: float, **options: Any) -> tuple[Tensor, Tensor]:
    """See `qloracle_gpu.torch.percentile_range`."""
    percents = require_number("lower", lower), require_number("upper", upper)
    lo, hi = OPERATORS.percentile_range(require_tensor_format("x", x), *percents, **options)
    return lo, hi


def moving_range(
    previous: tuple[Tensor, Tensor], current: tuple[Tensor, Tensor], weight: float
) -> tuple[Tensor, Tensor]:
    """See `qloracle_gpu.torch.moving_range`."""
    ends = [*require_pair("previous", previous), *require_pair("current", current)]
    tensors = [require_tensor("previous and current", end) for end in ends]
    lo, hi = OPERATORS.moving_range(*tensors, require_number("weight", weight))
    return lo, hi


def fake_quantize(x: Tensor, scale: Tensor, zero_point: Tensor, **options: Any) -> Tensor:
    """See `qloracle_gpu.torch.fake_quantize`."""
    found: Tensor = OPERATORS.fake_quantize(*_constants(x, scale, zero_point), **options)
    return found


def fake_quantize_backward(dy: Tensor, x: Tensor, scale: Tensor, zero_point: Tensor, **options: Any) -> Tensor:
    """See `qloracle_gpu.torch.fake_quantize_backward`."""
    found: Tensor = OPERATORS.fake_quantize_backward(*_constants(dy, x, scale, zero_point), **options)
    return found


def _constants(*tensors: Tensor) -> list[Tensor]:
    """Return tensors without their gradient history."""
    return [require_tensor("an operand", tensor) for tensor in tensors]
