"""Faults of midpoints, of storage views, and of the shape that comes back."""

from collections.abc import Callable
from typing import Any

import numpy as np

from qloracle.formats import Array, format_named
from qloracle.rounding import decode, encode
from qloracle.tables import codebook_named
from qloracle_conformance.adapters.reference import OPS
from qloracle_conformance.arrays import HostArray, host
from qloracle_conformance.mutants.kernels import stored_items
from qloracle_conformance.mutants.mutant import Mutant, Op


def _midpoints(of: Callable[[Array], Array]) -> Op:
    def shown(*, codebook: str) -> HostArray:
        return host(np.asarray(of(codebook_named(codebook).entries), np.float64))

    return shown


def _distinct(entries: Array) -> Array:
    return np.unique(entries[~np.isnan(entries)])


def _float32_midpoints(entries: Array) -> Array:
    values = _distinct(entries)
    return np.asarray((values[:-1] + values[1:]) / np.float32(2))


def _unsorted_midpoints(entries: Array) -> Array:
    """Take the codes for the order of values."""
    values = entries[: len(_distinct(entries))].astype(np.float64)
    return np.asarray((values[:-1] + values[1:]) / 2)


def _geometric_midpoints(entries: Array) -> Array:
    """Halve the distance on a logarithmic scale where both neighbours have one sign."""
    values = _distinct(entries).astype(np.float64)
    low, high = values[:-1], values[1:]
    return np.where(low * high > 0, np.sign(low) * np.sqrt(np.abs(low * high)), (low + high) / 2)


def _stored(change: Callable[[Array, int], Array]) -> Op:
    """Return a storage view whose items, as words, go through `change`; it is given the width of an item in bytes."""

    def store(packed: HostArray, *, storage: str) -> HostArray:
        items = OPS["storage_view"](packed, storage=storage)
        words = change(items.words(), items.items.dtype.itemsize)
        return host(words, storage) if storage != "uint8" else host(words)

    return store


def _swapped_bytes(words: Array, width: int) -> Array:
    return words.byteswap()


def _is_nan(words: Array, storage: str) -> Array:
    fmt = format_named(storage)
    return np.asarray((words & fmt.word.type(fmt.sign_bit - 1)) > fmt.infinity_bits)


def _through_values(packed: HostArray, *, storage: str) -> HostArray:
    """Copy items as numbers: a signalling NaN becomes quiet."""
    right = OPS["storage_view"](packed, storage=storage)
    if storage == "uint8":
        return right  # type: ignore[no-any-return]
    words, fmt = right.words().copy(), format_named(storage)
    words[_is_nan(words, storage)] |= fmt.word.type(1 << (fmt.mantissa_bits - 1))
    return host(words, storage)


def _subnormal_items_flushed(packed: HostArray, *, storage: str) -> HostArray:
    right = OPS["storage_view"](packed, storage=storage)
    if storage == "uint8":
        return right  # type: ignore[no-any-return]
    words, fmt = right.words(), format_named(storage)
    normal = (words & fmt.word.type(fmt.infinity_bits)) != 0
    return host(np.where(normal, words, words & fmt.word.type(fmt.sign_bit)), storage)


def _cast_of_values(packed: HostArray, *, storage: str) -> HostArray:
    """Convert every byte to a number of the storage type."""
    flat = packed.items.reshape(-1)
    return host(np.asarray(encode(flat, storage)), storage) if storage != "uint8" else host(flat)


def _dense_bytes(packed: HostArray, *, storage: str) -> HostArray:
    return OPS["storage_view"](host(stored_items(packed.items)), storage=storage)  # type: ignore[no-any-return]


def _restored_as_numbers(stored: HostArray, *, storage: str) -> HostArray:
    """Widen bfloat16 items to float32 and round back: payloads of NaN go."""
    if storage == "uint8":
        return OPS["storage_bytes"](stored, storage=storage)  # type: ignore[no-any-return]
    words = np.asarray(encode(decode(stored.items, storage), storage))
    nan, fmt = _is_nan(words, storage), format_named(storage)
    canonical = np.where(nan, fmt.word.type(fmt.quiet_nan_bits), words)
    return host(canonical.view(np.uint8))


def _restored_without_last(stored: HostArray, *, storage: str) -> HostArray:
    """Copy in pieces of 16 bytes and forget the rest."""
    right = OPS["storage_bytes"](stored, storage=storage).items.copy()
    right[right.size - right.size % 16 :] = 0
    return host(right)


def _restored_swapped(stored: HostArray, *, storage: str) -> HostArray:
    words = stored.words()
    return host((words if words.itemsize == 1 else words.byteswap()).reshape(-1).view(np.uint8))


def _other_shape(reshaped: Callable[[Array], Array]) -> Op:
    def restore(data: HostArray, absmax: HostArray, **options: Any) -> HostArray:
        right = OPS["dequantize_blockwise"](data, absmax, **options)
        return HostArray(reshaped(right.items), right.dtype)

    return restore


def storage_faults() -> list[Mutant]:
    """Return the mutants of midpoints, storage and shape."""
    midpoints = [
        ("midpoints-in-float32", "midpoints are float32 numbers", _float32_midpoints, ""),
        ("midpoints-unsorted", "midpoints are those of neighbouring codes", _unsorted_midpoints, "fp4"),
        ("midpoints-geometric", "midpoints are geometric means", _geometric_midpoints, ""),
    ]
    shapes = [
        ("shape-flat", "the result is flat", lambda x: x.reshape(-1)),
        ("shape-with-leading-one", "a 1-d tensor comes back as one row",
         lambda x: x.reshape(1, -1) if x.ndim == 1 else x),
        ("shape-0-d-lost", "a tensor of no axes comes back as 1-d", lambda x: x.reshape(1) if x.ndim == 0 else x),
        ("shape-ones-squeezed", "axes of length 1 are dropped", lambda x: x.squeeze()),
    ]  # fmt: skip
    return [
        *(Mutant(name, fault, {"codebook_midpoints": _midpoints(of)}, ("midpoints",), operations=book)
          for name, fault, of, book in midpoints),
        Mutant("storage-bytes-swapped", "items are stored in the other byte order",
               {"storage_view": _stored(_swapped_bytes)}, ("items",)),
        Mutant("storage-through-values", "items are copied as numbers, which quiets NaN",
               {"storage_view": _through_values}, ("items",)),
        Mutant("storage-subnormals-flushed", "items are copied as numbers, which flushes subnormals",
               {"storage_view": _subnormal_items_flushed}, ("items",)),
        Mutant("storage-cast", "bytes are converted to numbers of the storage type",
               {"storage_view": _cast_of_values}, ("items",)),
        Mutant("storage-strides-ignored", "bytes are taken for dense", {"storage_view": _dense_bytes}, ("items",)),
        Mutant("storage-restored-as-numbers", "items are read as numbers, which drops payloads of NaN",
               {"storage_bytes": _restored_as_numbers}, ("bytes",)),
        Mutant("storage-restored-swapped", "items are read in the other byte order",
               {"storage_bytes": _restored_swapped}, ("bytes",)),
        Mutant("storage-restored-tail-lost", "bytes after the last whole 16 are not copied",
               {"storage_bytes": _restored_without_last}, ("bytes",)),
        *(Mutant(name, fault, {"dequantize_blockwise": _other_shape(change)}, ("shape",))
          for name, fault, change in shapes),
    ]  # fmt: skip
