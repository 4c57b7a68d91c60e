"""Slow twins of formats and of rounding in exact rationals: a search among listed values, no arithmetic on words.

Each format is written down as its publication does, without a look at the record in the reference: as the list of its
magnitudes in ascending order, one for each word, then the values that would follow if the range had no end.
"""

from bisect import bisect_right
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from math import inf

# Width of the exponent field, of the mantissa field, and the bias, by the names of ml_dtypes.
LAYOUTS = {
    "float16": (5, 10, 15), "bfloat16": (8, 7, 127), "tfloat32": (8, 10, 127), "float32": (8, 23, 127),
    "float64": (11, 52, 1023), "float8_e5m2": (5, 2, 15), "float8_e4m3fn": (4, 3, 7), "float8_e4m3fnuz": (4, 3, 8),
    "float8_e5m2fnuz": (5, 2, 16), "float8_e8m0fnu": (8, 0, 127), "float6_e2m3fn": (2, 3, 1),
    "float6_e3m2fn": (3, 2, 3), "float4_e2m1fn": (2, 1, 1),
}  # fmt: skip
IEEE = ("float16", "bfloat16", "tfloat32", "float32", "float64", "float8_e5m2")
NO_NAN = ("float6_e2m3fn", "float6_e3m2fn", "float4_e2m1fn")
UNSIGNED_ZERO = ("float8_e4m3fnuz", "float8_e5m2fnuz")
NARROW = tuple(name for name, (width, digits, _) in LAYOUTS.items() if width + digits < 8)
PADDED = {"tfloat32": 13}

ROUNDINGS = ("ties_to_even", "ties_to_away", "toward_zero", "toward_positive", "toward_negative")
NAN, INF = "nan", "inf"


def overflows(fmt: str) -> tuple[str, ...]:
    """The overflow rules that a format has."""
    return ("saturate",) if fmt in NO_NAN else ("ieee", "saturate")


def magnitude_value(magnitude: int, fmt: str) -> Fraction:
    """The real number that a word without sign would be if the format had nothing but numbers."""
    _, digits, bias = LAYOUTS[fmt]
    field, mantissa = divmod(magnitude, 2**digits)
    if field == 0 and fmt != "float8_e8m0fnu":
        return Fraction(mantissa, 2**digits) * Fraction(2) ** (1 - bias)
    return (1 + Fraction(mantissa, 2**digits)) * Fraction(2) ** (field - bias)


def largest_magnitude(fmt: str) -> int:
    """The word of the largest finite number."""
    width, digits, _ = LAYOUTS[fmt]
    if fmt in IEEE:
        return (2**width - 1) * 2**digits - 1
    return 2 ** (width + digits) - (2 if fmt in ("float8_e4m3fn", "float8_e8m0fnu") else 1)


def meaning(word: int, fmt: str) -> Fraction | float | str:
    """What a word stands for: a rational number, ±infinity, or NaN."""
    width, digits, _ = LAYOUTS[fmt]
    word >>= PADDED.get(fmt, 0)
    if fmt == "float8_e8m0fnu":
        return NAN if word == 255 else magnitude_value(word, fmt)
    sign, magnitude = divmod(word, 2 ** (width + digits))
    if fmt in UNSIGNED_ZERO and word == 128:
        return NAN
    if magnitude > largest_magnitude(fmt):
        return (-inf if sign else inf) if fmt in IEEE and magnitude == largest_magnitude(fmt) + 1 else NAN
    return -magnitude_value(magnitude, fmt) if sign else magnitude_value(magnitude, fmt)


@cache
def ladder(fmt: str) -> list[Fraction]:
    """All finite magnitudes of a format of at most 16 bits in ascending order, and one beyond."""
    return [magnitude_value(m, fmt) for m in range(largest_magnitude(fmt) + 2)]


@dataclass(frozen=True)
class Between:
    """A magnitude and the neighbours of its format: the place of the lower one, and both values."""

    place: int
    below: Fraction
    above: Fraction


def neighbours(magnitude: Fraction, fmt: str) -> Between:
    """The neighbours of a positive number, by search where the format is small, else by its step."""
    width, digits, _ = LAYOUTS[fmt]
    if width + digits < 16:
        values = ladder(fmt)
        place = max(bisect_right(values, magnitude) - 1, 0)
        if place == len(values) - 1:
            return Between(place, magnitude, magnitude)
        return Between(place, values[place], values[place + 1])
    low, high = 0, largest_magnitude(fmt) + 1
    if magnitude >= magnitude_value(high, fmt):
        return Between(high, magnitude, magnitude)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if magnitude_value(middle, fmt) <= magnitude else (low, middle)
    return Between(low, magnitude_value(low, fmt), magnitude_value(high, fmt))


def goes_up(value: Fraction, near: Between, rounding: str, random: int | None) -> bool:
    """Whether the magnitude of a number that lies strictly between its neighbours is rounded up."""
    part = (abs(value) - near.below) / (near.above - near.below)
    match rounding:
        case "ties_to_even":
            return part > Fraction(1, 2) or (part == Fraction(1, 2) and near.place % 2 == 1)
        case "ties_to_away":
            return part >= Fraction(1, 2)
        case "toward_positive":
            return value > 0
        case "toward_negative":
            return value < 0
        case "stochastic":
            assert random is not None
            return Fraction(random, 2**32) < part
    return False


def rounded_word(
    value: Fraction | float,
    fmt: str,
    rounding: str,
    overflow: str,
    *,
    negative: bool = False,
    random: int | None = None,
) -> int | str:
    """The word that a rational or an infinity becomes, or NAN; `negative` is the sign of a zero."""
    width, digits, _ = LAYOUTS[fmt]
    minus = value < 0 or (value == 0 and negative)
    largest = largest_magnitude(fmt)
    if fmt == "float8_e8m0fnu" and value <= 0:
        return NAN
    if isinstance(value, float):
        place = largest + 1 if overflow == "ieee" else largest
    else:
        place = rounded_place(value, fmt, rounding, random)
        if place > largest:
            inward = (rounding, minus) in {("toward_positive", True), ("toward_negative", False)}
            place = largest if overflow == "saturate" or inward or rounding == "toward_zero" else largest + 1
    if place > largest and fmt not in IEEE:
        return NAN
    sign = minus and not (fmt in UNSIGNED_ZERO and place == 0)
    return (place + (2 ** (width + digits) if sign else 0)) << PADDED.get(fmt, 0)


def rounded_place(value: Fraction, fmt: str, rounding: str, random: int | None) -> int:
    """The place of the magnitude that a number is rounded to, as if the range had no end."""
    magnitude = abs(value)
    if magnitude < magnitude_value(0, fmt):
        return 0  # float8_e8m0fnu has no number nearer to zero
    near = neighbours(magnitude, fmt)
    if magnitude == near.below:
        return near.place
    return near.place + goes_up(value, near, rounding, random)
