"""Operands of merges as real numbers, checked at the door, and what becomes of their sums."""

import numpy as np

from qloracle.blocks import CHUNK
from qloracle.errors import reject_type, reject_value
from qloracle.formats import Array, format_named
from qloracle.rounding import decode, round_to, widen


def merge_operands(
    weight: Array, lora_a: Array, lora_b: Array, *, fan_in_fan_out: bool, fmt: str | None
) -> tuple[Array, Array, Array]:
    """Return W as (d_out, d_in), A and B as float64, after checking that their shapes belong together."""
    stored = _matrix(weight, fmt, "weight")
    if not isinstance(fan_in_fan_out, bool | np.bool_):
        reject_type("fan_in_fan_out", "a bool", repr(fan_in_fan_out))
    real = stored.T if fan_in_fan_out else stored
    a64, b64 = _matrix(lora_a, fmt, "lora_a"), _matrix(lora_b, fmt, "lora_b")
    if a64.shape[1] != real.shape[1]:
        reject_value("lora_a", f"of shape (r, {real.shape[1]}) for a weight of shape {stored.shape}", a64.shape)
    if b64.shape != (len(real), len(a64)):
        reject_value("lora_b", f"of shape {(len(real), len(a64))}", b64.shape)
    return real, a64, b64


def low_rank(a64: Array, b64: Array) -> Array:
    """Return B A in float64."""
    with np.errstate(invalid="ignore", over="ignore"):
        product: Array = b64 @ a64
    return product


def bias_operands(bias: Array, lora_bias: Array, fmt: str | None) -> tuple[Array, Array]:
    """Return both vectors as float64; shapes are checked."""
    real, added = real_values(bias, fmt, "bias"), real_values(lora_bias, fmt, "lora_bias")
    if real.ndim != 1:
        reject_value("bias", "1-d", f"{real.ndim}-d")
    if added.shape != real.shape:
        reject_value("lora_bias", f"of shape {real.shape}", added.shape)
    return real, added


def real_values(array: Array, fmt: str | None, argument: str) -> Array:
    """Return weights as float64; `fmt` is the format of those that are bit patterns, and says nothing of others."""
    words = getattr(getattr(array, "dtype", None), "kind", "") == "u"
    with np.errstate(invalid="ignore"):
        return widen(array, fmt if words else None, argument).astype(np.float64)


def rounded_sum(real: Array, scale: float, delta: Array, fmt: str, *, transpose: bool = False) -> Array:
    """Return RN_fmt(real + scale · delta)."""
    first, second = (real.T, delta.T) if transpose else (real, delta)
    made = np.empty(first.shape, format_named(fmt).carrier)
    together = max(CHUNK * len(first) // max(first.size, 1), 1)
    with np.errstate(invalid="ignore", over="ignore"):
        for start in range(0, len(first), together):
            rows = slice(start, start + together)  # what is computed in between stays in the cache
            made[rows] = round_to(np.ascontiguousarray(first[rows] + scale * second[rows]), fmt)
    return made


def require_finite(values: Array, fmt: str, argument: str) -> None:
    """Raise `ArgumentValueError` that names the first element that is NaN or infinite."""
    real = decode(values, fmt)
    wrong = np.flatnonzero(~np.isfinite(real))
    if wrong.size:
        place = tuple(int(i) for i in np.unravel_index(wrong[0], real.shape))
        reject_value(argument, "finite", f"{real[place]} at {place}; the weight is as it was")


def _matrix(array: Array, fmt: str | None, argument: str) -> Array:
    real = real_values(array, fmt, argument)
    if real.ndim != 2:
        reject_value(argument, "2-d", f"{real.ndim}-d")
    return real
