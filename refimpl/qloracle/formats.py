"""Floating-point formats as data, and the arrays that carry them.

A format is a record; the algorithms in `rounding` read its fields and know no format by name. NumPy has no bfloat16,
so arrays of it cross every boundary as ``uint16`` bit patterns together with the format's name; an array of the
``ml_dtypes`` extension type of the same name is accepted too, where that package is installed.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qloracle.errors import reject_type, reject_value

Array = NDArray[Any]


@dataclass(frozen=True)
class Format:
    """A binary interchange format with gradual underflow, infinities and NaN (IEEE 754-2019, section 3.4).

    A word is ``sign | exponent field | mantissa field``. For a field E that is neither 0 nor all ones the value is
    ``(-1)^sign · 2^(E − bias) · (1 + m/2^mantissa_bits)``; E = 0 is ``(-1)^sign · 2^(1 − bias) · m/2^mantissa_bits``;
    E all ones is infinity for m = 0 and NaN otherwise.
    """

    name: str
    exponent_bits: int  # width of the exponent field
    mantissa_bits: int  # width of the mantissa field, the implicit leading bit not counted
    bias: int  # exponent field of the value 1.0
    word: np.dtype[Any]  # unsigned integer that holds one bit pattern
    numpy: np.dtype[Any] | None  # NumPy's own dtype, None where NumPy has none

    @property
    def significand_bits(self) -> int:
        """Precision p: mantissa bits and the implicit one."""
        return self.mantissa_bits + 1

    @property
    def minimum_exponent(self) -> int:
        """Exponent of the smallest normal number."""
        return 1 - self.bias

    @property
    def infinity_bits(self) -> int:
        """Magnitude bits of infinity; every larger magnitude is NaN, every smaller one finite."""
        return ((1 << self.exponent_bits) - 1) << self.mantissa_bits

    @property
    def sign_bit(self) -> int:
        """The word whose only set bit is the sign."""
        return 1 << (self.exponent_bits + self.mantissa_bits)

    @property
    def quiet_nan_bits(self) -> int:
        """Magnitude bits of the NaN whose payload is the quiet bit alone."""
        return self.infinity_bits | 1 << (self.mantissa_bits - 1)

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
        return float((2.0 - 2.0**-self.mantissa_bits) * 2.0**self.bias)


def _format(name: str, exponent_bits: int, mantissa_bits: int, numpy: str | None) -> Format:
    word = np.dtype(f"u{(1 + exponent_bits + mantissa_bits) // 8}")
    bias = (1 << (exponent_bits - 1)) - 1
    return Format(name, exponent_bits, mantissa_bits, bias, word, None if numpy is None else np.dtype(numpy))


FLOAT64 = _format("float64", 11, 52, "f8")
FLOAT32 = _format("float32", 8, 23, "f4")
FLOAT16 = _format("float16", 5, 10, "f2")
BFLOAT16 = _format("bfloat16", 8, 7, None)

FORMATS: dict[str, Format] = {f.name: f for f in (FLOAT64, FLOAT32, FLOAT16, BFLOAT16)}
_OWN_DTYPE: dict[np.dtype[Any], Format] = {f.numpy: f for f in FORMATS.values() if f.numpy is not None}
TENSOR_FORMATS = ("float32", "float16", "bfloat16")  # what weights and activations may be


def format_named(name: str, argument: str = "fmt") -> Format:
    """Return the format called `name`, or raise `ArgumentValueError` that lists the known names."""
    if name not in FORMATS:
        reject_value(argument, f"one of {', '.join(FORMATS)}", repr(name))
    return FORMATS[name]


def format_of(values: Array, fmt: str | None = None, argument: str = "values") -> Format:
    """Return the format of an array: its dtype's own, or `fmt` for an array of bit patterns.

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
        reject_type(argument, f"an array of {', '.join(FORMATS)}, or bit patterns with fmt=", values.dtype)
    named = format_named(fmt)
    if values.dtype.newbyteorder("=") != named.word:
        reject_type(argument, f"{fmt} as bit patterns of dtype {named.word}", values.dtype)
    return named


def to_bits(values: Array, fmt: str | None = None, argument: str = "values") -> Array:
    """Return the bit patterns of an array of any accepted kind, as unsigned integers of the format's width.

    They are in the machine's byte order, whatever that of `values`.
    """
    named = format_of(values, fmt, argument)
    native = np.asarray(values, values.dtype.newbyteorder("="))
    return native.view(named.word)


def from_bits(bits: Array, fmt: str) -> Array:
    """Return bit patterns as NumPy's own float dtype where there is one, else unchanged."""
    named = format_named(fmt)
    return bits if named.numpy is None else bits.view(named.numpy)
