"""Numbers at which a rounding to a format decides, and the random words at which stochastic rounding does."""

import numpy as np

from qloracle.formats import FORMATS, Array, Format, format_named
from qloracle.rounding import encode
from qloracle_conformance.arrays import HostArray, host
from qloracle_conformance.generators.values import moved, rounded

FRACTIONS = np.array([0.0, 0.25, 0.5, 0.5, 0.5, 0.75])  # of the step from one number to the next


def magnitude_values(magnitudes: Array, fmt: Format) -> Array:
    """Return the values of magnitudes of a format, those beyond its end as if the exponents went on."""
    field, mantissa = np.divmod(magnitudes.astype(np.int64), 1 << fmt.mantissa_bits)
    first = int(fmt.subnormals)
    significand = mantissa + (np.minimum(field + 1 - first, 1) << fmt.mantissa_bits)
    with np.errstate(over="ignore"):
        values: Array = np.ldexp(
            significand.astype(np.float64), np.maximum(field, first) - fmt.bias - fmt.mantissa_bits
        )
    return values


def magnitudes_around(random: np.random.Generator, fmt: Format, count: int) -> Array:
    """Return magnitudes of a format: many at its end, around its smallest normal number and at zero."""
    last, normal = fmt.finite_magnitude, 1 << fmt.mantissa_bits
    any_of_all = random.integers(0, last + 1, count)
    top = last - random.integers(0, 4, count)
    low = np.minimum(np.maximum(normal + random.integers(-4, 5, count), 0), last)
    lowest = random.integers(0, min(6, last), count)
    kind = random.integers(0, 8, count)
    chosen: Array = np.select([kind < 2, kind == 2, kind == 3], [top, low, lowest], any_of_all)
    return np.maximum(chosen, 0)


def in_source(random: np.random.Generator, reals: Array, source: str) -> HostArray:
    """Return positive real numbers in a type, each the nearest one there or one beside it."""
    step = random.integers(-1, 2, reals.shape)
    if source in FORMATS:
        largest = format_named(source).largest_finite
        return moved(rounded(np.minimum(reals, largest), source), step)
    info = np.iinfo(source)
    whole = np.rint(np.minimum(reals, 2.0 ** (info.bits - 1) - 2.0 ** max(info.bits - 54, 0))).astype(np.int64)
    return host(np.clip(whole + step, 0, min(info.max, np.iinfo(np.int64).max)).astype(source))


def either_sign(random: np.random.Generator, values: HostArray, fmt: str) -> HostArray:
    """Return numbers with random signs; mostly positive ones for a format without sign."""
    least = 0 if format_named(fmt).signed else -6
    sign = np.where(random.integers(least, 2, values.shape) == 1, -1, 1)
    if values.dtype not in FORMATS:
        return host((values.items.astype(np.int64) * sign).astype(values.dtype))
    words, bit = values.words(), format_named(values.dtype).sign_bit
    words = words | np.where(sign < 0, words.dtype.type(bit), words.dtype.type(0))
    return HostArray(words.view(values.items.dtype), values.dtype)


def decisions(
    random: np.random.Generator, fmt: str, source: str, count: int, fractions: Array = FRACTIONS
) -> HostArray:
    """Return numbers of a type on the numbers of a format, on its ties and quarters, and one step beside those."""
    target = format_named(fmt)
    low = magnitudes_around(random, target, count)
    below, above = magnitude_values(low, target), magnitude_values(low + 1, target)
    above = np.where(np.isfinite(above), above, below)
    reals = below + random.choice(fractions, count) * (above - below)
    if source not in FORMATS:
        reals = np.where(
            reals < 0.5, np.ldexp(1 + reals % 1, random.integers(0, np.iinfo(source).bits - 1, count)), reals
        )
    return either_sign(random, in_source(random, reals, source), fmt)


def turning_words(random: np.random.Generator, values: HostArray, fmt: str) -> Array:
    """Return random words for stochastic rounding: on either side of the one at which each number turns; the ends."""
    target = format_named(fmt)
    magnitude = np.abs(values.real())
    finite = np.where(np.isfinite(magnitude), magnitude, 0.0)
    lower = encode(finite, fmt, rounding="toward_zero", overflow="saturate").astype(np.uint64) >> np.uint64(
        target.padding
    )
    lower = np.minimum(lower.astype(np.int64), target.finite_magnitude)
    below, above = magnitude_values(lower, target), magnitude_values(lower + 1, target)
    with np.errstate(all="ignore"):
        turn = np.ceil(np.clip((finite - below) / (above - below), 0.0, 1.0) * 2.0**32)
    turn = np.where(np.isfinite(turn), turn, 0.0).astype(np.int64)
    anywhere = random.integers(0, 1 << 32, turn.shape)
    kind = random.integers(0, 8, turn.shape)
    ends = [turn - 1, turn, turn + 1, np.zeros_like(turn), np.full_like(turn, (1 << 32) - 1)]
    chosen = np.select([kind < 2, kind < 4, kind == 4, kind == 5, kind == 6], ends, anywhere)
    words: Array = np.clip(chosen, 0, (1 << 32) - 1).astype(np.uint32)
    return words
