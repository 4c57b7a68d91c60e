"""LLM.int8(): the product of INT8 codes, and that of the outlier columns in float32, rounded together once.

Which columns are outliers, and how many, is known on the device only: their numbers stand first in a list, and every
program works through as many as there are. So nobody waits for the device, and no other column is multiplied twice.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from qloracle_gpu.torch.kernels.availability import OPTIONS, fixed_steps, interpreted, on_device_of
from qloracle_gpu.torch.kernels.int8_product import integer_sums, scaled_tile
from qloracle_gpu.torch.kernels.int8_scalars import scaled_int8
from qloracle_gpu.torch.kernels.scalars import as_float32, narrowed, readable, writable
from qloracle_gpu.torch.kernels.tiles import Tile, banded_tile
from qloracle_gpu.torch.kernels.weight_tiles import rounded

# A tile of float32 sums stands beside that of integers.
TILES = (Tile(16, 64, 128, 4), Tile(64, 64, 64, 4), Tile(128, 64, 64, 8))
OUTLIERS = 16  # columns at once


@triton.jit
def outlier_sums(acc, x_ptr, original_ptr, codes_ptr, absmax_ptr, chosen_ptr, number, i, j, rows, columns, inner,
                 OUTLIERS: tl.constexpr, ROUNDED: tl.constexpr, BY_BITS: tl.constexpr):  # fmt: skip
    """Return acc + Σ x_k W_k over the chosen columns k; W is `original_ptr`, or without it restored from codes."""
    start = 0
    while start < number:
        lane = start + tl.arange(0, OUTLIERS)
        k = tl.load(chosen_ptr + lane, mask=lane < number, other=0)
        known = (j[:, None] < columns) & (lane[None, :] < number)
        places = j[:, None] * inner + k[None, :]
        if original_ptr is None:
            codes = tl.load(codes_ptr + places, mask=known, other=0)
            absmax = tl.load(absmax_ptr + j, mask=j < columns, other=0.0)[:, None]
            weight = rounded(scaled_int8(codes, absmax), ROUNDED, "float32", BY_BITS)
        else:
            weight = as_float32(tl.load(original_ptr + places, mask=known, other=0))
        weight = tl.where(known, weight, 0.0)
        x = tl.load(x_ptr + i[:, None] * inner + k[None, :], mask=(i[:, None] < rows) & (lane[None, :] < number),
                    other=0)  # fmt: skip
        acc = tl.dot(as_float32(x), tl.trans(weight), acc, input_precision="ieee")
        start += OUTLIERS
    return acc


@triton.jit
def decomposed_kernel(a_ptr, b_ptr, row_ptr, column_ptr, x_ptr, original_ptr, chosen_ptr, number_ptr, bias_ptr, y_ptr,
                      rows, columns, inner, STEPS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
                      INNER: tl.constexpr, BAND: tl.constexpr, OUTLIERS: tl.constexpr, ROUNDED: tl.constexpr,
                      BY_BITS: tl.constexpr, OUT: tl.constexpr):  # fmt: skip
    """Write the scaled product of codes, plus the products of outlier columns, plus the bias."""
    i, first = banded_tile(rows, columns, ROWS, COLUMNS, BAND)
    j = first + tl.arange(0, COLUMNS)
    acc = integer_sums(a_ptr, b_ptr, i, j, rows, columns, inner, STEPS, ROWS, COLUMNS, INNER)
    y = scaled_tile(acc, i, j, rows, columns, row_ptr, column_ptr, None)
    y = outlier_sums(y, x_ptr, original_ptr, b_ptr, column_ptr, chosen_ptr, tl.load(number_ptr), i, j, rows, columns,
                     inner, OUTLIERS, ROUNDED, BY_BITS)  # fmt: skip
    if bias_ptr is not None:
        y += tl.load(bias_ptr + j, mask=j < columns, other=0.0)[None, :]
    inside = (i[:, None] < rows) & (j[None, :] < columns)
    tl.store(y_ptr + i[:, None] * columns + j[None, :], narrowed(y, OUT, y_ptr), mask=inside)


def decomposed_product(
    codes: tuple[Tensor, Tensor], scales: tuple[Tensor, Tensor], x: Tensor, outliers: Tensor, y: Tensor, fmt: str, *,
    original: Tensor | None, rounding: str, bias: Tensor | None,
) -> None:  # fmt: skip
    """Write y of LLM.int8(); all tensors are contiguous and not empty.

    Parameters
    ----------
    codes : tuple of tensor of int8, shapes (rows, inner) and (columns, inner)
        Of x, 0 in outlier columns, and of the weight.
    scales : tuple of tensor of float32, shapes (rows,) and (columns,)
        Their absmax.
    x : tensor of float32, float16 or bfloat16, shape (rows, inner)
    outliers : tensor of bool, shape (inner,)
    y : tensor of float32, float16 or bfloat16, shape (rows, columns)
        Written.
    fmt : str
        Its format.
    original : tensor of any of the three, shape (columns, inner), or None
        What outliers are multiplied with; without it, the weight restored from its codes.
    rounding : str
        What a restored weight is rounded to.
    bias : tensor of float32, shape (columns,), or None
    """
    (rows, inner), columns = x.shape, y.shape[1]
    tile = next((tile for tile in TILES if rows <= tile.rows), TILES[-1])
    # Stable, so that the columns keep their order, and the bits do not depend on how a device sorts.
    chosen = torch.sort(outliers, descending=True, stable=True).indices
    number = outliers.sum(dtype=torch.int32)
    with on_device_of(x):
        decomposed_kernel[(tile.programs(rows, columns),)](
            *codes, *scales, readable(x), None if original is None else readable(original), chosen, number, bias,
            writable(y), rows, columns, inner, STEPS=fixed_steps(inner, tile.inner), OUTLIERS=OUTLIERS,
            ROUNDED=rounding, BY_BITS=interpreted(), OUT=fmt, **tile.constants, num_warps=tile.warps, **OPTIONS,
        )  # fmt: skip
