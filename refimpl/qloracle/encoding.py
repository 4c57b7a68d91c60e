"""Rounding real numbers to a format, exactly once.

Clauses: ``[format.encode]``, ``[format.overflow]``, ``[format.nan]``; the rules of rounding are in `directions`.
"""

import numpy as np

from qloracle.decoding import in_chunks
from qloracle.directions import ROUNDINGS, Rounding
from qloracle.errors import reject_type, reject_value, require_dtype, require_one_of
from qloracle.formats import Array, Format, format_named, from_bits
from qloracle.positions import Exact, reader_of

OVERFLOWS = ("ieee", "saturate")
NAN_BITS = ("payload", "sign", "canonical")  # where there is NaN
NAN_VALUES = ("reject", "zero", "largest")  # where there is none


def overflows_of(fmt: str) -> tuple[str, ...]:
    """Return the overflow rules that a format knows, the default first.

    Examples
    --------
    >>> overflows_of("float8_e4m3fn"), overflows_of("float4_e2m1fn")
    (('ieee', 'saturate'), ('saturate',))
    """
    named = format_named(fmt)
    return OVERFLOWS if named.infinities or named.has_nan else ("saturate",)


def nan_rules_of(fmt: str) -> tuple[str, ...]:
    """Return what can become of NaN in a format, the default first.

    Examples
    --------
    >>> nan_rules_of("float16"), nan_rules_of("float6_e2m3fn")
    (('payload', 'sign', 'canonical'), ('reject', 'zero', 'largest'))
    """
    return NAN_BITS if format_named(fmt).has_nan else NAN_VALUES


def encode(
    values: Array, fmt: str, *, rounding: str = "ties_to_even", overflow: str | None = None, nan: str | None = None,
    random_bits: Array | None = None, source: str | None = None,
) -> Array:  # fmt: skip
    """Round every value once to a format and return its bit pattern.

    bits = the word of the number of `fmt` that `rounding` picks for the exact value; to nearest, a tie goes to the
    even bit pattern.

    Parameters
    ----------
    values : array of float64, float32, float16, any integer dtype, an ml_dtypes float, or bit patterns of `source`
        The exact source: it is not rounded to another format on the way.
    fmt : str
        Name of the target format.
    rounding : {"ties_to_even", "ties_to_away", "toward_zero", "toward_positive", "toward_negative", "stochastic"}
        Which neighbour a number between two numbers of the format becomes: ``[format.rounding]``.
    overflow : {"ieee", "saturate"}, optional
        What becomes of values beyond the largest finite one: ``[format.overflow]``. The default is "ieee", and
        "saturate" in formats that have neither infinities nor NaN.
    nan : {"payload", "sign", "canonical"} or {"reject", "zero", "largest"}, optional
        Which bits a NaN gets; in formats without NaN, what it becomes: ``[format.nan]``. The first is the default.
    random_bits : array of uint32, the shape of `values`
        The random bits of stochastic rounding, and only of it: ``[format.stochastic]``.
    source : str, optional
        Name of the format of `values` where they are bit patterns.

    Returns
    -------
    array of the format's unsigned word, the shape of `values`
        Subnormals are not flushed. −0 stays −0 where the format has it, else it becomes +0. float8_e8m0fnu has neither
        sign nor zero: values ≤ 0 become NaN, and a positive value below the smallest number becomes that number,
        whatever the rounding.

    Raises
    ------
    ArgumentTypeError
        If `values` is neither a float nor an integer array, or `random_bits` is no uint32 array.
    ArgumentValueError
        If a name is unknown or does not belong to the format, `random_bits` is missing, superfluous or of another
        shape, or a value is NaN where the format has none and `nan` is "reject".

    Notes
    -----
    Clause ``[format.encode]``. Rounding points: one, to `fmt`.

    References
    ----------
    IEEE 754-2019, sections 4.3 and 7.4. OCP Microscaling Formats 1.0, section 5.3.

    Examples
    --------
    >>> [hex(b) for b in encode(np.array([1 + 2**-8 + 2**-40, 1 + 2**-8]), "bfloat16")]
    ['0x3f81', '0x3f80']
    >>> [hex(b) for b in encode(np.array([464, 464.0001, -1e30]), "float8_e4m3fn")]
    ['0x7e', '0x7f', '0xff']
    >>> encode(np.array([2.5, 2.5], np.float32), "float4_e2m1fn", rounding="toward_positive")
    array([5, 5], dtype=uint8)
    >>> bits = np.array([2**31 - 1, 2**31], np.uint32)
    >>> encode(np.array([2.5, 2.5], np.float32), "float4_e2m1fn", rounding="stochastic", random_bits=bits)
    array([5, 4], dtype=uint8)
    """
    target = format_named(fmt)
    overflow = _chosen("overflow", overflow, overflows_of(fmt), fmt)
    nan = _chosen("nan", nan, nan_rules_of(fmt), fmt)
    rule = ROUNDINGS[require_one_of("rounding", rounding, ROUNDINGS)]
    items, read, width = reader_of(values, source, target, rule.tells_beyond)
    random = _random_bits(random_bits, rounding, items.shape)

    def part(numbers: Array, *bits: Array) -> Array:
        return _rounded(read(numbers, bits[0] if bits else None), rule, target, overflow, nan)

    return in_chunks(part, target.word, items, *random, width=width)


