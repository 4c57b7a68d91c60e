"""Conversions between formats: `decode` is exact, `encode` and `round_to` round exactly once.

Clauses: ``[format.decode]``, ``[format.encode]``, ``[format.rounding]``, ``[format.overflow]``, ``[format.nan]``,
``[format.stochastic]``.
"""

import numpy as np

from qloracle.errors import reject_type, reject_value
from qloracle.formats import FORMATS, TENSOR_FORMATS, Format, format_named
from qloracle_gpu.cupy.arrays import OWN, checked_words, copied, flat_words, format_of, holds_nan
from qloracle_gpu.cupy.launcher import Array, Operation, operation, require_array
from qloracle_gpu.cupy.sources import FORMAT_NUMBERS, NAN_BITS, NAN_RULES, NAN_VALUES, ROUNDINGS
from qloracle_gpu.cupy.vectors import ITEMS

OVERFLOWS = ("ieee", "saturate")
NARROWED = ("float8_e4m3fn", "float8_e5m2")  # what the vectorised kernels convert any of the three formats to
KINDS = {"i": 1, "u": 2}  # of integers, as the kernel `encode` numbers them; words of a format are 0


def decode(bits: Array, fmt: str | None = None) -> Array:
    """Return the exact value of every bit pattern, as float64.

    Parameters
    ----------
    bits : array
        Bit patterns of the format `fmt`, or an array whose own dtype is a known format.
    fmt : str, optional
        Name of the format, needed where the dtype does not tell it.

    Returns
    -------
    array of float64, the shape of `bits`
        No rounding happens. Every NaN gives a NaN with its sign and mantissa field, every infinity an infinity.

    Raises
    ------
    ArgumentTypeError
        If the dtype does not fit the format, or `bits` is no array.
    ArgumentValueError
        If the format is unknown, or a word has a bit set that the format keeps 0 (tfloat32, float6, float4).

    Notes
    -----
    Clause ``[format.decode]``. Rounding points: none.
    """
    array = require_array("bits", bits)
    named = format_of(array, fmt, "bits")
    with operation("decode", bits=array) as run:
        words = checked_words(run, array, named, "bits")
        if named.name == "float64":
            return copied(run, words).view("float64").reshape(array.shape)
        out = run.empty(words.size, "uint64")
        arguments = (words, np.int64(words.size), np.int32(words.itemsize), _number(named), out)
        run.launch("convert", "decode", words.size, arguments)
        return out.view("float64").reshape(array.shape)


