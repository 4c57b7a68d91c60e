"""bitsandbytes as a backend: its public functions, on any device that it supports.

Data types and block sizes are those that its documentation lists; the documentation says nothing of rounding, so that
levels are assumptions that follow the formulas of the library's own code, each with its reason. What is not met is
reported, not excused.
"""

from collections.abc import Callable
from typing import Any

import bitsandbytes
import bitsandbytes.functional as library
import torch

from qloracle_conformance.adapters.torch_arrays import LAYOUTS, Placer, environment, fetch
from qloracle_conformance.backend import Backend, Claim, Level

Tensor = torch.Tensor

DOCUMENTATION = "https://huggingface.co/docs/bitsandbytes/reference/functional"
BLOCK_SIZES_4BIT = (32, 64, 128, 256, 512, 1024, 2048, 4096)
BLOCK_SIZES_8BIT = (64, 128, 256, 512, 1024, 2048, 4096)
NESTED_BLOCK_SIZE = 256
_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}

RECIPROCAL = "codes come from x * (1/absmax) and float32 midpoints: three float32 roundings"
PRODUCT = "values are code[q] * absmax in float32, then a cast"


def backend(device: str = "cpu") -> Backend:
    """Return bitsandbytes as a backend on a device."""
    placer = Placer(device)
    return Backend(
        "bitsandbytes", bitsandbytes.__version__, placer.place, fetch, OPS, claims(), environment(placer.device)
    )


def claims() -> tuple[Claim, ...]:
    """Return what the documentation promises, and what the library's formulas suggest."""
    blocks_4bit: dict[str, Any] = {"block_sizes": BLOCK_SIZES_4BIT, "layouts": LAYOUTS, "ndims": (1, 2, 3, 4)}
    blocks_8bit: dict[str, Any] = {"block_sizes": BLOCK_SIZES_8BIT, "layouts": LAYOUTS, "ndims": (0, 1, 2, 3, 4)}
    matrices: dict[str, Any] = {"layouts": LAYOUTS, "ndims": (2,), "empty": False}
    filled = {**blocks_4bit, "empty": False}  # quantize_4bit takes empty tensors, dequantize_4bit raises for most
    nested: dict[str, Level] = {"offset": "bound", "nested_absmax": "exact", "nested_codes": "tie"}
    return (
        Claim("nf4.quantize", {"absmax": "exact", "packing": "exact", "codes": "tie"}, source=RECIPROCAL,
              **blocks_4bit),
        Claim("nf4.dequantize", {"*": "exact"}, source=PRODUCT, **filled),
        Claim("nf4_double.quantize", {"packing": "exact", "codes": "tie", **nested},
              source=f"{RECIPROCAL}; the offset is a float32 mean", **blocks_4bit),
        Claim("nf4_double.dequantize", {"*": "exact"}, source=f"{PRODUCT}; absmax is code[q] * nested + offset",
              **filled),
        Claim("dynamic_signed.quantize", {"absmax": "exact", "codes": "tie"}, source=RECIPROCAL, **blocks_8bit),
        Claim("dynamic_signed.dequantize", {"*": "exact"}, source=PRODUCT, **blocks_8bit),
        Claim("int8_row.quantize", {"absmax": "exact", "codes": "tie"}, dtypes=("float16",),
              source="codes are round(x * (127/absmax)): two float32 roundings", **matrices),
        Claim("int8_row.dequantize", {"values": "bound"}, out_dtypes=("float32",),
              source="values are q * absmax * (1/127): three float32 roundings", **matrices),
        Claim("int8.matmul", {"acc": "exact"}, basis="promised", features=("minus_128",),
              source=f"{DOCUMENTATION}: an 8-bit integer matrix multiplication", layouts=LAYOUTS, ndims=(1, 2, 3)),
        Claim("int8.scale", {"y": "bound"}, dtypes=("float16",), out_dtypes=("float16",), features=("bias",),
              source="values are acc * (row * column) * constant + bias in float32, then float16", layouts=LAYOUTS),
    )  # fmt: skip


def _quantize_4bit(x: Tensor, *, codebook: str, block_size: int) -> tuple[Tensor, Tensor]:
    packed, state = library.quantize_4bit(x, blocksize=block_size, quant_type=codebook)
    return packed.reshape(-1), state.absmax


