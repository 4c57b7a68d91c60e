"""Faults of nested absmax: their offset, groups and codebook, and how they are restored on the way to values."""

from collections.abc import Callable
from typing import Any

import numpy as np

from qloracle.blocks import block_absmax, spread
from qloracle.formats import Array
from qloracle.mean_offset import mean_offset
from qloracle.nearest import quantize_codes
from qloracle.nested_absmax import NESTED_BLOCK_SIZE, QuantizedAbsmax, dequantize_absmax, quantize_absmax, residuals
from qloracle.rounding import decode, encode
from qloracle.tables import codebook_named
from qloracle_conformance.adapters.reference import OPS
from qloracle_conformance.arrays import HostArray, host
from qloracle_conformance.mutants.mutant import Mutant, Op


def quantized_with(
    offset: Callable[[Array], np.float32] = mean_offset, group: int = NESTED_BLOCK_SIZE, book: str = ""
) -> Op:
    """Return a quantizer of absmax with another offset, other groups, or one codebook whatever is asked for."""

    def quantize(absmax: HostArray, *, codebook: str) -> Any:
        with np.errstate(all="ignore"):
            shift = np.float32(offset(absmax.items))
        residual = residuals(absmax.items, shift)
        nested = block_absmax(residual, group)
        codes = quantize_codes(residual, nested, codebook_named(book or codebook), group)
        return host(codes), host(nested), host(np.asarray(shift))

    return quantize


def _usable(absmax: Array) -> Array:
    return absmax[np.isfinite(absmax)]


def _no_offset(absmax: Array) -> np.float32:
    return np.float32(0)


def _median(absmax: Array) -> np.float32:
    return np.float32(np.median(_usable(absmax))) if _usable(absmax).size else np.float32(0)


def _largest(absmax: Array) -> np.float32:
    return np.max(_usable(absmax), initial=np.float32(0))


def _summed_in_float32(absmax: Array) -> np.float32:
    total = np.float32(0)
    for value in _usable(absmax):
        total += value
    return total / np.float32(max(_usable(absmax).size, 1))


def _mean_in_bfloat16(absmax: Array) -> np.float32:
    return np.float32(decode(encode(np.atleast_1d(mean_offset(absmax)), "bfloat16"), "bfloat16")[0])


def _mean_of_first_group(absmax: Array) -> np.float32:
    return mean_offset(absmax[:NESTED_BLOCK_SIZE])


def _nan_where_none(absmax: Array) -> np.float32:
    """Divide by the number of usable blocks even if there is none."""
    return mean_offset(absmax) if _usable(absmax).size else np.float32(np.nan)


def _group_not_poisoned(absmax: HostArray, *, codebook: str) -> Any:
    """Leave poisoned blocks out of their nested group: its scale stays finite and they come back as numbers."""
    offset = mean_offset(absmax.items)
    clean = np.where(np.isfinite(absmax.items), absmax.items, offset)
    quantized = quantize_absmax(clean, codebook=codebook, offset=offset)
    return host(quantized.codes), host(quantized.absmax), host(np.asarray(offset))


def restored_with(restore: Callable[[Array, Array, np.float32], Array]) -> Op:
    """Return a restorer of absmax from entries, nested absmax of each, and the offset."""

    def run(absmax_codes: HostArray, nested_absmax: HostArray, offset: HostArray, *, codebook: str) -> HostArray:
        codes = absmax_codes.items
        scale = spread(nested_absmax.items, codes.size, NESTED_BLOCK_SIZE)
        with np.errstate(all="ignore"):
            entries = codebook_named(codebook).entries[codes]
            return host(np.asarray(restore(entries, scale, np.float32(offset.items)), np.float32))

    return run


def _offset_forgotten(entries: Array, scale: Array, offset: np.float32) -> Array:
    return np.where(scale == 0, np.float32(0), entries * scale)


def _offset_scaled(entries: Array, scale: Array, offset: np.float32) -> Array:
    return np.asarray((entries + offset) * scale)


def _offset_in_bfloat16(entries: Array, scale: Array, offset: np.float32) -> Array:
    narrow = decode(encode(np.atleast_1d(offset), "bfloat16"), "bfloat16").astype(np.float32)
    return np.where(scale == 0, np.float32(0), entries * scale) + narrow


def _magnitude(entries: Array, scale: Array, offset: np.float32) -> Array:
    return np.abs(np.where(scale == 0, np.float32(0), entries * scale) + offset)


def _always_dynamic(
    absmax_codes: HostArray, nested_absmax: HostArray, offset: HostArray, *, codebook: str
) -> HostArray:
    record = QuantizedAbsmax(absmax_codes.items, nested_absmax.items, np.float32(offset.items))
    return host(dequantize_absmax(record))


