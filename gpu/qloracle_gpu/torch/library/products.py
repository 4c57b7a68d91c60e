"""Operators of products without an adapter, with gradients of x and the bias; weights are frozen."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from qloracle_gpu.torch import llm_int8
from qloracle_gpu.torch import quantized_product as rules
from qloracle_gpu.torch.autocast import ignores_autocast
from qloracle_gpu.torch.compiling import eager
from qloracle_gpu.torch.decomposition import Decomposed, activation_rows
from qloracle_gpu.torch.formats import DTYPES, NAMES, require_tensor_format
from qloracle_gpu.torch.int8 import QuantizedInt8
from qloracle_gpu.torch.int8_linear import require_inner
from qloracle_gpu.torch.layer_operands import require_gradient
from qloracle_gpu.torch.library.flat_weight import FlatWeight, record_of
from qloracle_gpu.torch.library.registering import differentiable, operator
from qloracle_gpu.torch.lora import output_vector
from qloracle_gpu.torch.matmul import require_float32_matmul
from qloracle_gpu.torch.qlora import QuantizedWeight, qlora_weight, shape_of
from qloracle_gpu.torch.stored_products import stored_product

STORED = slice(1, 10)  # where a quantized weight stands among the arguments, see `FlatWeight`


@ignores_autocast
def _linear(x: Tensor, weight: Tensor, bias: Tensor | None, fan_in_fan_out: bool, out_dtype: str | None) -> Tensor:
    w, rows = _turned(weight, fan_in_fan_out), activation_rows(x)
    require_inner(x, w.shape)
    shift = None if bias is None else output_vector(bias, len(w), "bias")
    require_float32_matmul()
    y = rows @ w.T
    y = (y if shift is None else y.add_(shift)).to(DTYPES[out_dtype or NAMES[x.dtype]])
    return y.view(*x.shape[:-1], len(w))


@ignores_autocast
def _gradients_of_linear(dy: Tensor, weight: Tensor, fan_in_fan_out: bool, x_dtype: str) -> tuple[Tensor, Tensor]:
    w = _turned(weight, fan_in_fan_out)
    rows = require_gradient(dy, (*dy.shape[:-1], len(w))).reshape(-1, len(w)).to(torch.float32)
    require_float32_matmul()
    return (rows @ w).to(DTYPES[x_dtype]).view(*dy.shape[:-1], w.shape[1]), rows.sum(0)


def _turned(weight: Tensor, fan_in_fan_out: bool) -> Tensor:
    """Return a weight as float32 of shape (d_out, d_in)."""
    wide = require_tensor_format("weight", weight).to(torch.float32)
    return wide.T if fan_in_fan_out else wide


@operator
def linear_backward(
    dy: Tensor, weight: Tensor, fan_in_fan_out: bool = False, x_dtype: str = "float32"
) -> tuple[Tensor, Tensor]:
    """Return dy W in the format of x, and Σ dy in float32."""
    return _gradients_of_linear(dy, weight, fan_in_fan_out, x_dtype)


@linear_backward.register_fake
def _(dy: Tensor, weight: Tensor, fan_in_fan_out: bool = False, x_dtype: str = "float32") -> tuple[Tensor, Tensor]:
    d_out, d_in = _sizes(weight.shape, fan_in_fan_out)
    return dy.new_empty((*dy.shape[:-1], d_in), dtype=DTYPES[x_dtype]), dy.new_empty(d_out, dtype=torch.float32)


def linear(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, fan_in_fan_out: bool = False, out_dtype: str | None = None
) -> Tensor:
    """Return x Wᵀ + b: products and sums in float32, then one rounding to `out_dtype`, by default that of x."""
    return _linear(x, weight, bias, fan_in_fan_out, out_dtype)


def _linear_like(x: Tensor, weight: Tensor, *options: Any) -> Tensor:
    dtype = options[2] if len(options) > 2 else None
    d_out, _ = _sizes(weight.shape, len(options) > 1 and options[1])
    return x.new_empty((*x.shape[:-1], d_out), dtype=DTYPES[dtype or NAMES[x.dtype]])


def _remember_linear(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG001 - torch's signature
    x, weight, bias, ctx.fan_in_fan_out, _ = inputs
    ctx.save_for_backward(weight)
    ctx.x_dtype, ctx.bias_dtype = NAMES[x.dtype], None if bias is None else bias.dtype


def _linear_gradients(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    (weight,) = ctx.saved_tensors
    dx, total = linear_backward(dy, weight, ctx.fan_in_fan_out, ctx.x_dtype)
    return dx, None, None if ctx.bias_dtype is None else total.to(ctx.bias_dtype), None, None


def _sizes(shape: Sequence[int], fan_in_fan_out: bool) -> tuple[int, int]:
    """Return d_out and d_in of a stored weight."""
    return (shape[1], shape[0]) if fan_in_fan_out else (shape[0], shape[1])


@operator
def quantized_matmul_backward(
    dy: Tensor, codes: Tensor, absmax: Tensor, absmax_codes: Tensor | None, offset: Tensor | None, codebook: str,
    nested_codebook: str, granularity: str, block_size: int | None, shape: Sequence[int],
    weight_rounding: str = "float32", x_dtype: str = "float32",
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Return dy Ŵ in the format of x, and Σ dy in float32."""
    parts = (codes, absmax, absmax_codes, offset)
    record = record_of(FlatWeight(*parts, codebook, nested_codebook, granularity, block_size, shape))
    return _gradients_of_stored(dy, record, weight_rounding, x_dtype)


