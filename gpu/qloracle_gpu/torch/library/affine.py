"""Operators of affine quantization, observers and fake quantization; the last with a gradient.

Their rules are those of the functions of the same name in `qloracle_gpu.torch`.
"""

from typing import Any

import torch
from torch import Tensor

from qloracle_gpu.torch import affine as rules
from qloracle_gpu.torch import affine_scale, fake_quant, observers, percentiles, symmetric
from qloracle_gpu.torch.compiling import eager
from qloracle_gpu.torch.formats import DTYPES
from qloracle_gpu.torch.groups import group_shape
from qloracle_gpu.torch.library.registering import differentiable, operator


@operator
def affine_parameters(lo: Tensor, hi: Tensor, qmin: int, qmax: int) -> tuple[Tensor, Tensor]:
    """Return scale and zero point."""
    return eager(affine_scale.affine_parameters)(lo, hi, qmin=qmin, qmax=qmax)


@affine_parameters.register_fake
def _(lo: Tensor, _hi: Tensor, _qmin: int, _qmax: int) -> tuple[Tensor, Tensor]:
    return lo.new_empty(lo.shape), lo.new_empty(lo.shape, dtype=torch.int32)


@operator
def quantize_affine(
    x: Tensor, qmin: int = -128, qmax: int = 127, granularity: str = "tensor", group_size: int | None = None,
    lo: Tensor | None = None, hi: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Return codes, scale and zero point; `lo` and `hi` are the `value_range`."""
    given = None if lo is None or hi is None else (lo, hi)
    how: dict[str, Any] = {"qmin": qmin, "qmax": qmax, "granularity": granularity, "group_size": group_size}
    q = eager(rules.quantize_affine)(x, **how, value_range=given)
    return q.codes, q.scale, q.zero_point


@quantize_affine.register_fake
def _(
    x: Tensor, qmin: int = -128, _qmax: int = 127, granularity: str = "tensor", group_size: int | None = None,
    *_range: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    scale = x.new_empty(group_shape(x.shape, granularity, group_size), dtype=torch.float32)
    codes = x.new_empty(x.shape, dtype=rules.code_dtype(qmin))
    return codes, scale, scale.new_empty(scale.shape, dtype=torch.int32)


@operator
def dequantize_affine(
    codes: Tensor, scale: Tensor, zero_point: Tensor, qmin: int, qmax: int, granularity: str,
    group_size: int | None = None, dtype: str = "float32",
) -> Tensor:  # fmt: skip
    """Return the values of codes."""
    record = rules.QuantizedAffine(codes, scale, zero_point, qmin, qmax, granularity, group_size, dtype)
    return eager(rules.dequantize_affine)(record)


@dequantize_affine.register_fake
def _(codes: Tensor, *options: Any) -> Tensor:
    return codes.new_empty(codes.shape, dtype=DTYPES[options[6] if len(options) > 6 else "float32"])


@operator
def symmetric_scale(clip: Tensor, qmax: int) -> Tensor:
    """Return the scale of a clipping range."""
    return eager(symmetric.symmetric_scale)(clip, qmax=qmax)


@symmetric_scale.register_fake
def _(clip: Tensor, _qmax: int) -> Tensor:
    return clip.new_empty(clip.shape)


@operator
def quantize_symmetric(
    x: Tensor, clip: Tensor, qmin: int = -127, qmax: int = 127, granularity: str = "tensor",
    group_size: int | None = None,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Return codes, scale and zero point of a clipping range."""
    how: dict[str, Any] = {"qmin": qmin, "qmax": qmax, "granularity": granularity, "group_size": group_size}
    q = eager(symmetric.quantize_symmetric)(x, clip=clip, **how)
    return q.codes, q.scale, q.zero_point


@quantize_symmetric.register_fake
def _(x: Tensor, clip: Tensor, qmin: int = -127, *_: Any) -> tuple[Tensor, Tensor, Tensor]:
    codes = x.new_empty(x.shape, dtype=rules.code_dtype(qmin))
    return codes, clip.new_empty(clip.shape), clip.new_empty(clip.shape, dtype=torch.int32)


@operator
def minmax_range(x: Tensor, granularity: str = "tensor", group_size: int | None = None) -> tuple[Tensor, Tensor]:
    """Return the smallest and the largest value of every group."""
    return eager(observers.minmax_range)(x, granularity=granularity, group_size=group_size)


@minmax_range.register_fake
def _(x: Tensor, granularity: str = "tensor", group_size: int | None = None) -> tuple[Tensor, Tensor]:
    return _range_like(x, granularity, group_size)


@operator
def percentile_range(
    x: Tensor, lower: float, upper: float, granularity: str = "tensor", group_size: int | None = None
) -> tuple[Tensor, Tensor]:
    """Return two percentiles of every group."""
    return eager(percentiles.percentile_range)(x, lower, upper, granularity=granularity, group_size=group_size)


@percentile_range.register_fake
def _(
    x: Tensor, _lower: float, _upper: float, granularity: str = "tensor", group_size: int | None = None
) -> tuple[Tensor, Tensor]:
    return _range_like(x, granularity, group_size)


def _range_like(x: Tensor, granularity: str, group_size: int | None) -> tuple[Tensor, Tensor]:
    shape = group_shape(x.shape, granularity, group_size)
    return x.new_empty(shape, dtype=torch.float32), x.new_empty(shape, dtype=torch.float32)


@operator
def moving_range(
    previous_lo: Tensor, previous_hi: Tensor, current_lo: Tensor, current_hi: Tensor, weight: float
) -> tuple[Tensor, Tensor]:
    """Return both ends of a moved range."""
    return eager(percentiles.moving_range)((previous_lo, previous_hi), (current_lo, current_hi), weight)


@moving_range.register_fake
def _(previous_lo: Tensor, previous_hi: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return previous_lo.new_empty(previous_lo.shape), previous_hi.new_empty(previous_hi.shape)


@operator
def fake_quantize_backward(
    dy: Tensor, x: Tensor, scale: Tensor, zero_point: Tensor, qmin: int = -128, qmax: int = 127,
    granularity: str = "tensor", group_size: int | None = None, interval: str = "values",
) -> Tensor:  # fmt: skip
    """Return the straight-through gradient of x."""
    how: dict[str, Any] = {"qmin": qmin, "qmax": qmax, "granularity": granularity, "group_size": group_size}
    return eager(fake_quant.fake_quantize_backward)(dy, x, scale, zero_point, **how, interval=interval)


@fake_quantize_backward.register_fake
def _(_dy: Tensor, x: Tensor, *_: Any) -> Tensor:
    return x.new_empty(x.shape)


def fake_quantize(
    x: Tensor, scale: Tensor, zero_point: Tensor, qmin: int = -128, qmax: int = 127, granularity: str = "tensor",
    group_size: int | None = None, interval: str = "values",
) -> Tensor:  # fmt: skip
    """Return values of x by way of codes; `interval` is that of the gradient, see `fake_quantize_backward`."""
    how: dict[str, Any] = {"qmin": qmin, "qmax": qmax, "granularity": granularity, "group_size": group_size}
    fake_quant.require_interval(interval)
    return eager(fake_quant.fake_quantize)(x, scale, zero_point, **how)


def _values_like(x: Tensor, *_: Any) -> Tensor:
    return x.new_empty(x.shape)


def _remember(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG001 - torch's signature
    *tensors, qmin, qmax, granularity, group_size, interval = inputs
    ctx.save_for_backward(*tensors)
    ctx.options = (qmin, qmax, granularity, group_size, interval)


def _gradients(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    return fake_quantize_backward(dy, *ctx.saved_tensors, *ctx.options), *[None] * 7


fake_quantize_with_gradient = differentiable(fake_quantize, _values_like, _remember, _gradients)
