"""Operators of formats and of packed codes.

Their rules are those of the functions of the same name in `qloracle_gpu.torch`.
"""

from typing import Any

import torch
from torch import Tensor

from qloracle_gpu.torch import packing
from qloracle_gpu.torch import rounding as rules
from qloracle_gpu.torch.compiling import eager
from qloracle_gpu.torch.library.registering import operator


@operator
def decode(bits: Tensor) -> Tensor:
    """Return the exact values as float32."""
    return eager(rules.decode)(bits)


@decode.register_fake
def _(bits: Tensor) -> Tensor:
    return bits.new_empty(bits.shape, dtype=torch.float32)


@operator
def encode(
    values: Tensor, fmt: str, rounding: str = "ties_to_even", overflow: str | None = None, nan: str | None = None,
    random_bits: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Return values rounded once to a format."""
    how = {"rounding": rounding, "overflow": overflow, "nan": nan}
    return eager(rules.encode)(values, fmt, random_bits=random_bits, **how)  # type: ignore[arg-type] # of three types


@encode.register_fake
def _(values: Tensor, fmt: str, *_: Any) -> Tensor:
    return values.new_empty(values.shape, dtype=rules.TARGETS[fmt])


@operator
def pack_4bit(codes: Tensor, pad_code: int = 0) -> Tensor:
    """Return two codes a byte."""
    return eager(packing.pack_4bit)(codes, pad_code)


@pack_4bit.register_fake
def _(codes: Tensor, *_: Any) -> Tensor:
    return codes.new_empty((codes.numel() + 1) // 2)


@operator
def unpack_4bit(packed: Tensor, size: int) -> Tensor:
    """Return the codes of packed bytes."""
    return eager(packing.unpack_4bit)(packed, size)


@unpack_4bit.register_fake
def _(packed: Tensor, size: int) -> Tensor:
    return packed.new_empty(size)
