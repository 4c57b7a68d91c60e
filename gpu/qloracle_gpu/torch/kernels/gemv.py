"""Few rows of activations times a weight in codes, read once: every weight is restored where it is multiplied.

Each lane keeps its own float32 sums, one for each row of activations, and they are added up at the end. A product and
its addition are one FMA: no more roundings than a sum in float32 declares, in an order that is always the same.
"""

import triton
import triton.language as tl
from torch import Tensor

from qloracle_gpu.torch.kernels.availability import OPTIONS, fixed_steps, interpreted, on_device_of
from qloracle_gpu.torch.kernels.scalars import narrowed, readable, widened, writable
from qloracle_gpu.torch.kernels.stored_weight import StoredWeight
from qloracle_gpu.torch.kernels.weight_tiles import weight_operand

MOST_ROWS = 16
_SUMS = 4096  # of a program, if there are enough lanes for all rows
_SHORTEST = 256  # part of the inner dimension that is worked on at once


@triton.jit
def gemv_kernel(x_ptr, data_ptr, entries_ptr, absmax_ptr, absmax_codes_ptr, absmax_entries_ptr, offset_ptr, bias_ptr,
                y_ptr, rows, count, inner, row_bytes, STEPS: tl.constexpr, PARTS: tl.constexpr, GROUP: tl.constexpr,
                ROWS: tl.constexpr, COLUMNS: tl.constexpr, INNER: tl.constexpr, KIND: tl.constexpr,
                NESTED: tl.constexpr, ROUNDED: tl.constexpr, BY_BITS: tl.constexpr, FORMAT: tl.constexpr,
                BIAS: tl.constexpr, OUT: tl.constexpr):  # fmt: skip
    """Multiply all rows of x with COLUMNS rows of the weight, and add the bias.

    BY_BITS is for Triton's interpreter, which truncates to bfloat16 where a GPU rounds.
    """
    columns = tl.program_id(0).to(tl.int64) * COLUMNS + tl.arange(0, COLUMNS)
    row = tl.arange(0, ROWS).to(tl.int64)
    sums = tl.zeros((ROWS, COLUMNS, INNER), tl.float32)
    for step in range(STEPS if STEPS > 0 else tl.cdiv(inner, INNER)):
        start = step * INNER
        weight = weight_operand(columns, start, count, inner, row_bytes, data_ptr, entries_ptr, absmax_ptr,
                                absmax_codes_ptr, absmax_entries_ptr, offset_ptr, COLUMNS, INNER, KIND, PARTS, GROUP,
                                NESTED, 0, ROUNDED, "float32", BY_BITS)  # fmt: skip
        places = start + tl.arange(0, INNER)
        given = tl.load(x_ptr + row[:, None] * inner + places[None, :],
                        mask=(row[:, None] < rows) & (places[None, :] < inner), other=0)  # fmt: skip
        x = tl.broadcast_to(widened(given, FORMAT)[:, None, :], (ROWS, COLUMNS, INNER))
        sums = tl.fma(x, tl.broadcast_to(weight[None, :, :], (ROWS, COLUMNS, INNER)), sums)
    y = tl.sum(sums, axis=2)
    exists = columns < count
    if bias_ptr is not None:
        y += widened(tl.load(bias_ptr + columns, mask=exists, other=0), BIAS)[None, :]
    places = row[:, None] * count + columns[None, :]
    tl.store(y_ptr + places, narrowed(y, OUT, y_ptr), mask=(row[:, None] < rows) & exists[None, :])


def takes(rows: int, inner: int) -> bool:
    """Return whether the kernel takes a product: one of few rows."""
    return 0 < rows <= MOST_ROWS and inner > 0


def tile_of(rows: int, inner: int, group: int) -> dict[str, int]:
    """Return how much a program works on at once."""
    padded = triton.next_power_of_2(rows)
    longest = max(_SUMS // padded, 1024) // 4
    part = min(max(triton.next_power_of_2(inner), group, 2), max(longest, _SHORTEST))
    return {"ROWS": padded, "COLUMNS": max(max(_SUMS // padded, 1024) // part, 1), "INNER": part}


def few_rows_product(
    x: Tensor, weight: StoredWeight, bias: Tensor | None, y: Tensor, *, formats: tuple[str, str, str]
) -> None:
    """Write x Wᵀ + b.

    Parameters
    ----------
    x : tensor of float32, float16 or bfloat16, shape (rows, inner), contiguous
    weight : StoredWeight of shape (columns, inner)
    bias : tensor of float32, float16 or bfloat16, shape (columns,), contiguous, or None
    y : tensor of float32, float16 or bfloat16, shape (rows, columns), contiguous
        Written.
    formats : tuple of str
        Of x, of the bias and of y.
    """
    (rows, inner), (count, _) = x.shape, weight.shape
    tile = tile_of(rows, inner, weight.group())
    kinds = dict(zip(("FORMAT", "BIAS", "OUT"), formats, strict=True))
    with on_device_of(x):
        gemv_kernel[(triton.cdiv(count, tile["COLUMNS"]),)](
            readable(x), weight.data, *weight.pointers, None if bias is None else readable(bias), writable(y), rows,
            count, inner, weight.row_bytes, STEPS=fixed_steps(inner, tile["INNER"]), BY_BITS=interpreted(),
            **weight.constants(tile["INNER"]), **kinds, **tile, **OPTIONS,
        )  # fmt: skip
