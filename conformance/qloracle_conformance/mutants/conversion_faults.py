"""Faults of conversions and packing: tails, the ends of the range, NaN; memory read as something else."""

from typing import Any

import numpy as np

from qloracle.formats import Array
from qloracle.rounding import decode, encode
from qloracle_conformance.adapters.reference import OPS
from qloracle_conformance.arrays import HostArray, host
from qloracle_conformance.mutants.kernels import stored_items, to_tf32
from qloracle_conformance.mutants.mutant import Mutant

VECTOR = 8  # elements that one thread of the imagined kernel converts at a time


def _cut(values: Array, fmt: str) -> Array:
    """Return the words of a conversion that rounds toward zero."""
    words = encode(values, fmt)
    too_large = np.abs(decode(words, fmt)) > np.abs(values)
    cut: Array = np.where(too_large, words - 1, words).astype(words.dtype)
    return cut


def _tail_cut(values: HostArray, *, fmt: str) -> HostArray:
    flat = values.items.reshape(-1)
    words, whole = encode(flat, fmt), flat.size - flat.size % VECTOR
    words[whole:] = _cut(flat[whole:], fmt)
    return host(words.reshape(values.shape), fmt)


def _nan_carried(values: HostArray, *, fmt: str) -> HostArray:
    """Round by adding half a unit to the word: a NaN of full payload carries into the sign."""
    if fmt != "bfloat16":
        return OPS["encode"](values, fmt=fmt)  # type: ignore[no-any-return]
    words = values.words().astype(np.uint64)
    return host(((words + 0x7FFF + ((words >> 16) & 1)) >> 16).astype(np.uint16), fmt)


def _through_tf32(values: HostArray, *, fmt: str) -> HostArray:
    finite = np.isfinite(values.items)
    return OPS["encode"](host(np.where(finite, to_tf32(values.items), values.items)), fmt=fmt)  # type: ignore[no-any-return]


def _infinity_early(values: HostArray, *, fmt: str) -> HostArray:
    """Overflow as soon as a value exceeds the largest finite number, instead of half a unit above it."""
    largest = {"float16": 65504.0, "bfloat16": 3.3895313892515355e38}[fmt]
    beyond = np.abs(values.items) > largest
    return OPS["encode"](host(np.where(beyond, np.copysign(np.float32(np.inf), values.items), values.items)), fmt=fmt)  # type: ignore[no-any-return]


def _short_index(values: HostArray, **options: Any) -> HostArray:
    """Index elements by 16 bits: those from 2^16 on are never written, and what was there is taken for a result."""
    words = np.array(OPS["encode"](values, **options).words())
    words.reshape(-1)[1 << 16 :] = 0
    return host(words, options["fmt"])


def _subnormals_lost(bits: HostArray, *, dtype: str) -> HostArray:
    values = OPS["decode"](bits, dtype=dtype).items
    smallest = 2.0**-14 if bits.dtype == "float16" else 2.0**-126
    return host(np.where(np.abs(values) < smallest, np.copysign(np.float32(0), values), values))


def as_if_dense(array: HostArray) -> HostArray:
    """Return what a kernel reads that takes an array for dense as soon as its rows are."""
    items = array.items
    rows_dense = items.ndim > 1 and items.strides[-1] == items.itemsize
    return HostArray(stored_items(items), array.dtype) if rows_dense else array


def _row_padding_read(values: HostArray, **options: Any) -> HostArray:
    return OPS["encode"](as_if_dense(values), **options)  # type: ignore[no-any-return]


def _pad_forgotten(codes: HostArray, *, pad_code: int) -> HostArray:  # that is the fault
    return OPS["pack_4bit"](codes, pad_code=0)  # type: ignore[no-any-return]


def conversion_faults() -> list[Mutant]:
    """Return the mutants of conversions and packing."""
    bits = ("bits",)
    return [
        Mutant("encode-tail-truncated", "elements after the last whole vector of 8 are rounded toward zero",
               {"encode": _tail_cut}, bits),
        Mutant("encode-nan-carried", "rounding carries a NaN of full payload over into the sign",
               {"encode": _nan_carried}, bits, operations="bfloat16"),
        Mutant("encode-through-tf32", "float32 is rounded to 10 mantissa bits first", {"encode": _through_tf32}, bits,
               operations="bfloat16"),
        Mutant("encode-infinity-early", "values above the largest finite number, however little, become infinite",
               {"encode": _infinity_early}, bits),
        Mutant("encode-index-16-bits", "elements are counted in 16 bits", {"encode": _short_index}, bits),
        Mutant("encode-row-padding-read", "a view whose rows are dense is taken for a dense array",
               {"encode": _row_padding_read}, (*bits, "stochastic")),
        Mutant("decode-subnormals-lost", "subnormals are widened to zero", {"decode": _subnormals_lost}, ("values",)),
        Mutant("pack-pad-forgotten", "the nibble after an odd length is always 0", {"pack_4bit": _pad_forgotten},
               ("packed",)),
    ]  # fmt: skip
