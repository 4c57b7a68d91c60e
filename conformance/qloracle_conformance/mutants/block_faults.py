"""Faults of flat blocks: poison, floors, tails, grids, and which elements share a block."""

from collections.abc import Callable
from typing import Any

import numpy as np

from qloracle.blocks import block_absmax, block_count
from qloracle.formats import Array
from qloracle.packing import unpack_4bit
from qloracle.rounding import decode, encode
from qloracle_conformance.adapters.reference import OPS
from qloracle_conformance.arrays import HostArray, host
from qloracle_conformance.mutants.kernels import codes_by_division, packed
from qloracle_conformance.mutants.mutant import Mutant, Op
from qloracle_conformance.mutants.quantizer_faults import with_absmax

WARP = 32  # lanes that reduce together


def _one_for_zeros(flat: Array, block_size: int) -> Array:
    """Store 1 as the absmax of a block of zeros, so that nothing is divided by zero."""
    absmax = block_absmax(flat, block_size)
    return np.where(absmax == 0, np.float32(1), absmax)


def _at_least_half_normal(flat: Array, block_size: int) -> Array:
    return np.maximum(block_absmax(flat, block_size), np.float32(2.0**-14))


def _infinity_clamped(flat: Array, block_size: int) -> Array:
    return block_absmax(np.clip(flat, np.finfo(np.float32).min, np.finfo(np.float32).max), block_size)


def _only_nan_poisons(flat: Array, block_size: int) -> Array:
    """Leave infinities out of the absmax and keep NaN."""
    return block_absmax(np.where(np.isinf(flat), np.float32(0), flat), block_size)


def _poison_in_pairs(flat: Array, block_size: int) -> Array:
    """Reduce two blocks in one warp: a NaN of either reaches both."""
    absmax = block_absmax(flat, block_size)
    padded = np.concatenate([absmax, np.zeros(absmax.size % 2, np.float32)]).reshape(-1, 2)
    either = np.repeat(np.isnan(padded).any(axis=1), 2)[: absmax.size]
    return np.where(either, np.float32(np.nan), absmax)


def _poison_carried_on(flat: Array, block_size: int) -> Array:
    """Keep the running maximum of a thread from one block to the next once it is NaN."""
    absmax = block_absmax(flat, block_size)
    seen = np.cumsum(np.isnan(absmax)) > 0
    return np.where(seen, np.float32(np.nan), absmax)


def _maximum_not_reset(flat: Array, block_size: int) -> Array:
    """Keep the running maximum from every even block to the odd one after it."""
    absmax = block_absmax(flat, block_size)
    absmax[1::2] = np.maximum(absmax[1::2], absmax[0::2][: absmax[1::2].size])
    return absmax


def _signed_maximum(flat: Array, block_size: int) -> Array:
    """Take the largest element, not the largest magnitude."""
    absmax = block_absmax(flat, block_size)
    largest = block_absmax(np.where(flat < 0, np.float32(0), flat), block_size)
    return np.where(np.isnan(absmax), absmax, largest)


