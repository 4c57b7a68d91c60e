"""Operands of merges as real numbers, checked at the door, and what becomes of their sums.

A weight is widened piece by piece, where it is added to: only the change B A, a product, is held whole in float64.
"""

from collections.abc import Iterator

import numpy as np

from qloracle.blocks import CHUNK
from qloracle.errors import reject_type, reject_value
from qloracle.formats import Array, format_named, tensor_format
from qloracle.lora import lora_scale
from qloracle.rounding import decode, round_to, widen


def merge_operands(
    weight: Array, lora_a: Array, lora_b: Array, *, fan_in_fan_out: bool, fmt: str | None
) -> tuple[Array, Array, Array]:
    """Return W as (d_out, d_in), A and B as float64, after checking that their shapes belong together."""
    a64, b64 = merge_factors(weight, lora_a, lora_b, fan_in_fan_out=fan_in_fan_out, fmt=fmt)
    real = real_values(weight, fmt, "weight")
    return real.T if fan_in_fan_out else real, a64, b64


def merge_factors(
    weight: Array, lora_a: Array, lora_b: Array, *, fan_in_fan_out: bool, fmt: str | None
) -> tuple[Array, Array]:
    """Return A and B as float64, after checking that they belong to a weight, which is left as it is."""
    tensor_format(weight, _format_of_words(weight, fmt), "weight")
    if weight.ndim != 2:
        reject_value("weight", "2-d", f"{weight.ndim}-d")
    if not isinstance(fan_in_fan_out, bool | np.bool_):
        reject_type("fan_in_fan_out", "a bool", repr(fan_in_fan_out))
    d_out, d_in = weight.shape[::-1] if fan_in_fan_out else weight.shape
    a64, b64 = _matrix(lora_a, fmt, "lora_a"), _matrix(lora_b, fmt, "lora_b")
    if a64.shape[1] != d_in:
        reject_value("lora_a", f"of shape (r, {d_in}) for a weight of shape {weight.shape}", a64.shape)
    if b64.shape != (d_out, len(a64)):
        reject_value("lora_b", f"of shape {(d_out, len(a64))}", b64.shape)
    return a64, b64


def change_of(
    weight: Array,
    lora_a: Array,
    lora_b: Array,
    *,
    alpha: float,
    rank_stabilized: bool,
    fan_in_fan_out: bool,
    fmt: str | None,
) -> Array:
    """Return s B A in float64, of shape (d_out, d_in), after checking that it belongs to the weight."""
    a64, b64 = merge_factors(weight, lora_a, lora_b, fan_in_fan_out=fan_in_fan_out, fmt=fmt)
    scale, delta = lora_scale(alpha, len(a64), rank_stabilized=rank_stabilized), low_rank(a64, b64)
    with np.errstate(invalid="ignore", over="ignore"):
        delta *= scale
    return delta


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
    with np.errstate(invalid="ignore"):
        return widen(array, _format_of_words(array, fmt), argument).astype(np.float64)


def rounded_sum(weight: Array, fmt: str | None, change: Array, name: str, *, transpose: bool = False) -> Array:
    """Return RN_name(weight + change) in the shape of the weight, which holds changeᵀ with `transpose`."""
    change = change.T if transpose else change
    made = np.empty(weight.shape, format_named(name).carrier)
    with np.errstate(invalid="ignore", over="ignore"):
        for piece in pieces(weight.shape):
            real = real_values(weight[piece], fmt, "weight")
            made[piece] = round_to(np.ascontiguousarray(real + change[piece]), name)
    return made


def pieces(shape: tuple[int, ...]) -> Iterator[tuple[slice, ...]]:
    """Yield the parts of an array of one or two axes that have at most `CHUNK` elements each.

    Examples
    --------
    >>> [(rows.start, columns.stop) for rows, columns in pieces((2, 70000))]
    [(0, 65536), (0, 70000), (1, 65536), (1, 70000)]
    """
    columns = max(min(shape[-1], CHUNK), 1)
    rows = max(CHUNK // columns, 1)
    for start in range(0, shape[0] if len(shape) == 2 else 1, rows):
        before = (slice(start, min(start + rows, shape[0])),) if len(shape) == 2 else ()
        for first in range(0, shape[-1], columns):
            yield (*before, slice(first, min(first + columns, shape[-1])))


def require_finite(values: Array, fmt: str, argument: str) -> None:
    """Raise `ArgumentValueError` that names the first element that is NaN or infinite."""
    flat = values.reshape(-1)
    for start in range(0, flat.size, CHUNK):
        real = decode(flat[start : start + CHUNK], fmt)
        wrong = np.flatnonzero(~np.isfinite(real))
        if wrong.size:
            place = tuple(int(i) for i in np.unravel_index(start + wrong[0], values.shape))
            reject_value(argument, "finite", f"{real[wrong[0]]} at {place}; the weight is as it was")


def _format_of_words(array: Array, fmt: str | None) -> str | None:
    return fmt if getattr(getattr(array, "dtype", None), "kind", "") == "u" else None


def _matrix(array: Array, fmt: str | None, argument: str) -> Array:
    real = real_values(array, fmt, argument)
    if real.ndim != 2:
        reject_value(argument, "2-d", f"{real.ndim}-d")
    return real
