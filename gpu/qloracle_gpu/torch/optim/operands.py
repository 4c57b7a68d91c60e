"""What an optimizer step is given: operands that belong together, checked before anything is computed."""

from typing import Any

import torch
from torch import Tensor

from qloracle.errors import reject_type, reject_value, require_integer
from qloracle_gpu.torch.formats import NAMES, require_device, require_dtype, require_tensor, require_tensor_format


def flat(tensor: Tensor) -> Tensor:
    """Return the elements of a tensor in row-major order, without a copy where they lie so."""
    return tensor.detach().contiguous().view(-1)


def flat_copy(tensor: Tensor) -> Tensor:
    """Return a copy of the elements of a tensor in row-major order."""
    return tensor.detach().clone(memory_format=torch.contiguous_format).view(-1)


def require_same_format(p: object, gradient: object) -> tuple[Tensor, Tensor]:
    """Return parameter and gradient, or raise unless both are dense and have one format, shape and device."""
    values, other = require_tensor_format("p", p), require_tensor("gradient", gradient)
    for argument, tensor in (("p", values), ("gradient", other)):
        if tensor.layout is not torch.strided:
            reject_type(argument, "a dense tensor", tensor.layout)
    if other.dtype != values.dtype:
        reject_type("gradient", f"of the format of p, {NAMES[values.dtype]}", other.dtype)
    if other.shape != values.shape:
        reject_value("gradient", f"of the shape of p {tuple(values.shape)}", tuple(other.shape))
    return values, require_device("gradient", other, values.device)


def require_moments(m: object, v: object, p: Tensor) -> tuple[Tensor, Tensor]:
    """Return both moments, or raise unless they are float32 and of the shape and on the device of `p`.

    Whether v has a negative element is looked at on a CPU only: anywhere else that would wait for the device, and the
    root of a negative number is NaN.
    """
    found = []
    for argument, moment in (("m", m), ("v", v)):
        tensor = require_dtype(argument, moment, torch.float32)
        if tensor.shape != p.shape:
            reject_value(argument, f"of shape {tuple(p.shape)}", tuple(tensor.shape))
        found.append(require_device(argument, tensor, p.device))
    require_no_negative("v", found[1], "a mean of squares, nowhere below 0")
    return found[0], found[1]


def require_no_negative(argument: str, values: Tensor, rule: str) -> None:
    """Raise if an element of a tensor on a CPU is below zero."""
    if values.device.type == "cpu" and bool((values < 0).any()):
        reject_value(argument, rule, float(values.min()))


def require_random_bits(random_bits: object, p: Tensor) -> Tensor | None:
    """Return random bits, or raise unless they are none, or uint32 of the shape of a 16-bit parameter."""
    if random_bits is None:
        return None
    if p.dtype is torch.float32:
        reject_value("random_bits", "None for float32 parameters", "bits")
    tensor = require_dtype("random_bits", random_bits, torch.uint32)
    if tensor.shape != p.shape:
        reject_value("random_bits", f"of the shape of p {tuple(p.shape)}", tuple(tensor.shape))
    return require_device("random_bits", tensor, p.device)


def require_steps(step: Any) -> int:
    """Return a number of steps done so far."""
    done = require_integer("step", step, "a number of steps, 0 or more")
    if done < 0:
        reject_value("step", "a number of steps, 0 or more", done)
    return done
