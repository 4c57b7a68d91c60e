"""Blockwise quantization: absmax and codes in one pass over the input, for any even block size."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from qloracle.codebooks import Codebook
from qloracle_gpu.torch.kernels.availability import OPTIONS, on_device_of, tile_size
from qloracle_gpu.torch.kernels.cells import MARGIN, cell_table
from qloracle_gpu.torch.kernels.scalars import magnitude_bits, readable, widened

_TILE = tile_size(2048)  # elements of a program


@triton.jit
def nearest_positions(x, absmax, cells_ptr, midpoints_ptr, SHIFT: tl.constexpr, FIRST: tl.constexpr,
                      COUNT: tl.constexpr, MARGIN: tl.constexpr):  # fmt: skip
    """Return the position of the entry nearest to x/absmax, exactly; x is zero where absmax is zero or NaN.

    `absmax` broadcasts to `x`. The quotient is guessed by a reciprocal, with both scaled by a power of two where
    that would overflow; a tile with a quotient near its midpoint is decided by exact products in float64.
    """
    factor = tl.where(absmax < 2.0**-64, 2.0**64, 1.0)
    known = tl.where(absmax > 0, absmax * factor, 1.0)  # NaN and zero: x is zero there
    reciprocal = tl.div_rn(tl.full(known.shape, 1.0, tl.float32), known)
    quotient = x * factor * reciprocal
    cell = tl.minimum(tl.maximum((magnitude_bits(quotient) >> SHIFT) - FIRST, 0), COUNT - 1)
    cell = tl.where(quotient < 0, cell + COUNT, cell)
    found = tl.load(cells_ptr + cell)
    midpoint = found.to(tl.int32).to(tl.float32, bitcast=True)
    below = (found >> 32).to(tl.int32)
    position = below + (quotient > midpoint).to(tl.int32)
    near = tl.abs(quotient - midpoint) <= tl.abs(midpoint) * MARGIN
    if tl.max(tl.max(near.to(tl.int32), axis=1), axis=0) > 0:
        # Where a cell meets no midpoint, the next one above it says so too.
        boundary = tl.load(midpoints_ptr + below) * absmax.to(tl.float64)
        position = below + (x.to(tl.float64) > boundary).to(tl.int32)
    return position


@triton.jit
def store_codes(data_ptr, rows, codes, stored, BLOCK: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr,
                CODES: tl.constexpr):  # fmt: skip
    """Store the codes of ROWS blocks: CODES of them in a byte, or in a word.

    `stored` counts bytes or words from `data_ptr` on; behind the last code of a word stand codes of zero.
    """
    lanes = tl.arange(0, WIDTH)
    if CODES == 1:
        places = rows[:, None] * BLOCK + lanes[None, :]
        tl.store(data_ptr + places, codes.to(tl.uint8), mask=(lanes[None, :] < BLOCK) & (places < stored))
    elif CODES == 8:
        shifts = (tl.arange(0, 8) ^ 1) * 4
        words = tl.sum(tl.reshape(codes, (ROWS, WIDTH // 8, 8)) << shifts[None, None, :], axis=2)
        word = tl.arange(0, WIDTH // 8)
        places = rows[:, None] * (BLOCK // 8) + word[None, :]
        inside = (word[None, :] < BLOCK // 8) & (places < stored)
        tl.store(data_ptr + places, words, mask=inside)
    else:
        high, low = tl.split(tl.reshape(codes, (ROWS, WIDTH // 2, 2)))
        pair = tl.arange(0, WIDTH // 2)
        places = rows[:, None] * (BLOCK // 2) + pair[None, :]
        inside = (pair[None, :] < BLOCK // 2) & (places < stored)
        tl.store(data_ptr + places, ((high << 4) | low).to(tl.uint8), mask=inside)


@triton.jit
def quantize_kernel(x_ptr, data_ptr, absmax_ptr, offset_ptr, cells_ptr, midpoints_ptr, codes_ptr, size, data_size,
                    BLOCK: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr, FORMAT: tl.constexpr,
                    CODES: tl.constexpr, ORDERED: tl.constexpr, SHIFT: tl.constexpr, FIRST: tl.constexpr,
                    COUNT: tl.constexpr, MARGIN: tl.constexpr):  # fmt: skip
    """Quantize ROWS flat blocks of BLOCK elements, each in WIDTH lanes; less an offset where one is given."""
    first = tl.program_id(0).to(tl.int64) * ROWS
    left = tl.minimum(size - first * BLOCK, ROWS * BLOCK).to(tl.int32)
    rows = tl.arange(0, ROWS)
    lanes = tl.arange(0, WIDTH)
    places = rows[:, None] * BLOCK + lanes[None, :]
    inside = (lanes[None, :] < BLOCK) & (places < left)
    x = widened(tl.load(x_ptr + first * BLOCK + places, mask=inside, other=0), FORMAT)
    if offset_ptr is not None:
        x = tl.where(inside, x - tl.load(offset_ptr), 0.0)
    largest = tl.max(magnitude_bits(x), axis=1)
    poisoned = largest >= 0x7F800000
    absmax = tl.where(poisoned, 0x7FC00000, largest).to(tl.float32, bitcast=True)
    x = tl.where(poisoned[:, None], 0.0, x)
    codes = nearest_positions(x, absmax[:, None], cells_ptr, midpoints_ptr, SHIFT, FIRST, COUNT, MARGIN)
    if not ORDERED:
        codes = tl.load(codes_ptr + codes).to(tl.int32)
    tl.store(absmax_ptr + first + rows, absmax, mask=rows * BLOCK < left)
    start = first * (BLOCK // CODES)
    stored = tl.minimum(data_size - start, ROWS * BLOCK).to(tl.int32)
    store_codes(data_ptr + start, rows, codes, stored, BLOCK, WIDTH, ROWS, CODES)


def quantize_flat(
    x: Tensor, codebook: Codebook, block_size: int, fmt: str, *, packed: bool, offset: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return codes and absmax of a contiguous 1-d tensor, which is read once.

    Parameters
    ----------
    x : tensor of float32, float16 or bfloat16, 1-d, contiguous
    codebook : Codebook
        With midpoints of at most 29 significant bits.
    block_size : int
        Even where codes are packed.
    fmt : str
        Name of the format of `x`.
    packed : bool
        Whether two codes share a byte.
    offset : tensor of float32, 0-d, optional
        Subtracted from every element first, in float32.

    Returns
    -------
    tuple of tensor of uint8, tensor of float32
    """
    size, table = x.numel(), cell_table(codebook, x.device)
    blocks, stored = triton.cdiv(size, block_size), (size + 1) // 2 if packed else size
    item = 4 if packed and block_size % 8 == 0 else 1  # bytes that are written at once
    data = torch.empty(triton.cdiv(stored, item) * item, dtype=torch.uint8, device=x.device)
    absmax = torch.empty(blocks, dtype=torch.float32, device=x.device)
    width = max(2, triton.next_power_of_2(block_size))
    rows = max(1, _TILE // width)
    if size:
        items = data.view(torch.int32) if item == 4 else data
        with on_device_of(x):
            quantize_kernel[(triton.cdiv(blocks, rows),)](
                readable(x), items, absmax, offset, table.cells, table.midpoints, table.codes, size, items.numel(),
                BLOCK=block_size, WIDTH=width, ROWS=rows, FORMAT=fmt, CODES=2 * item if packed else 1,
                ORDERED=table.ordered, SHIFT=table.shift, FIRST=table.first, COUNT=table.count, MARGIN=MARGIN,
                **OPTIONS,
            )  # fmt: skip
    return data[:stored], absmax
