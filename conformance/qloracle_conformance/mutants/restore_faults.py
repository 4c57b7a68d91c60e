"""Faults of restoring blocks: roundings, signs, and scales of the wrong block."""

from collections.abc import Callable
from typing import Any

import numpy as np

from qloracle.blocks import block_count, spread
from qloracle.formats import Array, format_named
from qloracle.packing import unpack_4bit
from qloracle.rounding import decode, encode
from qloracle.tables import codebook_named
from qloracle_conformance.adapters.reference import OPS
from qloracle_conformance.arrays import HostArray, host
from qloracle_conformance.mutants.mutant import Mutant, Op

Product = Callable[[Array, Array, str], Array]  # of entries and scales, for an output format: the words


def with_product(multiply: Product) -> Op:
    """Return a restorer with another arithmetic."""

    def restore(
        data: HostArray, absmax: HostArray, *, codebook: str, block_size: int, shape: tuple[int, ...], dtype: str
    ) -> HostArray:
        table, size = codebook_named(codebook), int(np.prod(shape, dtype=np.int64))
        codes = unpack_4bit(data.items, size) if table.code_bits == 4 else data.items.reshape(-1)
        scale = spread(absmax.items, size, block_size)
        with np.errstate(all="ignore"):
            words = multiply(table.entries[codes], scale, dtype)
            words = np.where(scale == 0, words.dtype.type(0), words)
        return host(words.reshape(shape), dtype)

    return restore


def with_scales(change: Callable[[Array, int, int, tuple[int, ...]], Array]) -> Op:
    """Return a restorer whose scales, one an element, are chosen from (absmax, size, block size, shape)."""

    def restore(
        data: HostArray, absmax: HostArray, *, codebook: str, block_size: int, shape: tuple[int, ...], dtype: str
    ) -> HostArray:
        size = int(np.prod(shape, dtype=np.int64))
        scale = change(absmax.items, size, block_size, shape) if size else absmax.items
        options: dict[str, Any] = {"codebook": codebook, "shape": shape, "dtype": dtype}
        return OPS["dequantize_blockwise"](data, host(scale.astype(np.float32)), block_size=1, **options)  # type: ignore[no-any-return]

    return restore


def _rounded_once(entries: Array, scale: Array, dtype: str) -> Array:
    """Round the exact product to the output format at once."""
    return np.asarray(encode(entries.astype(np.float64) * scale, dtype))


def _entries_cast(entries: Array, scale: Array, dtype: str) -> Array:
    """Round the entry to the output format before the product."""
    return np.asarray(encode(decode(encode(entries, dtype), dtype).astype(np.float32) * scale, dtype))


def _both_cast(entries: Array, scale: Array, dtype: str) -> Array:
    """Multiply in the output format."""
    narrow = [decode(encode(part, dtype), dtype) for part in (entries, scale)]
    return np.asarray(encode(narrow[0] * narrow[1], dtype))


def _truncated(entries: Array, scale: Array, dtype: str) -> Array:
    """Cut the product off instead of rounding it."""
    product = entries * scale
    words = np.asarray(encode(product, dtype))
    fmt = format_named(dtype)
    beyond = (np.abs(decode(words, dtype)) > np.abs(product)) & np.isfinite(product)
    cut = (words & fmt.word.type(fmt.sign_bit - 1)) > 0
    return np.where(beyond & cut, words - fmt.word.type(1), words)


def _flushed(entries: Array, scale: Array, dtype: str) -> Array:
    """Flush subnormal products to zero, as -ftz=true does."""
    product = entries * scale
    return np.asarray(
        encode(np.where(np.abs(product) < 2.0**-126, np.copysign(np.float32(0), product), product), dtype)
    )


def _scale_flushed(entries: Array, scale: Array, dtype: str) -> Array:
    """Take a subnormal absmax for zero."""
    return np.asarray(encode(entries * np.where(np.abs(scale) < 2.0**-126, np.float32(0), scale), dtype))


def _saturated(entries: Array, scale: Array, dtype: str) -> Array:
    """Clamp what overflows to the largest finite number."""
    largest = format_named(dtype).largest_finite
    product = entries * scale
    return np.asarray(encode(np.where(np.isnan(product), product, np.clip(product, -largest, largest)), dtype))


