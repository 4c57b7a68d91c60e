"""Where exact numbers lie between the numbers of a format: one integer each, in the order of the format's magnitudes.

The magnitudes of a binary format count its values from zero upwards through all subnormals and binades, so that
adding 1 to a magnitude is one step up everywhere. A float of a wider format becomes such a count by renumbering its
binades, an integer by normalizing it; what is left over is a fraction of the step.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from qloracle.decoding import decoded
from qloracle.directions import Position
from qloracle.formats import FLOAT32, FLOAT64, FORMATS, Array, Format, format_named, format_of, to_bits


@dataclass(frozen=True)
class Exact:
    """Numbers that are about to be rounded, without loss, and where there is no number."""

    at: Position  # of the finite numbers
    magnitude: Array  # the source's own, 0 for zero
    source: Format | None  # None for integers

    @property
    def infinite(self) -> Array:
        """Where a value is infinite."""
        return np.zeros(self.magnitude.shape, np.bool_) if self.source is None else self.magnitude == self._limit

    @property
    def nan(self) -> Array:
        """Where a value is NaN."""
        return np.zeros(self.magnitude.shape, np.bool_) if self.source is None else self.magnitude > self._limit

    @property
    def _limit(self) -> np.unsignedinteger:
        limit: np.unsignedinteger = self.magnitude.dtype.type(0 if self.source is None else self.source.infinity_bits)
        return limit

    def payload(self, bits: int) -> Array:
        """Return the leading bits of the mantissa field, where a value is NaN."""
        dropped = 0 if self.source is None else self.source.mantissa_bits - bits
        kind = self.magnitude.dtype.type
        leading: Array = (self.magnitude >> kind(dropped)) & kind((1 << bits) - 1)
        return leading


Reader = Callable[[Array, Array | None], Exact]  # part of the values, and of the random bits


def reader_of(values: Array, source: str | None, target: Format, tells_beyond: int) -> tuple[Array, Reader, int]:
    """Return the items of an array, the function that reads them without rounding, and the bytes of what it makes.

    float32 is read as it is where its binades cover those of the target; every other source is a float64, exactly;
    but 64-bit integers are read as such.

    Parameters
    ----------
    values : array
        Of a float or integer dtype, or bit patterns of `source`.
    source : str or None
        Format of bit patterns.
    target : Format
    tells_beyond : int
        See `directions.Rounding`.
    """
    dtype = getattr(values, "dtype", None)
    if source is None and isinstance(dtype, np.dtype) and dtype.kind in "iu":
        integers = np.asarray(values, dtype.newbyteorder("="))
        if dtype.itemsize == 8:
            return integers, lambda part, random: integer_positions(part, target, random), 8
        return integers, lambda part, random: float_positions(
            part.astype(np.float64).view(np.uint64), FLOAT64, target, tells_beyond, random
        ), 8  # fmt: skip
    if source is not None:
        format_named(source, "source")
    floats = ", ".join(FORMATS)
    named = format_of(values, source, "values", f"an array of {floats}, or integers, or bit patterns with source=")
    words = to_bits(values, source)
    if named is FLOAT32 and target.minimum_exponent >= FLOAT32.minimum_exponent:
        enough = target is FLOAT32 or FLOAT32.mantissa_bits - target.mantissa_bits >= tells_beyond
        width = 4 if enough else 8
        return words, lambda part, random: float_positions(
            part.astype(f"u{width}", copy=False), FLOAT32, target, tells_beyond, random
        ), width  # fmt: skip
    return words, lambda part, random: float_positions(
        _as_float64(part, named).view(np.uint64), FLOAT64, target, tells_beyond, random
    ), 8  # fmt: skip


def _as_float64(words: Array, fmt: Format) -> Array:
    """Return the values of words; where NumPy has the format, by its cast, which is exact and keeps payloads."""
    if fmt.numpy is None:
        return decoded(words, fmt)
    with np.errstate(invalid="ignore"):  # a signaling NaN becomes a quiet one
        return words.view(fmt.numpy).astype(np.float64)


def float_positions(
    words: Array, source: Format, target: Format, tells_beyond: int, random_bits: Array | None
) -> Exact:
    """Return where floats lie between the numbers of a format.

    Parameters
    ----------
    words : array of uint32 or uint64
        Words of the source, in integers that hold the fraction too.
    source : Format
        float32 or float64; its smallest normal number is no larger than that of `target`, its mantissa no shorter.
    target : Format
    tells_beyond : int
        Bits of a fraction below which one bit tells whether there is more.
    random_bits : array of uint32, or None

    Notes
    -----
    The fraction has k = max(M_source − M_target, tells_beyond) bits, where M are widths of mantissas. Whatever a
    shift pushes out below them is ORed into the last one, which is rounding to odd (Boldo and Melquiond 2008): a
    fraction F/2^k of which more is known to follow has an odd F. With k ≥ 2 the half is the even F = 2^(k−1), so F is
    above, at or below it as the exact fraction is. With k ≥ 33, R < frac · 2^32 if and only if R · 2^(k−32) < F: the
    left side L is even. If nothing was pushed out, F = frac · 2^k. Otherwise F is the odd one of the two integers
    around frac · 2^k, and the even L is below frac · 2^k if and only if it is below that F.
    """
    kind = words.dtype.type
    magnitude = words & kind(source.largest_magnitude)
    dropped = source.mantissa_bits - target.mantissa_bits
    extra = max(tells_beyond - dropped, 0) if dropped else 0
    gap = target.minimum_exponent - source.minimum_exponent
    count = _renumbered(magnitude, source, target, gap, extra) if gap or extra else magnitude
    fraction_bits = dropped + extra
    if not target.subnormals:  # magnitude 0 is the smallest number, to which whatever lies below it is raised
        smallest = kind(1 << (target.mantissa_bits + fraction_bits))
        count = np.maximum(count, smallest) - smallest
    below = count >> kind(fraction_bits)
    fraction = count & kind((1 << fraction_bits) - 1)
    negative = words >= kind(source.sign_bit)
    return Exact(Position(below, fraction, fraction_bits, negative, random_bits), magnitude, source)


def _renumbered(magnitude: Array, source: Format, target: Format, gap: int, extra: int) -> Array:
    """Return magnitudes of the source, counted from the subnormals of the target on, with `extra` bits behind.

    Binades from the target's smallest normal one on are a constant nearer to zero. In those below it the step no
    longer shrinks: the significand is shifted down by their distance. All beyond the target's last are the next one.
    """
    kind = magnitude.dtype.type
    digits = source.mantissa_bits
    field = np.maximum(magnitude >> kind(digits), kind(1))
    significand = (magnitude - ((field - kind(1)) << kind(digits))) << kind(extra)
    binade = np.maximum(field, kind(gap + 1))
    shift = np.minimum(binade - field, kind(digits + extra + 1))  # beyond it nothing is left: the same, and legal
    kept = significand >> shift
    kept |= (kept << shift) != significand
    last = (target.finite_magnitude >> target.mantissa_bits) + int(not target.subnormals)
    counted: Array = (np.minimum(binade - kind(gap + 1), kind(last)) << kind(digits + extra)) + kept
    return counted


def integer_positions(integers: Array, target: Format, random_bits: Array | None) -> Exact:
    """Return where 64-bit integers lie between the numbers of a format whose smallest normal number is at most 1.

    An integer is its leading bit, at 2^e, and 63 bits behind it, of which the format keeps M: the fraction has the
    other 63 − M, all of them, and nothing is lost.
    """
    one, digits = np.uint64(1), np.uint64(target.mantissa_bits)
    negative = integers < 0
    magnitude = np.where(negative, np.uint64(0) - integers.astype(np.uint64), integers.astype(np.uint64))
    # Without the bit after the leading one, the rounding to float64 cannot carry over to the next power of two.
    power = (magnitude & ~(magnitude >> one)).astype(np.float64).view(np.uint64) >> np.uint64(FLOAT64.mantissa_bits)
    exponent = np.maximum(power, np.uint64(FLOAT64.bias)) - np.uint64(FLOAT64.bias)
    significand = magnitude << (np.uint64(63) - exponent)
    fraction_bits = 63 - target.mantissa_bits
    binade = exponent + np.uint64(-target.minimum_exponent)
    below = (significand >> np.uint64(fraction_bits)) + (binade << digits)
    below = np.where(magnitude == 0, np.uint64(0), below)
    if not target.subnormals:
        below = np.maximum(below, one << digits) - (one << digits)
    fraction = significand & np.uint64((1 << fraction_bits) - 1)
    return Exact(Position(below, fraction, fraction_bits, negative, random_bits), magnitude, None)
