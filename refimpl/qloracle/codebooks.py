"""Codebooks as data: a table of float32 entries in code order, and what follows from it.

Clause: ``[codebook.midpoints]``. The tables themselves stand in `nf4`, `fp4`, `dynamic_map`, `linear_map` and
`float8_map`, and by name in `tables`.
"""

from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from itertools import pairwise

import numpy as np

from qloracle.errors import reject_type, reject_value
from qloracle.formats import Array

MIDPOINT_BITS = 29  # the most significant bits of a midpoint for which a float64 quotient decides, see `nearest`


@dataclass(frozen=True, eq=False)
class Codebook:
    """A quantization table: code c stands for the real number ``entries[c]`` times the absmax of its block.

    Codes need not be in value order; entries of equal value share a position in value order, and the lower code is
    the one that is written. Midpoints, where one code gives way to the next: m_i = (v_i + v_{i+1}) / 2, exactly, with v
    in value order. A NaN entry belongs to a code that is never written and reads as NaN.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If `entries` is no 1-d float32 array, has not 16 or 256 items (codes of 4 or 8 bits), holds ±inf or no number.

    Notes
    -----
    Clause ``[codebook.midpoints]``. Rounding points: none. Where all midpoints have at most 29 significant bits, as
    those of every table of this specification, a float64 quotient decides each code (lemma in `nearest`); any other
    table is legal, and is decided by an exact comparison.

    Examples
    --------
    >>> halves = Codebook("halves", np.arange(-8, 8).astype(np.float32) / 2)
    >>> halves.code_bits, halves.zero_code, float(halves.midpoints[0]), halves.quotient_decides
    (4, 8, -3.75, True)
    """

    name: str
    entries: Array  # float32, in code order, finite or NaN; a copy that cannot be written
    quotient_decides: bool = field(init=False)  # whether the lemma of `nearest` covers every midpoint

    def __post_init__(self) -> None:
        """Check the table, keep a copy of it, and find out what decides its codes."""
        table = require_array("entries", self.entries)
        if table.dtype.newbyteorder("=") != np.float32 or table.ndim != 1:
            reject_type("entries", "a 1-d float32 array", f"{table.ndim}-d {table.dtype}")
        if table.size not in (16, 256):
            reject_value("entries", "a table of 16 or 256 entries", table.size)
        if np.any(np.isinf(table)):
            reject_value("entries", "finite numbers, or NaN for codes that are never written", "an infinity")
        if np.all(np.isnan(table)):
            reject_value("entries", "a table with at least one number", "NaN alone")
        own = np.array(table, np.float32)
        own.setflags(write=False)
        object.__setattr__(self, "entries", own)
        # In rationals: a float64 midpoint that had to be rounded may have few bits itself.
        values = [Fraction(float(v)) for v in own[self.value_order]]
        longest = max((significant_bits((low + high) / 2) for low, high in pairwise(values)), default=0)
        object.__setattr__(self, "quotient_decides", longest <= MIDPOINT_BITS)

    @property
    def code_bits(self) -> int:
        """Bits of a code: 4 or 8."""
        return 4 if self.entries.size == 16 else 8

    @cached_property
    def value_order(self) -> Array:
        """Codes in ascending order of value, one code (the lowest) for each distinct value; uint8."""
        values, first = np.unique(self.entries, return_index=True)
        codes: Array = first[~np.isnan(values)].astype(np.uint8)
        return codes

    @cached_property
    def midpoints(self) -> Array:
        """The midpoints of neighbouring values, float64, ascending; rounded where they have more than 53 bits."""
        values = self.entries[self.value_order].astype(np.float64)
        return (values[:-1] + values[1:]) / 2

    @cached_property
    def position(self) -> Array:
        """Position in value order of every code; int64, codes of equal value share one, those of NaN come last."""
        return np.searchsorted(self.entries[self.value_order], self.entries).astype(np.int64)

    @cached_property
    def zero_code(self) -> int:
        """The code that a zero input gets: of the entry nearest 0, the lower at a tie."""
        values = [Fraction(float(v)) for v in self.entries[self.value_order]]
        return int(self.value_order[min(range(len(values)), key=lambda rank: abs(values[rank]))])


def require_array(argument: str, value: object) -> Array:
    """Return `value` if it is a NumPy array, else raise `ArgumentTypeError`."""
    if not isinstance(value, np.ndarray):
        reject_type(argument, "a 1-d float32 array", type(value).__name__)
    return value


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
