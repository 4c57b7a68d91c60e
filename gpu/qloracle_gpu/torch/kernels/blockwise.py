"""Blockwise quantization and dequantization: one pass over the input, for any even block size."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from qloracle.codebooks import Codebook
from qloracle_gpu.torch.kernels.availability import OPTIONS
from qloracle_gpu.torch.kernels.cells import MARGIN, cell_table
from qloracle_gpu.torch.kernels.scalars import magnitude_bits, narrowed, widened

_TILE = 4096  # elements of a program


@triton.jit
def nearest_positions(x, absmax, cells_ptr, midpoints_ptr, SHIFT: tl.constexpr, FIRST: tl.constexpr,
                      COUNT: tl.constexpr, MARGIN: tl.constexpr):  # fmt: skip
    """Return the position of the entry nearest to x/absmax, exactly; x is zero where absmax is zero or NaN.

    `absmax` broadcasts to `x`. The quotient is guessed by a reciprocal, with both scaled by a power of two where
    that would overflow; a tile with a quotient near its midpoint is decided by exact products in float64.
    """
    tiny = absmax < 2.0**-64
    known = tl.where(absmax > 0, tl.where(tiny, absmax * 2.0**64, absmax), 1.0)  # NaN and zero: x is zero there
    reciprocal = tl.div_rn(tl.full(known.shape, 1.0, tl.float32), known)
    quotient = tl.where(tiny, x * 2.0**64, x) * reciprocal
    bits = magnitude_bits(quotient)
    cell = tl.minimum(tl.maximum((bits >> SHIFT) - FIRST, 0), COUNT - 1)
    cell = tl.where(quotient < 0, cell + COUNT, cell)
    found = tl.load(cells_ptr + cell)
    midpoint = found.to(tl.int32).to(tl.float32, bitcast=True)
    below = (found >> 32).to(tl.int32)
    position = below + (quotient > midpoint).to(tl.int32)
    near = (tl.abs(quotient - midpoint) <= tl.abs(midpoint) * MARGIN) & (midpoint < 2.0)
    if tl.max(tl.max(near.to(tl.int32), axis=1), axis=0) > 0:
        exact = tl.load(midpoints_ptr + below, mask=near, other=0.0)
        above = x.to(tl.float64) > exact * absmax.to(tl.float64)
        position = tl.where(near, below + above.to(tl.int32), position)
    return position


@triton.jit
def quantize_kernel(x_ptr, data_ptr, absmax_ptr, cells_ptr, midpoints_ptr, codes_ptr, size, data_size,
                    BLOCK: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr, FORMAT: tl.constexpr,
                    PACKED: tl.constexpr, ORDERED: tl.constexpr, SHIFT: tl.constexpr, FIRST: tl.constexpr,
                    COUNT: tl.constexpr, MARGIN: tl.constexpr):  # fmt: skip
    """Quantize ROWS flat blocks of BLOCK elements, each in WIDTH lanes."""
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    lanes = tl.arange(0, WIDTH)
    places = rows[:, None] * BLOCK + lanes[None, :]
    inside = (lanes[None, :] < BLOCK) & (places < size)
    x = widened(tl.load(x_ptr + places, mask=inside, other=0), FORMAT)
    largest = tl.max(magnitude_bits(x), axis=1)
    poisoned = largest >= 0x7F800000
    absmax = tl.where(poisoned, 0x7FC00000, largest).to(tl.float32, bitcast=True)
    x = tl.where(poisoned[:, None], 0.0, x)
    codes = nearest_positions(x, absmax[:, None], cells_ptr, midpoints_ptr, SHIFT, FIRST, COUNT, MARGIN)
    if not ORDERED:
        codes = tl.load(codes_ptr + codes).to(tl.int32)
    tl.store(absmax_ptr + rows, absmax, mask=rows * BLOCK < size)
    if PACKED:
        high, low = tl.split(tl.reshape(codes, (ROWS, WIDTH // 2, 2)))
        halves = tl.arange(0, WIDTH // 2)
        bytes_at = rows[:, None] * (BLOCK // 2) + halves[None, :]
        whole = (halves[None, :] < BLOCK // 2) & (bytes_at < data_size)
        tl.store(data_ptr + bytes_at, ((high << 4) | low).to(tl.uint8), mask=whole)
    else:
        tl.store(data_ptr + places, codes.to(tl.uint8), mask=inside)


@triton.jit
def dequantize_kernel(data_ptr, absmax_ptr, entries_ptr, out_ptr, size, data_size, BLOCK: tl.constexpr,
                      TILE: tl.constexpr, FORMAT: tl.constexpr, PACKED: tl.constexpr):  # fmt: skip
    """Restore TILE elements: one float32 product each, then one rounding."""
    start = tl.program_id(0).to(tl.int64) * TILE
    places = start + tl.arange(0, TILE)
    inside = places < size
    if PACKED:
        bytes_at = start // 2 + tl.arange(0, TILE // 2)
        data = tl.load(data_ptr + bytes_at, mask=bytes_at < data_size, other=0).to(tl.int32)
        entry = tl.reshape(tl.join(tl.load(entries_ptr + (data >> 4)), tl.load(entries_ptr + (data & 15))), (TILE,))
    else:
        entry = tl.load(entries_ptr + tl.load(data_ptr + places, mask=inside, other=0).to(tl.int32))
    absmax = tl.load(absmax_ptr + places // BLOCK, mask=inside, other=0.0)
    value = tl.where(absmax == 0, 0.0, entry * absmax)
    tl.store(out_ptr + places, narrowed(value, FORMAT), mask=inside)


def raw(tensor: Tensor) -> Tensor:
    """Return a tensor as kernels read it: bfloat16 as its bits."""
    return tensor.view(torch.int16) if tensor.dtype is torch.bfloat16 else tensor


def quantize_flat(x: Tensor, codebook: Codebook, block_size: int, fmt: str) -> tuple[Tensor, Tensor]:
    """Return codes (packed for a 4-bit codebook) and absmax of a contiguous 1-d tensor.

    Parameters
    ----------
    x : tensor of float32, float16 or bfloat16, 1-d, contiguous
    codebook : Codebook
        With midpoints of at most 29 significant bits.
    block_size : int
        Even for a 4-bit codebook.
    fmt : str
        Name of the format of `x`.

    Returns
    -------
    tuple of tensor of uint8, tensor of float32
    """
    size, packed = x.numel(), codebook.code_bits == 4
    table = cell_table(codebook, x.device)
    blocks = triton.cdiv(size, block_size)
    data = torch.empty((size + 1) // 2 if packed else size, dtype=torch.uint8, device=x.device)
    absmax = torch.empty(blocks, dtype=torch.float32, device=x.device)
    if size:
        width = max(2, triton.next_power_of_2(block_size))
        rows = max(1, _TILE // width)
        quantize_kernel[(triton.cdiv(blocks, rows),)](
            raw(x), data, absmax, table.cells, table.midpoints, table.codes, size, data.numel(), BLOCK=block_size,
            WIDTH=width, ROWS=rows, FORMAT=fmt, PACKED=packed, ORDERED=table.ordered, SHIFT=table.shift,
            FIRST=table.first, COUNT=table.count, MARGIN=MARGIN, **OPTIONS,
        )  # fmt: skip
    return data, absmax


def dequantize_flat(
    data: Tensor, absmax: Tensor, entries: Tensor, block_size: int, out: Tensor, fmt: str, *, packed: bool
) -> None:
    """Write the values of stored codes to a contiguous 1-d tensor of the format `fmt`."""
    size = out.numel()
    if size:
        dequantize_kernel[(triton.cdiv(size, _TILE),)](
            data, absmax, entries, raw(out), size, data.numel(), BLOCK=block_size, TILE=_TILE, FORMAT=fmt,
            PACKED=packed, **OPTIONS,
        )  # fmt: skip
