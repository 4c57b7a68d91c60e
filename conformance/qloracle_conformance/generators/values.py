"""Contents of arrays: where rounding decides, where exponents end, and where nothing is special."""

import numpy as np

from qloracle.formats import Array, Format, format_named, from_bits
from qloracle.rounding import encode
from qloracle_conformance.arrays import HostArray, host
from qloracle_conformance.judge import float_ordinals, words_at


def rounded(values: Array, dtype: str) -> HostArray:
    """Return real numbers rounded to a format; where NumPy has it, by its cast, which rounds the same in less time."""
    exact, known = np.asarray(values, np.float64), format_named(dtype).numpy
    with np.errstate(over="ignore"):
        return HostArray(exact.astype(known) if known else from_bits(encode(exact, dtype), dtype), dtype)


def words(bits: Array, dtype: str) -> HostArray:
    """Return bit patterns as an array of a format."""
    return host(np.asarray(bits).astype(format_named(dtype).word), dtype)


def code_words(codes: Array, dtype: str) -> HostArray:
    """Return codes, words without the bits that are always 0, as an array of a format."""
    return words(np.asarray(codes).astype(np.uint64) << np.uint64(format_named(dtype).padding), dtype)


def numbers_for(fmt: str, values: HostArray) -> HostArray:
    """Return floats for a conversion to a format: NaN gets a finite exponent where the format has no NaN."""
    if format_named(fmt).has_nan:
        return values
    source = format_named(values.dtype)
    lower = values.words() & ~values.words().dtype.type(1 << (source.exponent_bits + source.mantissa_bits - 1))
    nan = np.isnan(values.real())
    return words(np.where(nan, lower, values.words()), values.dtype) if np.any(nan) else values


def moved(array: HostArray, steps: Array) -> HostArray:
    """Return finite numbers moved by whole steps to neighbouring numbers of their format."""
    fmt = format_named(array.dtype)
    limit = fmt.finite_magnitude
    ordinals = np.clip(float_ordinals(array.words(), array.dtype) + steps, -limit - 1, limit)
    return words(words_at(ordinals, array.dtype), array.dtype)


def any_exponent(random: np.random.Generator, shape: tuple[int, ...], dtype: str) -> HostArray:
    """Return positive finite numbers with exponents spread evenly from the smallest subnormal to the largest.

    Some are powers of two, and a few are the extremes of the format themselves.
    """
    fmt = format_named(dtype)
    lowest, highest = fmt.minimum_exponent - fmt.mantissa_bits, fmt.bias
    exponent = random.integers(lowest, highest + 1, shape)
    fraction = random.integers(0, 1 << fmt.mantissa_bits, shape) / 2.0**fmt.mantissa_bits
    fraction = np.where(random.integers(0, 4, shape) == 0, 0.0, fraction)
    array = rounded(np.minimum(np.ldexp(1.0 + fraction, exponent), fmt.largest_finite), dtype)
    extremes = np.array([1, (1 << fmt.mantissa_bits) - 1, 1 << fmt.mantissa_bits, fmt.finite_magnitude], np.int64)
    chosen = extremes[random.integers(0, len(extremes), shape)]
    bits = np.where(random.integers(0, 16, shape) == 0, chosen, array.words().astype(np.int64))
    return words(np.maximum(bits, 1), dtype)


def special_words(fmt: Format) -> Array:
    """Return magnitudes that kernels treat apart: zero, subnormals, the ends of the range, infinity, NaN classes."""
    mantissa = (1 << fmt.mantissa_bits) - 1
    last = fmt.finite_magnitude
    finite = [0, 1, 2, mantissa, mantissa + 1, mantissa + 2, last, last - 1]
    above = [last + 1] if fmt.infinities else []
    payloads = [1, mantissa >> 1, (mantissa >> 1) + 1, mantissa] if fmt.infinities else [1] * fmt.top_nans
    above += [last + int(fmt.infinities) + p for p in payloads]
    magnitudes = np.array([*finite, *above], np.uint64) << np.uint64(fmt.padding)
    return np.concatenate([magnitudes, magnitudes | np.uint64(fmt.sign_bit)]) if fmt.signed else magnitudes


def one_not_finite(random: np.random.Generator, array: HostArray) -> HostArray:
    """Return numbers with a NaN or an infinity at one place."""
    values = array.real()
    if values.size:
        values.reshape(-1)[random.integers(0, values.size)] = random.choice([np.nan, np.inf, -np.inf])
    return rounded(values, array.dtype)


def normal(random: np.random.Generator, shape: tuple[int, ...], dtype: str, scale: float | Array = 1.0) -> HostArray:
    """Return normally distributed numbers."""
    return rounded(random.standard_normal(shape) * scale, dtype)


def full_significand(random: np.random.Generator, shape: tuple[int, ...], dtype: str) -> HostArray:
    """Return numbers of magnitude 1 to 2 whose last significand bit is set: any narrower operand changes them."""
    fmt = format_named(dtype)
    bits = random.integers(0, 1 << fmt.mantissa_bits, shape) | 1 | fmt.bias << fmt.mantissa_bits
    return words(bits | random.integers(0, 2, shape) * fmt.sign_bit, dtype)


def small_integers(random: np.random.Generator, shape: tuple[int, ...], dtype: str, largest: int) -> HostArray:
    """Return integers from −largest to largest."""
    return rounded(random.integers(-largest, largest + 1, shape).astype(np.float64), dtype)


def near_boundaries(
    random: np.random.Generator, absmax: HostArray, size: int, boundaries: Array, dtype: str
) -> HostArray:
    """Return groups of numbers on, and one number either side of, the boundaries times the absmax of their group.

    Parameters
    ----------
    random : numpy.random.Generator
    absmax : HostArray, shape (groups,)
        Positive and finite. Each group contains it, with either sign, at a random position.
    size : int
        Elements in a group.
    boundaries : array of float64
        Real numbers in (−1, 1): where the quotient by the absmax changes its code.
    dtype : str

    Returns
    -------
    HostArray, shape (groups, size)
    """
    groups = absmax.shape[0]
    chosen = boundaries[random.integers(0, len(boundaries), (groups, size))]
    largest = absmax.real()[:, np.newaxis]
    near = moved(rounded(chosen * largest, dtype), random.integers(-1, 2, (groups, size)))
    values = np.clip(near.real(), -largest, largest)
    position = random.integers(0, size, groups)
    values[np.arange(groups), position] = absmax.real() * random.choice([-1.0, 1.0], groups)
    return rounded(values, dtype)


def absmax_with_ties(random: np.random.Generator, groups: int, dtype: str, unit: int) -> HostArray:
    """Return absmax values, half of them small multiples of `unit` times a power of two, where exact ties exist."""
    fmt = format_named(dtype)
    multiple = unit * 2.0 ** random.integers(-(fmt.bias // 2), fmt.bias // 2 - 8, groups)
    candidate = rounded(multiple * random.integers(1, 8, groups), dtype).words()
    usual = any_exponent(random, (groups,), dtype).words()
    return words(np.where(random.integers(0, 2, groups) == 0, candidate, usual), dtype)
