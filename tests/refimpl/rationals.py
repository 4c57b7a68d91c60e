"""Slow twins of the rules in exact rational arithmetic, written without a look at the code under test."""

from bisect import bisect_left
from collections.abc import Sequence
from fractions import Fraction
from math import inf

import numpy as np
from numpy.typing import NDArray

# IEEE 754-2019: width of the exponent field, width of the mantissa field.
FIELDS = {"float64": (11, 52), "float32": (8, 23), "float16": (5, 10), "bfloat16": (8, 7)}

NAN = "nan"
Real = Fraction | float | str  # a rational number, ±inf, or NAN


def decode_word(word: int, fmt: str) -> Real:
    """The real number that a bit pattern stands for (IEEE 754-2019, section 3.4)."""
    width, digits = FIELDS[fmt]
    sign = -1 if word >> (width + digits) else 1
    field, mantissa = (word >> digits) & ((1 << width) - 1), word & ((1 << digits) - 1)
    bias = 2 ** (width - 1) - 1
    if field == 2**width - 1:
        return NAN if mantissa else sign * inf
    if field == 0:
        return sign * Fraction(mantissa, 2**digits) * Fraction(2) ** (1 - bias)
    return sign * (1 + Fraction(mantissa, 2**digits)) * Fraction(2) ** (field - bias)


def floor_log2(value: Fraction) -> int:
    """The exponent e with 2^e <= value < 2^(e+1)."""
    e = value.numerator.bit_length() - value.denominator.bit_length()
    return e if Fraction(2) ** e <= value else e - 1


def round_word(value: Fraction, fmt: str, *, negative: bool = False) -> int:
    """The bit pattern of a rational rounded once, ties to even; `negative` is the sign of a zero result."""
    width, digits = FIELDS[fmt]
    bias = 2 ** (width - 1) - 1
    sign = (value < 0 or (value == 0 and negative)) << (width + digits)
    magnitude = abs(value)
    e = max(floor_log2(magnitude), 1 - bias) if magnitude else 1 - bias
    steps = round(magnitude / Fraction(2) ** (e - digits))  # Python rounds a Fraction half to even
    if steps == 2 ** (digits + 1):
        steps, e = steps // 2, e + 1
    if e > bias:
        return sign | ((2**width - 1) << digits)
    field = e + bias if steps >= 2**digits else 0
    return sign | (field << digits) | (steps & (2**digits - 1))


def rounded(value: Fraction, fmt: str = "float32") -> Fraction:
    """RN_fmt of a rational as a rational; overflow is an error of the test."""
    result = decode_word(round_word(value, fmt), fmt)
    if not isinstance(result, Fraction):
        raise OverflowError(f"{value} overflows {fmt}")
    return result


def exact(value: float | np.generic) -> Fraction:
    """A float as a rational."""
    return Fraction(float(value))


def midpoint_neighbours(real: Fraction) -> list[np.float32]:
    """The float32 number nearest to a real number, and one on either side, where finite."""
    word = np.array([round_word(real, "float32")], np.uint32)
    centre = word.view(np.float32)[0]
    around = [centre, np.nextafter(centre, np.float32(-inf)), np.nextafter(centre, np.float32(inf))]
    return [value for value in around if np.isfinite(value)]


def nearest_entry(target: Fraction, ascending: Sequence[Fraction]) -> int:
    """The position of the entry nearest to `target`, the lower one at a tie."""
    right = min(max(bisect_left(ascending, target), 1), len(ascending) - 1)
    left = right - 1
    return left if target - ascending[left] <= ascending[right] - target else right


def int8_code(x: Fraction, absmax: Fraction) -> int:
    """The integer nearest to 127·x/absmax, ties to even, saturated."""
    return max(-127, min(127, round(127 * x / absmax)))


def nf4_value(entry: Fraction, absmax: Fraction, fmt: str) -> int:
    """The word of RN_fmt(fl32(entry · absmax)); for entries that are not 0."""
    return round_word(rounded(entry * absmax), fmt, negative=(entry < 0) != (absmax < 0))


def random_float32(rng: np.random.Generator, count: int, *, signed: bool = True) -> NDArray[np.float32]:
    """Finite float32 numbers whose words are uniform: every binade as likely, subnormals included."""
    words = rng.integers(0, 0x7F800000, count, dtype=np.uint32)
    if signed:
        words |= rng.integers(0, 2, count, dtype=np.uint32) << np.uint32(31)
    return words.view(np.float32)
