"""Affine quantization, observers and fake quantization of the suite by means of the public functions."""

from collections.abc import Callable
from typing import Any

import qloracle_gpu.cupy as q
from qloracle_gpu.cupy.conformance.operations import Native, native


def _affine_parameters(lo: Native, hi: Native, **options: Any) -> tuple[Native, ...]:
    return tuple(native(part) for part in q.affine_parameters(lo.array, hi.array, **options))


def _quantize_affine(x: Native, **options: Any) -> tuple[Native, ...]:
    made = q.quantize_affine(x.array, fmt=x.dtype, **options)
    return native(made.codes), native(made.scale), native(made.zero_point)


def _dequantize_affine(codes: Native, scale: Native, zero_point: Native, *, dtype: str, **how: Any) -> Native:
    record = q.QuantizedAffine(codes.array, scale.array, zero_point.array, **how, dtype=dtype)
    return Native(q.dequantize_affine(record), dtype)


def _quantize_symmetric(x: Native, clip: Native, **options: Any) -> tuple[Native, Native]:
    made = q.quantize_symmetric(x.array, clip=clip.array, fmt=x.dtype, **options)
    return native(made.codes), native(made.scale)


def _minmax_range(x: Native, **options: Any) -> tuple[Native, ...]:
    return tuple(native(end) for end in q.minmax_range(x.array, fmt=x.dtype, **options))


def _percentile_range(x: Native, *, lower: float, upper: float, **options: Any) -> tuple[Native, ...]:
    return tuple(native(end) for end in q.percentile_range(x.array, lower, upper, fmt=x.dtype, **options))


def _moving_range(
    previous_lo: Native, previous_hi: Native, current_lo: Native, current_hi: Native, *, weight: float
) -> tuple[Native, ...]:
    previous, current = (previous_lo.array, previous_hi.array), (current_lo.array, current_hi.array)
    return tuple(native(end) for end in q.moving_range(previous, current, weight))


def _fake_quantize(x: Native, scale: Native, zero_point: Native, **options: Any) -> Native:
    return Native(q.fake_quantize(x.array, scale.array, zero_point.array, fmt=x.dtype, **options), x.dtype)


def _fake_quantize_backward(dy: Native, x: Native, scale: Native, zero_point: Native, **options: Any) -> Native:
    arrays = (array.array for array in (dy, x, scale, zero_point))
    return Native(q.fake_quantize_backward(*arrays, fmt=x.dtype, **options), x.dtype)


AFFINE: dict[str, Callable[..., Any]] = {
    "affine_parameters": _affine_parameters,
    "quantize_affine": _quantize_affine,
    "dequantize_affine": _dequantize_affine,
    "quantize_symmetric": _quantize_symmetric,
    "minmax_range": _minmax_range,
    "percentile_range": _percentile_range,
    "moving_range": _moving_range,
    "fake_quantize": _fake_quantize,
    "fake_quantize_backward": _fake_quantize_backward,
}
