"""Conversions that are wrong on one of their paths: a lane, a tail, a class of numbers, a tie of one sign."""

from typing import Any

import numpy as np

from qloracle.decoding import is_nan
from qloracle.formats import Array, format_named
from qloracle_conformance.adapters.reference import OPS
from qloracle_conformance.arrays import HostArray, host
from qloracle_conformance.mutants.changed_conversions import on_words, real_of, replaced, right
from qloracle_conformance.mutants.mutant import Mutant, Op
from qloracle_conformance.mutants.two_paths import (
    Arguments,
    if_call,
    if_element,
    lane,
    odd_last,
    places,
    with_changed,
    with_items,
)


def _rounded(rounding: str) -> Op:
    """Return a conversion that rounds in another way where nothing is said of rounding."""

    def op(values: HostArray, random_bits: HostArray | None = None, *, fmt: str, **options: Any) -> HostArray:
        chosen = options if {"rounding", "overflow"} & set(options) else {**options, "rounding": rounding}
        return right(values, random_bits, fmt=fmt, **chosen)

    return op


CUT, AWAY = _rounded("toward_zero"), _rounded("ties_to_away")


def _last_of_odd_rows(shape: tuple[int, ...], arguments: Arguments) -> Array:
    return places(shape) % shape[-1] == shape[-1] - 1 if len(shape) > 1 and shape[-1] % 2 else np.zeros(shape, np.bool_)


def _subnormal_result(shape: tuple[int, ...], arguments: Arguments) -> Array:
    fmt = format_named(arguments["fmt"])
    return np.abs(real_of(arguments["values"])) < 2.0**fmt.minimum_exponent


def _negative(shape: tuple[int, ...], arguments: Arguments) -> Array:
    return real_of(arguments["values"]) < 0