def _nan_as_zero(entries: Array, scale: Array, dtype: str) -> Array:
    return np.asarray(encode(np.nan_to_num(entries * scale, posinf=np.inf, neginf=-np.inf), dtype))


def _sign_dropped(entries: Array, scale: Array, dtype: str) -> Array:
    """Add +0 to every product: -0 becomes +0."""
    return np.asarray(encode(entries * scale + np.float32(0), dtype))


def _through_bfloat16(entries: Array, scale: Array, dtype: str) -> Array:
    """Pass through bfloat16 on the way to float16."""
    product = entries * scale
    return np.asarray(encode(decode(encode(product, "bfloat16"), "bfloat16") if dtype == "float16" else product, dtype))


def _scale_of_rows(absmax: Array, size: int, block_size: int, shape: tuple[int, ...]) -> Array:
    """Begin a new block at every row."""
    length = shape[-1] if shape else 1
    row, column = np.divmod(np.arange(size), length)
    return np.asarray(absmax[np.minimum(row * block_count(length, block_size) + column // block_size, absmax.size - 1)])


def _scale_of_fours(absmax: Array, size: int, block_size: int, shape: tuple[int, ...]) -> Array:
    """Look the absmax up once for four elements."""
    return absmax[np.arange(size) // 4 * 4 // block_size]


def _scale_of_tail(absmax: Array, size: int, block_size: int, shape: tuple[int, ...]) -> Array:
    """Count whole blocks only: the short last one is scaled like the one before."""
    whole = max(size // block_size, 1)
    return absmax[np.minimum(np.arange(size) // block_size, whole - 1)]


def _scale_index_16_bits(absmax: Array, size: int, block_size: int, shape: tuple[int, ...]) -> Array:
    return np.asarray(absmax[(np.arange(size) // block_size) & 0xFFFF])


def _scale_by_shift(absmax: Array, size: int, block_size: int, shape: tuple[int, ...]) -> Array:
    """Find the block by a shift, which suits powers of two."""
    return np.asarray(absmax[np.minimum(np.arange(size) >> (block_size.bit_length() - 1), absmax.size - 1)])


def _low_nibble_first(data: HostArray, absmax: HostArray, **options: Any) -> HostArray:
    swapped = data.items
    if codebook_named(options["codebook"]).code_bits == 4:
        swapped = (data.items << 4 | data.items >> 4).astype(np.uint8)
    return OPS["dequantize_blockwise"](host(swapped), absmax, **options)  # type: ignore[no-any-return]


def restore_faults() -> list[Mutant]:
    """Return the mutants of restoring."""
    restore, values = "dequantize_blockwise", ("values",)
    products: list[tuple[str, str, Product]] = [
        ("restored-rounded-once", "the exact product is rounded to the output format at once", _rounded_once),
        ("restored-entries-cast", "entries are rounded to the output format first", _entries_cast),
        ("restored-in-output-format", "entries and absmax are rounded to the output format first", _both_cast),
        ("restored-truncated", "the product is cut off", _truncated),
        ("restored-flushed", "subnormal products are flushed", _flushed),
        ("restored-scale-flushed", "a subnormal absmax counts as zero", _scale_flushed),
        ("restored-saturated", "products that overflow become the largest finite number", _saturated),
        ("restored-nan-as-zero", "a poisoned block comes back as zeros", _nan_as_zero),
        ("restored-sign-dropped", "-0 comes back as +0", _sign_dropped),
        ("restored-through-bfloat16", "float16 passes through bfloat16", _through_bfloat16),
    ]
    scales = [
        ("scale-of-rows", "every row begins a new block", _scale_of_rows),
        ("scale-of-fours", "the absmax is looked up once for four elements", _scale_of_fours),
        ("scale-of-tail", "a short last block is scaled like the one before", _scale_of_tail),
        ("scale-index-16-bits", "blocks are numbered in 16 bits", _scale_index_16_bits),
        ("scale-by-shift", "the block is found by a shift", _scale_by_shift),
    ]
    return [
        *(Mutant(name, fault, {restore: with_product(change)}, values) for name, fault, change in products),
        *(Mutant(name, fault, {restore: with_scales(pick)}, values) for name, fault, pick in scales),
        Mutant("read-low-nibble-first", "the low nibble is read first", {restore: _low_nibble_first}, ("unpacking",),
               operations="fp4"),
    ]  # fmt: skip