@ignores_autocast
def _gradients_of_stored(
    dy: Tensor, record: QuantizedWeight, weight_rounding: str, x_dtype: str
) -> tuple[Tensor, Tensor]:
    d_out, d_in = shape_of(record)
    rows = require_gradient(dy, (*dy.shape[:-1], d_out)).reshape(dy.shape[:-1].numel(), d_out)
    dx = stored_product(rows, record, DTYPES[x_dtype], weight_rounding=weight_rounding, transposed=True)
    if dx is None:
        return _gradients_of_linear(dy, qlora_weight(record, weight_rounding=weight_rounding), False, x_dtype)
    return dx.view(*dy.shape[:-1], d_in), rows.sum(0, dtype=torch.float32)


@quantized_matmul_backward.register_fake
def _(dy: Tensor, *arguments: Any) -> tuple[Tensor, Tensor]:
    shape, dtype = arguments[8], arguments[10] if len(arguments) > 10 else "float32"
    return dy.new_empty((*dy.shape[:-1], shape[1]), dtype=DTYPES[dtype]), dy.new_empty(shape[0], dtype=torch.float32)


def quantized_matmul(
    x: Tensor, codes: Tensor, absmax: Tensor, absmax_codes: Tensor | None, offset: Tensor | None, codebook: str,
    nested_codebook: str, granularity: str, block_size: int | None, shape: Sequence[int], bias: Tensor | None = None,
    weight_rounding: str = "float32", out_dtype: str | None = None,
) -> Tensor:  # fmt: skip
    """Return x Ŵᵀ + b, see `qloracle_gpu.torch.quantized_matmul`; gradients go to x and to the bias."""
    parts = (codes, absmax, absmax_codes, offset)
    record = record_of(FlatWeight(*parts, codebook, nested_codebook, granularity, block_size, shape))
    how = {"weight_rounding": weight_rounding, "out_dtype": out_dtype}
    return eager(rules.quantized_matmul)(x, record, bias=bias, **how)  # type: ignore[arg-type] # what is common to them


def _product_like(x: Tensor, *arguments: Any) -> Tensor:
    dtype = (arguments[11] if len(arguments) > 11 else None) or NAMES[x.dtype]
    return x.new_empty((*x.shape[:-1], arguments[8][0]), dtype=DTYPES[dtype])


def _remember_product(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG001 - torch's signature
    x, flat, (bias, ctx.weight_rounding, _) = inputs[0], inputs[STORED], inputs[10:]
    ctx.save_for_backward(*flat[:4])
    ctx.settings, ctx.x_dtype = flat[4:], NAMES[x.dtype]
    ctx.bias_dtype = None if bias is None else bias.dtype


def _product_gradients(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    how = (*ctx.saved_tensors, *ctx.settings, ctx.weight_rounding, ctx.x_dtype)
    dx, total = quantized_matmul_backward(dy, *how)
    return dx, *[None] * 9, None if ctx.bias_dtype is None else total.to(ctx.bias_dtype), None, None


def llm_int8_forward(
    x: Tensor, codes: Tensor, absmax: Tensor, original: Tensor | None = None, threshold: float = 6.0,
    exclusion: str = "columns", outlier_weight: str = "original", weight_rounding: str = "float32",
    bias: Tensor | None = None, outliers: Tensor | None = None, x_codes: Tensor | None = None,
    x_absmax: Tensor | None = None, out_dtype: str | None = None,
) -> Tensor:  # fmt: skip
    """Return LLM.int8()'s y, see `qloracle_gpu.torch.llm_int8_forward`; the gradient is that of the dequantized weight.

    Somebody else's decomposition of x, `parts` there, is the three tensors `outliers`, `x_codes` and `x_absmax` here.
    """
    given = outliers is not None and x_codes is not None and x_absmax is not None
    return eager(llm_int8.llm_int8_forward)(
        x, QuantizedInt8(codes, absmax, "row", None, "float32"), original, threshold=threshold, exclusion=exclusion,
        outlier_weight=outlier_weight, weight_rounding=weight_rounding, bias=bias,
        parts=Decomposed(outliers, x_codes, x_absmax) if given else None, out_dtype=out_dtype,  # type: ignore[arg-type]
    )  # fmt: skip


def _llm_int8_like(x: Tensor, codes: Tensor, *arguments: Any) -> Tensor:
    dtype = (arguments[10] if len(arguments) > 10 else None) or NAMES[x.dtype]
    return x.new_empty((*x.shape[:-1], codes.shape[0]), dtype=DTYPES[dtype])


def _remember_llm_int8(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG001 - torch's signature
    x, codes, absmax, bias = *inputs[:3], inputs[8]
    ctx.save_for_backward(codes, absmax)
    ctx.weight_rounding, ctx.x_dtype = inputs[7], NAMES[x.dtype]
    ctx.bias_dtype = None if bias is None else bias.dtype


def _llm_int8_gradients(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    codes, absmax = ctx.saved_tensors
    settings = (None, None, "", "", "row", None, codes.shape, ctx.weight_rounding, ctx.x_dtype)
    dx, total = quantized_matmul_backward(dy, codes, absmax, *settings)
    return dx, *[None] * 7, None if ctx.bias_dtype is None else total.to(ctx.bias_dtype), *[None] * 4


linear_with_gradient = differentiable(linear, _linear_like, _remember_linear, _linear_gradients)
quantized_matmul_with_gradient = differentiable(quantized_matmul, _product_like, _remember_product, _product_gradients)
llm_int8_with_gradient = differentiable(llm_int8_forward, _llm_int8_like, _remember_llm_int8, _llm_int8_gradients)
