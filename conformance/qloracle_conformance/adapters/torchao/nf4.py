"""NF4 and the 8-bit maps of torchao on its own arrays: blockwise quantization, tables, and the product with NF4."""

from collections.abc import Callable
from typing import Any

import torch
from torchao.optim.subclass_8bit import OptimState8bit
from torchao.quantization.quantize_.workflows.nf4.nf4_tensor import (
    NF4Tensor,
    SubclassTensorArgs,
    get_block_absmax,
    to_nf4,
)

from qloracle_conformance.adapters.torchao.float8 import quantize_float8, whole_blocks

Tensor = torch.Tensor


def nf4_table(dtype: torch.dtype, device: Any) -> Tensor:
    """Return the table that an NF4Tensor of a type carries."""
    return to_nf4(torch.zeros(4, dtype=dtype, device=device), 2, 2).nf4


def codebook_entries(*, codebook: str, device: str) -> Tensor:
    """Return the entries that codes are read with."""
    if codebook == "nf4":
        return nf4_table(torch.float32, device)
    return OptimState8bit.zeros((256,), signed=codebook == "dynamic_signed", block_size=256, device=device).qmap


def quantize_blockwise(x: Tensor, *, codebook: str, block_size: int) -> tuple[Tensor, Tensor]:
    """Quantize with NF4, with float8, or with a map of 256 entries as the state of an optimizer."""
    if codebook == "float8":
        return quantize_float8(x, block_size)
    flat = whole_blocks(x, block_size)
    blocks = flat.numel() // block_size
    if codebook == "nf4":
        table = nf4_table(x.dtype, x.device)
        data = NF4Tensor.convert_to_norm_float_weight(flat, blocks, block_size, table)[: (x.numel() + 1) // 2]
        if x.numel() % 2:  # what fills up is not torchao's
            data[-1] = data[-1] & 0xF0 | 7
        return data, get_block_absmax(flat, block_size).float()
    signed = codebook == "dynamic_signed"
    state = OptimState8bit.zeros(flat.shape, signed=signed, block_size=block_size, device=x.device)
    state.copy_(flat)
    return state.codes[: x.numel()], state.scale


def nf4_weight(
    data: Tensor, absmax: Tensor, block_size: int, shape: tuple[int, ...], dtype: torch.dtype
) -> tuple[NF4Tensor, int]:
    """Return an NF4Tensor of whole blocks with given absmax, and how many of its elements count.

    torchao quantizes absmax itself; with quantized scalers of 0 and the absmax in place of their mean, every scaler
    is 0 + absmax.
    """
    size, blocks = torch.Size(shape).numel(), absmax.numel()
    data = torch.nn.functional.pad(data, (0, blocks * block_size // 2 - data.numel()))
    whole = torch.Size(shape) if size == blocks * block_size else torch.Size((blocks * block_size,))
    strides = torch.empty(whole, device="meta").stride()
    meta = SubclassTensorArgs(whole, strides, 0, dtype, data.device, False)
    nothing = torch.zeros(blocks, dtype=torch.int8, device=data.device)
    factor = torch.ones(blocks, dtype=dtype, device=data.device)
    table = nf4_table(dtype, data.device)
    return NF4Tensor(meta, block_size, blocks, 1, nothing, factor, absmax.to(dtype), data, table), size


def dequantize_blockwise(
    data: Tensor, absmax: Tensor, *, codebook: str, block_size: int, shape: tuple[int, ...], dtype: str
) -> Tensor:
    """Dequantize what `quantize_blockwise` returned."""
    kind = getattr(torch, dtype)
    if codebook == "nf4":
        weight, size = nf4_weight(data, absmax, block_size, shape, kind)
        return weight.get_original_weight().reshape(-1)[:size].reshape(shape)
    table = OptimState8bit.zeros((256,), signed=codebook == "dynamic_signed", block_size=256, device=data.device).qmap
    state = OptimState8bit(whole_blocks(data, block_size), absmax, table, codebook == "dynamic_signed")
    return state.dequantize(output_dtype=kind)[: data.numel()].reshape(shape)


def quantized_matmul(
    x: Tensor, data: Tensor, absmax: Tensor, bias: Tensor | None, *, codebook: str, block_size: int,
    shape: tuple[int, int],
) -> Tensor:  # fmt: skip
    """Multiply with an NF4 weight; one of other than whole blocks is dequantized and cut first."""
    weight, size = nf4_weight(data, absmax, block_size, shape, x.dtype)
    plain = weight if tuple(weight.shape) == tuple(shape) else weight.to(x.dtype)[:size].reshape(shape)
    return torch.nn.functional.linear(x, plain, bias)


OPS: dict[str, Callable[..., Any]] = {
    "quantize_blockwise": quantize_blockwise,
    "dequantize_blockwise": dequantize_blockwise,
    "quantized_matmul": quantized_matmul,
}
