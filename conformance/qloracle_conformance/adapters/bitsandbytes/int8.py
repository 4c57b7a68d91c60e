"""INT8 of bitsandbytes on its own arrays: codes, the product, its scaling."""

from collections.abc import Callable
from typing import Any

import bitsandbytes.functional as library
import torch

Tensor = torch.Tensor


def quantize_int8(x: Tensor, *, granularity: str, block_size: int | None) -> tuple[Tensor, Tensor]:
    """Quantize by row, or by column where the device has the function that does both."""
    if granularity == "column":
        _, codes, _, absmax, _ = library.int8_double_quant(x)
        return codes, absmax
    codes, absmax, _ = library.int8_vectorwise_quant(x)
    return codes, absmax


def dequantize_int8(codes: Tensor, absmax: Tensor, *, granularity: str, block_size: int | None, dtype: str) -> Tensor:
    """Dequantize by row; the library returns float32."""
    return library.int8_vectorwise_dequant(codes, absmax)


def int8_matmul(a: Tensor, b: Tensor) -> Tensor:
    """Multiply with int32 accumulation."""
    return library.int8_linear_matmul(a, b)


def scale_int8_matmul(
    acc: Tensor, row_absmax: Tensor, column_absmax: Tensor, bias: Tensor | None, *, dtype: str
) -> Tensor:
    """Scale the product and add a bias; the library returns float16."""
    return library.int8_mm_dequant(acc, row_absmax, column_absmax, bias=bias)


OPS: dict[str, Callable[..., Any]] = {
    "quantize_int8": quantize_int8,
    "dequantize_int8": dequantize_int8,
    "int8_matmul": int8_matmul,
    "scale_int8_matmul": scale_int8_matmul,
}
