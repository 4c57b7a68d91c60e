"""Conversions of torchao to float8 on its own arrays, and blocks that it scales to float8."""

from collections.abc import Callable
from typing import Any

import torch
from torchao.float8.config import ScalingGranularity
from torchao.float8.float8_scaling_utils import hp_tensor_to_float8_dynamic
from torchao.float8.float8_training_tensor import LinearMMConfig
from torchao.float8.float8_utils import tensor_to_amax, to_fp8_saturated

Tensor = torch.Tensor


def encode(values: Tensor, *, fmt: str, overflow: str = "saturate") -> Tensor:
    """Convert to float8; what is too large becomes the largest number."""
    return to_fp8_saturated(values, getattr(torch, fmt))


def whole_blocks(x: Tensor, block_size: int) -> Tensor:
    """Return the elements in a row, filled up with zeros to whole blocks, for torchao takes no others."""
    return torch.nn.functional.pad(x.reshape(-1), (0, -x.numel() % block_size))


def quantize_float8(x: Tensor, block_size: int) -> tuple[Tensor, Tensor]:
    """Scale blocks as the rows of a matrix and convert them to float8, as float8 training does."""
    rows = whole_blocks(x, block_size).reshape(-1, block_size)
    how = {"scaling_granularity": ScalingGranularity.AXISWISE, "axiswise_dim": -1}
    absmax = tensor_to_amax(rows, **how)
    scaled = hp_tensor_to_float8_dynamic(rows, torch.float8_e4m3fn, LinearMMConfig(), **how)
    return scaled._data.view(torch.uint8).reshape(-1)[: x.numel()], absmax.reshape(-1).float()  # noqa: SLF001


OPS: dict[str, Callable[..., Any]] = {"encode": encode}
