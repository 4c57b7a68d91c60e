"""Decoding bit patterns exactly, and rounding real numbers to a format exactly once.

Clauses: ``[format.decode]``, ``[format.encode]``.
"""

from typing import Any

import numpy as np

from qloracle.errors import reject_type, reject_value
from qloracle.formats import FLOAT32, FLOAT64, Array, Format, format_named, format_of, from_bits, to_bits

ROUNDINGS = ("ties_to_even",)
OVERFLOWS = ("ieee",)


def decode(bits: Array, fmt: str | None = None) -> Array:
    """Return the exact value of every bit pattern, as float64.

    value = (−1)^s · 2^max(E, 1) · (m + [E > 0]·2^M) · 2^(−bias − M), with field E and mantissa m of M bits.

    Parameters
    ----------
    bits : array
        Bit patterns of the format `fmt`, or an array whose own dtype is a known format.
    fmt : str, optional
        Name of the format, needed where the dtype does not tell it.

    Returns
    -------
    array of float64, the shape of `bits`
        The values; no rounding happens. Every NaN gives a NaN.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If the dtype does not fit the format, or the format is unknown.

    Notes
    -----
    Clause ``[format.decode]``. Rounding points: none. Source: IEEE 754-2019, section 3.4.

    Examples
    --------
    >>> decode(np.array([0x3F80, 0x0001, 0xFF80], np.uint16), "bfloat16")
    array([1.00000000e+00, 9.18354962e-41,           -inf])
    """
    named = format_of(bits, fmt, "bits")
    words = to_bits(bits, fmt, "bits").astype(np.uint64)
    if named is FLOAT64:
        return words.view(np.float64)
    magnitude = words & np.uint64(named.sign_bit - 1)
    field = (magnitude >> np.uint64(named.mantissa_bits)).astype(np.int64)
    mantissa = magnitude & np.uint64((1 << named.mantissa_bits) - 1)
    significand = mantissa | ((field > 0).astype(np.uint64) << np.uint64(named.mantissa_bits))
    exponent = np.maximum(field, 1) - (named.bias + named.mantissa_bits)
    values = np.ldexp(significand.astype(np.float64), exponent)
    values = np.where(magnitude == named.infinity_bits, np.inf, values)
    values = np.where(magnitude > named.infinity_bits, np.nan, values)
    return np.where((words & np.uint64(named.sign_bit)) != 0, -values, values)


def encode(values: Array, fmt: str, *, rounding: str = "ties_to_even", overflow: str = "ieee") -> Array:
    """Round every value once to a format and return its bit pattern.

    bits = RN_fmt(value): the nearest number of the format, at a tie the one with the even bit pattern. A magnitude
    of at least (2 − 2^−p)·2^emax, the tie between the largest finite number and 2^(emax+1), becomes infinity.

    Parameters
    ----------
    values : array of float64, float32, float16, any integer dtype
        The exact source: it is not rounded to another format on the way.
    fmt : str
        Name of the target format.
    rounding : {"ties_to_even"}
        Rounding direction.
    overflow : {"ieee"}
        What becomes of values beyond the largest finite one: infinity.

    Returns
    -------
    array of the format's unsigned word, the shape of `values`
        Signs of zero are kept and subnormals are not flushed. NaN gives NaN: the sign and the leading payload bits
        that fit are kept, and where anything is rounded the quiet bit is set (a variant; the rule is the class alone).

    Raises
    ------
    ArgumentTypeError
        If `values` is neither a float nor an integer array.
    ArgumentValueError
        If the format, the rounding or the overflow rule is unknown.

    Notes
    -----
    Clause ``[format.encode]``. Rounding points: one, to `fmt`. Source: IEEE 754-2019, sections 4.3 and 7.4.

    Examples
    --------
    >>> [hex(b) for b in encode(np.array([1 + 2**-8 + 2**-40, 1 + 2**-8]), "bfloat16")]
    ['0x3f81', '0x3f80']
    """
    target = format_named(fmt)
    if rounding not in ROUNDINGS:
        reject_value("rounding", f"one of {', '.join(ROUNDINGS)}", repr(rounding))
    if overflow not in OVERFLOWS:
        reject_value("overflow", f"one of {', '.join(OVERFLOWS)}", repr(overflow))
    source, words = _exact_source(values, target)
    if source.exponent_bits < target.exponent_bits:
        # float64 holds every source, and NumPy's widening cast is the identity on values; a signalling NaN gets quiet.
        with np.errstate(invalid="ignore"):
            words, source = np.asarray(values).astype(np.float64).view(np.uint64), FLOAT64
    return words.astype(target.word) if source is target else _round_words(words, source, target)