def _groups_of_blocks(data: HostArray, absmax_codes: HostArray, nested_absmax: HostArray, offset: HostArray,
                      *, nested_codebook: str, **options: Any) -> HostArray:  # fmt: skip
    """Find the nested group by the element, not by its block."""
    codes, size = absmax_codes.items, int(np.prod(options["shape"], dtype=np.int64))
    if not size:
        return OPS["dequantize_blockwise"](data, host(np.zeros(0, np.float32)), **options)  # type: ignore[no-any-return]
    first = np.arange(codes.size) * options["block_size"]
    group = np.minimum(first // NESTED_BLOCK_SIZE, nested_absmax.items.size - 1)
    with np.errstate(all="ignore"):
        product = codebook_named(nested_codebook).entries[codes] * nested_absmax.items[group]
        absmax = np.where(nested_absmax.items[group] == 0, np.float32(0), product) + np.float32(offset.items)
    return OPS["dequantize_blockwise"](data, host(absmax), **options)  # type: ignore[no-any-return]


def _nested_not_expanded(data: HostArray, absmax_codes: HostArray, nested_absmax: HostArray, offset: HostArray,
                         *, nested_codebook: str, **options: Any) -> HostArray:  # fmt: skip
    """Take the codes of the absmax for the absmax."""
    return OPS["dequantize_blockwise"](data, host(absmax_codes.items.astype(np.float32)), **options)  # type: ignore[no-any-return]


def _clamped_on_the_way(data: HostArray, absmax_codes: HostArray, nested_absmax: HostArray, offset: HostArray,
                        *, nested_codebook: str, **options: Any) -> HostArray:  # fmt: skip
    record = QuantizedAbsmax(absmax_codes.items, nested_absmax.items, np.float32(offset.items))
    absmax = dequantize_absmax(record, codebook=nested_codebook)
    return OPS["dequantize_blockwise"](data, host(np.maximum(absmax, np.float32(0))), **options)  # type: ignore[no-any-return]


def _unsigned_double(data: HostArray, absmax_codes: HostArray, nested_absmax: HostArray, offset: HostArray,
                     *, nested_codebook: str, **options: Any) -> HostArray:  # fmt: skip
    record = QuantizedAbsmax(absmax_codes.items, nested_absmax.items, np.float32(offset.items))
    absmax = np.abs(dequantize_absmax(record, codebook=nested_codebook))
    return OPS["dequantize_blockwise"](data, host(absmax), **options)  # type: ignore[no-any-return]


def nested_absmax_faults() -> list[Mutant]:
    """Return the mutants of nested absmax."""
    values = ("values",)
    offsets = [
        ("offset-none", "nothing is subtracted", _no_offset),
        ("offset-median", "the offset is the median", _median),
        ("offset-largest", "the offset is the largest absmax", _largest),
        ("offset-in-float32-sum", "absmax are summed in float32", _summed_in_float32),
        ("offset-in-bfloat16", "the offset is rounded to bfloat16", _mean_in_bfloat16),
        ("offset-of-first-group", "the offset is the mean of the first 256", _mean_of_first_group),
        ("offset-nan-where-none", "without a usable block the offset is NaN", _nan_where_none),
    ]
    nested = [
        ("absmax-offset-forgotten", "the offset is not added", _offset_forgotten),
        ("absmax-offset-scaled", "the offset is added before the product", _offset_scaled),
        ("absmax-offset-in-bfloat16", "the offset is read as bfloat16", _offset_in_bfloat16),
        ("absmax-magnitude", "a restored absmax below zero loses its sign", _magnitude),
    ]
    return [
        Mutant("scale-magnitude", "a negative absmax loses its sign", {"dequantize_double": _unsigned_double}, values),
        *(Mutant(name, fault, {"quantize_absmax": quantized_with(offset)}, ("offset",))
          for name, fault, offset in offsets),
        Mutant("nested-groups-of-64", "64 absmax make a nested group", {"quantize_absmax": quantized_with(group=64)},
               ("nested_absmax",)),
        Mutant("nested-one-group", "all absmax make one nested group",
               {"quantize_absmax": quantized_with(group=1 << 30)}, ("nested_absmax",)),
        Mutant("nested-unsigned-map", "residuals are quantized with the unsigned map",
               {"quantize_absmax": quantized_with(book="dynamic_unsigned")}, ("nested_codes",)),
        Mutant("nested-linear-map", "residuals are quantized with the linear map",
               {"quantize_absmax": quantized_with(book="linear_signed")}, ("nested_codes",)),
        Mutant("nested-always-dynamic", "another nested codebook than the dynamic map is ignored",
               {"quantize_absmax": quantized_with(book="dynamic_signed")}, ("nested_codes",)),
        Mutant("nested-read-always-dynamic", "another nested codebook than the dynamic map is not read",
               {"dequantize_absmax": _always_dynamic}, ("absmax",)),
        Mutant("nested-group-not-poisoned", "a poisoned block leaves its nested group finite",
               {"quantize_absmax": _group_not_poisoned}, ("nested_absmax",)),
        *(Mutant(name, fault, {"dequantize_absmax": restored_with(change)}, ("absmax",))
          for name, fault, change in nested),
        Mutant("double-groups-of-elements", "the nested group is found by the element",
               {"dequantize_double": _groups_of_blocks}, values),
        Mutant("double-not-expanded", "codes of absmax are taken for absmax",
               {"dequantize_double": _nested_not_expanded}, values),
        Mutant("double-absmax-clamped", "restored absmax below zero become zero on the way to values",
               {"dequantize_double": _clamped_on_the_way}, values),
    ]  # fmt: skip
