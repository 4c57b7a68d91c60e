"""The product of INT8 matrices in integers, and its scales in the same kernel, so that no accumulator is stored.

The scales are applied in float64, once for each output: no intermediate result leaves its range, and what is exact
stays exact. The bits are those of the eager code.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from qloracle_gpu.torch.kernels.availability import OPTIONS, fixed_steps, interpreted, on_device_of
from qloracle_gpu.torch.kernels.scalars import narrowed, writable
from qloracle_gpu.torch.kernels.tiles import Tile, banded_tile


@triton.jit
def scaled_tile(acc, i, j, rows, columns, row_ptr, column_ptr, bias_ptr):
    """Return acc · row · column / 127² + bias as float32, for rows i and columns j."""
    row = tl.load(row_ptr + i, mask=i < rows, other=0.0).to(tl.float64)[:, None]
    column = tl.load(column_ptr + j, mask=j < columns, other=0.0).to(tl.float64)[None, :]
    value = acc.to(tl.float64) * row * column / 16129.0
    if bias_ptr is not None:
        value += tl.load(bias_ptr + j, mask=j < columns, other=0.0).to(tl.float64)[None, :]
    return value.to(tl.float32)


@triton.jit
def scale_kernel(acc_ptr, row_ptr, column_ptr, bias_ptr, y_ptr, rows, columns, ROWS: tl.constexpr,
                 COLUMNS: tl.constexpr, OUT: tl.constexpr):  # fmt: skip
    """Scale a tile of sums."""
    program = tl.program_id(0).to(tl.int64)
    across = tl.cdiv(columns, COLUMNS)
    i = program // across * ROWS + tl.arange(0, ROWS)
    j = program % across * COLUMNS + tl.arange(0, COLUMNS)
    places = i[:, None] * columns + j[None, :]
    inside = (i[:, None] < rows) & (j[None, :] < columns)
    acc = tl.load(acc_ptr + places, mask=inside, other=0)
    y = scaled_tile(acc, i, j, rows, columns, row_ptr, column_ptr, bias_ptr)
    tl.store(y_ptr + places, narrowed(y, OUT, y_ptr), mask=inside)


@triton.jit
def integer_sums(a_ptr, b_ptr, i, j, rows, columns, inner, STEPS: tl.constexpr, ROWS: tl.constexpr,
                 COLUMNS: tl.constexpr, INNER: tl.constexpr):  # fmt: skip
    """Return the products of rows i of a with rows j of b, as int32."""
    acc = tl.zeros((ROWS, COLUMNS), tl.int32)
    for step in range(STEPS if STEPS > 0 else tl.cdiv(inner, INNER)):
        k = step * INNER + tl.arange(0, INNER)
        a = tl.load(a_ptr + i[:, None] * inner + k[None, :], mask=(i[:, None] < rows) & (k[None, :] < inner), other=0)
        b = tl.load(b_ptr + j[:, None] * inner + k[None, :], mask=(j[:, None] < columns) & (k[None, :] < inner),
                    other=0)  # fmt: skip
        acc = tl.dot(a, tl.trans(b), acc, out_dtype=tl.int32)
    return acc


@triton.jit
def product_kernel(a_ptr, b_ptr, row_ptr, column_ptr, bias_ptr, y_ptr, rows, columns, inner, STEPS: tl.constexpr,
                   ROWS: tl.constexpr, COLUMNS: tl.constexpr, INNER: tl.constexpr, BAND: tl.constexpr,
                   OUT: tl.constexpr):  # fmt: skip
    """Multiply a tile of rows of a with one of rows of b; scale the sums unless OUT is int32."""
    i, first = banded_tile(rows, columns, ROWS, COLUMNS, BAND)
    j = first + tl.arange(0, COLUMNS)
    acc = integer_sums(a_ptr, b_ptr, i, j, rows, columns, inner, STEPS, ROWS, COLUMNS, INNER)
    places = i[:, None] * columns + j[None, :]
    inside = (i[:, None] < rows) & (j[None, :] < columns)
    if OUT == "int32":
        tl.store(y_ptr + places, acc, mask=inside)
    else:
        y = scaled_tile(acc, i, j, rows, columns, row_ptr, column_ptr, bias_ptr)
        tl.store(y_ptr + places, narrowed(y, OUT, y_ptr), mask=inside)


TILES = (Tile(16, 64, 128, 4), Tile(32, 64, 128, 4), Tile(128, 128, 64, 8))


def tile_of(rows: int) -> Tile:
    """Return the tile of a product."""
    return next((tile for tile in TILES if rows <= tile.rows), TILES[-1])


def product(
    a: Tensor, b: Tensor, out: Tensor, fmt: str, scales: tuple[Tensor, Tensor] | None = None, bias: Tensor | None = None
) -> None:
    """Write a bᵀ, scaled where scales are given.

    Parameters
    ----------
    a : tensor of int8, shape (M, K), contiguous
    b : tensor of int8, shape (N, K), contiguous
        K is so small that int32 cannot overflow.
    out : tensor of int32, or with scales of float32, float16 or bfloat16, shape (M, N), contiguous
        Written.
    fmt : str
        Its format.
    scales : tuple of tensor of float32, contiguous, optional
        Absmax of the rows of a and of b.
    bias : tensor of float32, shape (N,), contiguous, optional
    """
    (rows, inner), columns = a.shape, b.shape[0]
    if out.numel() == 0:
        return
    tile = tile_of(rows)
    row, column = scales or (None, None)
    with on_device_of(a):
        product_kernel[(tile.programs(rows, columns),)](
            a, b, row, column, bias, writable(out), rows, columns, inner, STEPS=fixed_steps(inner, tile.inner),
            OUT=fmt, **tile.constants, num_warps=tile.warps, **OPTIONS,
        )  # fmt: skip


def scale(acc: Tensor, row: Tensor, column: Tensor, bias: Tensor | None, out: Tensor, fmt: str) -> None:
    """Write acc · row · column / 127² + bias; all tensors are contiguous."""
    rows, columns = acc.shape
    if out.numel() == 0:
        return
    height, width = (64, 256) if interpreted() else (8, 256)
    programs = triton.cdiv(rows, height) * triton.cdiv(columns, width)
    with on_device_of(acc):
        scale_kernel[(programs,)](
            acc, row, column, bias, writable(out), rows, columns, ROWS=height, COLUMNS=width, OUT=fmt, **OPTIONS
        )


def exact_product(a: Tensor, b: Tensor) -> Tensor:
    """Return a bᵀ as int32."""
    out = torch.empty(a.shape[0], b.shape[0], dtype=torch.int32, device=a.device)
    product(a.contiguous(), b.contiguous(), out, "int32")
    return out
