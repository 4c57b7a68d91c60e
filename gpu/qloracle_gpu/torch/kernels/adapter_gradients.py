"""Sums over rows: what the gradients of an adapter's matrices are, Σ_i low_ir · x_ic.

`low` holds float32 numbers of full length, which no matrix unit takes. Every program adds up `SPAN` rows; the partial
sums are added in the order of the rows, so that equal inputs give equal bits.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from qloracle_gpu.torch.kernels.availability import OPTIONS, on_device_of
from qloracle_gpu.torch.kernels.products import activation_tile
from qloracle_gpu.torch.kernels.scalars import readable

SPAN = 1024  # rows of a program
TILE = {"ROWS": 32, "RANKS": 16, "COLUMNS": 64}
WARPS = 4


@triton.jit
def row_sum_kernel(low_ptr, x_ptr, mask_ptr, out_ptr, rows, rank, columns, STEPS: tl.constexpr, ROWS: tl.constexpr,
                   RANKS: tl.constexpr, COLUMNS: tl.constexpr):  # fmt: skip
    """Write lowᵀ (x·mask) over STEPS · ROWS rows, for RANKS of low and COLUMNS of x."""
    program = tl.program_id(0).to(tl.int64)
    across = tl.cdiv(columns, COLUMNS)
    ranks = program // across * RANKS + tl.arange(0, RANKS)
    j = program % across * COLUMNS + tl.arange(0, COLUMNS)
    part = tl.program_id(1).to(tl.int64)
    acc = tl.zeros((RANKS, COLUMNS), tl.float32)
    for step in range(STEPS):
        i = (part * STEPS + step) * ROWS + tl.arange(0, ROWS)
        low = tl.load(low_ptr + i[:, None] * rank + ranks[None, :],
                      mask=(i[:, None] < rows) & (ranks[None, :] < rank), other=0.0)  # fmt: skip
        x = activation_tile(x_ptr, mask_ptr, i, j, rows, columns, "float32")
        acc = tl.dot(tl.trans(low), x, acc, input_precision="ieee")
    places = (part * rank + ranks[:, None]) * columns + j[None, :]
    tl.store(out_ptr + places, acc, mask=(ranks[:, None] < rank) & (j[None, :] < columns))


def row_sums(low: Tensor, x: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return lowᵀ (x·mask) as float32, shape (rank, columns).

    Parameters
    ----------
    low : tensor of float32, shape (rows, rank), contiguous
    x : tensor of float32, float16 or bfloat16, shape (rows, columns), contiguous
        Not empty.
    mask : tensor of bool, the shape of x, contiguous, optional
    """
    (rows, rank), columns = low.shape, x.shape[1]
    parts = triton.cdiv(rows, SPAN)
    out = torch.empty(parts, rank, columns, dtype=torch.float32, device=x.device)
    tiles = triton.cdiv(rank, TILE["RANKS"]) * triton.cdiv(columns, TILE["COLUMNS"])
    with on_device_of(x):
        row_sum_kernel[(tiles, parts)](
            low, readable(x), None if mask is None else mask.view(torch.uint8), out, rows, rank, columns,
            STEPS=triton.cdiv(min(rows, SPAN), TILE["ROWS"]) if parts == 1 else SPAN // TILE["ROWS"], **TILE,
            num_warps=WARPS, **OPTIONS,
        )  # fmt: skip
    return out[0] if parts == 1 else out.sum(0)
