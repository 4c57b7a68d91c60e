"""Absmax INT8: codes and values, for groups that are rows of one length or columns of a matrix.

A tensor is one row, a flat block is a row, and the last row may be short. Groups that fit a program are read once.
"""

import triton
import triton.language as tl

from qloracle_gpu.torch.kernels.int8_scalars import nearest_int8, scaled_int8
from qloracle_gpu.torch.kernels.scalars import magnitude_bits, narrowed, widened


@triton.jit
def tile_of(size, width, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Return the rows, the columns and the places of a program's tile, and which of them exist."""
    program = tl.program_id(0).to(tl.int64)
    across = tl.cdiv(width, COLUMNS)
    rows = program // across * ROWS + tl.arange(0, ROWS)
    columns = program % across * COLUMNS + tl.arange(0, COLUMNS)
    places = rows[:, None] * width + columns[None, :]
    return rows, columns, places, (columns[None, :] < width) & (places < size)


@triton.jit
def largest_kernel(x_ptr, largest_ptr, size, width, ROWS: tl.constexpr, COLUMNS: tl.constexpr, FORMAT: tl.constexpr,
                   BY_ROW: tl.constexpr):  # fmt: skip
    """Raise the bits of every group's largest magnitude to those in a tile; integers, so that order does not matter."""
    rows, columns, places, inside = tile_of(size, width, ROWS, COLUMNS)
    bits = magnitude_bits(widened(tl.load(x_ptr + places, mask=inside, other=0), FORMAT))
    if BY_ROW:
        tl.atomic_max(largest_ptr + rows, tl.max(bits, axis=1), mask=rows * width < size, sem="relaxed")
    else:
        tl.atomic_max(largest_ptr + columns, tl.max(bits, axis=0), mask=columns < width, sem="relaxed")


@triton.jit
def codes_kernel(x_ptr, absmax_ptr, codes_ptr, size, width, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
                 FORMAT: tl.constexpr, BY_ROW: tl.constexpr):  # fmt: skip
    """Write the codes of a tile, given the absmax of its groups."""
    rows, columns, places, inside = tile_of(size, width, ROWS, COLUMNS)
    x = widened(tl.load(x_ptr + places, mask=inside, other=0), FORMAT)
    if BY_ROW:
        absmax = tl.load(absmax_ptr + rows, mask=rows * width < size, other=0.0)[:, None]
    else:
        absmax = tl.load(absmax_ptr + columns, mask=columns < width, other=0.0)[None, :]
    x = tl.where(absmax > 0, x, 0.0)
    tl.store(codes_ptr + places, nearest_int8(x, absmax).to(tl.int8), mask=inside)


@triton.jit
def quantize_rows_kernel(x_ptr, absmax_ptr, codes_ptr, size, width, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
                         FORMAT: tl.constexpr):  # fmt: skip
    """Write absmax and codes of ROWS groups that fit COLUMNS lanes."""
    rows, _columns, places, inside = tile_of(size, width, ROWS, COLUMNS)
    x = widened(tl.load(x_ptr + places, mask=inside, other=0), FORMAT)
    largest = tl.max(magnitude_bits(x), axis=1)
    poisoned = largest >= 0x7F800000
    absmax = tl.where(poisoned, 0x7FC00000, largest).to(tl.float32, bitcast=True)
    x = tl.where(poisoned[:, None], 0.0, x)
    tl.store(absmax_ptr + rows, absmax, mask=rows * width < size)
    tl.store(codes_ptr + places, nearest_int8(x, absmax[:, None]).to(tl.int8), mask=inside)


@triton.jit
def dequantize_kernel(codes_ptr, absmax_ptr, out_ptr, size, width, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
                      FORMAT: tl.constexpr, BY_ROW: tl.constexpr):  # fmt: skip
    """Write the values of a tile."""
    rows, columns, places, inside = tile_of(size, width, ROWS, COLUMNS)
    codes = tl.load(codes_ptr + places, mask=inside, other=0)
    if BY_ROW:
        absmax = tl.load(absmax_ptr + rows, mask=rows * width < size, other=0.0)[:, None]
    else:
        absmax = tl.load(absmax_ptr + columns, mask=columns < width, other=0.0)[None, :]
    tl.store(out_ptr + places, narrowed(scaled_int8(codes, absmax), FORMAT, out_ptr), mask=inside)
