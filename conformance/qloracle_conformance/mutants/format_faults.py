"""Faults of conversions to every format: the wrong neighbour, rounding twice, subnormals, words that are none."""

from typing import Any

import numpy as np

from qloracle.formats import Array, format_named
from qloracle.rounding import decode
from qloracle_conformance.arrays import HostArray, host
from qloracle_conformance.mutants.changed_conversions import (
    NEAREST,
    before,
    instead,
    on_words,
    only_if,
    real_of,
    replaced,
    right,
    through,
    wrong_encode,
)
from qloracle_conformance.mutants.mutant import Mutant


def _source_subnormals_lost(values: HostArray, fmt: str) -> HostArray:
    """Read subnormals of the source as zeros, as a processor with DAZ set does."""
    if not values.is_float:
        return values
    tiny = np.abs(real_of(values)) < 2.0 ** format_named(values.dtype).minimum_exponent
    return replaced(values, tiny, np.copysign(0.0, real_of(values)))


def _rounded_then_denormalized(values: HostArray, fmt: str) -> HostArray:
    """Round to the digits of the format as if its exponents went on below, then once more to a subnormal."""
    if not values.is_float:
        return values
    real, target = real_of(values), format_named(fmt)
    with np.errstate(all="ignore"):
        fraction, exponent = np.frexp(real)
        once = np.ldexp(np.rint(np.ldexp(fraction, target.significand_bits)), exponent - target.significand_bits)
    small = (np.abs(real) < 2.0**target.minimum_exponent) & np.isfinite(real) & (real != 0)
    return host(np.where(small, once, real))


def _swapped(words: Array, values: HostArray, fmt: str) -> Array:
    return words.byteswap()


def _sign_at_the_top(words: Array, values: HostArray, fmt: str) -> Array:
    """Put the sign into the first bit of the byte that holds a narrower code."""
    target = format_named(fmt)
    sign = words.dtype.type(target.sign_bit)
    return np.where(words & sign != 0, (words & ~sign) | words.dtype.type(0x80), words)


def _zero_as_smallest(words: Array, values: HostArray, fmt: str) -> Array:
    """Take the exponent field of zero for the word, in a format that has no zero."""
    return np.where(real_of(values) == 0, words.dtype.type(0), words)


def _absolute(values: HostArray, fmt: str) -> HostArray:
    """Ignore the sign of a number that a format without sign cannot hold."""
    return replaced(values, real_of(values) < 0, np.abs(real_of(values)))


def _nan_below(words: Array, values: HostArray, fmt: str) -> Array:
    """Find nothing below the smallest number of a format without zero."""
    real = real_of(values)
    return np.where((real > 0) & (real < 2.0**-128), words.dtype.type(0xFF), words)


def _low_bits_left(words: Array, values: HostArray, fmt: str) -> Array:
    """Round a float32 word to 10 bits and leave what is below them in it."""
    if values.dtype != "float32":
        return words
    changed: Array = words | (values.words() & np.uint32(0x1FFF))
    return changed


def _negative_zero_kept(words: Array, values: HostArray, fmt: str) -> Array:
    """Set the sign of zero in a format where that word is NaN."""
    return np.where((words == 0) & np.signbit(real_of(values)), words.dtype.type(format_named(fmt).sign_bit), words)


def _vector_away(values: HostArray, random_bits: HostArray | None = None, *, fmt: str, **options: Any) -> HostArray:
    """Round ties away from zero in whole vectors of 16, and to even in the tail."""
    plain = right(values, random_bits, fmt=fmt, **options)
    if options.get("rounding", NEAREST) != NEAREST:
        return plain
    words, whole = plain.words().reshape(-1), values.items.size - values.items.size % 16
    away = right(values, fmt=fmt, **{**options, "rounding": "ties_to_away"}).words().reshape(-1)
    return host(np.concatenate([away[:whole], words[whole:]]).reshape(values.shape), fmt)


def _always_up(words: Array, values: HostArray, fmt: str) -> Array:
    """Add one to what was cut off, also where nothing was."""
    named = format_named(fmt)
    finite = np.isfinite(decode(words, fmt)) & (real_of(values) > 0)
    exact = decode(words, fmt) == real_of(values)
    inside = (words & words.dtype.type(named.sign_bit - 1)) < words.dtype.type(named.finite_magnitude << named.padding)
    return np.where(finite & exact & inside, words + words.dtype.type(1 << named.padding), words)