def _part_of_a_warp(flat: Array, block_size: int) -> Array:
    """Reduce whole warps of 32 only: what is left of a longer block has no say."""
    absmax = block_absmax(flat, block_size)
    if block_size > WARP and block_size % WARP:
        for block in range(flat.size // block_size):
            start = block * block_size
            absmax[block] = block_absmax(flat[start : start + block_size - block_size % WARP], block_size)[0]
    return absmax


def _first_warps(flat: Array, block_size: int) -> Array:
    """Let 32 warps of a block reduce: elements from the 1024th on have no say."""
    absmax = block_absmax(flat, block_size)
    if block_size > 1024:
        for block in range(absmax.size):
            start = block * block_size
            absmax[block] = block_absmax(flat[start : min(start + 1024, flat.size)], block_size)[0]
    return absmax


def _tail_in_fours(flat: Array, block_size: int) -> Array:
    """Reduce the short last block by whole vectors of 4."""
    absmax, tail = block_absmax(flat, block_size), flat.size % block_size
    if tail > 4:
        absmax[-1] = block_absmax(flat[flat.size - tail : flat.size - tail % 4], block_size)[0]
    return absmax


def _tail_unwritten(flat: Array, block_size: int) -> Array:
    """Leave the absmax of the short last block at what was in memory."""
    absmax = block_absmax(flat, block_size)
    if flat.size % block_size:
        absmax[-1] = np.float32(-1.6947e38)
    return absmax


def _tail_of_the_block_before(flat: Array, block_size: int) -> Array:
    absmax = block_absmax(flat, block_size)
    if flat.size % block_size and absmax.size > 1:
        absmax[-1] = absmax[-2]
    return absmax


def _grid_of_65535(flat: Array, block_size: int) -> Array:
    absmax = block_absmax(flat, block_size)
    absmax[65535:] = 0
    return absmax


def _stored_narrow(fmt: str) -> Callable[[Array, int], Array]:
    def reduce(flat: Array, block_size: int) -> Array:
        return decode(encode(block_absmax(flat, block_size), fmt), fmt).astype(np.float32)

    return reduce


def _two_shards(x: HostArray, *, codebook: str, block_size: int) -> Any:
    """Quantize the two halves of a tensor apart, where the cut lies within a block."""
    flat = x.single().reshape(-1)
    half = flat.size // 2
    if half % block_size == 0:
        return OPS["quantize_blockwise"](x, codebook=codebook, block_size=block_size)
    parts = [part for part in (flat[:half], flat[half:]) if part.size]
    absmax = [block_absmax(part, block_size) for part in parts]
    codes = [codes_by_division(p, a, codebook, block_size) for p, a in zip(parts, absmax, strict=True)]
    return packed(np.concatenate(codes), codebook), host(np.concatenate(absmax))


def _columns_as_order(x: HostArray, *, codebook: str, block_size: int) -> Any:
    """Take a matrix in column-major order."""
    turned = x.items.transpose()
    return OPS["quantize_blockwise"](
        HostArray(np.ascontiguousarray(turned), x.dtype), codebook=codebook, block_size=block_size
    )


def _halves_packed(x: HostArray, *, codebook: str, block_size: int) -> Any:
    """Pack the first half of the codes into the high nibbles and the second into the low ones."""
    data, absmax = OPS["quantize_blockwise"](x, codebook=codebook, block_size=block_size)
    codes = unpack_4bit(data.items, 2 * data.items.size)
    high, low = codes[: data.items.size], codes[data.items.size :]
    return host((high << 4 | low).astype(np.uint8)), absmax


def _pad_is_zero_nibble(x: HostArray, *, codebook: str, block_size: int) -> Any:
    """Leave the nibble after an odd length at 0, whatever the code of zero is."""
    data, absmax = OPS["quantize_blockwise"](x, codebook=codebook, block_size=block_size)
    if x.items.size % 2:
        data.items[-1] &= 0xF0
    return data, absmax


def _sometimes_other() -> Op:
    """Lose an element in every third call, as a race does."""
    calls = [0]

    def quantize(x: HostArray, *, codebook: str, block_size: int) -> Any:
        calls[0] += 1
        data, absmax = OPS["quantize_blockwise"](x, codebook=codebook, block_size=block_size)
        if data.items.size and calls[0] % 3 == 0:
            data.items[data.items.size // 2] ^= 1
        return data, absmax

    return quantize


def _alone(reduce: Callable[[Array, int], Array]) -> Op:
    def absmax(x: HostArray, *, block_size: int) -> HostArray:
        flat = x.single().reshape(-1)
        found = reduce(flat, block_size) if flat.size else np.zeros(block_count(flat.size, block_size), np.float32)
        return host(found.astype(np.float32))

    return absmax


def block_faults() -> list[Mutant]:
    """Return the mutants of blocks."""
    reductions: list[tuple[str, str, Callable[[Array, int], Array]]] = [
        ("absmax-one-for-zeros", "the absmax of a block of zeros is 1", _one_for_zeros),
        ("absmax-floor-of-float16", "the absmax is at least the smallest normal float16", _at_least_half_normal),
        ("absmax-infinity-clamped", "infinities count as the largest finite number", _infinity_clamped),
        ("absmax-only-nan-poisons", "infinities are left out of the absmax", _only_nan_poisons),
        ("absmax-poison-in-pairs", "a NaN poisons the other block of its warp", _poison_in_pairs),
        ("absmax-poison-carried", "a NaN poisons every block after it", _poison_carried_on),
        ("absmax-not-reset", "the maximum of an even block counts for the next", _maximum_not_reset),
        ("absmax-signed", "negative elements have no say", _signed_maximum),
        ("absmax-whole-warps", "elements after the last whole 32 of a block have no say", _part_of_a_warp),
        ("absmax-first-1024", "elements from the 1024th on have no say", _first_warps),
        ("absmax-tail-in-fours", "the last block is reduced by whole fours", _tail_in_fours),
        ("absmax-tail-unwritten", "the absmax of a short last block is never written", _tail_unwritten),
        ("absmax-tail-of-before", "a short last block takes the absmax of the one before", _tail_of_the_block_before),
        ("absmax-grid-limit", "blocks beyond 65535 have absmax 0", _grid_of_65535),
        ("absmax-in-float16", "the absmax is stored in float16", _stored_narrow("float16")),
        ("absmax-in-bfloat16", "the absmax is stored in bfloat16", _stored_narrow("bfloat16")),
    ]
    quantize = "quantize_blockwise"
    return [
        *(Mutant(name, fault, {quantize: with_absmax(reduce)}, ("absmax",)) for name, fault, reduce in reductions),
        *(Mutant(f"alone-{name}", fault, {"block_absmax": _alone(reduce)}, ("absmax",))
          for name, fault, reduce in reductions),
        Mutant("two-shards", "halves of a tensor are quantized apart", {quantize: _two_shards},
               ("absmax", "codes")),
        Mutant("column-major", "a matrix is read in column-major order", {quantize: _columns_as_order},
               ("absmax", "codes")),
        Mutant("nibbles-in-halves", "the first half of the codes lies in the high nibbles", {quantize: _halves_packed},
               ("packing",), operations="nf4"),
        Mutant("nibble-of-padding", "the nibble after an odd length is 0", {quantize: _pad_is_zero_nibble},
               ("packing",), operations="nf4"),
        Mutant("quantize-race", "an element is lost now and then", {quantize: _sometimes_other()},
               ("repeat", "codes"), operations="nf4", start=lambda: {quantize: _sometimes_other()}),
    ]  # fmt: skip
