"""Blockwise dequantization in one pass over the codes, with the absmax as stored or restored on the way."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from qloracle_gpu.torch.kernels.availability import OPTIONS, on_device_of, tile_size
from qloracle_gpu.torch.kernels.scalars import narrowed, writable
from qloracle_gpu.torch.kernels.stored_absmax import NestedAbsmax, StoredAbsmax

TILE = tile_size(4096)  # elements of a program
SHORT_TILE = tile_size(1024)  # where there is one number a block
_LARGEST_GROUP = 64


@triton.jit
def absmax_of(blocks, inside, absmax_ptr, codes_ptr, entries_ptr, offset_ptr, NESTED: tl.constexpr):
    """Return the absmax of blocks; codes give fl32(fl32(entry · nested) + offset), NESTED blocks to a nested one."""
    if NESTED:
        entry = tl.load(entries_ptr + tl.load(codes_ptr + blocks, mask=inside, other=0).to(tl.int32))
        nested = tl.load(absmax_ptr + blocks // NESTED, mask=inside, other=0.0)
        return tl.where(nested == 0, 0.0, entry * nested) + tl.load(offset_ptr)
    else:
        return tl.load(absmax_ptr + blocks, mask=inside, other=0.0)


@triton.jit
def dequantize_kernel(data_ptr, entries_ptr, absmax_ptr, absmax_codes_ptr, absmax_entries_ptr, offset_ptr, out_ptr,
                      size, data_size, PARTS: tl.constexpr, ROWS: tl.constexpr, GROUP: tl.constexpr,
                      FORMAT: tl.constexpr, PACKED: tl.constexpr, NESTED: tl.constexpr):  # fmt: skip
    """Restore ROWS groups of GROUP elements, PARTS of which make a block: one float32 product each, one rounding."""
    first = tl.program_id(0).to(tl.int64) * ROWS
    start = first * GROUP
    left = tl.minimum(size - start, ROWS * GROUP).to(tl.int32)
    rows = tl.arange(0, ROWS)
    places = rows[:, None] * GROUP + tl.arange(0, GROUP)[None, :]
    if PACKED:
        pairs = tl.arange(0, ROWS * GROUP // 2)
        stored = tl.minimum(data_size - start // 2, ROWS * GROUP // 2).to(tl.int32)
        data = tl.load(data_ptr + start // 2 + pairs, mask=pairs < stored, other=0).to(tl.int32)
        both = tl.join(tl.load(entries_ptr + (data >> 4)), tl.load(entries_ptr + (data & 15)))
        entry = tl.reshape(both, (ROWS, GROUP))
    else:
        codes = tl.load(data_ptr + start + places, mask=places < left, other=0).to(tl.int32)
        entry = tl.load(entries_ptr + codes)
    blocks = (first + rows) // PARTS
    absmax = absmax_of(blocks, rows * GROUP < left, absmax_ptr, absmax_codes_ptr, absmax_entries_ptr, offset_ptr,
                       NESTED)[:, None]  # fmt: skip
    value = tl.where(absmax == 0, 0.0, entry * absmax)
    tl.store(out_ptr + start + places, narrowed(value, FORMAT, out_ptr), mask=places < left)


@triton.jit
def restore_absmax_kernel(absmax_ptr, codes_ptr, entries_ptr, offset_ptr, out_ptr, size, NESTED: tl.constexpr,
                          TILE: tl.constexpr):  # fmt: skip
    """Restore the absmax of TILE blocks."""
    blocks = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)
    inside = blocks < size
    values = absmax_of(blocks, inside, absmax_ptr, codes_ptr, entries_ptr, offset_ptr, NESTED)
    tl.store(out_ptr + blocks, values, mask=inside)


def group_of(block_size: int) -> int:
    """Return how many neighbouring elements a kernel gives one absmax: a power of two that divides the block."""
    return min(block_size & -block_size, _LARGEST_GROUP)


def dequantize_flat(
    data: Tensor, entries: Tensor, absmax: StoredAbsmax, block_size: int, out: Tensor, fmt: str, *, packed: bool
) -> None:
    """Write the values of stored codes to a contiguous 1-d tensor of the format `fmt`.

    Parameters
    ----------
    data : tensor of uint8, 1-d, contiguous
        Codes, two in a byte where they are packed.
    entries : tensor of float32
        The codebook, in code order.
    absmax : StoredAbsmax
        Of contiguous tensors.
    block_size : int
    out : tensor of float32, float16 or bfloat16, 1-d, contiguous
    fmt : str
        Its format.
    packed : bool
    """
    group = group_of(block_size)
    if out.numel():
        with on_device_of(out):
            dequantize_kernel[(triton.cdiv(out.numel(), TILE),)](
                data, entries, *absmax.pointers, writable(out), out.numel(), data.numel(), PARTS=block_size // group,
                ROWS=TILE // group, GROUP=group, FORMAT=fmt, PACKED=packed, NESTED=absmax.group, **OPTIONS,
            )  # fmt: skip


def restore_absmax(stored: NestedAbsmax) -> Tensor:
    """Return the absmax of blocks from their codes."""
    out = torch.empty(stored.codes.shape, dtype=torch.float32, device=stored.codes.device)
    if out.numel():
        with on_device_of(out):
            restore_absmax_kernel[(triton.cdiv(out.numel(), SHORT_TILE),)](
                *stored.pointers, out, out.numel(), NESTED=stored.group, TILE=SHORT_TILE, **OPTIONS
            )
    return out
