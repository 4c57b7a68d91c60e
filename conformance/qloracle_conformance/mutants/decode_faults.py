"""Faults of decoding: words that are no numbers, subnormals, the bias of another format."""

from collections.abc import Callable

import numpy as np

from qloracle.formats import Array, format_named
from qloracle_conformance.adapters.reference import OPS
from qloracle_conformance.arrays import HostArray, host
from qloracle_conformance.mutants.mutant import Mutant


def decoded_as(change: Callable[[Array, Array, str], Array]) -> Callable[..., HostArray]:
    """Return a widening that makes other values of some words."""

    def op(bits: HostArray, *, dtype: str) -> HostArray:
        values = OPS["decode"](bits, dtype=dtype).items
        return host(change(np.array(values), bits.words(), bits.dtype).astype(values.dtype))

    return op


def _nan_as_number(values: Array, words: Array, fmt: str) -> Array:
    """Decode NaN like any other word: 480 in float8_e4m3fn, 2^128 in float8_e8m0fnu, -0 in the fnuz formats."""
    named = format_named(fmt)
    number = 0.0 if named.top_nans == 0 else np.ldexp(2 - 2.0**-named.mantissa_bits, int(np.log2(named.largest_finite)))
    number = float(np.float32(min(number, 3e38)))
    negative = (words & words.dtype.type(named.sign_bit)) != 0
    return np.where(np.isnan(values), np.where(negative, -number, number), values)


def _negative_nan_as_number(values: Array, words: Array, fmt: str) -> Array:
    """Compare the whole word with the positive NaN: the negative one is a number."""
    return np.where(np.isnan(values) & (words == 0xFF), np.float32(-480.0), values)


def _subnormals_normal(values: Array, words: Array, fmt: str) -> Array:
    """Give subnormals the implicit bit of normal numbers."""
    smallest = np.float32(2.0 ** format_named(fmt).minimum_exponent)
    small = (np.abs(values) < smallest) & (values != 0)
    return np.where(small, np.copysign(smallest / 2 + np.abs(values) / 2, values), values)


def _subnormals_flushed(values: Array, words: Array, fmt: str) -> Array:
    small = np.abs(values) < 2.0 ** format_named(fmt).minimum_exponent
    return np.where(small, np.copysign(np.float32(0), values), values)


def _other_bias(values: Array, words: Array, fmt: str) -> Array:
    """Decode with the bias of the sister format: fn and fnuz differ by one."""
    return values / 2


def _top_binade_special(values: Array, words: Array, fmt: str) -> Array:
    """Decode the largest exponent field as infinity and NaN."""
    return np.where(np.abs(values) >= 256.0, np.copysign(np.float32(np.inf), values), values)


def _zero_word_as_zero(values: Array, words: Array, fmt: str) -> Array:
    return np.where(words == 0, np.float32(0), values)


def decode_faults() -> list[Mutant]:
    """Return the mutants."""

    def wrong(name: str, fault: str, change: Callable[[Array, Array, str], Array], fmt: str = "") -> Mutant:
        prefix = f"{fmt}.decode" if fmt else ""
        return Mutant(f"decode-{name}", fault, {"decode": decoded_as(change)}, ("values",), operations=prefix)

    return [
        *(wrong(f"nan-as-number-{fmt}", "NaN is decoded like any other word", _nan_as_number, fmt)
          for fmt in ("float8_e4m3fn", "float8_e8m0fnu", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e5m2")),
        wrong("negative-nan-as-number", "only the positive NaN is known", _negative_nan_as_number, "float8_e4m3fn"),
        *(wrong(f"subnormals-normal-{fmt}", "subnormals get the implicit bit", _subnormals_normal, fmt)
          for fmt in ("float8_e4m3fn", "float6_e2m3fn", "float4_e2m1fn", "float16")),
        *(wrong(f"subnormals-flushed-{fmt}", "subnormals are decoded as zeros", _subnormals_flushed, fmt)
          for fmt in ("float8_e5m2", "tfloat32", "float6_e3m2fn")),
        wrong("other-bias-fnuz", "the bias of the other float8 family is used", _other_bias, "float8_e5m2fnuz"),
        wrong("other-bias-fn", "the bias of the other float8 family is used", _other_bias, "float8_e4m3fn"),
        wrong("top-binade-special", "the largest exponent field is decoded as infinity", _top_binade_special,
              "float8_e4m3fn"),
        wrong("zero-word-as-zero", "the word 0 is decoded as 0 in a format without zero", _zero_word_as_zero,
              "float8_e8m0fnu"),
    ]  # fmt: skip
