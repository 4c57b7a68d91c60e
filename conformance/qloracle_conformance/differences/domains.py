"""The inputs on which conversions are compared."""

from collections.abc import Iterator
from itertools import product

import numpy as np

from qloracle.formats import Array, format_named
from qloracle.rounding import format_table

_LOW = np.array([0x000, 0x001, 0x7FF, 0x800, 0x801, 0xFFF], np.uint32)
SLICE = 1 << 18


def float32_words(first: int, last: int) -> Iterator[Array]:
    """Yield all float32 numbers from one word to another, a slice at a time."""
    for start in range(first, last + 1, SLICE):
        yield np.arange(start, min(start + SLICE, last + 1), dtype=np.uint32).view(np.float32)


def float32_classes() -> Iterator[Array]:
    """Yield float32 numbers with every pattern of the upper 20 bits, and six patterns below them.

    A conversion to a format of at most 10 mantissa bits reads the upper 20 bits, and of the others only whether any is
    set: these 6,291,456 numbers hold every value, every tie, and a number close to it on either side.
    """
    high = np.arange(1 << 20, dtype=np.uint32) << 12
    for part in np.split(high, 16):
        yield (part[:, np.newaxis] | _LOW).reshape(-1).view(np.float32)


def float64_boundaries(fmt: str) -> Iterator[Array]:
    """Yield float64 numbers around every value and every tie of a format, and beyond its ends.

    Around each: the number itself, its float64 neighbours, and the numbers half a float32 unit away and a little less
    or more, where rounding to float32 on the way lands on the value or the tie.
    """
    table = format_table(fmt)
    values = np.unique(np.abs(table[np.isfinite(table)]))
    ties = (values[1:] + values[:-1]) / 2
    top = values[-1]
    ends = np.array([top + (top - values[-2]) / 2, 2 * top, 1e300, np.finfo(np.float64).max, 5e-324, 2.0**-1022])
    centres = np.concatenate([values, ties, ends])
    steps = [0.0, *(sign * 2.0**-shift for sign, shift in product((1, -1), (24, 25, 26, 30, 40, 52)))]
    with np.errstate(over="ignore"):
        around = (centres[:, np.newaxis] * (1 + np.array(steps))).reshape(-1)
        around = np.concatenate([around, np.nextafter(centres, 0), np.nextafter(centres, np.inf), [0, np.inf, np.nan]])
    for sign in (1.0, -1.0):
        yield np.copysign(around, sign)


def int64_boundaries(fmt: str) -> Iterator[Array]:
    """Yield integers around every integer value and every integer tie of a format, and of the largest magnitudes."""
    named = format_named(fmt)
    precision = named.significand_bits
    found = {0, 1, 2, 3, 2**63 - 1, 2**62, 2**53 + 1, 2**24 + 1}
    for exponent in range(63):
        for top in range(1 << min(precision, 4)):
            value = (1 << exponent) + ((2 * top + 1) << max(exponent - precision, 0))
            found |= {v for v in (value - 1, value, value + 1) if v < 2**63}
    positive = np.array(sorted(found), np.int64)
    yield np.concatenate([positive, -positive])


def nan_words() -> Array:
    """Return float32 NaN of both signs: every leading payload bit alone, all together, and some last bits."""
    payloads = [1 << bit for bit in range(23)] + [0x7FFFFF, 0x3FFFFF, 0x400001, 0x155555]
    positive = np.array(payloads, np.uint32) | np.uint32(0x7F800000)
    return np.concatenate([positive, positive | np.uint32(0x80000000)]).view(np.float32)
