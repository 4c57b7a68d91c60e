"""Right rewrites: other orders, other arithmetic, the same claims. The suite must accuse none of them."""

from typing import Any

import numpy as np

from qloracle.blocks import block_absmax
from qloracle.rounding import encode
from qloracle_conformance.adapters.reference import OPS
from qloracle_conformance.arrays import HostArray, host
from qloracle_conformance.mutants.adapter_rewrites import adapter_rewrites
from qloracle_conformance.mutants.block_rewrites import block_rewrites
from qloracle_conformance.mutants.footprint_rewrites import footprint_rewrites
from qloracle_conformance.mutants.format_rewrites import format_rewrites
from qloracle_conformance.mutants.int8_rewrites import int8_rewrites
from qloracle_conformance.mutants.kernel_rewrites import kernel_rewrites
from qloracle_conformance.mutants.kernels import (
    absmax_of_blocks,
    codes_by_division,
    codes_by_reciprocal,
    packed,
    summed,
)
from qloracle_conformance.mutants.merge_rewrites import merge_rewrites
from qloracle_conformance.mutants.mutant import Rewrite
from qloracle_conformance.mutants.optimizer_rewrites import optimizer_rewrites
from qloracle_conformance.mutants.sum_rewrites import sum_rewrites


def _reciprocal(x: HostArray, *, codebook: str, block_size: int) -> Any:
    absmax = block_absmax(x.single(), block_size)
    codes = codes_by_reciprocal(x.single().reshape(-1), absmax, codebook, block_size)
    return packed(codes, codebook), host(absmax)


def _block_by_block(x: HostArray, *, codebook: str, block_size: int) -> Any:
    """Visit the blocks one at a time, from the last to the first."""
    flat = x.single().reshape(-1)
    absmax = absmax_of_blocks(flat, block_size)
    codes = np.empty(flat.size, np.uint8)
    for block in reversed(range(len(absmax))):
        part = slice(block * block_size, (block + 1) * block_size)
        codes[part] = codes_by_division(flat[part], absmax[block : block + 1], codebook, block_size)
    return packed(codes, codebook), host(absmax)


def forward_in(order: str) -> Any:
    """Return a LoRA layer in float32 that adds up in the given order, the scale folded into x Aᵀ."""

    def forward(
        x: HostArray, weight: HostArray, lora_a: HostArray, lora_b: HostArray, bias: HostArray | None,
        mask: HostArray | None, *, alpha: float, dropout: float, rank_stabilized: bool,
        lora_bias: HostArray | None = None, fan_in_fan_out: bool = False,
    ) -> HostArray:  # fmt: skip
        w = weight.single() if fan_in_fan_out else weight.single().T
        rows = x.single().reshape(-1, x.shape[-1])
        rank = lora_a.shape[0]
        scale = np.float32(alpha / (np.sqrt(rank) if rank_stabilized else rank))
        dropped = rows
        if mask is not None:
            factor = np.float32(0) if dropout == 1 else np.float32(1) / np.float32(1 - dropout)
            dropped = rows * (mask.items.reshape(rows.shape) * factor)
        with np.errstate(all="ignore"):
            hidden = summed(dropped, lora_a.single().T, order) * scale
            y = summed(hidden, lora_b.single().T, order) + summed(rows, w, order)
            y = y if lora_bias is None else y + scale * lora_bias.single()
            y = y if bias is None else y + bias.single()
        return host(np.asarray(encode(y.reshape(*x.shape[:-1], w.shape[1]), x.dtype)), x.dtype)

    return forward


def _scaled_by_quotients(
    acc: HostArray, row_absmax: HostArray, column_absmax: HostArray, bias: HostArray | None, *, dtype: str
) -> HostArray:
    """Scale the accumulator by row/127, then by column/127; products that leave the range go another way."""
    with np.errstate(all="ignore"):
        row = row_absmax.items[:, np.newaxis].astype(np.float64) / 127
        y = (acc.items.astype(np.float32) * (row * column_absmax.items).astype(np.float64)).astype(np.float32)
        y = (y.astype(np.float64) / 127).astype(np.float32)
        y = y if bias is None else y + bias.single()
    return host(np.asarray(encode(y, dtype)), dtype)


def _whole_matrix_first(a: HostArray, b: HostArray) -> HostArray:
    return host((a.items.astype(np.int64) @ b.items.astype(np.int64).T).astype(np.int32))


def _decoded_by_shift(bits: HostArray, *, dtype: str) -> HostArray:
    if bits.dtype != "bfloat16":
        return OPS["decode"](bits, dtype=dtype)  # type: ignore[no-any-return]
    return host((bits.items.astype(np.uint32) << 16).view(np.float32))


def rewrites() -> list[Rewrite]:
    """Return all right rewrites."""
    return [
        *(Rewrite(f"forward-{order}", f"LoRA forward in float32, {order} sums", {"lora_forward": forward_in(order)}, {})
          for order in ("sequential", "reversed", "split", "fused")),
        Rewrite("reciprocal-at-tie", "codes by a float32 reciprocal, claimed at level tie",
                {"quantize_blockwise": _reciprocal}, {"codes": "tie"}),
        Rewrite("blocks-backwards", "blocks one at a time, last to first", {"quantize_blockwise": _block_by_block}, {}),
        Rewrite("scaled-by-quotients", "the accumulator scaled by row and column in turn",
                {"scale_int8_matmul": _scaled_by_quotients}, {}),
        Rewrite("integer-matmul", "INT8 products in 64-bit integers", {"int8_matmul": _whole_matrix_first}, {}),
        Rewrite("bfloat16-by-shift", "bfloat16 widened by a shift", {"decode": _decoded_by_shift}, {}),
        *format_rewrites(),
        *adapter_rewrites(),
        *merge_rewrites(),
        *block_rewrites(),
        *footprint_rewrites(),
        *int8_rewrites(),
        *optimizer_rewrites(),
        *sum_rewrites(),
        *kernel_rewrites(),
    ]  # fmt: skip