def _quantize_4bit_double(x: Tensor, *, codebook: str, block_size: int, nested_codebook: str) -> tuple[Tensor, ...]:
    packed, state = library.quantize_4bit(x, blocksize=block_size, quant_type=codebook, compress_statistics=True)
    return packed.reshape(-1), state.absmax, state.state2.absmax, state.offset


def _state(absmax: Tensor, codebook: str, block_size: int, shape: tuple[int, ...], dtype: str) -> library.QuantState:
    code = library.get_4bit_type(codebook, device=absmax.device)
    return library.QuantState(absmax, torch.Size(shape), code, block_size, quant_type=codebook, dtype=_DTYPES[dtype])


def _dequantize_4bit(
    data: Tensor, absmax: Tensor, *, codebook: str, block_size: int, shape: tuple[int, ...], dtype: str
) -> Tensor:
    # quantize_4bit returns bytes of shape (n, 1); a first dimension of 1 would mean a transposed weight.
    restored: Tensor = library.dequantize_4bit(data.reshape(-1, 1), _state(absmax, codebook, block_size, shape, dtype))
    return restored


def _dequantize_4bit_double(
    data: Tensor, absmax_codes: Tensor, nested_absmax: Tensor, offset: Tensor, *,
    codebook: str, block_size: int, shape: tuple[int, ...], dtype: str, nested_codebook: str,
) -> Tensor:  # fmt: skip
    state = _state(absmax_codes, codebook, block_size, shape, dtype)
    state.offset, state.nested = offset, True
    state.state2 = library.QuantState(
        nested_absmax, code=_dynamic_map(nested_absmax.device), blocksize=NESTED_BLOCK_SIZE, dtype=torch.float32
    )
    restored: Tensor = library.dequantize_4bit(data.reshape(-1, 1), state)
    return restored


def _dynamic_map(device: torch.device) -> Tensor:
    table: Tensor = library.create_dynamic_map(signed=True).to(device)
    return table


def _quantize_8bit(x: Tensor, *, block_size: int) -> tuple[Tensor, Tensor]:
    codes, state = library.quantize_blockwise(x, blocksize=block_size)
    return codes.reshape(-1), state.absmax


def _dequantize_8bit(data: Tensor, absmax: Tensor, *, block_size: int, shape: tuple[int, ...], dtype: str) -> Tensor:
    state = library.QuantState(absmax, code=_dynamic_map(absmax.device), blocksize=block_size, dtype=_DTYPES[dtype])
    restored: Tensor = library.dequantize_blockwise(data.reshape(shape), state)
    return restored


def _by_codebook(four_bit: Callable[..., Any], eight_bit: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function that serves both codebooks of an operation."""

    def chosen(*, codebook: str, **rest: Any) -> Any:
        if codebook == "dynamic_signed":
            return eight_bit(**rest)
        return four_bit(codebook=codebook, **rest)

    return chosen


def _quantize_int8(x: Tensor, *, granularity: str, block_size: int | None) -> tuple[Tensor, Tensor]:
    codes, stats, _ = library.int8_vectorwise_quant(x)
    return codes, stats


def _dequantize_int8(codes: Tensor, absmax: Tensor, *, granularity: str, block_size: int | None, dtype: str) -> Tensor:
    restored: Tensor = library.int8_vectorwise_dequant(codes, absmax)
    return restored


def _int8_matmul(a: Tensor, b: Tensor) -> Tensor:
    acc: Tensor = library.int8_linear_matmul(a, b)
    return acc


def _scale(acc: Tensor, row_absmax: Tensor, column_absmax: Tensor, bias: Tensor | None, *, dtype: str) -> Tensor:
    scaled: Tensor = library.int8_mm_dequant(acc, row_absmax, column_absmax, bias=bias)
    return scaled


OPS: dict[str, Callable[..., Any]] = {
    "quantize_blockwise": _by_codebook(_quantize_4bit, _quantize_8bit),
    "dequantize_blockwise": _by_codebook(_dequantize_4bit, _dequantize_8bit),
    "quantize_double": _quantize_4bit_double,
    "dequantize_double": _dequantize_4bit_double,
    "quantize_int8": _quantize_int8,
    "dequantize_int8": _dequantize_int8,
    "int8_matmul": _int8_matmul,
    "scale_int8_matmul": _scale,
}
