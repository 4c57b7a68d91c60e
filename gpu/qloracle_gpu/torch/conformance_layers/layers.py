"""Layers with adapters: y of `forward` in training mode, and the gradients that autograd leaves in their parameters."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from qloracle_conformance.adapters.torch_draws import kept
from qloracle_gpu.torch.conformance_layers.stored import linear, quantized_linear, record_of
from qloracle_gpu.torch.modules import LoRAEmbedding, LoRALinear, LoraOptions, QLoRALinear

Layer = TypeVar("Layer", LoRALinear, QLoRALinear, LoRAEmbedding)


def options_of(
    rank: int, *, alpha: float, rank_stabilized: bool, dropout: float = 0.0, magnitude: Tensor | None = None,
    lora_bias: Tensor | None = None,
) -> LoraOptions:  # fmt: skip
    """Return the options of an adapter whose matrices are given, on a layer whose own bias trains."""
    return LoraOptions(
        rank, alpha, dropout, bias="all", use_rslora=rank_stabilized, use_dora=magnitude is not None,
        lora_bias=lora_bias is not None, init="empty",
    )  # fmt: skip


def lora_linear(
    weight: Tensor, lora_a: Tensor, lora_b: Tensor, bias: Tensor | None = None, *, fan_in_fan_out: bool = False,
    **adapter: Any,
) -> LoRALinear:  # fmt: skip
    """Return a layer on a floating-point weight."""
    options = options_of(len(lora_a), **adapter)
    return filled(LoRALinear(linear(weight, bias), options, fan_in_fan_out=fan_in_fan_out), lora_a, lora_b, **adapter)


def qlora_linear(
    lora_a: Tensor, lora_b: Tensor, bias: Tensor | None = None, *, compute_dtype: str | None = None,
    dtype: str = "float32", **arguments: Any,
) -> QLoRALinear:  # fmt: skip
    """Return a layer on a weight that is stored quantized, of which the arguments hold the parts."""
    base = quantized_linear(record_of(arguments, dtype), bias, compute_dtype=compute_dtype)
    return filled(QLoRALinear(base, options_of(len(lora_a), **arguments)), lora_a, lora_b, **arguments)


def lora_embedding(weight: Tensor, lora_a: Tensor, lora_b: Tensor, **adapter: Any) -> LoRAEmbedding:
    """Return an embedding with an adapter."""
    base = nn.Embedding(weight.shape[0], weight.shape[1], device="meta")
    base.weight = nn.Parameter(weight)
    return filled(LoRAEmbedding(base, options_of(len(lora_a), **adapter)), lora_a, lora_b)


def filled(
    layer: Layer, lora_a: Tensor, lora_b: Tensor, *, magnitude: Tensor | None = None, lora_bias: Tensor | None = None,
    **_: Any,
) -> Layer:  # fmt: skip
    """Give the adapter of a layer its numbers, in float32 as the module keeps them and as they lie in memory."""
    adapter = layer.adapter
    adapter.lora_a, adapter.lora_b = nn.Parameter(lora_a.float()), nn.Parameter(lora_b.float())
    if magnitude is not None:
        adapter.magnitude = nn.Parameter(magnitude.float())
    if lora_bias is not None:
        adapter.lora_bias = nn.Parameter(lora_bias.float())
    return layer.train()


def applied(layer: nn.Module, x: Tensor, mask: Tensor | None) -> Tensor:
    """Return y of a layer whose dropout keeps what a mask keeps."""
    with nullcontext() if mask is None else kept(mask):
        y: Tensor = layer(x)
    return y


def gradients(layer: nn.Module, dy: Tensor, x: Tensor, mask: Tensor | None, *names: str) -> tuple[Tensor, ...]:
    """Return the gradients of x and of named parameters, in the format of x: those of the adapter are rounded here."""
    given = x.detach().requires_grad_()
    torch.autograd.backward(applied(layer, given, mask), dy)
    found = [given.grad, *(layer.get_parameter(name).grad for name in names)]
    return tuple(gradient.to(x.dtype) for gradient in found if gradient is not None)


def _lora_forward(x: Tensor, *, mask: Tensor | None, **arguments: Any) -> Tensor:
    return applied(lora_linear(**arguments), x, mask).detach()


MATRICES = ("adapter.lora_a", "adapter.lora_b")


def _lora_backward(dy: Tensor, x: Tensor, *, mask: Tensor | None, lora_b: Tensor, **arguments: Any) -> Any:
    zeros = x.new_zeros(len(lora_b))
    layer = lora_linear(**arguments, lora_b=lora_b, bias=zeros, lora_bias=zeros)
    return gradients(layer, dy, x, mask, *MATRICES, "bias", "adapter.lora_bias")


def _dora_backward(dy: Tensor, x: Tensor, *, mask: Tensor | None, lora_b: Tensor, **arguments: Any) -> Any:
    layer = lora_linear(**arguments, lora_b=lora_b, bias=x.new_zeros(len(lora_b)))
    return gradients(layer, dy, x, mask, *MATRICES, "adapter.magnitude", "bias")


def _qlora_forward(x: Tensor, *, mask: Tensor | None, **arguments: Any) -> Tensor:
    return applied(qlora_linear(**arguments), x, mask).detach()


def _qlora_backward(dy: Tensor, x: Tensor, *, mask: Tensor | None, lora_b: Tensor, **arguments: Any) -> Any:
    layer = qlora_linear(**arguments, lora_b=lora_b, bias=x.new_zeros(len(lora_b)))
    trained = (*MATRICES, "adapter.magnitude") if "magnitude" in arguments else MATRICES
    return gradients(layer, dy, x, mask, *trained, "bias")


def _embedding_forward(ids: Tensor, **arguments: Any) -> Tensor:
    y: Tensor = lora_embedding(**arguments)(ids)
    return y.detach()


def _embedding_backward(dy: Tensor, ids: Tensor, *, weight: Tensor, **arguments: Any) -> tuple[Tensor, ...]:
    layer = lora_embedding(weight, **arguments)
    torch.autograd.backward(layer(ids), dy)
    return tuple(layer.get_parameter(name).grad.to(weight.dtype) for name in MATRICES)  # type: ignore[union-attr]


OPS: dict[str, Callable[..., Any]] = {
    "lora_forward": _lora_forward,
    "lora_backward": _lora_backward,
    "dora_forward": _lora_forward,
    "dora_backward": _dora_backward,
    "embedding_lora_forward": _embedding_forward,
    "embedding_lora_backward": _embedding_backward,
}
# With the dtype that they compute in.
QUANTIZED: dict[str, Callable[..., Any]] = {
    **dict.fromkeys(("qlora_forward", "qlora_double_forward", "qlora_int8_forward", "qdora_forward"), _qlora_forward),
    **dict.fromkeys(
        ("qlora_backward", "qlora_double_backward", "qlora_int8_backward", "qdora_backward"), _qlora_backward
    ),
}
