"""The differentiable products of the modules: every gradient is that of the package's own backward functions.

Autograd through the float32 operations themselves would give the same numbers, but keep float32 copies of weights for
the backward pass, and multiply in fewer bits where a backward pass runs under autocast.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from qloracle_gpu.torch.autocast import ignores_autocast
from qloracle_gpu.torch.decomposition import activation_rows
from qloracle_gpu.torch.dora import dora_backward, dora_forward, output_gradient
from qloracle_gpu.torch.embedding_lora import embedding_lora_backward, embedding_lora_forward
from qloracle_gpu.torch.formats import DTYPES, NAMES
from qloracle_gpu.torch.int8 import QuantizedInt8
from qloracle_gpu.torch.int8_linear import require_inner
from qloracle_gpu.torch.llm_int8 import llm_int8_forward
from qloracle_gpu.torch.lora import (
    dropout_factor,
    dropped_share,
    lora_backward,
    lora_forward,
    lora_scale,
    output_vector,
)
from qloracle_gpu.torch.matmul import require_float32_matmul
from qloracle_gpu.torch.qlora import QuantizedWeight, qlora_weight

Weight = Tensor | QuantizedWeight


@dataclass(frozen=True)
class Product:
    """How a layer multiplies."""

    alpha: float
    rank_stabilized: bool
    dropout: float
    weight_rounding: str  # what a quantized weight is rounded to
    out_dtype: str
    fan_in_fan_out: bool = False
    threshold: float | None = None  # of LLM.int8(); None: activations stay floating-point numbers


@dataclass(frozen=True)
class Trained:
    """The trained tensors of a layer."""

    lora_a: Tensor
    lora_b: Tensor
    magnitude: Tensor | None
    lora_bias: Tensor | None
    bias: Tensor | None


def adapted(x: Tensor, weight: Weight, trained: Trained, mask: Tensor | None, how: Product) -> Tensor:
    """Return y of a layer with an adapter, differentiable with regard to x and what is trained."""
    t = trained
    result: Tensor = _Adapted.apply(x, t.lora_a, t.lora_b, t.magnitude, t.lora_bias, t.bias, weight, mask, how)  # type: ignore[no-untyped-call]
    return result


def plain(x: Tensor, weight: Weight, bias: Tensor | None, how: Product) -> Tensor:
    """Return y of a layer without an adapter, differentiable with regard to x and the bias."""
    result: Tensor = _Plain.apply(x, bias, weight, how)  # type: ignore[no-untyped-call]
    return result


def looked_up(ids: Tensor, weight: Tensor, lora_a: Tensor, lora_b: Tensor, how: Product) -> Tensor:
    """Return the rows of an embedding with an adapter, differentiable with regard to A and B."""
    result: Tensor = _LookedUp.apply(lora_a, lora_b, ids, weight, how)  # type: ignore[no-untyped-call]
    return result


def float_weight(weight: Weight, how: Product) -> Tensor:
    """Return a weight as a tensor: dequantized to the declared format where it is quantized."""
    if isinstance(weight, Tensor):
        return weight
    return qlora_weight(weight, weight_rounding=how.weight_rounding)


class _Adapted(torch.autograd.Function):
    @staticmethod
    def forward(
        x: Tensor, lora_a: Tensor, lora_b: Tensor, magnitude: Tensor | None, lora_bias: Tensor | None,
        bias: Tensor | None, weight: Weight, mask: Tensor | None, how: Product,
    ) -> Tensor:  # fmt: skip
        if how.threshold is not None and isinstance(weight, QuantizedInt8):
            return _decomposed(x, weight, Trained(lora_a, lora_b, None, lora_bias, bias), mask, how)
        adapter = {**_shared(how), "bias": bias, "mask": mask, "out_dtype": how.out_dtype}
        dense = float_weight(weight, how)
        if magnitude is not None:
            return dora_forward(x, dense, lora_a, lora_b, magnitude, **adapter)
        return lora_forward(x, dense, lora_a, lora_b, lora_bias=lora_bias, **adapter)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG004 - torch's signature
        x, lora_a, lora_b, magnitude, _, _, weight, mask, how = inputs
        kept = weight if isinstance(weight, Tensor) else None
        ctx.save_for_backward(x, lora_a, lora_b, magnitude, mask, kept)
        ctx.quantized = None if isinstance(weight, Tensor) else weight
        ctx.how = how

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, lora_a, lora_b, magnitude, mask, kept = ctx.saved_tensors
        dense = float_weight(kept if ctx.quantized is None else ctx.quantized, ctx.how)
        shared = {**_shared(ctx.how), "mask": mask}
        wide = dy.to(torch.float32)  # so that gradients of biases keep float32 until autograd rounds them to the bias's
        if magnitude is not None:
            dora = dora_backward(wide, x, dense, lora_a, lora_b, magnitude, **shared)
            found = (dora.x, dora.lora_a, dora.lora_b, dora.magnitude, None, dora.bias)
            return _needed(ctx, found)
        lora = lora_backward(wide, x, dense, lora_a, lora_b, **shared)
        return _needed(ctx, (lora.x, lora.lora_a, lora.lora_b, None, lora.lora_bias, lora.bias))


class _Plain(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, bias: Tensor | None, weight: Weight, how: Product) -> Tensor:
        if how.threshold is not None and isinstance(weight, QuantizedInt8):
            return llm_int8_forward(x, weight, bias=bias, **_outliers(how))
        return _product(x, float_weight(weight, how), bias, how)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG004 - torch's signature
        x, _, weight, how = inputs
        ctx.save_for_backward(weight if isinstance(weight, Tensor) else None)
        ctx.quantized = None if isinstance(weight, Tensor) else weight
        ctx.how, ctx.dtype = how, x.dtype

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        (kept,) = ctx.saved_tensors
        dense = float_weight(kept if ctx.quantized is None else ctx.quantized, ctx.how)
        dx, total = _product_gradients(dy, dense, ctx.how)
        return _needed(ctx, (dx.to(ctx.dtype), total))


class _LookedUp(torch.autograd.Function):
    @staticmethod
    def forward(lora_a: Tensor, lora_b: Tensor, ids: Tensor, weight: Tensor, how: Product) -> Tensor:
        return embedding_lora_forward(
            ids, weight, lora_a, lora_b, alpha=how.alpha, rank_stabilized=how.rank_stabilized, out_dtype=how.out_dtype
        )

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG004 - torch's signature
        *tensors, ctx.how = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        lora_a, lora_b, ids, weight = ctx.saved_tensors
        scale = {"alpha": ctx.how.alpha, "rank_stabilized": ctx.how.rank_stabilized}
        gradients = embedding_lora_backward(dy, ids, weight, lora_a, lora_b, **scale)
        return _needed(ctx, (gradients.lora_a, gradients.lora_b))


def _needed(ctx: Any, gradients: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
    """Return the gradients that are asked for, one place for each input; autograd refuses one of an absent input."""
    places = len(ctx.needs_input_grad)
    padded = (*gradients, *[None] * (places - len(gradients)))
    return tuple(g if asked else None for g, asked in zip(padded, ctx.needs_input_grad, strict=True))


def _shared(how: Product) -> dict[str, Any]:
    """Return the arguments that forward and backward functions have in common."""
    return {
        "alpha": how.alpha,
        "dropout": how.dropout,
        "rank_stabilized": how.rank_stabilized,
        "fan_in_fan_out": how.fan_in_fan_out,
    }


def _outliers(how: Product) -> dict[str, Any]:
    """Return the arguments of LLM.int8() for a layer that keeps no original weight."""
    return {
        "threshold": how.threshold,
        "outlier_weight": "dequantized",
        "weight_rounding": how.weight_rounding,
        "out_dtype": how.out_dtype,
    }


@ignores_autocast
def _decomposed(x: Tensor, weight: QuantizedInt8, trained: Trained, mask: Tensor | None, how: Product) -> Tensor:
    """Return LLM.int8()'s y in float32 plus the adapter's share, rounded once."""
    base = llm_int8_forward(x, weight, bias=trained.bias, **{**_outliers(how), "out_dtype": "float32"})
    wide, a, b = (tensor.detach().to(torch.float32) for tensor in (x, trained.lora_a, trained.lora_b))
    share = dropped_share(wide, dropout_factor(mask, how.dropout, wide), how.dropout)
    low = share @ a.T @ b.T
    if trained.lora_bias is not None:
        low.add_(output_vector(trained.lora_bias, len(b), "lora_bias"))
    scale = lora_scale(how.alpha, len(a), rank_stabilized=how.rank_stabilized)
    return base.add_(low.mul_(scale)).to(DTYPES[how.out_dtype])


@ignores_autocast
def _product(x: Tensor, weight: Tensor, bias: Tensor | None, how: Product) -> Tensor:
    wide = weight.detach().to(torch.float32)
    w = wide.T if how.fan_in_fan_out else wide
    rows = activation_rows(x)
    require_inner(x, w.shape)
    shift = None if bias is None else output_vector(bias, len(w), "bias")
    require_float32_matmul()
    y = rows @ w.T
    return (y if shift is None else y.add_(shift)).to(DTYPES[how.out_dtype]).view(*x.shape[:-1], len(w))


@ignores_autocast
def _product_gradients(dy: Tensor, weight: Tensor, how: Product) -> tuple[Tensor, Tensor]:
    """Return dy W and Σ dy as float32."""
    wide = weight.detach().to(torch.float32)
    w = wide.T if how.fan_in_fan_out else wide
    rows = output_gradient(dy, (*dy.shape[:-1], len(w))).reshape(-1, len(w))
    require_float32_matmul()
    return (rows @ w).view(*dy.shape[:-1], w.shape[1]), rows.sum(0)


def format_name(dtype: torch.dtype) -> str:
    """Return the name of a tensor's format; one that no rule takes keeps torch's name, which the rule then refuses."""
    return NAMES.get(dtype, str(dtype).removeprefix("torch."))
