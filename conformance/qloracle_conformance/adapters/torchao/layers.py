"""The INT8 product of torchao and linear layers with affine INT8 weights, on its own arrays."""

from collections.abc import Callable
from typing import Any

import torch
from torchao.kernel.intmm import int_matmul
from torchao.quantization import IntxUnpackedToInt8Tensor

Tensor = torch.Tensor


def int8_matmul(a: Tensor, b: Tensor) -> Tensor:
    """Multiply with int32 accumulation."""
    return int_matmul(a, b.t())


def affine_weight(
    codes: Tensor, scale: Tensor, zero_point: Tensor, qmax: int, granularity: str, dtype: torch.dtype
) -> Any:
    """Return a weight of affine codes: of the library's type for 8-bit or 4-bit codes in int8."""
    rows, columns = codes.shape
    blocks = {"row": (1, columns), "column": (rows, 1), "tensor": (rows, columns)}
    block_size = blocks[granularity]
    groups = (rows // block_size[0], columns // block_size[1])
    kind = torch.int8 if qmax > 7 else getattr(torch, "int4")  # noqa: B009  # torch has it, its stubs do not
    return IntxUnpackedToInt8Tensor(
        codes, scale.reshape(groups), zero_point.to(torch.int8).reshape(groups), kind, block_size, dtype, None
    )


def affine_weight_forward(
    x: Tensor, codes: Tensor, scale: Tensor, zero_point: Tensor, bias: Tensor | None, *, qmin: int, qmax: int,
    granularity: str, group_size: int | None,
) -> Tensor:  # fmt: skip
    """Multiply floating-point activations with an affine weight."""
    weight = affine_weight(codes, scale, zero_point, qmax, granularity, x.dtype)
    return torch.nn.functional.linear(x, weight, bias)


OPS: dict[str, Callable[..., Any]] = {
    "int8_matmul": int8_matmul,
    "affine_weight_forward": affine_weight_forward,
}