def _beside_nan(shape: tuple[int, ...], arguments: Arguments) -> Array:
    """Mark the groups of 4 that hold a NaN: they leave the vector path for another one."""
    nan = np.isnan(real_of(arguments["values"])).reshape(-1)
    groups = np.zeros(-(-nan.size // 4) * 4, np.bool_)
    groups[: nan.size] = nan
    return np.repeat(groups.reshape(-1, 4).any(axis=1), 4)[: nan.size].reshape(shape)


def _half_of_the_smallest(words: Array, values: HostArray, fmt: str) -> Array:
    named = format_named(fmt)
    half = np.abs(real_of(values)) == 2.0 ** (named.minimum_exponent - named.mantissa_bits - 1)
    return np.where(half, words | 1, words)


def _carry_lost(words: Array, values: HostArray, fmt: str) -> Array:
    """Keep the exponent field as it was cut, where rounding up fills the significand."""
    named = format_named(fmt)
    cut = right(values, fmt=fmt, rounding="toward_zero").words()
    mantissa = words.dtype.type((1 << named.mantissa_bits) - 1)
    finite = np.isfinite(real_of(values)) & ~is_nan(words, named)
    carried = finite & ((words & ~mantissa) != (cut & ~mantissa)) & ((cut & mantissa) == mantissa)
    return np.where(carried, cut & ~mantissa, words)


def _tie_of_overflow_kept(words: Array, values: HostArray, fmt: str) -> Array:
    named = format_named(fmt)
    limit = named.largest_finite + 2.0 ** (named.bias - named.mantissa_bits - 1)
    largest = right(values, fmt=fmt, overflow="saturate").words()
    return np.where(np.abs(real_of(values)) == limit, largest, words)


def _zero_sign_lost(words: Array, values: HostArray, fmt: str) -> Array:
    return np.where(real_of(values) == 0, 0, words)


def _flushed(values: HostArray, arguments: Arguments) -> HostArray:
    return replaced(values, np.abs(values.real()) < 2.0**-126, np.zeros(values.shape)) if values.is_float else values


def _through_int32(values: HostArray, arguments: Arguments) -> HostArray:
    return with_items(values, values.items.astype(np.int32)) if values.dtype == "int64" else values


def _tail_shares_bits(bits: HostArray, arguments: Arguments) -> HostArray:
    items = np.array(bits.items)
    flat = items.reshape(-1)
    flat[flat.size - flat.size % 4 :] = flat[:1]
    return host(items)


def _nothing(**arguments: Any) -> HostArray:
    right_values: HostArray = OPS["decode"](**arguments)
    return with_items(right_values, np.zeros_like(right_values.items))


def _infinity_as_largest(*, bits: HostArray, dtype: str) -> HostArray:
    values: HostArray = OPS["decode"](bits, dtype=dtype)
    return with_items(values, np.where(np.isinf(values.items), np.copysign(
        values.items.dtype.type(format_named(bits.dtype).largest_finite), values.items), values.items))  # fmt: skip


def _last_byte_swapped(*, codes: HostArray, pad_code: int) -> HostArray:
    packed = np.array(OPS["pack_4bit"](codes, pad_code=pad_code).items)
    if codes.items.size % 4 == 2:
        packed[-1:] = (packed[-1:] << 4) | (packed[-1:] >> 4)
    return host(packed)


def _last_from_low_nibble(*, packed: HostArray, size: int) -> HostArray:
    codes = np.array(OPS["unpack_4bit"](packed, size=size).items)
    if size % 2:
        codes[-1:] = packed.items.reshape(-1)[(size - 1) // 2 : (size + 1) // 2] & 0xF
    return host(codes)


def path_conversion_faults() -> list[Mutant]:
    """Return the mutants."""

    def wrong(name: str, fault: str, op: Op, fmt: str = "", stage: str = "bits") -> Mutant:
        return Mutant(f"encode-{name}", fault, {"encode": op}, (stage,), operations=f"{fmt}.encode" if fmt else "")

    long = if_call("encode", lambda a: a["values"].items.size > 1024, with_changed("encode", values=_flushed))
    wide = with_changed("encode", values=_through_int32)
    stochastic = with_changed("encode", random_bits=_tail_shares_bits)
    return [
        wrong("lane-31-away", "lane 31 of each warp rounds ties away from zero", if_element("encode", lane(31), AWAY)),
        wrong("odd-last-cut", "the last element of an odd number of them is cut off",
              if_element("encode", odd_last, CUT)),
        wrong("odd-rows-cut", "the last element of each row of odd length is cut off",
              if_element("encode", _last_of_odd_rows, CUT)),
        wrong("subnormal-ties-away", "ties among subnormals go away from zero",
              if_element("encode", _subnormal_result, AWAY), "float16"),
        wrong("negative-ties-away", "ties of negative numbers go away from zero",
              if_element("encode", _negative, AWAY), "bfloat16"),
        wrong("beside-nan-cut", "the neighbours of a NaN in its vector of 4 are cut off",
              if_element("encode", _beside_nan, CUT), "bfloat16"),
        wrong("half-smallest-up", "half the smallest number becomes the smallest",
              on_words(_half_of_the_smallest), "float8_e4m3fn"),
        wrong("carry-lost", "rounding up from a significand of ones forgets the carry",
              on_words(_carry_lost), "float8_e5m2"),
        wrong("overflow-tie-finite-half", "the midpoint beyond the largest number stays finite",
              on_words(_tie_of_overflow_kept), "float16"),
        wrong("overflow-tie-finite-e5m2", "the midpoint beyond the largest number stays finite",
              on_words(_tie_of_overflow_kept), "float8_e5m2"),
        wrong("zero-sign-lost", "-0 becomes +0", on_words(_zero_sign_lost), "float16"),
        wrong("long-flushed", "subnormals are read as zeros in arrays of more than 1024 elements", long, "bfloat16"),
        wrong("through-int32", "64-bit integers pass through 32 bits", wide, "float32"),
        wrong("stochastic-tail", "the tail after the last vector of 4 uses the first random word", stochastic,
              "bfloat16", "stochastic"),
        Mutant("decode-odd-last-lost", "the last word of an odd number of them is not read",
               {"decode": if_element("decode", odd_last, _nothing)}, ("values",)),
        Mutant("decode-infinity-largest", "infinities become the largest finite number",
               {"decode": _infinity_as_largest}, ("values",), operations="float8_e5m2.decode"),
        Mutant("pack-last-byte-swapped", "the last byte is packed the other way round where one pair is left over",
               {"pack_4bit": _last_byte_swapped}, ("packed",)),
        Mutant("unpack-odd-last-low", "the last code of an odd number is read from the low nibble",
               {"unpack_4bit": _last_from_low_nibble}, ("codes",)),
    ]  # fmt: skip
