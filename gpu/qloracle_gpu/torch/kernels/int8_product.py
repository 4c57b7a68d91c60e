"""The product of INT8 matrices in integers, and its scales in the same kernel, so that no accumulator is stored.

The scales are applied in float64, once for each output: no intermediate result leaves its range, and what is exact
stays exact. The bits are those of the eager code.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from qloracle_gpu.torch.kernels.availability import OPTIONS, interpreted, on_device_of
from qloracle_gpu.torch.kernels.scalars import narrowed, writable

_BAND = 8  # tiles of rows that are worked on together, so that they share tiles of columns in the cache


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
def product_kernel(a_ptr, b_ptr, row_ptr, column_ptr, bias_ptr, y_ptr, rows, columns, inner, ROWS: tl.constexpr,
                   COLUMNS: tl.constexpr, INNER: tl.constexpr, BAND: tl.constexpr, OUT: tl.constexpr):  # fmt: skip
    """Multiply a tile of rows of a with one of rows of b; scale the sums unless OUT is int32."""
    program = tl.program_id(0).to(tl.int64)
    down, across = tl.cdiv(rows, ROWS), tl.cdiv(columns, COLUMNS)
    first = program // (BAND * across) * BAND
    band = tl.minimum(down - first, BAND)
    i = (first + program % (BAND * across) % band) * ROWS + tl.arange(0, ROWS)
    j = program % (BAND * across) // band * COLUMNS + tl.arange(0, COLUMNS)
    acc = tl.zeros((ROWS, COLUMNS), tl.int32)
    for start in range(0, inner, INNER):
        k = start + tl.arange(0, INNER)
        a = tl.load(a_ptr + i[:, None] * inner + k[None, :], mask=(i[:, None] < rows) & (k[None, :] < inner), other=0)
        b = tl.load(b_ptr + j[:, None] * inner + k[None, :], mask=(j[:, None] < columns) & (k[None, :] < inner),
                    other=0)  # fmt: skip
        acc = tl.dot(a, tl.trans(b), acc, out_dtype=tl.int32)
    places = i[:, None] * columns + j[None, :]
    inside = (i[:, None] < rows) & (j[None, :] < columns)
    if OUT == "int32":
        tl.store(y_ptr + places, acc, mask=inside)
    else:
        y = scaled_tile(acc, i, j, rows, columns, row_ptr, column_ptr, bias_ptr)
        tl.store(y_ptr + places, narrowed(y, OUT, y_ptr), mask=inside)


def tile_of(rows: int) -> dict[str, int]:
    """Return the tile of a product, and the warps that work on it."""
    if rows <= 32:
        return {"ROWS": 16 if rows <= 16 else 32, "COLUMNS": 64, "INNER": 128, "BAND": _BAND, "num_warps": 4}
    return {"ROWS": 128, "COLUMNS": 128, "INNER": 64, "BAND": _BAND, "num_warps": 8}


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
    programs = triton.cdiv(rows, tile["ROWS"]) * triton.cdiv(columns, tile["COLUMNS"])
    with on_device_of(a):
        product_kernel[(programs,)](
            a, b, row, column, bias, writable(out), rows, columns, inner, OUT=fmt, **tile, **OPTIONS
        )


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
