"""Operands of merges, checked at the door, and what becomes of their sums."""

from dataclasses import dataclass

import numpy as np

from qloracle.errors import reject_value, require_flag
from qloracle.formats import Format
from qloracle_gpu.cupy.arrays import carrier, flat_words
from qloracle_gpu.cupy.launcher import Array, Operation
from qloracle_gpu.cupy.operands import matrix, require_matrix_operand
from qloracle_gpu.cupy.rounding import decode
from qloracle_gpu.cupy.vectors import ITEMS


@dataclass(frozen=True)
class MergeOperands:
    """A weight and the adapter that is merged into it, checked; not widened yet."""

    weight: tuple[Array, Format]
    lora_a: tuple[Array, Format]
    lora_b: tuple[Array, Format]
    fan_in_fan_out: bool

    @property
    def rank(self) -> int:
        """Rows of A."""
        return len(self.lora_a[0])

    def factors(self, run: Operation) -> tuple[Array, Array]:
        """Return A and B as float32 matrices."""
        a, b = (matrix(run, operand, *operand[0].shape) for operand in (self.lora_a, self.lora_b))
        return a, b

    def matrices(self, run: Operation) -> tuple[Array, Array, Array]:
        """Return W of shape (d_out, d_in), A and B as float32 matrices."""
        w = matrix(run, self.weight, *self.weight[0].shape)
        return w.T if self.fan_in_fan_out else w, *self.factors(run)


def merge_operands(
    weight: object, lora_a: object, lora_b: object, *, fan_in_fan_out: bool, fmt: str | None
) -> MergeOperands:
    """Return the operands after checking that their shapes belong together."""
    w = require_matrix_operand("weight", weight, fmt)
    stored = require_flag("fan_in_fan_out", fan_in_fan_out)
    d_out, d_in = w[0].shape[::-1] if stored else w[0].shape
    a, b = require_matrix_operand("lora_a", lora_a, fmt), require_matrix_operand("lora_b", lora_b, fmt)
    if a[0].shape[1] != d_in:
        reject_value("lora_a", f"of shape (r, {d_in}) for a weight of shape {w[0].shape}", a[0].shape)
    if b[0].shape != (d_out, len(a[0])):
        reject_value("lora_b", f"of shape {(d_out, len(a[0]))}", b[0].shape)
    return MergeOperands(w, a, b, stored)


def rounded_sum(run: Operation, weight: tuple[Array, Format], low: Array, scale: np.float32) -> Array:
    """Return RN(weight + low·scale) in the shape and the format of the weight; the rest in float32."""
    array, named = weight
    out = run.empty(array.size, carrier(named))
    arguments = (flat_words(run, array), low, np.int64(array.size), scale, out)
    run.launch("adapters", f"merge_{named.name}", -(-array.size // ITEMS), arguments)
    return out.reshape(array.shape)


def require_finite(run: Operation, merged: Array, named: Format) -> Array:
    """Return a merged weight, or raise `ArgumentValueError` that names its first element that is NaN or infinite."""
    words = flat_words(run, merged)
    kind = named.word.type
    wrong = (words & kind(named.sign_bit - 1)) >= kind(named.infinity_bits)
    if words.size and bool(wrong.any()):
        first = int(wrong.argmax())
        place = tuple(int(i) for i in np.unravel_index(first, merged.shape))
        value = float(decode(words[first : first + 1], named.name)[0])
        reject_value("the merged weight", "finite", f"{value} at {place}; the weight is as it was")
    return merged
