"""Layers with adapters, as ``get_peft_model`` makes them; forward and backward are PEFT's and torch's own."""

from contextlib import nullcontext
from typing import Any

import peft
import torch
from transformers import pytorch_utils

from qloracle_conformance.adapters.torch_draws import kept

Tensor = torch.Tensor
NAME = "layer"
ADAPTER = "default"
# Modules that are found by name have no known type.
LoraConfig: Any = peft.LoraConfig
get_peft_model: Any = peft.get_peft_model
Conv1D: Any = pytorch_utils.Conv1D


def adapted(base: torch.nn.Module, rank: int, *, autocast: bool = True, **config: Any) -> Any:
    """Return the layer that PEFT puts in the place of `base`, in training mode."""
    model = torch.nn.ModuleDict({NAME: base})
    for marker in ("is_loaded_in_4bit", "is_loaded_in_8bit"):  # as transformers marks the models that it quantizes
        setattr(model, marker, getattr(base, marker, False))
    chosen = LoraConfig(r=rank, target_modules=[NAME], init_lora_weights=False, **config)
    made = get_peft_model(model, chosen, autocast_adapter_dtype=autocast).base_model.model[NAME]
    made.train()
    return made


def linear(weight: Tensor, bias: Tensor | None, *, fan_in_fan_out: bool) -> Any:
    """Return the base layer: ``nn.Linear``, or transformers' ``Conv1D`` for a weight that is stored transposed."""
    first, second = weight.shape
    with torch.device("meta"):
        base: Any = Conv1D(second, first) if fan_in_fan_out else torch.nn.Linear(second, first)
    base.weight = torch.nn.Parameter(weight)
    if bias is None and fan_in_fan_out:  # a Conv1D always has one
        bias = weight.new_zeros(weight.shape[1])
    base.bias = None if bias is None else torch.nn.Parameter(bias)
    return base


def set_adapter(layer: Any, lora_a: Tensor, lora_b: Tensor, lora_bias: Tensor | None = None) -> None:
    """Give a layer its matrices, in the type that PEFT has chosen for them."""
    for module, value in ((layer.lora_A[ADAPTER], lora_a), (layer.lora_B[ADAPTER], lora_b)):
        module.weight = torch.nn.Parameter(value.to(module.weight.dtype))
    if lora_bias is not None:
        module = layer.lora_B[ADAPTER]
        module.bias = torch.nn.Parameter(lora_bias.to(module.bias.dtype))


def set_magnitude(layer: Any, magnitude: Tensor) -> None:
    """Give a DoRA layer its magnitudes."""
    part = layer.lora_magnitude_vector[ADAPTER]
    part.weight = torch.nn.Parameter(magnitude.to(part.weight.dtype))


def lora_layer(
    base: torch.nn.Module, lora_a: Tensor, lora_b: Tensor, *, alpha: float, rank_stabilized: bool,
    dropout: float = 0.0, magnitude: Tensor | None = None, lora_bias: Tensor | None = None,
    fan_in_fan_out: bool = False, autocast: bool = True,
) -> Any:  # fmt: skip
    """Return the layer of PEFT with everything set that a call gives."""
    layer = adapted(
        base, len(lora_a), autocast=autocast, lora_alpha=alpha, use_rslora=rank_stabilized, lora_dropout=dropout,
        use_dora=magnitude is not None, lora_bias=lora_bias is not None, fan_in_fan_out=fan_in_fan_out,
        bias="lora_only",
    )  # fmt: skip
    set_adapter(layer, lora_a, lora_b, lora_bias)
    if magnitude is not None:
        set_magnitude(layer, magnitude)
    return layer


def applied(layer: Any, x: Tensor, mask: Tensor | None) -> Tensor:
    """Return the output of a layer whose dropout keeps what the mask keeps."""
    with nullcontext() if mask is None else kept(mask):
        y: Tensor = layer(x)
    return y


def gradients(layer: Any, dy: Tensor, x: Tensor, mask: Tensor | None) -> dict[str, Tensor]:
    """Return the gradients of x and of everything that trains, in the format of x."""
    given = x.detach().requires_grad_()
    torch.autograd.backward(applied(layer, given, mask), dy)
    b, base = layer.lora_B[ADAPTER], layer.get_base_layer()
    found = {"x": given, "lora_a": layer.lora_A[ADAPTER].weight, "lora_b": b.weight}
    if ADAPTER in layer.lora_magnitude_vector:
        found["magnitude"] = layer.lora_magnitude_vector[ADAPTER].weight
    found["bias"] = base.bias
    if b.bias is not None:
        found["lora_bias"] = b.bias
    return {name: part.grad.to(x.dtype) for name, part in found.items()}


