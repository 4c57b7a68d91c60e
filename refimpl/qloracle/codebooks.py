"""Codebooks as data: a table of float32 entries in code order, and what follows from it.

Clause: ``[codebook.midpoints]``. The tables themselves stand in `nf4` and `dynamic_map`.
"""

from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from itertools import pairwise

import numpy as np

from qloracle.errors import reject_type, reject_value
from qloracle.formats import Array

MIDPOINT_BITS = 29  # the most significant bits of a midpoint for which float64 decides exactly, see `blockwise`


@dataclass(frozen=True)
class Codebook:
    """A quantization table: code c stands for the real number ``entries[c]`` times the absmax of its block.

    Codes need not be in value order; entries of equal value share a position in value order, and the lower code is
    the one that is written. Midpoints, where one code gives way to the next: m_i = (v_i + v_{i+1}) / 2, exactly, with v
    in value order.

    Notes
    -----
    Clause ``[codebook.midpoints]``. Rounding points: none, for the sum of two float32 words of this range fits float64.
    """

    name: str
    entries: Array  # float32, in code order, finite, within [−1, 1]

    def __post_init__(self) -> None:
        """Check the table: dtype, length, range, and that float64 decides every midpoint exactly."""
        if self.entries.dtype != np.float32 or self.entries.ndim != 1:
            reject_type("entries", "a 1-d float32 array", f"{self.entries.ndim}-d {self.entries.dtype}")
        if self.entries.size not in (16, 256):
            reject_value("entries", "a table of 16 or 256 entries", self.entries.size)
        if not np.all(np.abs(self.entries) <= 1):
            reject_value("entries", "finite numbers in [-1, 1]", "others")
        # In rationals: a float64 midpoint that had to be rounded may have few bits itself.
        values = [Fraction(float(v)) for v in self.entries[self.value_order]]
        if any(significant_bits((low + high) / 2) > MIDPOINT_BITS for low, high in pairwise(values)):
            reject_value("entries", f"a table whose midpoints have at most {MIDPOINT_BITS} significant bits", "more")
        self.entries.setflags(write=False)

    @property
    def code_bits(self) -> int:
        """Bits of a code: 4 or 8."""
        return 4 if self.entries.size == 16 else 8

    @cached_property
    def value_order(self) -> Array:
        """Codes in ascending order of value, one code (the lowest) for each distinct value; uint8."""
        _, first = np.unique(self.entries, return_index=True)
        return first.astype(np.uint8)

    @cached_property
    def midpoints(self) -> Array:
        """The exact midpoints of neighbouring values, float64, ascending."""
        values = self.entries[self.value_order].astype(np.float64)
        return (values[:-1] + values[1:]) / 2

    @cached_property
    def position(self) -> Array:
        """Position in value order of every code; int64, codes of equal value share one."""
        return np.searchsorted(self.entries[self.value_order], self.entries).astype(np.int64)

    @cached_property
    def zero_code(self) -> int:
        """The code that a zero input gets: of the entry nearest 0, the lower at a tie."""
        return int(self.value_order[np.searchsorted(self.midpoints, 0.0, side="left")])


def significant_bits(value: Fraction) -> int:
    """Return the number of bits from the first to the last one of a binary fraction; 0 for zero."""
    numerator = abs(value.numerator)
    return numerator.bit_length() - ((numerator & -numerator).bit_length() - 1 if numerator else 0)


def even_spacing(start: float, stop: float, count: int) -> Array:
    """Return `count` evenly spaced float32 numbers, the first half counted up, the second half counted down.

    t_i = fl32(start + step·i) for i < ⌊count/2⌋, else fl32(stop − step·(count−1−i)), with float32 ends and
    step = fl32(fl32(stop − start) / (count − 1)). This is what `torch.linspace` computes and what the published
    tables were made with; NumPy's float32 `linspace` counts up throughout and gives other last bits.
    """
    first, last = np.float32(start), np.float32(stop)
    step = np.float64(np.float32(last - first) / np.float32(count - 1))
    index = np.arange(count)
    up = (np.float64(first) + step * index).astype(np.float32)
    down = (np.float64(last) - step * (count - 1 - index)).astype(np.float32)
    return np.where(index < count // 2, up, down)


def table_from_words(words: str) -> Array:
    """Return the float32 table whose words are given in hexadecimal, separated by spaces."""
    return np.array([int(word, 16) for word in words.split()], np.uint32).view(np.float32)
