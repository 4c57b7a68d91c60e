"""Few rows of activations times a weight in codes, read once: every weight is restored where it is multiplied.

Each lane keeps its own float32 sums, one for each row of activations, and they are added up at the end. A product and
its addition are one FMA: no more roundings than a sum in float32 declares, in an order that is always the same.
"""

from dataclasses import dataclass
from math import gcd

import triton
import triton.language as tl
from torch import Tensor

from qloracle_gpu.torch.kernels.availability import OPTIONS, interpreted, on_device_of
from qloracle_gpu.torch.kernels.restoring import absmax_of, group_of
from qloracle_gpu.torch.kernels.scalars import bfloat16_bits, narrowed, readable, widened, writable
from qloracle_gpu.torch.kernels.stored_absmax import StoredAbsmax

MOST_ROWS = 16
LARGEST_GROUP = 64
_SUMS = 4096  # of a program, if there are enough lanes for all rows
_SHORTEST = 256  # part of the inner dimension that is worked on at once


@dataclass(frozen=True)
class StoredWeight:
    """A weight of shape (columns, inner) as kernels take it; all tensors are contiguous."""

    data: Tensor  # uint8
    entries: Tensor  # float32, the codebook
    absmax: StoredAbsmax
    block_size: int
    shape: tuple[int, int]
    packed: bool  # whether two codes share a byte


@triton.jit
def restored_weights(columns, start, data_ptr, entries_ptr, absmax_ptr, absmax_codes_ptr, absmax_entries_ptr,
                     offset_ptr, count, inner, row_bytes, PARTS: tl.constexpr, GROUP: tl.constexpr,
                     COLUMNS: tl.constexpr, INNER: tl.constexpr, PACKED: tl.constexpr, NESTED: tl.constexpr,
                     ROUNDED: tl.constexpr, BY_BITS: tl.constexpr):  # fmt: skip
    """Return INNER weights of each of COLUMNS outputs from `start` on, 0 beyond the end."""
    exists = columns < count
    if PACKED:
        pairs = start // 2 + tl.arange(0, INNER // 2)
        data = tl.load(data_ptr + columns[:, None] * row_bytes + pairs[None, :],
                       mask=exists[:, None] & (pairs[None, :] < row_bytes), other=0).to(tl.int32)  # fmt: skip
        entry = tl.join(tl.load(entries_ptr + (data >> 4)), tl.load(entries_ptr + (data & 15)))
    else:
        places = start + tl.arange(0, INNER)
        data = tl.load(data_ptr + columns[:, None] * row_bytes + places[None, :],
                       mask=exists[:, None] & (places[None, :] < inner), other=0).to(tl.int32)  # fmt: skip
        entry = tl.load(entries_ptr + data)
    groups = start // GROUP + tl.arange(0, INNER // GROUP)
    blocks = (columns[:, None] * (inner // GROUP) + groups[None, :]) // PARTS
    inside = exists[:, None] & (groups[None, :] * GROUP < inner)
    absmax = absmax_of(blocks, inside, absmax_ptr, absmax_codes_ptr, absmax_entries_ptr, offset_ptr, NESTED)
    absmax = tl.where(inside, absmax, 0.0)[:, :, None]
    entry = tl.reshape(entry, (COLUMNS, INNER // GROUP, GROUP))
    weight = tl.reshape(tl.where(absmax == 0, 0.0, entry * absmax), (COLUMNS, INNER))
    if ROUNDED == "float16":
        return weight.to(tl.float16).to(tl.float32)
    elif ROUNDED == "bfloat16" and not BY_BITS:
        return weight.to(tl.bfloat16).to(tl.float32)
    elif ROUNDED == "bfloat16":
        return (bfloat16_bits(weight).to(tl.uint32) << 16).to(tl.float32, bitcast=True)
    else:
        return weight


@triton.jit
def gemv_kernel(x_ptr, data_ptr, entries_ptr, absmax_ptr, absmax_codes_ptr, absmax_entries_ptr, offset_ptr, bias_ptr,
                y_ptr, rows, count, inner, row_bytes, PARTS: tl.constexpr, GROUP: tl.constexpr, ROWS: tl.constexpr,
                COLUMNS: tl.constexpr, INNER: tl.constexpr, PACKED: tl.constexpr, NESTED: tl.constexpr,
                ROUNDED: tl.constexpr, BY_BITS: tl.constexpr, FORMAT: tl.constexpr, BIAS: tl.constexpr,
                OUT: tl.constexpr):  # fmt: skip
    """Multiply all rows of x with COLUMNS rows of the weight, and add the bias.

    BY_BITS is for Triton's interpreter, which truncates to bfloat16 where a GPU rounds.
    """
    columns = tl.program_id(0).to(tl.int64) * COLUMNS + tl.arange(0, COLUMNS)
    row = tl.arange(0, ROWS).to(tl.int64)
    sums = tl.zeros((ROWS, COLUMNS, INNER), tl.float32)
    for start in range(0, inner, INNER):
        weight = restored_weights(columns, start, data_ptr, entries_ptr, absmax_ptr, absmax_codes_ptr,
                                  absmax_entries_ptr, offset_ptr, count, inner, row_bytes, PARTS, GROUP, COLUMNS,
                                  INNER, PACKED, NESTED, ROUNDED, BY_BITS)  # fmt: skip
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


def takes(rows: int, inner: int, packed: bool) -> bool:
    """Return whether the kernel takes a product: few rows, and rows of codes that begin with a byte."""
    return 0 < rows <= MOST_ROWS and inner > 0 and not (packed and inner % 2)


def tile_of(rows: int, inner: int, group: int) -> dict[str, int]:
    """Return how much a program works on at once."""
    padded = triton.next_power_of_2(rows)
    longest = max(_SUMS // padded, 1024) // 4
    part = min(max(triton.next_power_of_2(inner), group, 2), max(longest, _SHORTEST))
    return {"ROWS": padded, "COLUMNS": max(max(_SUMS // padded, 1024) // part, 1), "INNER": part, "GROUP": group}


def few_rows_product(
    x: Tensor,
    weight: StoredWeight,
    bias: Tensor | None,
    y: Tensor,
    *,
    weight_rounding: str,
    formats: tuple[str, str, str],
) -> None:
    """Write x Wᵀ + b.

    Parameters
    ----------
    x : tensor of float32, float16 or bfloat16, shape (rows, inner), contiguous
    weight : StoredWeight
    bias : tensor of float32, float16 or bfloat16, shape (columns,), contiguous, or None
    y : tensor of float32, float16 or bfloat16, shape (rows, columns), contiguous
        Written.
    weight_rounding : str
        What the weight is rounded to before the product.
    formats : tuple of str
        Of x, of the bias and of y.
    """
    (rows, inner), (count, _) = x.shape, weight.shape
    group = min(group_of(gcd(inner, weight.block_size)), LARGEST_GROUP)
    tile = tile_of(rows, inner, group)
    kinds = dict(zip(("FORMAT", "BIAS", "OUT"), formats, strict=True))
    with on_device_of(x):
        gemv_kernel[(triton.cdiv(count, tile["COLUMNS"]),)](
            readable(x), weight.data, weight.entries, *weight.absmax.pointers, None if bias is None else readable(bias),
            writable(y), rows, count, inner, inner // 2 if weight.packed else inner, PARTS=weight.block_size // group,
            PACKED=weight.packed, NESTED=weight.absmax.group, ROUNDED=weight_rounding, BY_BITS=interpreted(), **kinds,
            **tile, **OPTIONS,
        )  # fmt: skip
