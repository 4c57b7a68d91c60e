"""Decoding bit patterns exactly. Clause: ``[format.decode]``."""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from qloracle.errors import reject_value
from qloracle.formats import (
    FLOAT32,
    FLOAT64,
    Array,
    Format,
    format_named,
    format_of,
    from_bits,
    tensor_format,
    to_bits,
)

# Bytes of the widest array in between: a few of them stay in the processor's cache, and are small enough for the C
# library to use the same memory again, where it asks the system for fresh pages at every larger allocation.
CHUNK_BYTES = 64 << 10
LARGEST_TABLE = 16  # bits of a code


def decode(bits: Array, fmt: str | None = None) -> Array:
    """Return the exact value of every bit pattern, as float64.

    value = (−1)^s · 2^max(E, 1) · (m + [E > 0]·2^M) · 2^(−bias − M), with field E and mantissa m of M bits; in a format
    without subnormals (float8_e8m0fnu) 2^E · (m + 2^M) · 2^(−bias − M).

    Parameters
    ----------
    bits : array
        Bit patterns of the format `fmt`, or an array whose own dtype is a known format.
    fmt : str, optional
        Name of the format, needed where the dtype does not tell it.

    Returns
    -------
    array of float64, the shape of `bits`
        The values; no rounding happens. Every NaN gives a NaN (a quiet one with the sign and the mantissa field of the
        word, a variant), every infinity an infinity.

    Raises
    ------
    ArgumentTypeError
        If the dtype does not fit the format, or `bits` is no array.
    ArgumentValueError
        If the format is unknown, or a word has a bit set that the format keeps 0 (tfloat32, float6, float4).

    Notes
    -----
    Clause ``[format.decode]``. Rounding points: none; every number of these formats is a float64.
    The exponents of float8_e8m0fnu have no field for zero: the word 0 is 2^−127. In the formats whose name ends in
    "fnuz" the word of −0 is the one NaN.

    References
    ----------
    IEEE 754-2019, section 3.4. Micikevicius et al. 2022, "FP8 Formats for Deep Learning", table 1. OCP Microscaling
    Formats 1.0, sections 5.3 and 5.4.

    Examples
    --------
    >>> decode(np.array([0x3F80, 0x0001, 0xFF80], np.uint16), "bfloat16")
    array([1.00000000e+00, 9.18354962e-41,           -inf])
    >>> decode(np.array([0x38, 0x01, 0x7E, 0x7F], np.uint8), "float8_e4m3fn")
    array([1.000000e+00, 1.953125e-03, 4.480000e+02,          nan])
    >>> [float(decode(np.uint8(0x80), fmt)) for fmt in ("float8_e4m3fn", "float8_e4m3fnuz", "float8_e8m0fnu")]
    [-0.0, nan, 2.0]
    """
    named = format_of(bits, fmt, "bits")
    words = to_bits(bits, fmt, "bits")
    return in_chunks(lambda part: decoded(part, named), np.dtype(np.float64), words)


def decoded(words: Array, fmt: Format) -> Array:
    """Return the values of words as float64: the significand, an integer, times a power of two, both exact."""
    if fmt is FLOAT64:
        return words.view(np.float64)
    codes = words.astype(np.uint64) >> np.uint64(fmt.padding)
    magnitude = codes & np.uint64(fmt.largest_magnitude)
    field = magnitude >> np.uint64(fmt.mantissa_bits)
    mantissa = magnitude & np.uint64((1 << fmt.mantissa_bits) - 1)
    normal = np.maximum(field, np.uint64(int(fmt.subnormals)))  # field 0 has the exponent of field 1
    implicit = np.uint64(1) if not fmt.subnormals else np.minimum(field, np.uint64(1))
    significand = mantissa | (implicit << np.uint64(fmt.mantissa_bits))
    power = (normal + np.uint64(FLOAT64.bias - fmt.bias - fmt.mantissa_bits)) << np.uint64(FLOAT64.mantissa_bits)
    values = significand.astype(np.float64) * power.view(np.float64)
    real = values.view(np.uint64)
    if fmt.infinities:
        infinite = magnitude == np.uint64(fmt.finite_magnitude + 1)
        real = np.where(infinite, np.uint64(FLOAT64.infinity_bits), real)
    if fmt.has_nan:
        payload = mantissa << np.uint64(FLOAT64.mantissa_bits - fmt.mantissa_bits)
        real = np.where(is_nan(words, fmt), np.uint64(FLOAT64.quiet_nan_bits) | payload, real)
    if fmt.signed:
        real = real | (codes >> np.uint64(fmt.code_bits - 1)) << np.uint64(63)
    signed: Array = real.view(np.float64)
    return signed


