"""The operands of a layer with an adapter: what is checked before any work, and how they widen to float32."""

import torch
from torch import Tensor

from qloracle.errors import reject_value
from qloracle_gpu.torch.formats import require_device, require_dtype, require_tensor_format


def layer_operands(
    x: Tensor, weight: Tensor, lora_a: Tensor, lora_b: Tensor, fan_in_fan_out: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the four operands as float32, after checking that their shapes belong together."""
    return widened(*layer_parts(x, weight, lora_a, lora_b, fan_in_fan_out), fan_in_fan_out)


def layer_parts(
    x: Tensor, weight: Tensor, lora_a: Tensor, lora_b: Tensor, fan_in_fan_out: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the four operands as they are, after checking that their shapes belong together."""
    w = require_tensor_format("weight", weight)
    rows, a, b = adapter_parts(x, tuple(w.shape), lora_a, lora_b, fan_in_fan_out)
    return rows, require_device("weight", w, rows.device), a, b


def adapter_parts(
    x: Tensor, weight_shape: tuple[int, ...], lora_a: Tensor, lora_b: Tensor, fan_in_fan_out: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Return x, A and B as they are, after checking that their shapes go with that of a weight."""
    named = (("x", x), ("lora_a", lora_a), ("lora_b", lora_b))
    rows, a, b = (require_tensor_format(argument, tensor) for argument, tensor in named)
    if rows.ndim < 1:
        reject_value("x", "at least 1-d", "0-d")
    shapes = {"weight": weight_shape, "lora_a": tuple(a.shape), "lora_b": tuple(b.shape)}
    for argument, given in shapes.items():
        if len(given) != 2:
            reject_value(argument, "2-d", f"{len(given)}-d")
    d_in, rank = rows.shape[-1], len(a)
    d_out = weight_shape[1 if fan_in_fan_out else 0]
    stored = (d_in, d_out) if fan_in_fan_out else (d_out, d_in)
    for argument, shape in (("weight", stored), ("lora_a", (rank, d_in))):
        if shapes[argument] != shape:
            reject_value(argument, f"of shape {shape} for x of shape {tuple(rows.shape)}", shapes[argument])
    if b.shape != (d_out, rank):
        reject_value("lora_b", f"of shape {(d_out, rank)}", tuple(b.shape))
    return rows, require_device("lora_a", a, rows.device), require_device("lora_b", b, rows.device)


def require_gradient(dy: Tensor, expected: tuple[int, ...]) -> Tensor:
    """Return the gradient of an output if its format and shape are right, else raise."""
    gradient = require_tensor_format("dy", dy)
    if gradient.shape != expected:
        reject_value("dy", f"of shape {expected}", tuple(gradient.shape))
    return gradient


def widened(
    x: Tensor, weight: Tensor, lora_a: Tensor, lora_b: Tensor, fan_in_fan_out: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the four operands as float32, the weight of shape (d_out, d_in)."""
    rows, w, a, b = (tensor.to(torch.float32) for tensor in (x, weight, lora_a, lora_b))
    return rows, w.T if fan_in_fan_out else w, a, b


def require_mask(mask: Tensor | None, dropout: float, x: Tensor) -> Tensor | None:
    """Return the mask of what is kept if it goes with the probability of dropping and with x, else raise."""
    if not 0 <= dropout <= 1:
        reject_value("dropout", "a probability from 0 to 1", dropout)
    if mask is None:
        if dropout > 0:
            reject_value("mask", "given when dropout is positive", None)
        return None
    mask = require_dtype("mask", mask, torch.bool)
    if mask.shape != x.shape:
        reject_value("mask", f"of the shape of x {tuple(x.shape)}", tuple(mask.shape))
    return require_device("mask", mask, x.device)