def round_to(values: Array, fmt: str) -> Array:
    """Return RN_fmt of every value, in NumPy's own dtype where there is one, else as bit patterns."""
    return from_bits(encode(values, fmt), fmt)


def widen(values: Array, fmt: str | None = None, argument: str = "values") -> Array:
    """Return weights or activations as float32, exactly; float64 is refused where a rule does not name it.

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
        For float64 and every other dtype.
    """
    named = format_of(values, fmt, argument)
    if named is FLOAT64:
        reject_type(argument, "float32, float16 or bfloat16", "float64")
    if named is FLOAT32:
        return from_bits(to_bits(values, fmt, argument), "float32")
    with np.errstate(invalid="ignore"):
        return decode(np.asarray(values), named.name).astype(np.float32)


def _exact_source(values: Array, target: Format) -> tuple[Format, Array]:
    """Return a binary format that holds every value exactly as far as rounding can tell, and the words in it."""
    if isinstance(dtype := getattr(values, "dtype", None), np.dtype) and dtype.kind in "iu":
        # Where float64 is the target, NumPy's cast is the one rounding itself.
        integers = np.asarray(values)
        real = integers.astype(np.float64) if target is FLOAT64 else _integers_to_odd_float64(integers)
        return FLOAT64, real.view(np.uint64)
    source = format_of(values, None, "values")
    if source.numpy is None:
        return FLOAT64, decode(values).view(np.uint64)
    return source, to_bits(values)


def _integers_to_odd_float64(integers: Array) -> Array:
    """Return integers as float64, those beyond 2^53 rounded *to odd*.

    A last bit that is set whenever anything was cut off keeps every later rounding to 51 bits or fewer exact
    (Boldo and Melquiond, 2008), so that int64 16842753 still becomes bfloat16 in a single rounding.
    """
    negative = integers < 0
    magnitude = np.where(negative, np.uint64(0) - integers.astype(np.uint64), integers.astype(np.uint64))
    high = magnitude >> np.uint64(11)
    lost = (magnitude & np.uint64(0x7FF)) != 0
    large = np.ldexp((high | lost).astype(np.float64), 11)
    exact = np.where(magnitude < np.uint64(1 << 53), magnitude.astype(np.float64), large)
    signed: Array = np.where(negative, -exact, exact)
    return signed


def _round_words(words: Array, source: Format, target: Format) -> Array:
    """Round words of `source` to the narrower `target` in integer arithmetic, ties to even.

    With value = significand · 2^(exponent − M_s), the quantum of the target at that magnitude is
    2^(max(exponent, emin) − M_t); the quotient by it is rounded to an integer, which carries into the exponent
    field by itself because binary formats number their magnitudes in order.
    """
    one: Any = source.word.type(1)
    magnitude = words & source.word.type(source.sign_bit - 1)
    field = magnitude >> source.word.type(source.mantissa_bits)
    mantissa = magnitude & source.word.type((1 << source.mantissa_bits) - 1)
    significand = mantissa | (np.minimum(field, one) << source.word.type(source.mantissa_bits))
    exponent = np.maximum(field, one).astype(np.int32) - np.int32(source.bias)
    quantum_exponent = np.maximum(exponent, np.int32(target.minimum_exponent))
    shift = (source.mantissa_bits - target.mantissa_bits) + (quantum_exponent - exponent)
    # Beyond M_s + 2 the significand is below a quarter of the quantum: the same result, and a legal shift.
    shift = np.minimum(shift, np.int32(source.mantissa_bits + 2)).astype(source.word)
    quotient = significand >> shift
    remainder = significand & ((one << shift) - one)
    half = one << (shift - one)
    quotient += (remainder > half) | ((remainder == half) & ((quotient & one) == one))
    steps = (quantum_exponent - np.int32(target.minimum_exponent)).astype(np.int64) << target.mantissa_bits
    bits = np.minimum(steps + quotient.astype(np.int64), target.infinity_bits).astype(target.word)
    payload = (magnitude >> source.word.type(source.mantissa_bits - target.mantissa_bits)).astype(np.uint64)
    payload = (payload & np.uint64((1 << target.mantissa_bits) - 1)).astype(target.word)
    is_nan = magnitude > source.word.type(source.infinity_bits)
    bits = np.where(is_nan, payload | target.word.type(target.quiet_nan_bits), bits)
    negative = (words & source.word.type(source.sign_bit)) != 0
    signed: Array = np.where(negative, bits | target.word.type(target.sign_bit), bits)
    return signed
