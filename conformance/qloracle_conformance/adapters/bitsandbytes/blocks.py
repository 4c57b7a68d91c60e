"""Blockwise and double quantization of bitsandbytes, and its tables, on its own arrays."""

from collections.abc import Callable
from typing import Any

import bitsandbytes.functional as library
import torch

Tensor = torch.Tensor
FOUR_BIT = ("nf4", "fp4")


def codebook_entries(*, codebook: str, device: str) -> Tensor:
    """Return the entries that codes are read with."""
    if codebook in FOUR_BIT:
        return library.get_4bit_type(codebook, device=device)
    return eight_bit_map(codebook).to(device)


def eight_bit_map(codebook: str) -> Tensor:
    """Return one of the maps of 256 entries."""
    create = library.create_dynamic_map if codebook.startswith("dynamic") else library.create_linear_map
    return create(signed=codebook.endswith("_signed"))


def quantize_blockwise(x: Tensor, *, codebook: str, block_size: int) -> tuple[Tensor, Tensor]:
    """Quantize with a codebook of 16 or 256 entries."""
    if codebook in FOUR_BIT:
        data, state = library.quantize_4bit(x, blocksize=block_size, quant_type=codebook)
    else:
        data, state = library.quantize_blockwise(x, code=eight_bit_map(codebook), blocksize=block_size)
    return data.reshape(-1), state.absmax


def state_4bit(absmax: Tensor, codebook: str, block_size: int, shape: tuple[int, ...], dtype: str) -> Any:
    """Return the state that quantize_4bit would have returned."""
    code = library.get_4bit_type(codebook, device=absmax.device)
    values = getattr(torch, dtype)
    return library.QuantState(absmax, torch.Size(shape), code, block_size, quant_type=codebook, dtype=values)


def dequantize_blockwise(
    data: Tensor, absmax: Tensor, *, codebook: str, block_size: int, shape: tuple[int, ...], dtype: str
) -> Tensor:
    """Dequantize what `quantize_blockwise` returned."""
    if codebook in FOUR_BIT:
        # quantize_4bit returns bytes of shape (n, 1); a first dimension of 1 would mean a transposed weight.
        return library.dequantize_4bit(data.reshape(-1, 1), state_4bit(absmax, codebook, block_size, shape, dtype))
    code = eight_bit_map(codebook).to(absmax.device)
    state = library.QuantState(absmax, code=code, blocksize=block_size, dtype=getattr(torch, dtype))
    return library.dequantize_blockwise(data.reshape(shape), state)


def quantize_double(
    x: Tensor, *, codebook: str, block_size: int, nested_codebook: str = "dynamic_signed"
) -> tuple[Tensor, ...]:
    """Quantize, and quantize the absmax."""
    data, state = library.quantize_4bit(x, blocksize=block_size, quant_type=codebook, compress_statistics=True)
    return data.reshape(-1), state.absmax, state.state2.absmax, state.offset


def state_double(
    absmax_codes: Tensor, nested_absmax: Tensor, offset: Tensor, *,
    codebook: str, block_size: int, shape: tuple[int, ...], dtype: str,
) -> Any:  # fmt: skip
    """Return the state that quantize_4bit would have returned, with quantized absmax."""
    state = state_4bit(absmax_codes, codebook, block_size, shape, dtype)
    code = library.create_dynamic_map(signed=True).to(nested_absmax.device)
    state.offset, state.nested = offset, True
    state.state2 = library.QuantState(nested_absmax, code=code, blocksize=256, dtype=torch.float32)
    return state


def dequantize_double(
    data: Tensor, absmax_codes: Tensor, nested_absmax: Tensor, offset: Tensor, *, codebook: str, block_size: int,
    shape: tuple[int, ...], dtype: str, nested_codebook: str = "dynamic_signed",
) -> Tensor:  # fmt: skip
    """Dequantize what `quantize_double` returned."""
    how: dict[str, Any] = {"codebook": codebook, "block_size": block_size, "shape": shape, "dtype": dtype}
    return library.dequantize_4bit(data.reshape(-1, 1), state_double(absmax_codes, nested_absmax, offset, **how))


OPS: dict[str, Callable[..., Any]] = {
    "quantize_blockwise": quantize_blockwise,
    "dequantize_blockwise": dequantize_blockwise,
    "quantize_double": quantize_double,
    "dequantize_double": dequantize_double,
}
