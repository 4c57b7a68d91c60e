"""Faults of conversions at the end of the range, and of what becomes of infinities and NaN."""

from collections.abc import Callable
from typing import Any

import numpy as np

from qloracle.decoding import is_nan
from qloracle.formats import Array, format_named
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
    wrong_encode,
)
from qloracle_conformance.mutants.mutant import Mutant


def _late(values: HostArray, fmt: str) -> HostArray:
    """Keep everything finite that lies below the next power of two."""
    target = format_named(fmt)
    real, end = np.abs(real_of(values)), 2.0 ** (np.floor(np.log2(target.largest_finite)) + 1)
    return replaced(
        values, (real > target.largest_finite) & (real < end), np.copysign(target.largest_finite, real_of(values))
    )


def _infinity_as_largest(values: HostArray, fmt: str) -> HostArray:
    largest = np.copysign(format_named(fmt).largest_finite, real_of(values))
    return replaced(values, np.isinf(real_of(values)), largest)


def _infinity_kept(words: Array, values: HostArray, fmt: str) -> Array:
    """Saturate finite numbers, and write infinities as they are."""
    target = format_named(fmt)
    special = target.infinity_bits if target.infinities else target.quiet_nan_bits
    sign = words & words.dtype.type(target.sign_bit)
    return np.where(np.isinf(real_of(values)), sign | words.dtype.type(special), words)


def _top_field_special(values: HostArray, fmt: str) -> HostArray:
    """Take the largest exponent field for infinity and NaN, as IEEE formats do: 256 to 448 overflow."""
    return replaced(values, np.abs(real_of(values)) > 248.0, np.copysign(np.inf, real_of(values)))


def _clamped(values: HostArray, fmt: str) -> HostArray:
    """Clamp by a minimum and a maximum that both drop NaN."""
    if not values.is_float:
        return values
    return replaced(values, np.isnan(real_of(values)), np.array(format_named(fmt).largest_finite))


def _payload_only(words: Array, values: HostArray, fmt: str) -> Array:
    """Cut the payload of NaN like any mantissa: one whose set bits are all cut off becomes infinity."""
    target = format_named(fmt)
    if not (values.is_float and target.infinities):
        return words
    source = format_named(values.dtype)
    payload = values.words().astype(np.uint64) & np.uint64((1 << source.mantissa_bits) - 1)
    kept = payload >> np.uint64(max(source.mantissa_bits - target.mantissa_bits, 0))
    sign = words & words.dtype.type(target.sign_bit)
    return np.where(np.isnan(values.real()) & (kept == 0), sign | words.dtype.type(target.infinity_bits), words)


def _nan_bits(change: Callable[[Array, Array, str], Array]) -> Callable[..., HostArray]:
    """Return a conversion that makes other bits of NaN where a variant fixes them."""

    def op(values: HostArray, random_bits: HostArray | None = None, *, fmt: str, **options: Any) -> HostArray:
        words = right(values, random_bits, fmt=fmt, **options).words()
        nan = is_nan(words, format_named(fmt)) if "nan" in options else np.zeros(words.shape, np.bool_)
        return host(np.where(nan, change(words, values.words(), fmt), words).astype(words.dtype), fmt)

    return op


def _positive(words: Array, source: Array, fmt: str) -> Array:
    changed: Array = words & words.dtype.type(format_named(fmt).sign_bit - 1)
    return changed


def _without_payload(words: Array, source: Array, fmt: str) -> Array:
    named = format_named(fmt)
    changed: Array = (words & words.dtype.type(named.sign_bit)) | words.dtype.type(named.quiet_nan_bits)
    return changed


def _all_ones(words: Array, source: Array, fmt: str) -> Array:
    changed: Array = words | words.dtype.type(format_named(fmt).filled_bits & ~format_named(fmt).sign_bit)
    return changed


def range_faults() -> list[Mutant]:
    """Return the mutants."""
    return [*_range_faults(), *_nan_faults()]


def _range_faults() -> list[Mutant]:
    bits, end = ("bits",), ("overflow", "nan", "stochastic")  # families of other rules ask for overflow, too
    return [
        *(wrong_encode(f"infinity-late-{fmt}", "everything below the next power of two stays finite", before(_late),
                  bits, fmt) for fmt in ("bfloat16", "float16", "float8_e5m2")),
        wrong_encode("e4m3-saturates", "too large values become 448 though NaN is asked for",
                instead(overflow={"ieee": "saturate"}), (*bits, *end), "float8_e4m3fn"),
        wrong_encode("saturation-ignored", "too large values become infinite though saturation is asked for",
                instead(overflow={"saturate": "ieee"}), end),
        wrong_encode("saturation-spares-infinity", "infinities are not saturated",
                only_if("overflow", "saturate", on_words(_infinity_kept)), end, "float16"),
        wrong_encode("saturation-spares-infinity-e4m3", "infinities become NaN where saturation is asked for",
                only_if("overflow", "saturate", on_words(_infinity_kept)), end, "float8_e4m3fn"),
        wrong_encode("infinity-as-largest", "infinities become the largest finite number",
                     before(_infinity_as_largest), bits),
        wrong_encode("zero-overflows", "toward zero, too large values become infinite",
                only_if("rounding", "toward_zero", instead(rounding={"toward_zero": NEAREST})), ("rounding", *end)),
        wrong_encode("directed-infinity-finite", "toward zero, an infinity becomes the largest finite number",
                only_if("rounding", "toward_zero", before(_infinity_as_largest)), end, "bfloat16"),
        wrong_encode("directed-infinity-finite-e4m3", "toward negative, an infinity becomes the largest finite number",
                only_if("rounding", "toward_negative", before(_infinity_as_largest)), end, "float8_e4m3fn"),
        wrong_encode("top-field-special", "values from 256 on overflow, as if the largest field were special",
                before(_top_field_special), bits, "float8_e4m3fn"),
    ]  # fmt: skip


def _nan_faults() -> list[Mutant]:
    bits, nan = ("bits",), ("nan",)
    return [
        wrong_encode("nan-payload-cut", "a NaN whose set bits are all cut off becomes infinity",
                     on_words(_payload_only), bits),
        wrong_encode("nan-payload-cut-e5m2", "a NaN whose set bits are all cut off becomes infinity",
                     on_words(_payload_only),
                bits, "float8_e5m2"),
        *(wrong_encode(f"nan-clamped-{fmt}", "NaN is lost between a minimum and a maximum", before(_clamped), bits, fmt)
          for fmt in ("float8_e4m3fn", "float8_e8m0fnu", "float8_e5m2fnuz")),
        wrong_encode("nan-sign-lost", "NaN loses its sign where it shall keep it", _nan_bits(_positive), nan),
        wrong_encode("nan-sign-kept", "the canonical NaN gets the sign of the source",
                only_if("nan", "canonical", instead(nan={"canonical": "sign"})), nan, "float16"),
        wrong_encode("nan-payload-lost", "NaN loses its payload where it shall keep it",
                     _nan_bits(_without_payload), nan,
                "bfloat16"),
        wrong_encode("nan-all-ones", "NaN gets a payload of ones", _nan_bits(_all_ones), nan, "float8_e5m2"),
        wrong_encode("nan-as-zero", "NaN becomes 0 though the largest number is asked for",
                instead(nan={"largest": "zero"}), nan, "float4_e2m1fn"),
        wrong_encode("nan-as-largest", "NaN becomes the largest number though 0 is asked for",
                instead(nan={"zero": "largest"}), nan, "float6_e3m2fn"),
    ]  # fmt: skip
