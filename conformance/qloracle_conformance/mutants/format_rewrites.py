"""Right conversions that share nothing with the reference's algorithm: the suite must accuse none of them."""

from typing import Any

import numpy as np

from qloracle.formats import Array, format_named
from qloracle.rounding import format_table
from qloracle_conformance.adapters.reference import OPS
from qloracle_conformance.arrays import HostArray, host
from qloracle_conformance.mutants.changed_conversions import right
from qloracle_conformance.mutants.mutant import Rewrite


def _added_and_cut(values: HostArray, random_bits: HostArray | None = None, *, fmt: str, **options: Any) -> HostArray:
    """Round float32 to bfloat16 by adding to the word and cutting it; every NaN becomes one word."""
    if fmt != "bfloat16" or values.dtype != "float32" or options or random_bits is not None:
        return right(values, random_bits, fmt=fmt, **options)
    words = values.words().astype(np.uint64)
    rounded = ((words + 0x7FFF + ((words >> 16) & 1)) >> 16).astype(np.uint16)
    return host(np.where(np.isnan(values.items), np.uint16(0x7FC0), rounded), fmt)


def _by_arithmetic(values: HostArray, random_bits: HostArray | None = None, *, fmt: str, **options: Any) -> HostArray:
    """Round in float64: divide by the step, round to an integer, look the number up in a list of all."""
    named = format_named(fmt)
    if options or random_bits is not None or not values.is_float or named.code_bits > 16 or not named.subnormals:
        return right(values, random_bits, fmt=fmt, **options)
    real = values.real()
    with np.errstate(all="ignore"):
        exponent = np.maximum(np.frexp(real)[1] - 1, named.minimum_exponent) - named.mantissa_bits
        magnitude = np.abs(np.ldexp(np.rint(np.ldexp(real, -exponent)), exponent))
    table = format_table(fmt)[: named.finite_magnitude + 1]
    code = np.searchsorted(table, np.nan_to_num(magnitude, nan=0.0))
    above = named.finite_magnitude + int(named.infinities)
    beyond = np.isnan(real) | ((magnitude > table[-1]) & named.has_nan & (not named.infinities))
    code = np.minimum(code, above)
    negative = np.signbit(real) & (named.negative_zero | (code != 0))
    words = (code | np.where(negative, named.sign_bit, 0)).astype(named.word)
    return host(np.where(beyond, named.word.type(named.quiet_nan_bits if named.has_nan else 0), words), fmt)


def _by_midpoints(values: HostArray, random_bits: HostArray | None = None, *, fmt: str, **options: Any) -> HostArray:
    """Search among the midpoints of an 8-bit format; at a midpoint, take the even code."""
    named = format_named(fmt)
    if options or random_bits is not None or not values.is_float or named.code_bits > 8:
        return right(values, random_bits, fmt=fmt, **options)
    real, table = values.real(), format_table(fmt)[: named.finite_magnitude + 1]
    end = 2 * table[-1] - table[-2] if named.mantissa_bits else 2 * table[-1]
    midpoints = (table + np.append(table[1:], end)) / 2
    magnitude = np.nan_to_num(np.abs(real), nan=0.0, posinf=np.finfo(np.float64).max)
    code = np.searchsorted(midpoints, magnitude, side="left")
    tie = (code < midpoints.size) & (midpoints[np.minimum(code, midpoints.size - 1)] == magnitude)
    code += tie & (code % 2 == 1)
    return host(_finished(code, real, fmt), fmt)


def _finished(code: Array, real: Array, fmt: str) -> Array:
    """Return words of magnitudes, which count on past the largest finite one."""
    named = format_named(fmt)
    beyond = code > named.finite_magnitude
    nan = np.isnan(real) | (beyond & named.has_nan & (not named.infinities))
    if not named.signed:
        nan |= ~(real > 0)
    code = np.minimum(code, named.finite_magnitude + int(named.infinities))
    negative = np.signbit(real) & (named.negative_zero | (code != 0))
    words = code | np.where(negative, named.sign_bit, 0)
    return np.where(nan, named.quiet_nan_bits if named.has_nan else 0, words).astype(named.word)


def _carried(values: HostArray, random_bits: HostArray | None = None, *, fmt: str, **options: Any) -> HostArray:
    """Round float32 to bfloat16 stochastically: add what the random bits leave to 1 behind the word, and cut."""
    usual = fmt == "bfloat16" and values.dtype == "float32" and set(options) == {"rounding"}
    if random_bits is None or not usual:
        return right(values, random_bits, fmt=fmt, **options)
    words, left = values.words().astype(np.uint64), np.uint64((1 << 32) - 1) - random_bits.items.astype(np.uint64)
    magnitude = words & np.uint64(0x7FFFFFFF)
    rounded = np.minimum(((magnitude << np.uint64(16)) + left) >> np.uint64(32), np.uint64(0x7F80))
    rounded = np.where(np.isnan(values.items), np.uint64(0x7FC1), rounded)
    return host((rounded | ((words >> np.uint64(31)) << np.uint64(15))).astype(np.uint16), fmt)


def _looked_up(bits: HostArray, *, dtype: str) -> HostArray:
    """Decode by a table of all words."""
    named = format_named(bits.dtype)
    if dtype != "float32" or named.code_bits > 16:
        result: HostArray = OPS["decode"](bits, dtype=dtype)
        return result
    return host(format_table(bits.dtype).astype(np.float32)[bits.words()].reshape(bits.shape))


def format_rewrites() -> list[Rewrite]:
    """Return the rewrites."""
    return [
        Rewrite("encode-added-and-cut", "float32 to bfloat16 by an addition to the word",
                {"encode": _added_and_cut}, {}),
        Rewrite("encode-by-arithmetic", "rounding by a division in float64", {"encode": _by_arithmetic}, {}),
        Rewrite("encode-by-midpoints", "rounding by a search among midpoints", {"encode": _by_midpoints}, {}),
        Rewrite("stochastic-by-carry", "stochastic rounding by the carry of an addition", {"encode": _carried}, {}),
        Rewrite("decode-by-table", "decoding by a table of all words", {"decode": _looked_up}, {}),
    ]  # fmt: skip
