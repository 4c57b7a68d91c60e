"""Faults of kernels that write into a given output: they show only by what lay there, and beside it, before."""

from typing import Any

import numpy as np

from qloracle_conformance.adapters.reference import OPS
from qloracle_conformance.arrays import HostArray
from qloracle_conformance.mutants.mutant import Mutant


def _last_skipped(data: HostArray, absmax: HostArray, *, out: HostArray | None = None, **options: Any) -> HostArray:
    """Write all elements but the last, as a guard `i < n - 1` does."""
    result: HostArray = OPS["dequantize_blockwise"](data, absmax, **options)
    if out is None:
        return result
    if result.items.ndim == 0:
        out.items[...] = result.items
    else:
        flat = out.items.reshape(-1)
        flat[:-1] = result.items.reshape(-1)[:-1]
    return out


def _past_the_end(x: HostArray, *, out: tuple[HostArray, ...] | None = None, **options: Any) -> Any:
    """Write the absmax of one block more than there is."""
    codes, absmax = OPS["quantize_blockwise"](x, **options)
    if out is None:
        return codes, absmax
    for target, array in zip(out, (codes, absmax), strict=True):
        longer = np.lib.stride_tricks.as_strided(target.items, (array.items.size + 1,))
        longer[:-1] = array.items
        longer[-1] = array.items[-1] if array.items.size else 0
    return out


def _before_the_begin(codes: HostArray, *, pad_code: int, out: HostArray | None = None) -> HostArray:
    """Begin a byte too early, as a grid with an offset of one does."""
    packed: HostArray = OPS["pack_4bit"](codes, pad_code=pad_code)
    if out is None:
        return packed
    out.items[...] = packed.items
    view = out.items
    while view.base is not None:
        view = view.base
    place = out.items.__array_interface__["data"][0] - view.__array_interface__["data"][0]
    if place:
        view.reshape(-1).view(np.uint8)[place - 1] = 0
    return out


def _added(a: HostArray, b: HostArray, *, out: HostArray | None = None) -> HostArray:
    """Add to what is there, as a split-K kernel without a first pass does."""
    acc: HostArray = OPS["int8_matmul"](a, b)
    if out is None:
        return acc
    np.add(out.items, acc.items, out=out.items)
    return out


def _padding_kept(codes: HostArray, *, pad_code: int, out: HostArray | None = None) -> HostArray:
    """Leave the low nibble of the last byte of an odd length as it was."""
    packed: HostArray = OPS["pack_4bit"](codes, pad_code=pad_code)
    if out is None:
        return packed
    before = int(out.items[-1]) if out.items.size else 0
    out.items[...] = packed.items
    if codes.items.size % 2:
        out.items[-1] = (int(packed.items[-1]) & 0xF0) | (before & 0x0F)
    return out


def _whole_vectors(values: HostArray, *, out: HostArray | None = None, **options: Any) -> HostArray:
    """Write four numbers at a time and leave out what remains."""
    words: HostArray = OPS["encode"](values, **options)
    if out is None:
        return words
    count = words.items.size // 4 * 4
    out.items.reshape(-1)[:count] = words.items.reshape(-1)[:count]
    return out


def _ignored(bits: HostArray, *, out: HostArray | None = None, **options: Any) -> HostArray:
    """Take out= and return a new array."""
    decoded: HostArray = OPS["decode"](bits, **options)
    return decoded


def out_faults() -> list[Mutant]:
    """Return the faults."""
    stages = ("out",)
    return [
        Mutant("out-last-skipped", "the last element of a given output is not written",
               {"dequantize_blockwise": _last_skipped}, stages, operations="nf4"),
        Mutant("out-past-the-end", "one element past the end of a given output is written",
               {"quantize_blockwise": _past_the_end}, stages, operations="dynamic_signed"),
        Mutant("out-before-the-begin", "a byte before a given output is written", {"pack_4bit": _before_the_begin},
               stages),
        Mutant("out-added", "the product is added to what lies in a given output", {"int8_matmul": _added}, stages),
        Mutant("out-padding-kept", "the padding nibble of a given output is not written",
               {"pack_4bit": _padding_kept}, stages),
        Mutant("out-whole-vectors", "numbers that do not fill a vector are not written",
               {"encode": _whole_vectors}, stages, operations="float16"),
        Mutant("out-ignored", "out= is accepted, and nothing is written to it", {"decode": _ignored}, stages,
               operations="bfloat16"),
    ]  # fmt: skip
