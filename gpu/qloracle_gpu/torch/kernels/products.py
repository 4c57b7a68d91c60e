"""The product of many rows with a weight, or with its transpose, and a low-rank correction in the same pass.

A weight in codes is restored where it is multiplied and never stands in memory. Operands of one 16-bit format go to
the matrix units, which add exact products in float32; all others are float32 ("ieee": none of their bits is cut off).
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from qloracle_gpu.torch.kernels.availability import OPTIONS, fixed_steps, interpreted, on_device_of
from qloracle_gpu.torch.kernels.scalars import as_float32, multipliable, narrowed, readable, writable
from qloracle_gpu.torch.kernels.stored_weight import StoredWeight
from qloracle_gpu.torch.kernels.tiles import banded_tile, tile_of
from qloracle_gpu.torch.kernels.weight_tiles import as_operand, weight_operand

FEWEST_RANKS = 16  # that a matrix unit takes
FEW_NEIGHBOURS = 8  # with one absmax: below, many absmax are read for one tile
LARGEST_PASSING_RANK = 64  # that is multiplied in the pass over the rows, by every program that reads them


@triton.jit
def masked(x, mask_ptr, places, inside, OPERAND: tl.constexpr):
    """Return x times a mask of 0 and 1, in its own format: NaN and infinities that are dropped stay visible."""
    kept = tl.load(mask_ptr + places, mask=inside, other=0).to(tl.float32)
    product = x.to(tl.float32) * kept
    return product if OPERAND == "float32" else product.to(x.dtype)


@triton.jit
def activation_tile(x_ptr, mask_ptr, i, k, rows, inner, OPERAND: tl.constexpr):
    """Return rows i of x at places k as an operand, times a mask where one is given."""
    places = i[:, None] * inner + k[None, :]
    inside = (i[:, None] < rows) & (k[None, :] < inner)
    x = as_operand(tl.load(x_ptr + places, mask=inside, other=0), OPERAND)
    if mask_ptr is None:
        return x
    else:
        return masked(x, mask_ptr, places, inside, OPERAND)


@triton.jit
def low_rank_product(low, low_ptr, up_ptr, i, j, rows, columns, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
                     RANK: tl.constexpr, RANKS: tl.constexpr, BACKWARD: tl.constexpr):  # fmt: skip
    """Return low times the other matrix of an adapter, B (columns, rank) or A (rank, columns), one rank at a time.

    `low` is given in RANKS columns, or stored. Both are float32 numbers of full length, which no matrix unit takes; and
    a rank at a time needs no second tile of operands.
    """
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for rank in range(RANK):
        if low_ptr is None:
            one = tl.sum(tl.where(tl.arange(0, RANKS)[None, :] == rank, low, 0.0), axis=1)
        else:
            one = tl.load(low_ptr + i * RANK + rank, mask=i < rows, other=0.0)
        places = rank * columns + j if BACKWARD else j * RANK + rank
        other = as_float32(tl.load(up_ptr + places, mask=j < columns, other=0))
        shape: tl.constexpr = (ROWS, COLUMNS)
        total = tl.fma(tl.broadcast_to(one[:, None], shape), tl.broadcast_to(other[None, :], shape), total)
    return total


@triton.jit
def correction(low, low_ptr, up_ptr, shift_ptr, mask_ptr, i, j, rows, columns, scale, share, ROWS: tl.constexpr,
               COLUMNS: tl.constexpr, RANK: tl.constexpr, RANKS: tl.constexpr, BACKWARD: tl.constexpr):  # fmt: skip
    """Return scale·(share·low upᵀ + shift), or BACKWARD scale·share·mask·(low up)."""
    added = low_rank_product(low, low_ptr, up_ptr, i, j, rows, columns, ROWS, COLUMNS, RANK, RANKS, BACKWARD) * share
    if BACKWARD and mask_ptr is not None:
        inside = (i[:, None] < rows) & (j[None, :] < columns)
        added = masked(added, mask_ptr, i[:, None] * columns + j[None, :], inside, "float32")
    if shift_ptr is not None:
        added += as_float32(tl.load(shift_ptr + j, mask=j < columns, other=0))[None, :]
    return added * scale


@triton.jit
def product_kernel(
    x_ptr, data_ptr, entries_ptr, absmax_ptr, absmax_codes_ptr, absmax_entries_ptr, offset_ptr, mask_ptr, down_ptr,
    low_ptr, up_ptr, shift_ptr, bias_ptr, y_ptr, rows, columns, inner, row_bytes, scale, share,
    STEPS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, INNER: tl.constexpr, BAND: tl.constexpr,
    TRANSPOSED: tl.constexpr, KIND: tl.constexpr, PARTS: tl.constexpr, GROUP: tl.constexpr, NESTED: tl.constexpr,
    TABLE: tl.constexpr, ROUNDED: tl.constexpr, OPERAND: tl.constexpr, BY_BITS: tl.constexpr, RANK: tl.constexpr,
    RANKS: tl.constexpr, BACKWARD: tl.constexpr, OUT: tl.constexpr,
):  # fmt: skip
    """Multiply rows of x with lines of a weight, or with its columns where TRANSPOSED; add what else is given.

    (x·mask) Wᵀ + scale·(share·low upᵀ + shift) + bias; BACKWARD: x W + scale·share·mask·(low up). `low` is read, or it
    is x downᵀ of the same pass.
    """
    i, first = banded_tile(rows, columns, ROWS, COLUMNS, BAND)
    j = first + tl.arange(0, COLUMNS)
    low = tl.zeros((ROWS, RANKS), tl.float32)
    acc = tl.zeros((ROWS, COLUMNS), tl.float32)
    if low_ptr is not None:  # before the sum, while it needs no room
        acc = correction(low, low_ptr, up_ptr, shift_ptr, mask_ptr, i, j, rows, columns, scale, share, ROWS, COLUMNS,
                         RANK, RANKS, BACKWARD)  # fmt: skip
    ranks = tl.arange(0, RANKS)
    for step in range(STEPS if STEPS > 0 else tl.cdiv(inner, INNER)):
        k = step * INNER + tl.arange(0, INNER)
        x = activation_tile(x_ptr, None if BACKWARD else mask_ptr, i, k, rows, inner, OPERAND)
        if TRANSPOSED:
            weight = weight_operand(k.to(tl.int64), first, inner, columns, row_bytes, data_ptr, entries_ptr, absmax_ptr,
                                    absmax_codes_ptr, absmax_entries_ptr, offset_ptr, INNER, COLUMNS, KIND, PARTS,
                                    GROUP, NESTED, TABLE, ROUNDED, OPERAND, BY_BITS)  # fmt: skip
        else:
            lines = weight_operand(j, step * INNER, columns, inner, row_bytes, data_ptr, entries_ptr, absmax_ptr,
                                   absmax_codes_ptr, absmax_entries_ptr, offset_ptr, COLUMNS, INNER, KIND, PARTS, GROUP,
                                   NESTED, TABLE, ROUNDED, OPERAND, BY_BITS)  # fmt: skip
            weight = tl.trans(lines)
        if down_ptr is not None:
            exists = (ranks[:, None] < RANK) & (k[None, :] < inner)
            down = tl.load(down_ptr + ranks[:, None] * inner + k[None, :], mask=exists, other=0)
            low = tl.dot(x, tl.trans(as_operand(down, OPERAND)), low, input_precision="ieee")
        acc = tl.dot(x, weight, acc, input_precision="ieee")
    if down_ptr is not None:
        acc += correction(low, low_ptr, up_ptr, shift_ptr, None, i, j, rows, columns, scale, share, ROWS, COLUMNS, RANK,
                          RANKS, BACKWARD)  # fmt: skip
    if bias_ptr is not None:
        acc += as_float32(tl.load(bias_ptr + j, mask=j < columns, other=0))[None, :]
    places = i[:, None] * columns + j[None, :]
    inside = (i[:, None] < rows) & (j[None, :] < columns)
    tl.store(y_ptr + places, narrowed(acc, OUT, y_ptr), mask=inside)


@dataclass(frozen=True)
class Correction:
    """What is added to a product: scale·(share·low upᵀ + shift), or scale·share·mask·(low up) to one of gradients."""

    up: Tensor | None  # B of shape (columns, rank), or for gradients A of shape (rank, columns)
    rank: int
    scale: float
    share: float = 1.0  # 1/(1 − p)
    down: Tensor | None = None  # A of shape (rank, inner), with which x is multiplied in the same pass
    low: Tensor | None = None  # float32, (rows, rank), where it was computed before
    shift: Tensor | None = None  # of any format, (columns,)
    backward: bool = False


def operand_format(x: torch.dtype, weight: StoredWeight) -> str:
    """Return the format in which operands are multiplied: a 16-bit one that both have, else float32."""
    theirs = str(weight.data.dtype).removeprefix("torch.") if weight.absmax is None else weight.rounding
    mine = str(x).removeprefix("torch.")
    return mine if mine == theirs else "float32"


def product(
    x: Tensor, weight: StoredWeight, y: Tensor, fmt: str, *, transposed: bool = False, bias: Tensor | None = None,
    mask: Tensor | None = None, correction: Correction | None = None,
) -> None:  # fmt: skip
    """Write x Wᵀ, or x W where `transposed`, plus a bias and a correction.

    Parameters
    ----------
    x : tensor of float32, float16 or bfloat16, shape (rows, inner), contiguous
    weight : StoredWeight of shape (columns, inner), or (inner, columns) where `transposed`
    y : tensor of float32, float16 or bfloat16, shape (rows, columns), contiguous, not empty
        Written.
    fmt : str
        Its format.
    transposed : bool
    bias : tensor of any format, shape (columns,), contiguous, optional
    mask : tensor of bool, contiguous, optional
        Multiplies x, or what is added to a gradient.
    correction : Correction, optional
        Of contiguous tensors.
    """
    (rows, inner), columns = x.shape, y.shape[1]
    exact = operand_format(x.dtype, weight)
    tile = tile_of(rows, columns, exact, roomy=weight.absmax is not None and weight.group() < FEW_NEIGHBOURS)
    c = Correction(None, 0, 0.0) if correction is None else correction
    passing = triton.next_power_of_2(c.rank) if c.low is None else 0
    with on_device_of(x):
        product_kernel[(tile.programs(rows, columns),)](
            multipliable(x), multipliable(weight.data), *weight.pointers,
            mask if mask is None else mask.view(torch.uint8),
            c.down if c.down is None else multipliable(c.down), c.low, c.up if c.up is None else readable(c.up),
            c.shift if c.shift is None else readable(c.shift), bias if bias is None else readable(bias), writable(y),
            rows, columns, inner, weight.row_bytes, c.scale, c.share, STEPS=fixed_steps(inner, tile.inner),
            TRANSPOSED=transposed, OPERAND="float32" if interpreted() else exact, BY_BITS=interpreted(), RANK=c.rank,
            RANKS=max(FEWEST_RANKS, passing), BACKWARD=c.backward, OUT=fmt, TABLE=weight.table,
            **weight.constants(tile.columns if transposed else tile.inner), **tile.constants, num_warps=tile.warps,
            **OPTIONS,
        )  # fmt: skip
