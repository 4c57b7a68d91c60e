"""Linear layers of bitsandbytes on its own arrays: 4-bit weights, INT8 weights, LLM.int8()."""

from collections.abc import Callable
from typing import Any

import bitsandbytes
import bitsandbytes.functional as library
import torch

from qloracle_conformance.adapters.bitsandbytes.blocks import state_4bit, state_double

Tensor = torch.Tensor


def quantized_matmul(
    x: Tensor, data: Tensor, absmax: Tensor, bias: Tensor | None, *, codebook: str, block_size: int,
    shape: tuple[int, int],
) -> Tensor:  # fmt: skip
    """Multiply with a 4-bit weight."""
    dtype = str(x.dtype).removeprefix("torch.")
    state = state_4bit(absmax, codebook, block_size, shape, dtype)
    return bitsandbytes.matmul_4bit(x, data.reshape(-1, 1), state, bias=bias)


def double_quantized_matmul(
    x: Tensor, data: Tensor, absmax_codes: Tensor, nested_absmax: Tensor, offset: Tensor, bias: Tensor | None, *,
    codebook: str, block_size: int, shape: tuple[int, int],
) -> Tensor:  # fmt: skip
    """Multiply with a 4-bit weight whose absmax are quantized."""
    dtype = str(x.dtype).removeprefix("torch.")
    how: dict[str, Any] = {"codebook": codebook, "block_size": block_size, "shape": shape, "dtype": dtype}
    state = state_double(absmax_codes, nested_absmax, offset, **how)
    return bitsandbytes.matmul_4bit(x, data.reshape(-1, 1), state, bias=bias)


def int8_state(codes: Tensor, absmax: Tensor, *, training: bool, threshold: float = 0.0) -> Any:
    """Return the state of a layer whose weight is quantized already."""
    state = bitsandbytes.MatmulLtState(CB=codes, SCB=absmax)
    state.has_fp16_weights, state.is_training, state.threshold = False, training, threshold
    return state


def int8_weight_forward(
    x: Tensor, codes: Tensor, absmax: Tensor, bias: Tensor | None, *, granularity: str, block_size: int | None
) -> Tensor:
    """Multiply with the dequantized weight, as a layer in training does on a CPU."""
    return bitsandbytes.matmul(x, codes, state=int8_state(codes, absmax, training=True), bias=bias)


def int8_weight_backward(
    dy: Tensor, codes: Tensor, absmax: Tensor, *, granularity: str, block_size: int | None
) -> tuple[Tensor, Tensor]:
    """Return the gradients of x and of the bias, by the library's own backward pass in training."""
    x = torch.zeros((*dy.shape[:-1], codes.shape[1]), dtype=dy.dtype, device=dy.device, requires_grad=True)
    bias = torch.zeros(codes.shape[0], dtype=dy.dtype, device=dy.device, requires_grad=True)
    y = bitsandbytes.matmul(x, codes, state=int8_state(codes, absmax, training=True), bias=bias)
    gradient_x, gradient_bias = torch.autograd.grad(y, (x, bias), dy)
    return gradient_x, gradient_bias


def int8_linear_forward(x: Tensor, codes: Tensor, absmax: Tensor, bias: Tensor | None) -> tuple[Tensor, ...]:
    """Multiply activations that are quantized row by row, as a layer in evaluation does."""
    rows = x.reshape(-1, x.shape[-1])
    x_codes, x_absmax, _ = library.int8_vectorwise_quant(rows)
    y = bitsandbytes.matmul(x, codes, state=int8_state(codes, absmax, training=False), bias=bias)
    return x_codes.reshape(x.shape), x_absmax.reshape(x.shape[:-1]), y


def llm_int8_forward(
    x: Tensor, codes: Tensor, absmax: Tensor, weight: Tensor | None, bias: Tensor | None, *, threshold: float,
    exclusion: str, outlier_weight: str,
) -> tuple[Tensor, ...]:  # fmt: skip
    """Multiply with the outlier columns taken out, as a layer in evaluation does."""
    rows = x.reshape(-1, x.shape[-1])
    x_codes, x_absmax, columns = library.int8_vectorwise_quant(rows, threshold=threshold)
    outliers = torch.zeros(x.shape[-1], dtype=torch.bool, device=x.device)
    if columns is not None:
        outliers[columns.long()] = True
    state = int8_state(codes, absmax, training=False, threshold=threshold)
    y = bitsandbytes.matmul(x, codes, state=state, threshold=threshold, bias=bias)
    return outliers, x_codes.reshape(x.shape), x_absmax.reshape(x.shape[:-1]), y


def llm_int8_backward(dy: Tensor, codes: Tensor, absmax: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradients of x and of the bias, by the library's own backward pass in evaluation."""
    x = torch.zeros((*dy.shape[:-1], codes.shape[1]), dtype=dy.dtype, device=dy.device, requires_grad=True)
    bias = torch.zeros(codes.shape[0], dtype=dy.dtype, device=dy.device, requires_grad=True)
    y = bitsandbytes.matmul(x, codes, state=int8_state(codes, absmax, training=False), bias=bias)
    gradient_x, gradient_bias = torch.autograd.grad(y, (x, bias), dy)
    return gradient_x, gradient_bias


OPS: dict[str, Callable[..., Any]] = {
    "quantized_matmul": quantized_matmul,
    "double_quantized_matmul": double_quantized_matmul,
    "int8_weight_forward": int8_weight_forward,
    "int8_weight_backward": int8_weight_backward,
    "int8_linear_forward": int8_linear_forward,
    "llm_int8_forward": llm_int8_forward,
    "llm_int8_backward": llm_int8_backward,
}
