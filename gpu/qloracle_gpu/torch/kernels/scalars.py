"""Numerics of single elements, as kernels use them: bits to numbers, numbers to bits, magnitudes."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from qloracle_gpu.torch.kernels.availability import interpreted


@triton.jit
def magnitude_bits(x):
    """Return the bits of |x|, x float32, as int32: their order is that of the magnitudes, NaN above infinity."""
    return x.to(tl.int32, bitcast=True) & 0x7FFFFFFF


@triton.jit
def bfloat16_bits(x):
    """Return RN_bfloat16 of float32 as uint16; every NaN stays one."""
    bits = x.to(tl.uint32, bitcast=True)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return tl.where((bits & 0x7FFFFFFF) > 0x7F800000, (bits >> 16) | 0x40, rounded).to(tl.uint16)


@triton.jit
def widened(raw, FORMAT: tl.constexpr):
    """Return float32 of what was loaded: bfloat16 comes as its bits, the others as they are."""
    if FORMAT == "bfloat16":
        return (raw.to(tl.uint32) << 16).to(tl.float32, bitcast=True)
    else:
        return raw.to(tl.float32)


@triton.jit
def as_float32(raw):
    """Return float32 of what was loaded: 16-bit integers are the bits of bfloat16."""
    if raw.dtype == tl.int16:
        return widened(raw, "bfloat16")
    else:
        return raw.to(tl.float32)


@triton.jit
def narrowed(x, FORMAT: tl.constexpr, out_ptr):
    """Return what to store for float32: RN_FORMAT, bfloat16 as its bits where `out_ptr` points to bits."""
    if FORMAT == "float32":
        return x
    elif out_ptr.dtype.element_ty == tl.int16:
        return bfloat16_bits(x)
    else:
        return x.to(out_ptr.dtype.element_ty)


def readable(tensor: Tensor) -> Tensor:
    """Return a tensor as kernels read it: bfloat16 as its bits."""
    return tensor.view(torch.int16) if tensor.dtype is torch.bfloat16 else tensor


def multipliable(tensor: Tensor) -> Tensor:
    """Return a tensor as kernels multiply it: a GPU's matrix units take bfloat16, Triton's interpreter does not."""
    return readable(tensor) if interpreted() else tensor


def writable(tensor: Tensor) -> Tensor:
    """Return a tensor as kernels write it: to bfloat16 a GPU rounds by itself, while Triton's interpreter truncates."""
    return readable(tensor) if interpreted() else tensor