def round_to(
    values: Array, fmt: str, *, rounding: str = "ties_to_even", overflow: str | None = None, nan: str | None = None,
    random_bits: Array | None = None,
) -> Array:  # fmt: skip
    """Return `encode` of every value, in NumPy's own dtype where there is one, else as bit patterns.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        As `encode`.

    Examples
    --------
    >>> round_to(np.array([1 / 3]), "float16")
    array([0.3333], dtype=float16)
    """
    bits = encode(values, fmt, rounding=rounding, overflow=overflow, nan=nan, random_bits=random_bits)
    return from_bits(bits, fmt)


def _chosen(argument: str, value: object, known: tuple[str, ...], fmt: str) -> str:
    if value is None:
        return known[0]
    if not isinstance(value, str) or value not in known:
        reject_value(argument, f"one of {', '.join(known)} for {fmt}", repr(value))
    return value


def _random_bits(random_bits: Array | None, rounding: str, shape: tuple[int, ...]) -> tuple[Array, ...]:
    """Return the random bits if the rounding takes any, else nothing; refuse what does not fit."""
    if rounding != "stochastic":
        if random_bits is not None:
            reject_value("random_bits", f"None where rounding is {rounding}", "an argument")
        return ()
    if random_bits is None:
        reject_value("random_bits", "given where rounding is stochastic", "None")
    if not isinstance(random_bits, np.ndarray | np.generic):
        reject_type("random_bits", "a NumPy array of uint32", type(random_bits).__name__)
    require_dtype("random_bits", random_bits, "uint32")
    if random_bits.shape != shape:
        reject_value("random_bits", f"of shape {shape}, that of values", random_bits.shape)
    return (np.asarray(random_bits),)


def _rounded(exact: Exact, rule: Rounding, target: Format, overflow: str, nan: str) -> Array:
    """Return the words of exact numbers."""
    at = exact.at
    counted = at.below + rule.up(at) if at.fraction_bits else at.below
    first_outside = counted.dtype.type(target.finite_magnitude + 1)  # stands for all that follow, and fits the word
    magnitude = np.minimum(counted, first_outside).astype(target.word)
    magnitude, lost = ended(magnitude, exact, rule, target, overflow)
    lost |= exact.nan
    if not target.signed:
        lost |= at.negative | (exact.magnitude == 0)
    words = magnitude << target.word.type(target.padding)
    if target.signed:
        minus = at.negative if target.negative_zero else at.negative & (words != 0)
        words |= minus.astype(target.word) << target.word.type(target.code_bits - 1 + target.padding)
    return np.where(lost, nan_words(exact, target, nan), words) if np.any(lost) else words


def ended(magnitude: Array, exact: Exact, rule: Rounding, target: Format, overflow: str) -> tuple[Array, Array]:
    """Return magnitudes that the format has, and where there is none but NaN.

    ``[format.overflow]`` A value is rounded as if the exponent range had no end. What then lies beyond the largest
    finite number becomes, under

    - ieee: infinity, or NaN where the format has no infinities; but the largest finite number where the rounding is
      directed to zero's side of the value: toward_zero, toward_positive below zero, toward_negative above it;
    - saturate: the largest finite number.

    An infinite value is exact, so that no direction applies: infinity, or NaN; under saturate the largest finite
    number. The sign is kept. In float8_e4m3fn the tie 464 between 448 and 480, the word of NaN, goes to the even 448.

    Source: IEEE 754-2019, section 7.4; OCP 8-bit Floating Point Specification 1.0, section 5.2.1.
    """
    largest = magnitude.dtype.type(target.finite_magnitude)
    outside = magnitude > largest
    nowhere = np.zeros(magnitude.shape, np.bool_)
    if overflow == "saturate" or not np.any(outside):
        return np.minimum(magnitude, largest), nowhere
    inside = rule.ends_inside(exact.at.negative) & ~exact.infinite
    if target.infinities:
        return np.where(inside, np.minimum(magnitude, largest), magnitude), nowhere
    return np.minimum(magnitude, largest), outside & ~inside


def nan_words(exact: Exact, target: Format, nan: str) -> Array:
    """Return for every element the word of a NaN, or of what stands in for it.

    ``[format.nan]`` NaN stays NaN: that is the rule. Its bits are a variant:

    - payload: the sign, and as many leading bits of the mantissa field as fit, the quiet bit set;
    - sign: the sign, and no payload;
    - canonical: one word, the positive quiet NaN without payload.

    A format without NaN refuses it (reject), or takes +0 (zero) or the largest finite number (largest, what NVIDIA's
    cvt.satfinite does) instead.

    Source: IEEE 754-2019, section 6.2.3; NVIDIA PTX ISA 8.7, instruction cvt.
    """
    kind, shape = target.word.type, exact.magnitude.shape
    if not target.has_nan:
        if nan == "reject":
            reject_value("values", f"free of NaN, which {target.name} lacks, unless nan= says otherwise", "NaN")
        value = {"zero": 0, "largest": target.finite_magnitude}[nan]
        return np.full(shape, value << target.padding, target.word)
    words = np.full(shape, target.quiet_nan_bits, target.word)
    if nan == "payload" and target.top_nans > 1:
        words |= exact.payload(target.mantissa_bits).astype(target.word) << kind(target.padding)
    if nan != "canonical" and target.signed:
        words |= np.where(exact.at.negative, kind(target.sign_bit), kind(0))
    return words