def is_nan(words: Array, fmt: Format) -> Array:
    """Return whether each word is a NaN of the format."""
    kind: Any = fmt.word.type
    nan: Array = (words & kind(fmt.largest_magnitude << fmt.padding)) > kind(
        (fmt.largest_magnitude - fmt.top_nans) << fmt.padding
    )
    if fmt.signed and not fmt.negative_zero:
        nan = words == kind(fmt.sign_bit)
    return nan


def format_table(fmt: str) -> Array:
    """Return the values of all words of a format of at most 16 bits: the entry at a word is its value.

    Parameters
    ----------
    fmt : str
        Name of a format of at most 16 bits.

    Returns
    -------
    array of float64, shape (2^bits,)
        Read-only, and the same array at every call.

    Raises
    ------
    ArgumentValueError
        If the format is unknown or wider.

    Notes
    -----
    Clause ``[format.decode]``. Rounding points: none.

    Examples
    --------
    >>> format_table("float4_e2m1fn")
    array([ 0. ,  0.5,  1. ,  1.5,  2. ,  3. ,  4. ,  6. , -0. , -0.5, -1. ,
           -1.5, -2. , -3. , -4. , -6. ])
    """
    named = format_named(fmt)
    if named.code_bits > LARGEST_TABLE:
        reject_value("fmt", f"a format of at most {LARGEST_TABLE} bits", repr(fmt))
    return _table(named)


@cache
def _table(fmt: Format) -> Array:
    table = decoded(np.arange(1 << fmt.code_bits, dtype=fmt.word), fmt)
    table.flags.writeable = False
    return table


def widen(values: Array, fmt: str | None = None, argument: str = "values") -> Array:
    """Return weights or activations as float32, exactly; every other format is refused.

    Parameters
    ----------
    values : array of float32, float16 or bfloat16 (bit patterns with ``fmt="bfloat16"``)
        Weights or activations, of any shape.
    fmt : str, optional
        The format of bit patterns.
    argument : str
        The name that an error message uses.

    Returns
    -------
    array of float32
        The same numbers, NaN kept as NaN.

    Raises
    ------
    ArgumentTypeError
        For float64, the narrow formats, and every other dtype.
    """
    named = tensor_format(values, fmt, argument)
    words = to_bits(values, fmt, argument)
    if named is FLOAT32:
        return from_bits(words, "float32")
    return in_chunks(lambda part: decoded(part, named), np.dtype(np.float32), words)


def in_chunks(function: Callable[..., Array], dtype: np.dtype[Any], *arrays: Array, width: int = 8) -> Array:
    """Return ``function(*arrays)`` for a function of elements, computed a cache-sized part at a time.

    Parameters
    ----------
    function : callable
        Takes the same part of every array, 1-d, and returns that part of the result.
    dtype : dtype
        Of the result.
    *arrays : array
        All of one shape.
    width : int
        Bytes of an item of the widest array that `function` makes.
    """
    shape, chunk = arrays[0].shape, CHUNK_BYTES // width
    flat = [array.reshape(-1) for array in arrays]
    made = np.empty(flat[0].size, dtype)
    for start in range(0, made.size, chunk):
        made[start : start + chunk] = function(*(array[start : start + chunk] for array in flat))
    return made.reshape(shape)
