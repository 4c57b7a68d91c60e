"""Operands of linear layers as real numbers, checked at the door: dtypes, numbers of axes, shapes that belong together.

A weight has the shape (d_out, d_in); with ``fan_in_fan_out`` it is stored transposed, (d_in, d_out), as some libraries'
one-dimensional convolutions are. Nothing is guessed from a shape: a square weight is read as it is declared.
"""

from math import prod

import numpy as np

from qloracle.errors import reject_type, reject_value
from qloracle.formats import Array
from qloracle.rounding import widen


def as_rows(array: Array) -> Array:
    """Return an array as a matrix whose rows run over all axes but the last, which may be empty."""
    return array.reshape(prod(array.shape[:-1]), array.shape[-1])


def dropped(values: Array, factor: Array, dropout: float) -> Array:
    """Return values · mask/(1 − p): x_d of x, or what passes back through it. Exactly 0 for p = 1, be they NaN."""
    with np.errstate(invalid="ignore", over="ignore"):
        return np.zeros(values.shape) if dropout == 1 else values * factor


def real_operand(array: Array, argument: str, fmt: str | None = None) -> Array:
    """Return an operand as float64."""
    with np.errstate(invalid="ignore"):  # a signalling NaN
        return widen(array, fmt, argument).astype(np.float64)


def real_matrix(array: Array, argument: str) -> Array:
    """Return a 2-d operand as float64."""
    real = real_operand(array, argument)
    if real.ndim != 2:
        reject_value(argument, "2-d", f"{real.ndim}-d")
    return real


def real_weight(weight: Array, *, fan_in_fan_out: bool = False) -> Array:
    """Return a weight as float64 of shape (d_out, d_in), however it is stored."""
    if not isinstance(fan_in_fan_out, bool | np.bool_):
        reject_type("fan_in_fan_out", "a bool", repr(fan_in_fan_out))
    real = real_matrix(weight, "weight")
    return real.T if fan_in_fan_out else real


def real_rows(x: Array) -> Array:
    """Return activations as float64, of at least one axis."""
    real = real_operand(x, "x")
    if real.ndim < 1:
        reject_value("x", "at least 1-d", "0-d")
    return real


def real_operands(
    x: Array, weight: Array, lora_a: Array, lora_b: Array, *, fan_in_fan_out: bool = False
) -> tuple[Array, Array, Array, Array]:
    """Return the four operands as float64, after checking that their shapes belong together."""
    x64, w64 = real_rows(x), real_weight(weight, fan_in_fan_out=fan_in_fan_out)
    a64, b64 = real_matrix(lora_a, "lora_a"), real_matrix(lora_b, "lora_b")
    d_in, d_out, rank = x64.shape[-1], w64.shape[0], a64.shape[0]
    stored = (d_in, d_out) if fan_in_fan_out else (d_out, d_in)
    if w64.shape != (d_out, d_in):
        reject_value("weight", f"of shape {stored} for x of shape {x64.shape}", np.shape(weight))
    if a64.shape != (rank, d_in):
        reject_value("lora_a", f"of shape {(rank, d_in)} for x of shape {x64.shape}", a64.shape)
    if b64.shape != (d_out, rank):
        reject_value("lora_b", f"of shape {(d_out, rank)}", b64.shape)
    return x64, w64, a64, b64


def real_gradient(dy: Array, shape: tuple[int, ...]) -> Array:
    """Return the gradient of the output as float64, after checking its shape."""
    real = real_operand(dy, "dy")
    if real.shape != shape:
        reject_value("dy", f"of shape {shape}", real.shape)
    return real


def real_vector(vector: Array, length: int, argument: str) -> Array:
    """Return a vector with one number for each output as float64, after checking its shape."""
    real = real_operand(vector, argument)
    if real.shape != (length,):
        reject_value(argument, f"of shape ({length},)", real.shape)
    return real
