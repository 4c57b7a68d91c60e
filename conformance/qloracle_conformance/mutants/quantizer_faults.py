"""Faults of blockwise quantizers and restorers: boundaries, reductions, indices, and what is kept between calls."""

from collections.abc import Callable
from typing import Any

import numpy as np

from qloracle.blocks import block_absmax, block_count, spread
from qloracle.codebooks import Codebook
from qloracle.formats import Array
from qloracle.tables import codebook_named
from qloracle_conformance.adapters.reference import OPS
from qloracle_conformance.arrays import HostArray, host
from qloracle_conformance.mutants.conversion_faults import as_if_dense
from qloracle_conformance.mutants.kernels import codes_by_division, packed, stored_items, to_bfloat16
from qloracle_conformance.mutants.mutant import Mutant, Op

Reduction = Callable[[Array, int], Array]


def with_absmax(reduce: Reduction) -> Op:
    """Return a quantizer with another reduction; codes are right for the absmax that it gives."""

    def quantize(x: HostArray, *, codebook: str, block_size: int) -> Any:
        flat = x.single().reshape(-1)
        absmax = reduce(flat, block_size).astype(np.float32)
        return packed(codes_by_division(flat, absmax, codebook, block_size), codebook), host(absmax)

    return quantize


def with_boundaries(boundaries: Callable[[Codebook], Array]) -> Op:
    """Return a quantizer that compares the exact quotient with other boundaries."""

    def quantize(x: HostArray, *, codebook: str, block_size: int) -> Any:
        flat, table = x.single().reshape(-1), codebook_named(codebook)
        absmax = block_absmax(flat, block_size)
        scale = spread(absmax, flat.size, block_size).astype(np.float64)
        usable = np.isfinite(scale) & (scale > 0)
        quotient = np.where(usable, flat / np.where(usable, scale, 1.0), 0.0)
        codes = table.value_order[np.searchsorted(boundaries(table), quotient, side="left")]
        return packed(codes, codebook), host(absmax)

    return quantize


def _midpoints_of_bfloat16(table: Codebook) -> Array:
    values = to_bfloat16(table.entries[table.value_order]).astype(np.float64)
    midpoints: Array = (values[:-1] + values[1:]) / 2
    return midpoints


def _one_digit_short(table: Codebook) -> Array:
    midpoints = table.midpoints.copy()
    place = len(midpoints) // 3
    midpoints[place] = np.round(midpoints[place], 6)
    return midpoints


