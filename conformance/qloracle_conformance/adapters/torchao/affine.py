"""Affine quantization of torchao on its own arrays: parameters, codes, values, fake quantization, ranges."""

from collections.abc import Callable
from typing import Any

import torch
from torchao.quantization.granularity import PerAxis, PerTensor
from torchao.quantization.observer import AffineQuantizedMinMaxObserver
from torchao.quantization.quant_primitives import (
    MappingType,
    _fake_quantize_affine,
    choose_qparams_affine,
    choose_qparams_affine_with_min_max,
    dequantize_affine,
    quantize_affine,
)

Tensor = torch.Tensor


def grouped(x: Tensor, granularity: str, group_size: int | None) -> tuple[Tensor, tuple[int, ...]]:
    """Return a tensor and the block size that torchao means by a granularity.

    Flat groups become rows of (groups, group_size), a short one filled up with zeros, which every range includes.
    """
    if granularity == "group":
        missing = -x.numel() % (group_size or 1)
        rows = torch.nn.functional.pad(x.reshape(-1), (0, missing)).reshape(-1, group_size or 1)
        return rows, (1, rows.shape[1])
    if granularity == "row":
        return x, (*(1 for _ in x.shape[:-1]), x.shape[-1])
    if granularity == "column":
        return x, (*x.shape[:-1], 1)
    return x, tuple(x.shape)


def ungrouped(values: Tensor, shape: torch.Size) -> Tensor:
    """Return what `grouped` rearranged in its own shape again."""
    return values.reshape(-1)[: shape.numel()].reshape(shape)


def groups_shape(x: Tensor, granularity: str, group_size: int | None) -> tuple[int, ...]:
    """Return the shape of one number a group."""
    shapes = {"tensor": (), "row": tuple(x.shape[:-1]), "column": tuple(x.shape[-1:])}
    return shapes.get(granularity, (-(-x.numel() // (group_size or 1)),))


def code_type(qmin: int) -> torch.dtype:
    """Return the type of codes."""
    return torch.int8 if qmin < 0 else torch.uint8


def affine_parameters(lo: Tensor, hi: Tensor, *, qmin: int, qmax: int) -> tuple[Tensor, Tensor]:
    """Return scale and zero point of given ranges."""
    return choose_qparams_affine_with_min_max(
        lo, hi, MappingType.ASYMMETRIC, (), code_type(qmin), qmin, qmax, zero_point_dtype=torch.int32
    )


def quantize_affine_codes(
    x: Tensor, *, qmin: int, qmax: int, granularity: str, group_size: int | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Choose scale and zero point of every group, and quantize."""
    rows, block_size = grouped(x, granularity, group_size)
    scale, zero_point = choose_qparams_affine(
        rows, MappingType.ASYMMETRIC, block_size, code_type(qmin), qmin, qmax, scale_dtype=torch.float32,
        zero_point_dtype=torch.int32,
    )  # fmt: skip
    codes = quantize_affine(rows, block_size, scale, zero_point, code_type(qmin), qmin, qmax)
    shape = groups_shape(x, granularity, group_size)
    return ungrouped(codes, x.shape), scale.reshape(shape), zero_point.reshape(shape)


def dequantize_affine_codes(
    codes: Tensor, scale: Tensor, zero_point: Tensor, *, qmin: int, qmax: int, granularity: str,
    group_size: int | None, dtype: str,
) -> Tensor:  # fmt: skip
    """Dequantize."""
    rows, block_size = grouped(codes, granularity, group_size)
    values = dequantize_affine(
        rows, block_size, scale, zero_point, code_type(qmin), qmin, qmax, output_dtype=getattr(torch, dtype)
    )
    return ungrouped(values, codes.shape)


def quantize_symmetric(
    x: Tensor, clip: Tensor, *, qmin: int, qmax: int, granularity: str, group_size: int | None
) -> tuple[Tensor, Tensor]:
    """Quantize with a clipping range of every group."""
    rows, block_size = grouped(x, granularity, group_size)
    scale, zero_point = choose_qparams_affine_with_min_max(
        -clip, clip, MappingType.SYMMETRIC, (), code_type(qmin), qmin, qmax, zero_point_dtype=torch.int32
    )
    codes = quantize_affine(rows, block_size, scale, zero_point, code_type(qmin), qmin, qmax)
    return ungrouped(codes, x.shape), scale


def fake_quantize(
    x: Tensor, scale: Tensor, zero_point: Tensor, *, qmin: int, qmax: int, granularity: str, group_size: int | None
) -> Tensor:
    """Quantize and dequantize."""
    rows, block_size = grouped(x, granularity, group_size)
    values = _fake_quantize_affine(rows, block_size, scale, zero_point, code_type(qmin), qmin, qmax)
    return ungrouped(values, x.shape)


def fake_quantize_backward(
    dy: Tensor, x: Tensor, scale: Tensor, zero_point: Tensor, *, qmin: int, qmax: int, granularity: str,
    group_size: int | None, interval: str,
) -> Tensor:  # fmt: skip
    """Return the gradient of x that autograd takes through the library's function."""
    leaf = x.detach().clone().requires_grad_()
    how: dict[str, Any] = {"qmin": qmin, "qmax": qmax, "granularity": granularity, "group_size": group_size}
    values = fake_quantize(leaf, scale, zero_point, **how)
    (gradient,) = torch.autograd.grad(values, leaf, dy)
    return gradient


def minmax_range(x: Tensor, *, granularity: str, group_size: int | None) -> tuple[Tensor, Tensor]:
    """Return the smallest and the largest value of a matrix, or of its rows or columns."""
    axes = {"row": PerAxis(0), "column": PerAxis(1)}
    observer = AffineQuantizedMinMaxObserver(
        MappingType.ASYMMETRIC, torch.int8, granularity=axes.get(granularity, PerTensor())
    )
    observer(x)
    shape = groups_shape(x, granularity, group_size)
    return observer.min_val.float().reshape(shape), observer.max_val.float().reshape(shape)


OPS: dict[str, Callable[..., Any]] = {
    "affine_parameters": affine_parameters,
    "quantize_affine": quantize_affine_codes,
    "dequantize_affine": dequantize_affine_codes,
    "quantize_symmetric": quantize_symmetric,
    "fake_quantize": fake_quantize,
    "fake_quantize_backward": fake_quantize_backward,
    "minmax_range": minmax_range,
}