def lora_forward(
    x: Tensor, weight: Tensor, lora_a: Tensor, lora_b: Tensor, bias: Tensor | None, mask: Tensor | None, *,
    lora_bias: Tensor | None = None, fan_in_fan_out: bool = False, **settings: Any,
) -> Tensor:  # fmt: skip
    """``lora.Linear`` on ``nn.Linear`` or ``Conv1D``."""
    base = linear(weight, bias, fan_in_fan_out=fan_in_fan_out)
    settings |= {"lora_bias": lora_bias, "fan_in_fan_out": fan_in_fan_out}
    return applied(lora_layer(base, lora_a, lora_b, **settings), x, mask).detach()


def lora_backward(
    dy: Tensor, x: Tensor, weight: Tensor, lora_a: Tensor, lora_b: Tensor, mask: Tensor | None, *,
    fan_in_fan_out: bool = False, **settings: Any,
) -> tuple[Tensor, ...]:  # fmt: skip
    """Its gradients; both biases are zeros, of which none depends on the other results."""
    d_out = len(lora_b)
    base = linear(weight, weight.new_zeros(d_out), fan_in_fan_out=fan_in_fan_out)
    settings |= {"lora_bias": weight.new_zeros(d_out), "fan_in_fan_out": fan_in_fan_out}
    return tuple(gradients(lora_layer(base, lora_a, lora_b, **settings), dy, x, mask).values())


def dora_forward(
    x: Tensor, weight: Tensor, lora_a: Tensor, lora_b: Tensor, magnitude: Tensor, bias: Tensor | None,
    mask: Tensor | None, *, fan_in_fan_out: bool = False, **settings: Any,
) -> Tensor:  # fmt: skip
    """``lora.Linear`` with ``use_dora``, on ``nn.Linear`` or ``Conv1D``."""
    base = linear(weight, bias, fan_in_fan_out=fan_in_fan_out)
    settings |= {"magnitude": magnitude, "fan_in_fan_out": fan_in_fan_out}
    return applied(lora_layer(base, lora_a, lora_b, **settings), x, mask).detach()


def dora_backward(
    dy: Tensor, x: Tensor, weight: Tensor, lora_a: Tensor, lora_b: Tensor, magnitude: Tensor, mask: Tensor | None,
    *, fan_in_fan_out: bool = False, **settings: Any,
) -> tuple[Tensor, ...]:  # fmt: skip
    """Its gradients."""
    base = linear(weight, weight.new_zeros(len(lora_b)), fan_in_fan_out=fan_in_fan_out)
    settings |= {"magnitude": magnitude, "fan_in_fan_out": fan_in_fan_out}
    return tuple(gradients(lora_layer(base, lora_a, lora_b, **settings), dy, x, mask).values())


def embedding(weight: Tensor, lora_a: Tensor, lora_b: Tensor, *, alpha: float, rank_stabilized: bool) -> Any:
    """Return the layer that PEFT puts in the place of ``nn.Embedding``."""
    with torch.device("meta"):
        base = torch.nn.Embedding(*weight.shape)
    base.weight = torch.nn.Parameter(weight)
    layer = adapted(base, len(lora_a), lora_alpha=alpha, use_rslora=rank_stabilized)
    for matrices, value in ((layer.lora_embedding_A, lora_a), (layer.lora_embedding_B, lora_b)):
        matrices[ADAPTER] = torch.nn.Parameter(value.to(matrices[ADAPTER].dtype))
    return layer


def embedding_forward(ids: Tensor, weight: Tensor, lora_a: Tensor, lora_b: Tensor, **settings: Any) -> Tensor:
    """``lora.Embedding``."""
    y: Tensor = embedding(weight, lora_a, lora_b, **settings)(ids)
    return y.detach()


def embedding_backward(
    dy: Tensor, ids: Tensor, weight: Tensor, lora_a: Tensor, lora_b: Tensor, **settings: Any
) -> tuple[Tensor, Tensor]:
    """Its gradients."""
    layer = embedding(weight, lora_a, lora_b, **settings)
    torch.autograd.backward(layer(ids), dy)
    found = (layer.lora_embedding_A[ADAPTER], layer.lora_embedding_B[ADAPTER])
    return found[0].grad.to(dy.dtype), found[1].grad.to(dy.dtype)