def _last_lane_missing(flat: Array, block_size: int) -> Array:
    """Reduce blocks of 128 and more without their last element, as a loop bound that is one too small does."""
    absmax = block_absmax(flat, block_size)
    for block in range(flat.size // block_size if block_size >= 128 else 0):
        absmax[block] = block_absmax(flat[block * block_size : (block + 1) * block_size - 1], block_size)[0]
    return absmax


def _floored(flat: Array, block_size: int) -> Array:
    return np.maximum(block_absmax(flat, block_size), np.float32(1e-8))


def _only_leading_nan(flat: Array, block_size: int) -> Array:
    """Take the larger by `a > b ? a : b`, in which a NaN survives only where it comes first."""
    absmax = block_absmax(flat, block_size)
    for block in np.flatnonzero(np.isnan(absmax)):
        part = flat[block * block_size : (block + 1) * block_size]
        if not np.isnan(part[0]):
            absmax[block] = block_absmax(np.where(np.isnan(part), np.float32(0), part), block_size)[0]
    return absmax


def _infinity_kept(flat: Array, block_size: int) -> Array:
    with np.errstate(invalid="ignore"):
        parts = [np.abs(flat[i : i + block_size]).max() for i in range(0, flat.size, block_size)]
    return np.array(parts, np.float32)


def _absmax_index_16_bits(x: HostArray, *, codebook: str, block_size: int) -> Any:
    """Look the absmax up by a 16-bit block number: block 65536 is scaled like block 0."""
    flat = x.single().reshape(-1)
    absmax = block_absmax(flat, block_size)
    used = absmax[np.arange(block_count(flat.size, block_size)) & 0xFFFF]
    return packed(codes_by_division(flat, used, codebook, block_size), codebook), host(absmax)


def _row_padding_read(x: HostArray, *, codebook: str, block_size: int) -> Any:
    return OPS["quantize_blockwise"](as_if_dense(x), codebook=codebook, block_size=block_size)


def _tail_forgotten(x: HostArray, *, codebook: str, block_size: int) -> Any:
    """Leave the elements after the last whole vector of 4 at zero, in arrays of more than one thread block."""
    flat, table = x.single().reshape(-1), codebook_named(codebook)
    absmax = block_absmax(flat, block_size)
    codes = codes_by_division(flat, absmax, codebook, block_size)
    if flat.size > 1024:
        codes[flat.size - flat.size % 4 :] = table.zero_code
    return packed(codes, codebook), host(absmax)


def _workspace_returned() -> Op:
    """Return a restorer that keeps one workspace for each shape and hands it out as its result."""
    kept: dict[object, HostArray] = {}

    def restore(data: HostArray, absmax: HostArray, **options: Any) -> HostArray:
        right = OPS["dequantize_blockwise"](data, absmax, **options)
        workspace = kept.setdefault((right.shape, right.dtype), right)
        workspace.items[...] = right.items
        return workspace

    return restore


def _stale_absmax() -> Op:
    """Reuse the absmax of an earlier tensor of the same shape."""
    kept: dict[object, Array] = {}

    def quantize(x: HostArray, *, codebook: str, block_size: int) -> Any:
        flat = x.single().reshape(-1)
        absmax = kept.setdefault((x.shape, x.dtype, block_size), block_absmax(flat, block_size))
        return packed(codes_by_division(flat, absmax, codebook, block_size), codebook), host(absmax.copy())

    return quantize


def _entry_off(
    data: HostArray, absmax: HostArray, *, codebook: str, block_size: int, shape: tuple[int, ...], dtype: str
) -> Any:
    """Restore with a table whose fourth word is one unit in the last place too large."""
    table = codebook_named(codebook)
    right = OPS["dequantize_blockwise"](
        data, absmax, codebook=codebook, block_size=block_size, shape=shape, dtype="float32"
    ).items
    scale = spread(absmax.items, right.size, block_size).reshape(right.shape)
    with np.errstate(over="ignore", invalid="ignore"):
        hit = (right == table.entries[4] * scale) & (scale != 0)
        wrong = np.where(hit, np.nextafter(table.entries[4], np.float32(0)) * scale, right)
    return OPS["encode"](host(wrong), fmt=dtype) if dtype != "float32" else host(wrong)


def _absmax_strides_ignored(data: HostArray, absmax: HostArray, **options: Any) -> Any:
    return OPS["dequantize_blockwise"](data, host(stored_items(absmax.items)), **options)


def _zero_signed(data: HostArray, absmax: HostArray, **options: Any) -> Any:
    """Multiply by an absmax of zero instead of writing +0: negative entries give -0."""
    right = OPS["dequantize_blockwise"](data, absmax, **options)
    ones = OPS["dequantize_blockwise"](data, host(np.ones_like(absmax.items)), **{**options, "dtype": "float32"})
    zero = spread(absmax.items == 0, right.items.size, options["block_size"]).reshape(right.shape)
    words = np.array(right.words())
    words[zero & (ones.items < 0)] |= words.dtype.type(1 << (8 * words.itemsize - 1))
    return host(words, right.dtype)


def quantizer_faults() -> list[Mutant]:
    """Return the mutants of blockwise quantizers and restorers."""
    quantize, restore = "quantize_blockwise", "dequantize_blockwise"
    reductions = [
        ("absmax-last-lane", "the last element of a block of 128 or more is not reduced", _last_lane_missing),
        ("absmax-floor-1e-8", "the absmax is at least 1e-8", _floored),
        ("absmax-leading-nan", "a NaN reaches the absmax only as the first element of its block", _only_leading_nan),
        ("absmax-infinite", "an infinity becomes the absmax of its block", _infinity_kept),
    ]
    return [
        *(Mutant(name, fault, {quantize: with_absmax(reduce)}, ("absmax",)) for name, fault, reduce in reductions),
        Mutant("midpoints-of-bfloat16", "boundaries are midpoints of a table rounded to bfloat16",
               {quantize: with_boundaries(_midpoints_of_bfloat16)}, ("codes",)),
        Mutant("one-midpoint-short", "one boundary has lost its digits after the sixth",
               {quantize: with_boundaries(_one_digit_short)}, ("codes",)),
        Mutant("absmax-index-16-bits", "blocks are numbered in 16 bits", {quantize: _absmax_index_16_bits}, ("codes",)),
        Mutant("quantize-tail-forgotten", "elements after the last whole vector of 4 keep the code of zero",
               {quantize: _tail_forgotten}, ("codes",)),
        Mutant("quantize-row-padding-read", "a view whose rows are dense is taken for a dense array",
               {quantize: _row_padding_read}, ("absmax",)),
        Mutant("stale-absmax", "the absmax of an earlier tensor of the same shape is used again",
               {quantize: _stale_absmax()}, ("absmax",), start=lambda: {quantize: _stale_absmax()}),
        Mutant("workspace-returned", "the result is a workspace that the next call overwrites",
               {restore: _workspace_returned()}, ("repeat",),
               start=lambda: {restore: _workspace_returned()}),
        Mutant("entry-off-by-one-ulp", "one word of the table is off by one unit in the last place",
               {restore: _entry_off}, ("values",), operations="nf4"),
        Mutant("absmax-strides-ignored", "the absmax are read as if they were dense",
               {restore: _absmax_strides_ignored}, ("values",)),
        Mutant("zero-block-signed", "a block of zeros is restored as signed zeros", {restore: _zero_signed},
               ("values",)),
    ]  # fmt: skip
