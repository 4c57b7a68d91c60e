"""Quantizers and layers as kernels compute them, in float32, with the places open where a fault may enter."""

from collections.abc import Callable
from typing import Any

import numpy as np

from qloracle.blocks import block_count
from qloracle.formats import Array
from qloracle.packing import pack_4bit
from qloracle.rounding import encode
from qloracle.tables import codebook_named
from qloracle_conformance.adapters.reference import OPS
from qloracle_conformance.arrays import HostArray, host

Change = Callable[[Array], Array]


def absmax_of_blocks(flat: Array, block_size: int) -> Array:
    """Return the absmax of flat blocks, block by block; NaN where a block is poisoned."""
    found = np.empty(block_count(flat.size, block_size), np.float32)
    for block in range(len(found)):
        part = np.abs(flat[block * block_size : (block + 1) * block_size])
        found[block] = np.float32(np.nan) if not np.all(np.isfinite(part)) else part.max()
    return found


def codes_by_division(flat: Array, absmax: Array, codebook: str, block_size: int, side: str = "left") -> Array:
    """Return codes by an exact quotient and a search; `side` says which way an exact midpoint goes."""
    table = codebook_named(codebook)
    with np.errstate(all="ignore"):
        scale = np.repeat(absmax, block_size)[: flat.size].astype(np.float64)
        quotient = np.where((scale > 0) & np.isfinite(flat), flat / scale, 0.0)
    ranks = np.searchsorted(table.midpoints, quotient, side="left" if side == "left" else "right")
    return table.value_order[ranks]


def codes_by_reciprocal(flat: Array, absmax: Array, codebook: str, block_size: int) -> Array:
    """Return codes by multiplying with float32 1/absmax and comparing with float32 midpoints."""
    table = codebook_named(codebook)
    scale = np.repeat(absmax, block_size)[: flat.size]
    with np.errstate(all="ignore"):
        normal = np.isfinite(np.float32(1) / scale) & (scale <= np.float32(2.0**126))
        product = np.where(scale > 0, flat * (np.float32(1) / scale), np.float32(0))
    guess = np.searchsorted(table.midpoints.astype(np.float32), np.nan_to_num(product), side="left")
    exact = codes_by_division(flat, absmax, codebook, block_size)
    usable = normal & np.isfinite(flat)
    return np.where(usable, table.value_order[guess], exact).astype(np.uint8)


def packed(codes: Array, codebook: str) -> HostArray:
    """Return codes as stored: packed for a 4-bit codebook."""
    table = codebook_named(codebook)
    return host(pack_4bit(codes, table.zero_code) if table.code_bits == 4 else codes)


def layer_with(function: str, names: tuple[str, ...], change: Change) -> Callable[..., Any]:
    """Return a layer whose float operands go through `change` before they are multiplied."""

    def layer(**arguments: Any) -> Any:
        changed = {n: host(change(a.single())) if n in names and a is not None else a for n, a in arguments.items()}
        dtype = arguments["x"].dtype
        outputs = OPS[function](**{**changed, **_as_single(changed)})
        parts = outputs if isinstance(outputs, tuple) else (outputs,)
        back = tuple(host(np.asarray(encode(p.items, dtype)), dtype) for p in parts)
        return back if isinstance(outputs, tuple) else back[0]

    return layer


def _as_single(arguments: dict[str, Any]) -> dict[str, Any]:
    """Widen every float operand, so that the layer rounds its result to float32 and the mutant to the real format."""
    floats = ("dy", "x", "weight", "lora_a", "lora_b", "bias")
    return {n: host(arguments[n].single()) for n in floats if arguments.get(n) is not None}


def to_tf32(values: Array) -> Array:
    """Round float32 to the 10 mantissa bits of a TF32 operand, ties away from zero."""
    words = values.view(np.uint32).astype(np.uint64) + 0x1000
    return (words & 0xFFFFE000).astype(np.uint32).view(np.float32)


def to_bfloat16(values: Array) -> Array:
    """Round float32 to a bfloat16 operand."""
    return (encode(values, "bfloat16").astype(np.uint32) << 16).view(np.float32)


def without_last(values: Array) -> Array:
    """Return x as a loop over ⌊K/2⌋ pairs reads it: the last element of each row is never multiplied."""
    shortened = values.copy()
    shortened[..., -1:] = 0
    return shortened


def stored_items(items: Array) -> Array:
    """Return as many items as a view has, in the order in which they lie in memory from its first one on."""
    root: Any = items
    while getattr(root, "base", None) is not None:
        root = root.base
    stored = np.asarray(root).reshape(-1).view(np.uint8)
    start = items.__array_interface__["data"][0] - stored.__array_interface__["data"][0]
    found = np.zeros(items.size, items.dtype)
    part = stored[start : start + found.nbytes]
    found.view(np.uint8)[: part.size] = part
    return found.reshape(items.shape)


def summed(left: Array, right: Array, order: str) -> Array:
    """Return left @ right in float32: sequential, reversed, split (pairwise halves) or fused (one rounding a step)."""
    terms = left.shape[-1]
    acc = np.zeros((left.shape[0], right.shape[1]), np.float32)
    with np.errstate(all="ignore"):
        if order == "split" and terms > 8:
            half = terms // 2
            return summed(left[:, :half], right[:half], order) + summed(left[:, half:], right[half:], order)
        for k in range(terms) if order != "reversed" else reversed(range(terms)):
            if order == "fused":
                step = left[:, k, np.newaxis].astype(np.float64) * right[k].astype(np.float64)
                acc = (acc.astype(np.float64) + step).astype(np.float32)
            else:
                acc = acc + left[:, k, np.newaxis] * right[k]
    return acc
