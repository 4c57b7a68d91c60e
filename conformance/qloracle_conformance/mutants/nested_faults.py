"""Faults of double quantization: the offset, the nested groups, and codes from the wrong absmax."""

from typing import Any

import numpy as np

from qloracle.blocks import block_absmax, spread
from qloracle.formats import Array
from qloracle.mean_offset import mean_offset
from qloracle.nearest import quantize_codes
from qloracle.nested_absmax import (
    NESTED_BLOCK_SIZE,
    NESTED_CODEBOOK,
    QuantizedAbsmax,
    dequantize_absmax,
    quantize_absmax,
)
from qloracle.tables import codebook_named
from qloracle_conformance.adapters.reference import OPS
from qloracle_conformance.arrays import HostArray, host
from qloracle_conformance.mutants.kernels import codes_by_reciprocal, packed
from qloracle_conformance.mutants.mutant import Mutant


def _returned(nested: QuantizedAbsmax) -> tuple[HostArray, ...]:
    return host(nested.codes), host(nested.absmax), host(np.asarray(nested.offset))


def _offset_in_half(absmax: HostArray, *, codebook: str) -> Any:
    with np.errstate(over="ignore"):
        offset = np.float32(np.float16(mean_offset(absmax.items)))
        return _returned(quantize_absmax(absmax.items, codebook=codebook, offset=offset))


def _poisoned_counted(absmax: HostArray, *, codebook: str) -> Any:
    """Divide the sum over the usable blocks by the number of all."""
    finite = absmax.items[np.isfinite(absmax.items)].astype(np.float64)
    offset = (
        mean_offset(absmax.items)
        if finite.size in (0, absmax.items.size)
        else np.float32(finite.sum() / absmax.items.size)
    )
    return _returned(quantize_absmax(absmax.items, codebook=codebook, offset=offset))


def _offset_in_first_group(absmax: HostArray, *, codebook: str) -> Any:
    """Subtract the offset in the first nested group only."""
    right = quantize_absmax(absmax.items, codebook=codebook)
    plain = quantize_absmax(absmax.items, codebook=codebook, offset=np.float32(0))
    codes = np.concatenate([right.codes[:NESTED_BLOCK_SIZE], plain.codes[NESTED_BLOCK_SIZE:]])
    return _returned(QuantizedAbsmax(codes, np.concatenate([right.absmax[:1], plain.absmax[1:]]), right.offset))


def restored(codes: Array, nested: Array, offset: np.float32, codebook: str) -> Array:
    """Return fl32(entry · scale + offset) in one rounding: a fused multiply-add."""
    entries = codebook_named(codebook).entries
    scale = spread(nested, codes.size, NESTED_BLOCK_SIZE)
    with np.errstate(all="ignore"):
        product = np.where(scale == 0, 0.0, entries[codes].astype(np.float64) * scale)
        fused: Array = (product + np.float64(offset)).astype(np.float32)
    return fused


def _fused(absmax_codes: HostArray, nested_absmax: HostArray, offset: HostArray, *, codebook: str) -> Any:
    return host(restored(absmax_codes.items, nested_absmax.items, np.float32(offset.items), codebook))


def _group_in_8_bits(absmax_codes: HostArray, nested_absmax: HostArray, offset: HostArray, *, codebook: str) -> Any:
    """Number nested groups in 8 bits: the group after the 256th is scaled like the first."""
    used = nested_absmax.items[np.arange(nested_absmax.items.size) & 0xFF]
    record = QuantizedAbsmax(absmax_codes.items, used, np.float32(offset.items))
    return host(dequantize_absmax(record, codebook=codebook))


def _fused_values(
    data: HostArray, absmax_codes: HostArray, nested_absmax: HostArray, offset: HostArray, *, nested_codebook: str,
    **options: Any,
) -> Any:  # fmt: skip
    absmax = restored(absmax_codes.items, nested_absmax.items, np.float32(offset.items), nested_codebook)
    return OPS["dequantize_blockwise"](data, host(absmax), **options)


def _codes_from_restored(
    x: HostArray, *, codebook: str, block_size: int, nested_codebook: str = NESTED_CODEBOOK
) -> Any:
    """Quantize with the absmax as they will be restored."""
    flat = x.single().reshape(-1)
    nested = quantize_absmax(block_absmax(flat, block_size), codebook=nested_codebook)
    used = dequantize_absmax(nested, codebook=nested_codebook)
    codes = quantize_codes(flat, used, codebook_named(codebook), block_size)
    return packed(codes, codebook), *_returned(nested)


def _codes_by_reciprocal(
    x: HostArray, *, codebook: str, block_size: int, nested_codebook: str = NESTED_CODEBOOK
) -> Any:
    flat = x.single().reshape(-1)
    absmax = block_absmax(flat, block_size)
    codes = codes_by_reciprocal(flat, absmax, codebook, block_size)
    return packed(codes, codebook), *_returned(quantize_absmax(absmax, codebook=nested_codebook))


def _poison_missed(x: HostArray, **options: Any) -> Any:
    """Leave NaN out of the absmax where the block is reduced for double quantization."""
    single = x.single()
    clean = np.where(np.isnan(single), np.float32(0), single)
    return OPS["quantize_double"](host(clean), **options)


def nested_faults() -> list[Mutant]:
    """Return the mutants of double quantization."""
    quantize, restore, both = "quantize_absmax", "dequantize_absmax", "quantize_double"
    return [
        Mutant("offset-in-half", "the offset is rounded to float16", {quantize: _offset_in_half}, ("offset",)),
        Mutant("offset-counts-poisoned", "poisoned blocks count in the mean", {quantize: _poisoned_counted},
               ("offset",)),
        Mutant("offset-in-first-group", "the offset is subtracted in the first nested group only",
               {quantize: _offset_in_first_group}, ("nested_absmax",)),
        Mutant("restored-absmax-fused", "product and sum are rounded once", {restore: _fused}, ("absmax",)),
        Mutant("nested-group-8-bits", "nested groups are numbered in 8 bits", {restore: _group_in_8_bits}, ("absmax",)),
        Mutant("restored-values-fused", "absmax are restored by a fused multiply-add on the way to values",
               {"dequantize_double": _fused_values}, ("values",)),
        Mutant("codes-from-restored", "codes come from the restored absmax", {both: _codes_from_restored}, ("codes",)),
        Mutant("double-by-reciprocal", "codes come from a float32 reciprocal", {both: _codes_by_reciprocal},
               ("codes",)),
        Mutant("double-poison-missed", "NaN does not reach the absmax", {both: _poison_missed},
               ("codes", "nested_absmax", "offset")),
    ]  # fmt: skip
