"""The operators of LoRA and DoRA on a floating-point weight, with gradients of x and of all that trains."""

from typing import Any

import torch
from torch import Tensor

from qloracle_gpu.torch import dora
from qloracle_gpu.torch import lora as rules
from qloracle_gpu.torch.compiling import eager
from qloracle_gpu.torch.formats import DTYPES, NAMES
from qloracle_gpu.torch.library.registering import differentiable, operator

Gradients = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]


def lora_forward(
    x: Tensor, weight: Tensor, lora_a: Tensor, lora_b: Tensor, alpha: float, magnitude: Tensor | None = None,
    bias: Tensor | None = None, lora_bias: Tensor | None = None, mask: Tensor | None = None, dropout: float = 0.0,
    rank_stabilized: bool = False, fan_in_fan_out: bool = False, out_dtype: str | None = None,
) -> Tensor:  # fmt: skip
    """Return y of `qloracle_gpu.torch.lora_forward`, or with a magnitude of `dora_forward`."""
    how: dict[str, Any] = {
        "alpha": alpha, "bias": bias, "mask": mask, "dropout": dropout, "rank_stabilized": rank_stabilized,
        "fan_in_fan_out": fan_in_fan_out, "out_dtype": out_dtype,
    }  # fmt: skip
    if magnitude is not None:
        return eager(dora.dora_forward)(x, weight, lora_a, lora_b, magnitude, **how)
    return eager(rules.lora_forward)(x, weight, lora_a, lora_b, lora_bias=lora_bias, **how)


@operator
def lora_backward(
    dy: Tensor, x: Tensor, weight: Tensor, lora_a: Tensor, lora_b: Tensor, alpha: float,
    magnitude: Tensor | None = None, mask: Tensor | None = None, dropout: float = 0.0, rank_stabilized: bool = False,
    fan_in_fan_out: bool = False,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Return the gradients of x, A, B, the magnitude, the bias and the adapter's bias; empty ones of what is not there.

    Those of biases are float32.
    """
    how: dict[str, Any] = {
        "alpha": alpha, "mask": mask, "dropout": dropout, "rank_stabilized": rank_stabilized,
        "fan_in_fan_out": fan_in_fan_out,
    }  # fmt: skip
    none = dy.new_empty(0, dtype=torch.float32)
    if magnitude is not None:
        d = eager(dora.dora_backward)(dy, x, weight, lora_a, lora_b, magnitude, **how)
        return d.x, d.lora_a, d.lora_b, d.magnitude, d.bias, none
    g = eager(rules.lora_backward)(dy, x, weight, lora_a, lora_b, **how)
    return g.x, g.lora_a, g.lora_b, none, g.bias, g.lora_bias


@lora_backward.register_fake
def _(_dy: Tensor, x: Tensor, _weight: Tensor, lora_a: Tensor, lora_b: Tensor, *options: Any) -> Gradients:
    return empty_gradients(x, lora_a, lora_b, options[1] if len(options) > 1 else None)


def empty_gradients(x: Tensor, lora_a: Tensor, lora_b: Tensor, magnitude: Tensor | None) -> Gradients:
    """Return empty tensors like the gradients of a layer with an adapter."""
    dx, da, db = (t.new_empty(t.shape) for t in (x, lora_a, lora_b))
    bias = x.new_empty(lora_b.shape[0], dtype=torch.float32)
    none = x.new_empty(0, dtype=torch.float32)
    if magnitude is None:
        return dx, da, db, none, bias, bias.new_empty(bias.shape)
    return dx, da, db, magnitude.new_empty(magnitude.shape), bias, none


def _like(x: Tensor, _weight: Tensor, _a: Tensor, lora_b: Tensor, *options: Any) -> Tensor:
    dtype = (options[8] if len(options) > 8 else None) or NAMES[x.dtype]
    return x.new_empty((*x.shape[:-1], lora_b.shape[0]), dtype=DTYPES[dtype])


def _remember(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG001 - torch's signature
    x, weight, lora_a, lora_b, ctx.alpha, magnitude, bias, lora_bias, mask, *ctx.options, _ = inputs
    ctx.save_for_backward(x, weight, lora_a, lora_b, magnitude, mask)
    ctx.dtypes = tuple(None if t is None else t.dtype for t in (magnitude, bias, lora_bias))


def _gradients(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    x, weight, lora_a, lora_b, magnitude, mask = ctx.saved_tensors
    found = lora_backward(dy, x, weight, lora_a, lora_b, ctx.alpha, magnitude, mask, *ctx.options)
    dx, da, db, *others = found
    return dx, None, da, db, None, *of_present(others, ctx.dtypes), *[None] * 5


def of_present(gradients: list[Tensor], dtypes: tuple[torch.dtype | None, ...]) -> list[Tensor | None]:
    """Return gradients in the dtypes of what they belong to, None of what is not there: autograd refuses such."""
    return [None if dtype is None else g.to(dtype) for g, dtype in zip(gradients, dtypes, strict=True)]


lora_with_gradient = differentiable(lora_forward, _like, _remember, _gradients)
