"""Blockwise quantizers that are wrong on one of their paths: a block size, a format, a second pass, a lane."""

from typing import Any

import numpy as np

from qloracle.blocks import block_absmax, block_count
from qloracle.formats import Array
from qloracle.tables import codebook_named
from qloracle_conformance.adapters.reference import OPS
from qloracle_conformance.arrays import HostArray, host
from qloracle_conformance.mutants.kernels import codes_by_division, codes_by_reciprocal, packed
from qloracle_conformance.mutants.mutant import Mutant, Op
from qloracle_conformance.mutants.quantizer_faults import with_absmax
from qloracle_conformance.mutants.two_paths import Arguments, if_call, with_changed

PASS = 1 << 15  # elements that the grid of the imagined kernel covers at once


def _tree(flat: Array, block_size: int) -> Array:
    """Halve the number of candidates until one is left: an odd one out is dropped."""
    absmax = block_absmax(flat, block_size)
    for block in range(flat.size // block_size):
        part = flat[block * block_size : (block + 1) * block_size]
        while part.size > 1:
            half = part.size // 2
            part = np.where(np.abs(part[:half]) >= np.abs(part[half : 2 * half]), part[:half], part[half : 2 * half])
        absmax[block] = absmax[block] if np.isnan(absmax[block]) else np.abs(part[0])
    return absmax


def _fourth_warp_stale(flat: Array, block_size: int) -> Array:
    """Take what the fourth warp left in shared memory a block ago."""
    absmax = block_absmax(flat, block_size)
    if block_size < 128:
        return absmax
    right = absmax.copy()
    for block in range(1, block_count(flat.size, block_size)):
        part = flat[block * block_size : (block + 1) * block_size].copy()
        before = flat[(block - 1) * block_size + 96 : (block - 1) * block_size + 128]
        part[96:128] = before[: part[96:128].size]
        absmax[block] = right[block] if np.isnan(right[block]) else block_absmax(part, block_size)[0]
    return absmax


def _without_nan(flat: Array, block_size: int) -> Array:
    return block_absmax(np.where(np.isnan(flat), np.float32(0), flat), block_size)


def _half_subnormals_lost(flat: Array, block_size: int) -> Array:
    return block_absmax(np.where(np.abs(flat) < 2.0**-14, np.float32(0), flat), block_size)


def _last_not_read(flat: Array, block_size: int) -> Array:
    return block_absmax(np.where(np.arange(flat.size) == flat.size - 1, np.float32(0), flat), block_size)


def of_dtype(dtype: str, odd: bool = False) -> Any:
    """Return whether x is of a format, and of an odd size if that is asked for."""
    return lambda a: a["x"].dtype == dtype and (not odd or a["x"].items.size % 2 == 1)


def _codes_with(change: Any) -> Op:
    """Return a quantizer that scales every element by an absmax of its own choice, and stores the right ones."""

    def quantize(*, x: HostArray, codebook: str, block_size: int) -> Any:
        flat = x.single().reshape(-1)
        absmax = block_absmax(flat, block_size)
        used = change(np.repeat(absmax, block_size)[: flat.size], absmax, block_size)
        return packed(codes_by_division(flat, used, codebook, 1), codebook), host(absmax)

    return quantize


def _second_pass(used: Array, absmax: Array, block_size: int) -> Array:
    """Keep in the second pass of the grid the absmax that the first one loaded."""
    return used[np.arange(used.size) % PASS]


def _even_blocks(used: Array, absmax: Array, block_size: int) -> Array:
    """Broadcast the absmax of the first of two blocks to the whole warp."""
    return used[np.arange(used.size) // 64 * 64] if block_size == 32 else used


def _long_blocks_by_reciprocal(*, x: HostArray, codebook: str, block_size: int) -> Any:
    absmax = block_absmax(x.single(), block_size)
    return packed(codes_by_reciprocal(x.single().reshape(-1), absmax, codebook, block_size), codebook), host(absmax)


def _code_changed(which: Any) -> Op:
    """Return a quantizer that takes the code below, in value order, for some elements."""

    def quantize(*, x: HostArray, codebook: str, block_size: int) -> Any:
        flat, table = x.single().reshape(-1), codebook_named(codebook)
        absmax = block_absmax(flat, block_size)
        codes = codes_by_division(flat, absmax, codebook, block_size)
        below = table.value_order[np.maximum(table.position[codes].astype(np.int64) - 1, 0)]
        return packed(np.where(which(flat, absmax, block_size), below, codes), codebook), host(absmax)

    return quantize


def _minus_zero(flat: Array, absmax: Array, block_size: int) -> Array:
    """Count −0 among the negative numbers, whose largest entry is below zero."""
    zeros: Array = (flat == 0) & np.signbit(flat)
    return zeros


def _reversed_forwards(x: HostArray, arguments: Arguments) -> HostArray:
    backwards = x.items.ndim > 0 and x.items.strides[-1] < 0
    return HostArray(x.items[..., ::-1], x.dtype) if backwards else x


def _racing() -> Op:
    """Let the absmax of the last block of every fifth call be read before it was written."""
    calls = [0]

    def quantize(**arguments: Any) -> Any:
        data, absmax = OPS["quantize_blockwise"](**arguments)
        calls[0] += 1
        items = np.array(absmax.items)
        if calls[0] % 5 == 0:
            items[-1:] = 0
        return data, host(items)

    return quantize


def _default_dtype(**arguments: Any) -> Any:
    """Store the absmax in a framework's default format, which someone has set to float16."""
    data, absmax = OPS["quantize_blockwise"](**arguments)
    return data, host(absmax.items.astype(np.float16))


def path_block_faults() -> list[Mutant]:
    """Return the mutants."""
    quantize = "quantize_blockwise"
    reductions = [
        ("tree", "a tree reduction drops the odd one out", with_absmax(_tree)),
        ("warp-stale", "the fourth warp's share is that of the block before", with_absmax(_fourth_warp_stale)),
        (
            "half-nan",
            "NaN do not reach the absmax of float16 tensors",
            if_call(quantize, of_dtype("float16"), with_absmax(_without_nan)),
        ),
        (
            "half-flushed",
            "float16 subnormals do not count for the absmax",
            if_call(quantize, of_dtype("float16"), with_absmax(_half_subnormals_lost)),
        ),
        (
            "odd-bfloat16",
            "the last element of an odd number of bfloat16 is not read",
            if_call(quantize, of_dtype("bfloat16", odd=True), with_absmax(_last_not_read)),
        ),
    ]
    codes = [
        ("second-pass", "elements from 2^15 on are scaled by the absmax of the first pass", _codes_with(_second_pass)),
        ("even-blocks", "two blocks of 32 in a warp share an absmax", _codes_with(_even_blocks)),
        (
            "long-by-reciprocal",
            "blocks of 1024 and more multiply by a float32 reciprocal",
            if_call(quantize, lambda a: a["block_size"] >= 1024, _long_blocks_by_reciprocal),
        ),
        ("minus-zero", "-0 is counted among the negative numbers", _code_changed(_minus_zero)),
        (
            "reversed-forwards",
            "a view that runs backwards is read forwards",
            with_changed(quantize, x=_reversed_forwards),
        ),
    ]
    return [
        *(Mutant(f"absmax-{name}", fault, {quantize: op}, ("absmax",)) for name, fault, op in reductions),
        Mutant("absmax-default-dtype", "the absmax are of the default format", {quantize: _default_dtype}, ("absmax",)),
        Mutant("absmax-race", "the last absmax of every fifth call is read too early", {quantize: _racing()},
               ("absmax", "repeat"), start=lambda: {quantize: _racing()}),
        *(Mutant(f"codes-{name}", fault, {quantize: op}, ("absmax", "codes") if name == "reversed-forwards" else
                 ("codes",)) for name, fault, op in codes),
    ]  # fmt: skip
