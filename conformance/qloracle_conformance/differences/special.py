"""What is compared beside conversions of numbers: decoding, NaN bits, default policies, stochastic rounding."""

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np

from qloracle.encoding import nan_rules_of, overflows_of
from qloracle.formats import Array, format_named
from qloracle.rounding import decode, encode, format_table
from qloracle_conformance.adapters.libraries import Library, gfloat_format
from qloracle_conformance.differences.domains import float32_classes, nan_words
from qloracle_conformance.differences.measure import shown

STOCHASTIC = ("Stochastic", "StochasticOdd", "StochasticFast", "StochasticFastest")


def decoding(library: Library, fmt: str) -> dict[str, Any]:
    """Compare the values of all words of a format."""
    named = format_named(fmt)
    words = np.arange(1 << named.code_bits, dtype=named.word)
    table = format_table(fmt)[: words.size]
    values = library.values(words, fmt)
    same = (values.view(np.uint64) == table.view(np.uint64)) | (np.isnan(values) & np.isnan(table))
    wrong = np.flatnonzero(~same)
    examples = [
        {"word": hex(i), "reference": repr(float(table[i])), "library": repr(float(values[i]))} for i in wrong[:3]
    ]
    return {"id": f"{library.name}.decode.{fmt}", "library": library.name, "from": fmt, "words": words.size,
            "mismatches": int(wrong.size), "examples": examples}  # fmt: skip


def nan_bits(library: Library, fmt: str) -> dict[str, Any] | None:
    """Say which named variant the bits of a NaN follow; None for a format without NaN."""
    if not format_named(fmt).has_nan:
        return None
    values = nan_words()
    got = library.to(values, fmt, "ties_to_even", library.own_overflow(fmt)[0])
    variants = {rule: encode(values, fmt, nan=rule) for rule in nan_rules_of(fmt)}
    follows = [rule for rule, words in variants.items() if np.array_equal(words, got)]
    default = variants[nan_rules_of(fmt)[0]]
    examples = [
        {"input": f"{int(values.view(np.uint32)[i]):#010x} (nan)", "reference": shown(int(default[i]), fmt),
         "library": shown(int(got[i]), fmt)}
        for i in np.flatnonzero(default != got)[:1]
    ]  # fmt: skip
    return {"id": f"{library.name}.nan.{fmt}", "library": library.name, "to": fmt, "follows": follows,
            "examples": examples}  # fmt: skip


def default_policy(library: Library, fmt: str) -> dict[str, Any]:
    """Compare what becomes of large numbers where nobody names a policy."""
    own, default = library.own_overflow(fmt)[0], overflows_of(fmt)[0]
    largest = format_named(fmt).largest_finite
    values = np.array([min(2 * largest, float(np.finfo(np.float32).max)), np.inf, -np.inf], np.float32)
    got, wanted = library.to(values, fmt, "ties_to_even", own), encode(values, fmt)
    wrong = np.flatnonzero((got != wanted) & ~_both_nan(got, wanted, fmt))
    examples = [
        {"input": f"{values[i]:.9g}", "reference": shown(int(wanted[i]), fmt), "library": shown(int(got[i]), fmt)}
        for i in wrong
    ]
    return {"id": f"{library.name}.default.{fmt}", "library": library.name, "to": fmt, "reference_default": default,
            "library_default": own, "examples": examples}  # fmt: skip


def _both_nan(got: Array, wanted: Array, fmt: str) -> Array:
    table = format_table(fmt)
    inside = got < table.size
    both: Array = inside & np.isnan(table[np.where(inside, got, 0)]) & np.isnan(table[wanted])
    return both


def edges(fmt: str) -> tuple[Array, Array]:
    """Return positive float32 numbers, and random bits at which they just go up, just stay, or a step beside.

    A number goes up if and only if R < fraction · 2^32; the bits are that product cut, and its neighbours.
    """
    values = np.concatenate([part[::97] for part in float32_classes()])
    values = values[(values > 0) & (values <= format_named(fmt).largest_finite)]
    low = decode(encode(values, fmt, rounding="toward_zero"), fmt)
    high = decode(encode(values, fmt, rounding="toward_positive"), fmt)
    step = np.where(high > low, high - low, 1.0)
    fraction = np.clip((values.astype(np.float64) - low) / step, 0.0, 1.0)
    threshold = np.floor(fraction * 2.0**32).astype(np.int64)
    bits = np.clip(threshold[:, np.newaxis] + np.array([-1, 0, 1]), 0, 2**32 - 1).astype(np.uint32)
    return np.repeat(values, 3), bits.reshape(-1)


def stochastic(fmt: str, mode: str) -> dict[str, Any]:
    """Compare gfloat's stochastic rounding with 32 bits R' = 2^32 − 1 − R, whose comparison is the mirrored one."""
    gfloat = importlib.import_module("gfloat")
    values, bits = edges(fmt)
    wanted = encode(values, fmt, rounding="stochastic", random_bits=bits, overflow="saturate")
    mirrored = (np.uint32(0xFFFFFFFF) - bits).astype(np.int64)
    info, way = gfloat_format(fmt), getattr(gfloat.RoundMode, mode)
    with np.errstate(all="ignore"):
        rounded = gfloat.round_ndarray(info, values.astype(np.float64), way, True, mirrored, 32)
        got = gfloat.encode_ndarray(info, rounded)
    wrong = np.flatnonzero(got != wanted)
    examples = [
        {"input": f"{int(values.view(np.uint32)[i]):#010x} ({values[i]:.9g}), R = {int(bits[i]):#010x}",
         "reference": shown(int(wanted[i]), fmt), "library": shown(int(got[i]), fmt)}
        for i in (*wrong[:1], *wrong[-1:])
    ]  # fmt: skip
    return {"id": f"gfloat.{mode}.{fmt}", "library": "gfloat", "to": fmt, "mode": mode, "inputs": int(values.size),
            "mismatches": int(wrong.size), "examples": examples}  # fmt: skip


SPECIAL: dict[str, Callable[[Library, str], dict[str, Any] | None]] = {
    "decoding": decoding,
    "nan_bits": nan_bits,
    "defaults": default_policy,
}