def _sticky_lost(values: HostArray, fmt: str) -> HostArray:
    """Shift a number below the subnormals out of the word before the rounding sees it."""
    target = format_named(fmt)
    gone = np.abs(real_of(values)) < 2.0 ** (target.minimum_exponent - target.mantissa_bits - 2)
    return replaced(values, gone, np.copysign(0.0, real_of(values)))


def format_faults() -> list[Mutant]:
    """Return the mutants."""
    # Rules of rounding and overflow take part in the families of the other rules, too.
    bits, directed = ("bits",), ("rounding", "overflow", "nan", "stochastic")
    away, zero = instead(rounding={NEAREST: "ties_to_away"}), instead(rounding={NEAREST: "toward_zero"})
    return [
        wrong_encode("ties-away", "ties go away from zero", away, bits),
        *(wrong_encode(f"ties-away-{fmt}", "ties go away from zero", away, bits, fmt)
          for fmt in ("float8_e8m0fnu", "float4_e2m1fn", "tfloat32")),
        *(wrong_encode(f"truncated-{fmt}", "what does not fit is cut off", zero, bits, fmt)
          for fmt in ("float16", "float8_e4m3fn", "float8_e5m2", "float6_e3m2fn", "tfloat32", "float32", "float64")),
        wrong_encode("nearest-as-even", "ties away from zero are taken for ties to even",
                instead(rounding={"ties_to_away": NEAREST}), directed),
        wrong_encode("zero-as-floor", "toward zero is taken for toward negative",
                instead(rounding={"toward_zero": "toward_negative"}), directed, "float8_e5m2"),
        wrong_encode("up-and-down-exchanged", "a negative number is rounded in the direction of its magnitude",
                instead(rounding={"toward_positive": "toward_negative",
                        "toward_negative": "toward_positive"}), directed),
        wrong_encode("positive-always-up", "rounding up adds one also where nothing was cut off",
                only_if("rounding", "toward_positive", on_words(_always_up)), directed),
        wrong_encode("sticky-lost", "a number below the subnormals is zero before its direction is seen",
                before(_sticky_lost), directed, "float16"),
        wrong_encode("via-float32", "float64 and integers pass through float32", before(through("float32")), bits),
        wrong_encode("via-float16", "float32 becomes float8 by way of float16", before(through("float16")), bits,
                "float8_e4m3fn"),
        wrong_encode("via-bfloat16", "float32 becomes float8 by way of bfloat16", before(through("bfloat16")), bits,
                "float8_e5m2"),
        wrong_encode("integers-via-float64", "64-bit integers pass through float64", before(through("float64")), bits,
                "float32"),
        wrong_encode("integers-via-float64-directed", "64-bit integers pass through float64",
                before(through("float64")), (*bits, *directed), "bfloat16"),
        wrong_encode("vector-ties-away", "whole vectors of 16 round ties away from zero, the tail to even",
                     _vector_away, bits),
        wrong_encode("source-subnormals-lost", "subnormals of the source are read as zeros",
                before(_source_subnormals_lost), bits, "bfloat16"),
        wrong_encode("denormalized-twice", "a subnormal result is rounded to full precision first",
                before(_rounded_then_denormalized), bits, "float8_e4m3fn"),
        wrong_encode("denormalized-twice-half", "a subnormal result is rounded to full precision first",
                before(_rounded_then_denormalized), bits, "float16"),
        wrong_encode("bytes-swapped", "words are written in the other byte order", on_words(_swapped), bits),
        wrong_encode("sign-at-the-top", "the sign of a 4-bit or 6-bit code is the first bit of its byte",
                on_words(_sign_at_the_top), bits, "float4_e2m1fn"),
        wrong_encode("sign-at-the-top-6", "the sign of a 4-bit or 6-bit code is the first bit of its byte",
                on_words(_sign_at_the_top), bits, "float6_e2m3fn"),
        wrong_encode("low-bits-left", "the low 13 bits of a TF32 word keep what was in them",
                on_words(_low_bits_left), bits, "tfloat32"),
        wrong_encode("zero-as-smallest", "zero becomes the smallest power of two", on_words(_zero_as_smallest), bits,
                "float8_e8m0fnu"),
        wrong_encode("sign-ignored", "a negative number becomes the power of two of its magnitude",
                     before(_absolute), bits,
                "float8_e8m0fnu"),
        wrong_encode("nan-below-the-smallest", "a positive number below the smallest power of two becomes NaN",
                on_words(_nan_below), bits, "float8_e8m0fnu"),
        wrong_encode("negative-zero-kept", "a negative zero gets its sign where that word is NaN",
                on_words(_negative_zero_kept), bits, "float8_e4m3fnuz"),
    ]  # fmt: skip
