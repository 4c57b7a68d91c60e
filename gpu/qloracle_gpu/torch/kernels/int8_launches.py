"""What launches the kernels of `int8`, for every granularity; tensors are not empty."""

from math import prod
from typing import Any

import torch
import triton
from torch import Tensor

from qloracle_gpu.torch.kernels.availability import OPTIONS, on_device_of, tile_size
from qloracle_gpu.torch.kernels.int8 import codes_kernel, dequantize_kernel, largest_kernel, quantize_rows_kernel
from qloracle_gpu.torch.kernels.scalars import readable, writable

TILE = tile_size(2048)  # elements of a program
LARGEST_ROW = 4096  # that a program reads once
COLUMNS = 128  # of a tile where columns are groups


def quantized(x: Tensor, granularity: str, block_size: int | None, fmt: str) -> tuple[Tensor, Tensor]:
    """Return codes and absmax (1-d) of a tensor of the format `fmt`, read once where a program holds a group."""
    values = x.contiguous()
    width, by_row = groups_of(x.shape, granularity, block_size)
    if not by_row or width > LARGEST_ROW:
        absmax = absmax_of(values, granularity, block_size, fmt)
        return codes_of(values, absmax, granularity, block_size, fmt), absmax
    codes = torch.empty(x.shape, dtype=torch.int8, device=x.device)
    absmax = torch.empty(triton.cdiv(x.numel(), width), dtype=torch.float32, device=x.device)
    columns = triton.next_power_of_2(width)
    tile = max(1, TILE // columns), columns
    _launch(quantize_rows_kernel, (readable(values), absmax, codes), width, tile, {"FORMAT": fmt})
    return codes, absmax


def absmax_of(x: Tensor, granularity: str, block_size: int | None, fmt: str) -> Tensor:
    """Return the absmax of every group, 1-d."""
    width, by_row = groups_of(x.shape, granularity, block_size)
    groups = triton.cdiv(x.numel(), width) if by_row else width
    bits = torch.zeros(groups, dtype=torch.int32, device=x.device)
    constants = {"FORMAT": fmt, "BY_ROW": by_row}
    _launch(largest_kernel, (readable(x.contiguous()), bits), width, tile_of(width, by_row), constants)
    return torch.where(bits >= 0x7F800000, torch.nan, bits.view(torch.float32))


def codes_of(x: Tensor, absmax: Tensor, granularity: str, block_size: int | None, fmt: str) -> Tensor:
    """Return the code of every element, given the absmax of every group."""
    width, by_row = groups_of(x.shape, granularity, block_size)
    codes = torch.empty(x.shape, dtype=torch.int8, device=x.device)
    tensors = readable(x.contiguous()), absmax.contiguous(), codes
    _launch(codes_kernel, tensors, width, tile_of(width, by_row), {"FORMAT": fmt, "BY_ROW": by_row})
    return codes


def write_values(
    codes: Tensor, absmax: Tensor, granularity: str, block_size: int | None, out: Tensor, fmt: str
) -> None:
    """Write the value of every code to a contiguous tensor of the format `fmt`."""
    width, by_row = groups_of(codes.shape, granularity, block_size)
    tensors = codes.contiguous(), absmax.contiguous(), writable(out)
    _launch(dequantize_kernel, tensors, width, tile_of(width, by_row), {"FORMAT": fmt, "BY_ROW": by_row})


def groups_of(shape: tuple[int, ...], granularity: str, block_size: int | None) -> tuple[int, bool]:
    """Return how many elements a row has, and whether the rows are the groups, or else the columns."""
    if granularity == "tensor":
        return prod(shape), True
    return (shape[-1] if block_size is None else block_size), granularity != "column"


def tile_of(width: int, by_row: bool) -> tuple[int, int]:
    """Return rows and columns of a tile."""
    columns = min(triton.next_power_of_2(width), TILE if by_row else COLUMNS)
    return TILE // columns, columns


def _launch(
    kernel: Any, tensors: tuple[Tensor, ...], width: int, tile: tuple[int, int], constants: dict[str, Any]
) -> None:
    """Run a kernel over all tiles of the last tensor but absmax, seen as rows of `width` elements."""
    size = tensors[0].numel()
    rows, columns = tile
    tiles = triton.cdiv(triton.cdiv(size, width), rows) * triton.cdiv(width, columns)
    with on_device_of(tensors[0]):
        kernel[(tiles,)](*tensors, size, width, ROWS=rows, COLUMNS=columns, **constants, **OPTIONS)
