"""Why a library's answer differs: causes that can be told from input and answers, each with an argument.

A cause is told by computing what that cause would give, never by a library's name.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from qloracle.decoding import decoded, is_nan
from qloracle.formats import Array, format_named
from qloracle.rounding import encode

_IEEE_ONCE = "IEEE 754-2019, sections 4.3 and 5.4.2: a conversion rounds the exact value once"
_MX_SMALL = "OCP Microscaling Formats 1.0, sections 5.3.2 and 5.3.3: FP6 and FP4 encode neither infinity nor NaN"
_MX_SCALE = "OCP Microscaling Formats 1.0, section 5.4.1: E8M0 is unsigned and has no zero; 0xFF is NaN"
_OFP8 = "OCP 8-bit Floating Point Specification 1.0, section 5.2.1, which defines saturating and plain conversion"


@dataclass(frozen=True)
class Mismatches:
    """Inputs whose answers differ, and the conversion."""

    values: Array  # float32, float64 or int64
    wanted: Array  # words of the reference
    got: Array  # words of the library
    fmt: str
    rounding: str
    overflow: str


@dataclass(frozen=True)
class Cause:
    """One reason for differing answers."""

    title: str
    argument: str  # why the reference answers as it does
    source: str
    explains: Callable[[Mismatches], Array]  # bool


def _outside_words(m: Mismatches) -> Array:
    named = format_named(m.fmt)
    outside: Array = (m.got.astype(np.int64) & ~named.filled_bits) != 0
    return outside


def _nan_input(m: Mismatches) -> Array:
    nan: Array = np.isnan(m.values.astype(np.float64))
    return np.logical_and(nan, not format_named(m.fmt).has_nan)


def _not_positive(m: Mismatches) -> Array:
    unsigned = not format_named(m.fmt).signed
    below: Array = m.values <= 0
    return below & unsigned


def _twice(m: Mismatches) -> Array:
    """Whether the library answers for the float32 number nearest to the input, or that number is a tie."""
    if m.values.dtype == np.float32:
        return np.zeros(m.values.shape, np.bool_)
    with np.errstate(over="ignore"):
        single = m.values.astype(np.float32)
    moved = single.astype(np.float64) != m.values.astype(np.float64)
    if m.values.dtype.kind == "i":  # float64 may not hold the integer either
        moved = np.array([int(a) != int(b) for a, b in zip(single.tolist(), m.values.tolist(), strict=True)], np.bool_)
    ends = encode(_known(single, m), m.fmt, rounding=m.rounding, overflow=m.overflow)
    twice: Array = moved & ((ends == m.got) | _between(single.astype(np.float64), m))
    return twice


def _known(values: Array, m: Mismatches) -> Array:
    return values if format_named(m.fmt).has_nan else np.where(np.isnan(values), 0, values).astype(values.dtype)


def _infinite(m: Mismatches) -> Array:
    infinite: Array = np.isinf(m.values.astype(np.float64))
    return infinite


def _beyond(m: Mismatches) -> Array:
    beyond: Array = np.abs(m.values.astype(np.float64)) > format_named(m.fmt).largest_finite
    return beyond


def _between(exact: Array, m: Mismatches) -> Array:
    """Whether numbers lie in the very middle of the two answers."""
    named = format_named(m.fmt)
    numbers = [decoded(words.astype(named.word), named) for words in (m.wanted, m.got)]
    with np.errstate(invalid="ignore", over="ignore"):
        tie: Array = (numbers[0] != numbers[1]) & (np.abs(numbers[0] - exact) == np.abs(numbers[1] - exact))
    return tie


def _tie_of_one_digit(m: Mismatches) -> Array:
    named, exact = format_named(m.fmt), m.values.astype(np.float64)
    tie: Array = (_between(exact, m) | (exact == 1.5 * named.largest_finite)) & (named.mantissa_bits == 0)
    return tie


def _tie(m: Mismatches) -> Array:
    return _between(m.values.astype(np.float64), m)


def _sign_of_zero(m: Mismatches) -> Array:
    named = format_named(m.fmt)
    zeros: Array = ((m.wanted.astype(np.int64) | m.got.astype(np.int64)) & named.largest_magnitude) == 0
    return zeros & named.signed


def _below_normal(m: Mismatches) -> Array:
    named = format_named(m.fmt)
    small: Array = np.abs(m.values.astype(np.float64)) < 2.0**named.minimum_exponent * 2
    return small & ~is_nan(m.wanted, named)


def _anything(m: Mismatches) -> Array:
    return np.ones(m.values.shape, np.bool_)


UNEXPLAINED = "unexplained"

# In this order: the first that explains a mismatch is its cause.
CAUSES: dict[str, Cause] = {
    "not-a-word": Cause(
        "a number that is no word of the format",
        "an encoding must lie within the format's bits",
        "the format's own definition",
        _outside_words,
    ),
    "nan-without-nan": Cause(
        "NaN in a format without NaN",
        "no encoding stands for NaN, so the reference refuses it unless a variant is named (zero, or the largest"
        " value); a NaN turned into a zero is lost silently",
        _MX_SMALL,
        _nan_input,
    ),
    "not-positive": Cause(
        "zero and negative numbers in a format without sign and zero",
        "nothing that is not positive has a nearest value in the format's sense of a scale, so the answer is NaN;"
        " dropping the sign turns −1 into 1",
        _MX_SCALE,
        _not_positive,
    ),
    "rounded-twice": Cause(
        "rounded to float32 on the way",
        "a number just beside a tie first becomes the tie, and then goes the wrong way",
        _IEEE_ONCE,
        _twice,
    ),
    "tie-of-one-digit": Cause(
        "a tie in a format of one significant bit",
        "both significands are 1, so that evenness cannot decide; the reference takes the even word, as in every other"
        " format (and as gfloat does), while IEEE 754 gives the larger magnitude to one-digit precision: a place where"
        " two right conversions differ",
        "IEEE 754-2019, section 4.3.1, roundTiesToEven; P3109, whose ties go to the even code",
        _tie_of_one_digit,
    ),
    "infinity": Cause("infinity", "an infinite value follows the named overflow policy", _OFP8, _infinite),
    "overflow": Cause(
        "beyond the largest value", "a value beyond the end follows the named overflow policy", _OFP8, _beyond
    ),
    "tie": Cause(
        "a tie goes to the odd word",
        "at a tie the even word is taken",
        "IEEE 754-2019, section 4.3.1, roundTiesToEven",
        _tie,
    ),
    "zero-sign": Cause("the sign of zero", "a result of zero keeps the sign of the value", "IEEE 754-2019, section 6.3",
                       _sign_of_zero),
    "smallest": Cause(
        "around the smallest values",
        "the nearest value is the nearest also below the smallest normal number",
        "IEEE 754-2019, section 4.3.1; OCP Microscaling Formats 1.0, section 5.4.1 for E8M0",
        _below_normal,
    ),
    UNEXPLAINED: Cause("not explained", "", "", _anything),
}  # fmt: skip


def cause_of(mismatches: Mismatches) -> Array:
    """Return for every mismatch the position of its cause in CAUSES."""
    found = np.full(mismatches.values.shape, -1, np.int64)
    with np.errstate(invalid="ignore"):  # widening a signalling NaN makes it quiet
        for position, cause in enumerate(CAUSES.values()):
            found = np.where((found < 0) & cause.explains(mismatches), position, found)
    return found
