"""Rounding to nearest by torch's casts, once even where torch would round twice.

Torch narrows float64 and 64-bit integers to 16-bit formats by way of float32, which rounds twice. Here the step in
between is rounded *to odd* (the last bit is set whenever anything was cut off), after which a rounding to at least two
bits fewer equals the direct one (Boldo and Melquiond 2008, "Emulation of FMA and Correctly Rounded Sums").
"""

import torch
from torch import Tensor

from qloracle_gpu.torch.formats import NAMES, float64_device

LARGE_INTEGERS = (torch.int64, torch.uint64)


def nearest_cast(source: Tensor, target: torch.dtype) -> Tensor:
    """Return numbers rounded to nearest by torch's casts, which round float32 and narrower floats once."""
    home = source.device
    if source.dtype not in NAMES and not (target is torch.float64 and source.dtype in LARGE_INTEGERS):
        source = as_float64(source)
    elif source.dtype in LARGE_INTEGERS:
        source = on_capable_device(source)
    if source.dtype is torch.float64 and target not in (torch.float64, torch.float32):
        source = _to_odd_float32(source)
    return source.to(target, copy=True, memory_format=torch.contiguous_format).to(home)


def as_float64(source: Tensor) -> Tensor:
    """Return numbers as float64; 64-bit integers beyond 2^53 are rounded to odd."""
    capable = on_capable_device(source)
    return _to_odd_float64(capable) if source.dtype in LARGE_INTEGERS else capable.to(torch.float64)


def on_capable_device(tensor: Tensor) -> Tensor:
    """Return a tensor on a device that has float64."""
    return tensor.to(float64_device(tensor.device))


def _to_odd_float64(integers: Tensor) -> Tensor:
    """Return 64-bit integers as float64: exact below 2^53, else rounded to an odd multiple of 2^11."""
    words = integers.view(torch.int64)
    high = words >> 11
    if integers.dtype is torch.uint64:
        high = high & ((1 << 53) - 1)
    exact = (high >= -(1 << 42)) & (high < 1 << 42)
    # In two's complement the floor with its last bit set is the odd neighbour for either sign.
    odd = high | ((words & 0x7FF) != 0)
    return torch.where(exact, words.to(torch.float64), odd.to(torch.float64) * 2048)


def _to_odd_float32(values: Tensor) -> Tensor:
    """Return float64 rounded to odd in float32: the nearest, moved towards the value where that was cut to even."""
    nearest = values.to(torch.float32)
    back = nearest.to(torch.float64)
    words = nearest.view(torch.int32)
    inexact = (back < values) | (back > values)
    inward = torch.where(back.abs() > values.abs(), -1, 1).to(torch.int32)
    return torch.where(inexact & ((words & 1) == 0), words + inward, words).view(torch.float32)
