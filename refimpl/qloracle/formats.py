"""Floating-point formats as data, and the arrays that carry them.

A format is a record; the algorithms in `decoding` and `encoding` read its fields and know no format by name. Arrays
of a format that NumPy lacks cross every boundary as unsigned bit patterns together with the format's name; an array
of the ``ml_dtypes`` extension type of the same name is accepted too, where that package is installed.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from qloracle.errors import reject_type, reject_value, require_one_of

Array = np.ndarray[tuple[Any, ...], np.dtype[Any]]  # no alias of NumPy's: records look into it


@dataclass(frozen=True)
class Format:
    """A binary floating-point format: ``sign | exponent field | mantissa field``, then bits that are always 0.

    For a field E > 0 and mantissa m of M bits the value is ``(−1)^sign · 2^(E − bias) · (1 + m/2^M)``; E = 0 is
    ``(−1)^sign · 2^(1 − bias) · m/2^M``, or like any other field where there are no subnormals. The words of the
    largest magnitudes stand for NaN, the one below them for infinity, as far as the format has them.

    A *code* is a word without the bits that are always 0, a *magnitude* a code without the sign: magnitudes count the
    values from 0 upwards.
    """

    name: str
    exponent_bits: int  # width of the exponent field
    mantissa_bits: int  # width of the mantissa field, the implicit leading bit not counted
    bias: int  # exponent field of the value 1.0
    signed: bool  # whether there is a sign bit
    negative_zero: bool  # whether a sign bit alone is −0; in a signed format that has no −0 it is NaN
    subnormals: bool  # whether field 0 holds zero and the subnormals; else there is no zero
    infinities: bool  # whether there are infinities
    top_nans: int  # how many of the largest magnitudes are NaN
    padding: int  # low bits of a word that are always 0
    word: np.dtype[Any]  # unsigned integer that holds one bit pattern
    numpy: np.dtype[Any] | None  # NumPy's own dtype, None where NumPy has none

    @property
    def carrier(self) -> np.dtype[Any]:
        """The dtype of arrays of this format: NumPy's own where there is one, else that of bit patterns."""
        return self.word if self.numpy is None else self.numpy

    @property
    def significand_bits(self) -> int:
        """Precision p: mantissa bits and the implicit one."""
        return self.mantissa_bits + 1

    @property
    def minimum_exponent(self) -> int:
        """Exponent of the smallest normal number."""
        return int(self.subnormals) - self.bias

    @property
    def code_bits(self) -> int:
        """Width of a code."""
        return int(self.signed) + self.exponent_bits + self.mantissa_bits

    @property
    def largest_magnitude(self) -> int:
        """The magnitude of all ones, whatever it stands for."""
        return (1 << (self.exponent_bits + self.mantissa_bits)) - 1

    @property
    def finite_magnitude(self) -> int:
        """Magnitude of the largest finite number."""
        return self.largest_magnitude - self.top_nans - int(self.infinities)

    @property
    def has_nan(self) -> bool:
        """Whether any word is NaN."""
        return self.top_nans > 0 or (self.signed and not self.negative_zero)

    @property
    def infinity_bits(self) -> int:
        """Word of +infinity, or `ArgumentValueError` where there is none; every larger magnitude is NaN."""
        if not self.infinities:
            reject_value("fmt", "a format with infinities", repr(self.name))
        return (self.finite_magnitude + 1) << self.padding

    @property
    def sign_bit(self) -> int:
        """The word whose only set bit is the sign; 0 where there is no sign."""
        return int(self.signed) << (self.exponent_bits + self.mantissa_bits + self.padding)

    @property
    def quiet_nan_bits(self) -> int:
        """The canonical NaN: payload 0 and quiet where there is a choice; `ArgumentValueError` where there is none."""
        if not self.has_nan:
            reject_value("fmt", "a format with NaN", repr(self.name))
        if self.top_nans == 0:
            return self.sign_bit
        quiet = self.top_nans // 2  # where NaN are the words above infinity, those of the upper half are quiet
        return (self.largest_magnitude - quiet) << self.padding

    @property
    def unit_roundoff(self) -> float:
        """Unit roundoff u = 2^−p, the largest relative error of rounding to nearest a number in the normal range."""
        return float(2.0**-self.significand_bits)

    @property
    def half_smallest_subnormal(self) -> float:
        """The largest absolute error of rounding to nearest a number below the normal range."""
        return float(2.0 ** (self.minimum_exponent - self.mantissa_bits - 1))

    @property
    def largest_finite(self) -> float:
        """The largest finite value."""
        field, mantissa = divmod(self.finite_magnitude, 1 << self.mantissa_bits)
        return float((1 + mantissa / 2.0**self.mantissa_bits) * 2.0 ** (field - self.bias))

    @property
    def filled_bits(self) -> int:
        """The word in which every bit is set that ever is."""
        return ((1 << self.code_bits) - 1) << self.padding


def _ieee(name: str, exponent_bits: int, mantissa_bits: int, numpy: str | None = None, padding: int = 0) -> Format:
    """Return a format of IEEE 754-2019, section 3.4: every kind of special value, the bias in the middle."""
    return Format(
        name, exponent_bits, mantissa_bits, bias=(1 << (exponent_bits - 1)) - 1, signed=True, negative_zero=True,
        subnormals=True, infinities=True, top_nans=(1 << mantissa_bits) - 1, padding=padding,
        word=np.dtype(f"u{(1 + exponent_bits + mantissa_bits + padding) // 8}"),
        numpy=None if numpy is None else np.dtype(numpy),
    )  # fmt: skip