def encode(
    values: Array, fmt: str, *, rounding: str = "ties_to_even", overflow: str | None = None, nan: str | None = None,
    random_bits: Array | None = None, source: str | None = None,
) -> Array:  # fmt: skip
    """Round every value once to a format and return its bit pattern.

    Parameters
    ----------
    values : array of float64, float32, float16, any integer dtype, an ml_dtypes float, or bit patterns of `source`
        The exact source: it is not rounded to another format on the way.
    fmt : str
        Name of the target format.
    rounding : {"ties_to_even", "ties_to_away", "toward_zero", "toward_positive", "toward_negative", "stochastic"}
    overflow : {"ieee", "saturate"}, optional
        The default is "ieee", and "saturate" in formats that have neither infinities nor NaN.
    nan : {"payload", "sign", "canonical"} or {"reject", "zero", "largest"}, optional
        Which bits a NaN gets; in formats without NaN, what it becomes. The first is the default.
    random_bits : array of uint32, the shape of `values`
        The random bits of stochastic rounding, and only of it.
    source : str, optional
        Name of the format of `values` where they are bit patterns.

    Returns
    -------
    array of the format's unsigned word, the shape of `values`

    Raises
    ------
    ArgumentTypeError
        If `values` is neither a float nor an integer array, or `random_bits` is no uint32 array.
    ArgumentValueError
        If a name is unknown or does not belong to the format, `random_bits` is missing, superfluous or of another
        shape, or a value is NaN where the format has none and `nan` is "reject" (which waits for the device).

    Notes
    -----
    Clause ``[format.encode]``. Rounding points: one, to `fmt`.
    """
    target = format_named(fmt)
    overflow = _chosen("overflow", overflow, OVERFLOWS if target.infinities or target.has_nan else ("saturate",), fmt)
    nan = _chosen("nan", nan, NAN_BITS if target.has_nan else NAN_VALUES, fmt)
    if rounding not in ROUNDINGS:
        reject_value("rounding", f"one of {', '.join(ROUNDINGS)}", repr(rounding))
    array = require_array("values", values)
    named = None if source is None and array.dtype.kind in KINDS else _source_format(array, source)
    random = _random_bits(random_bits, rounding, array.shape)
    with operation("encode", values=array, random_bits=random) as run:
        words = flat_words(run, array) if named is None else checked_words(run, array, named, "values")
        if nan == "reject" and named is not None and holds_nan(words, named):
            reject_value("values", f"free of NaN, which {fmt} lacks, unless nan= says otherwise", "NaN")
        out = run.empty(words.size, target.word)
        plain = rounding == "ties_to_even" and overflow == "ieee" and nan == "payload"
        fast = _fast_kernel(named, target) if plain else None
        if fast is not None:
            run.launch("convert", fast, -(-words.size // ITEMS), (words, np.int64(words.size), out))
        else:
            bits = words if random is None else flat_words(run, random)  # a pointer that is not read
            rule = (ROUNDINGS.index(rounding), overflow == "saturate", NAN_RULES.index(nan))
            kind = 0 if named is not None else KINDS[array.dtype.kind]
            arguments = (
                words, np.int64(words.size), np.int32(words.itemsize), np.int32(kind), _number(named or target),
                _number(target), *map(np.int32, rule), bits, out, np.int32(target.word.itemsize),
            )  # fmt: skip
            run.launch("convert", "encode", words.size, arguments)
        return out.reshape(array.shape)


def round_to(
    values: Array, fmt: str, *, rounding: str = "ties_to_even", overflow: str | None = None, nan: str | None = None,
    random_bits: Array | None = None,
) -> Array:  # fmt: skip
    """Return `encode` of every value, in CuPy's own dtype where there is one, else as bit patterns.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        As `encode`.
    """
    bits = encode(values, fmt, rounding=rounding, overflow=overflow, nan=nan, random_bits=random_bits)
    return bits.view(fmt) if fmt in OWN else bits


def widened(run: Operation, array: Array, named: Format) -> Array:
    """Return weights or activations as float32, exactly; 1-d and contiguous."""
    words = flat_words(run, array)
    if named.name == "float32":
        return words.view("float32")
    out = run.empty(words.size, "float32")
    run.launch("convert", f"widen_{named.name}", -(-words.size // ITEMS), (words, np.int64(words.size), out))
    return out


def _source_format(array: Array, source: str | None) -> Format:
    if source is not None:
        format_named(source, "source")
    rule = f"an array of {', '.join(FORMATS)}, or integers, or bit patterns with source="
    return format_of(array, source, "values", rule)


def _fast_kernel(source: Format | None, target: Format) -> str | None:
    """Return the vectorised kernel for a conversion under the default rules, if there is one."""
    if source is None or source.name not in TENSOR_FORMATS:
        return None
    if target.name in NARROWED or (source.name == "float32" and target.name in ("float16", "bfloat16")):
        return f"narrow_{source.name}_{target.name}"
    return f"widen_{source.name}" if target.name == "float32" != source.name else None


def _number(named: Format) -> np.int32:
    return np.int32(FORMAT_NUMBERS[named.name])


def _chosen(argument: str, value: object, known: tuple[str, ...], fmt: str) -> str:
    if value is None:
        return known[0]
    if not isinstance(value, str) or value not in known:
        reject_value(argument, f"one of {', '.join(known)} for {fmt}", repr(value))
    return value


def _random_bits(random_bits: object, rounding: str, shape: tuple[int, ...]) -> Array | None:
    """Return the random bits if the rounding takes any, else None; refuse what does not fit."""
    if rounding != "stochastic":
        if random_bits is not None:
            reject_value("random_bits", f"None where rounding is {rounding}", "an argument")
        return None
    if random_bits is None:
        reject_value("random_bits", "given where rounding is stochastic", "None")
    array = require_array("random_bits", random_bits)
    if array.dtype != np.uint32:
        reject_type("random_bits", "uint32", array.dtype)
    if array.shape != shape:
        reject_value("random_bits", f"of shape {shape}, that of values", array.shape)
    return array
