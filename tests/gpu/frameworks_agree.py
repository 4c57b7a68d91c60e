"""The two GPU backends beside each other: one tensor, handed over by DLPack without a copy, bit for bit the same."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import qloracle_gpu.cupy
import qloracle_gpu.torch

CODEBOOK, BLOCK_SIZE = "nf4", 64


def numbers(count: int, device: str) -> Tensor:
    """Return bfloat16 numbers of many sizes whose last blocks differ from the first ones."""
    torch.manual_seed(count)
    x = torch.randn(count, dtype=torch.bfloat16, device=device)
    x[-2 * BLOCK_SIZE :] *= 2.0**-20
    return x


def disagreements(x: Tensor, from_torch: Callable[[Tensor], Any], to_torch: Callable[[Any], Tensor]) -> list[str]:
    """Quantize and restore bfloat16 numbers by both backends and name what differs."""
    given = from_torch(x.view(torch.uint16))
    mine = qloracle_gpu.torch.quantize_blockwise(x, codebook=CODEBOOK, block_size=BLOCK_SIZE)
    theirs = qloracle_gpu.cupy.quantize_blockwise(given, codebook=CODEBOOK, block_size=BLOCK_SIZE, fmt="bfloat16")
    found = [n for n in ("data", "absmax") if not torch.equal(getattr(mine, n), to_torch(getattr(theirs, n)))]
    restored = qloracle_gpu.torch.dequantize_blockwise(mine)
    values = to_torch(qloracle_gpu.cupy.dequantize_blockwise(theirs))
    return found + ([] if torch.equal(restored.view(torch.uint16), values) else ["values"])