def _byte(
    name: str, exponent_bits: int, mantissa_bits: int, bias: int, *, signed: bool = True, negative_zero: bool = True,
    subnormals: bool = True, top_nans: int = 0,
) -> Format:  # fmt: skip
    """Return a format of at most eight bits without infinities."""
    return Format(
        name, exponent_bits, mantissa_bits, bias, signed, negative_zero, subnormals, infinities=False,
        top_nans=top_nans, padding=0, word=np.dtype(np.uint8), numpy=None,
    )  # fmt: skip


FLOAT64 = _ieee("float64", 11, 52, "f8")
FLOAT32 = _ieee("float32", 8, 23, "f4")
FLOAT16 = _ieee("float16", 5, 10, "f2")
BFLOAT16 = _ieee("bfloat16", 8, 7)
TFLOAT32 = _ieee("tfloat32", 8, 10, padding=13)  # a float32 word; NVIDIA 2020, A100 architecture
FLOAT8_E5M2 = _ieee("float8_e5m2", 5, 2)  # Micikevicius et al. 2022, "FP8 Formats for Deep Learning", table 1
FLOAT8_E4M3FN = _byte("float8_e4m3fn", 4, 3, 7, top_nans=1)  # the same
FLOAT8_E4M3FNUZ = _byte("float8_e4m3fnuz", 4, 3, 8, negative_zero=False)  # Noune et al. 2022, section 3
FLOAT8_E5M2FNUZ = _byte("float8_e5m2fnuz", 5, 2, 16, negative_zero=False)  # the same
# Rouhani et al. 2023, "Microscaling Data Formats for Deep Learning", and the OCP specification 1.0, section 5.3.
FLOAT8_E8M0FNU = _byte("float8_e8m0fnu", 8, 0, 127, signed=False, negative_zero=False, subnormals=False, top_nans=1)
FLOAT6_E2M3FN = _byte("float6_e2m3fn", 2, 3, 1)
FLOAT6_E3M2FN = _byte("float6_e3m2fn", 3, 2, 3)
FLOAT4_E2M1FN = _byte("float4_e2m1fn", 2, 1, 1)

FORMATS: dict[str, Format] = {
    f.name: f
    for f in (
        FLOAT64, FLOAT32, FLOAT16, BFLOAT16, TFLOAT32, FLOAT8_E4M3FN, FLOAT8_E5M2, FLOAT8_E4M3FNUZ, FLOAT8_E5M2FNUZ,
        FLOAT8_E8M0FNU, FLOAT6_E2M3FN, FLOAT6_E3M2FN, FLOAT4_E2M1FN,
    )
}  # fmt: skip
_OWN_DTYPE: dict[np.dtype[Any], Format] = {f.numpy: f for f in FORMATS.values() if f.numpy is not None}
TENSOR_FORMATS = ("float32", "float16", "bfloat16")  # what weights and activations may be
_TENSOR_RULE = "float32, float16 or bfloat16"
_ANY_RULE = f"an array of {', '.join(FORMATS)}, or bit patterns with fmt="


def format_named(name: str, argument: str = "fmt") -> Format:
    """Return the format called `name`, or raise `ArgumentValueError` that lists the known names."""
    return FORMATS[require_one_of(argument, name, FORMATS)]


def format_of(values: Array, fmt: str | None = None, argument: str = "values", rule: str = _ANY_RULE) -> Format:
    """Return the format of an array: its dtype's own, or `fmt` for an array of bit patterns.

    `rule` is what an error says of a dtype that is no format: all that the caller accepts.

    Raises
    ------
    ArgumentTypeError
        If `values` is no NumPy array, or its dtype is neither a float of NumPy or ml_dtypes nor the word of `fmt`.
    """
    if not isinstance(values, np.ndarray | np.generic):
        reject_type(argument, "a NumPy array", type(values).__name__)
    own = _OWN_DTYPE.get(values.dtype) or FORMATS.get(values.dtype.name)
    if own is not None and fmt in (None, own.name):
        return own
    if fmt is None:
        reject_type(argument, rule, values.dtype)
    named = format_named(fmt)
    if values.dtype.newbyteorder("=") != named.word:
        reject_type(argument, f"{fmt} as bit patterns of dtype {named.word}", values.dtype)
    return named


def tensor_format(values: Array, fmt: str | None = None, argument: str = "values") -> Format:
    """Return the format of weights or activations as `format_of` does; every other format is refused too."""
    named = format_of(values, fmt, argument, f"{_TENSOR_RULE}, or bit patterns with fmt=")
    if named.name not in TENSOR_FORMATS:
        reject_type(argument, _TENSOR_RULE, named.name)
    return named


def to_bits(values: Array, fmt: str | None = None, argument: str = "values") -> Array:
    """Return the bit patterns of an array of any accepted kind, as unsigned integers of the format's width.

    They are in the machine's byte order, whatever that of `values`. A word with a bit set that the format keeps 0 is
    an `ArgumentValueError`.
    """
    named = format_of(values, fmt, argument)
    native = np.asarray(values, values.dtype.newbyteorder("="))
    words = native.view(named.word)
    if named.filled_bits != np.iinfo(named.word).max:
        excess = words & named.word.type(~named.filled_bits & np.iinfo(named.word).max)
        if np.any(excess):
            first = int(words.reshape(-1)[np.flatnonzero(excess)[0]])
            reject_value(
                argument, f"{named.name} words, whose other bits than {named.filled_bits:#x} are 0", hex(first)
            )
    return words


def from_bits(bits: Array, fmt: str) -> Array:
    """Return bit patterns as NumPy's own float dtype where there is one, else unchanged."""
    named = format_named(fmt)
    return bits if named.numpy is None else bits.view(named.numpy)
