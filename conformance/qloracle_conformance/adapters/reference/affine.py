"""Affine quantization, observers and fake quantization of the reference on host arrays."""

from collections.abc import Callable
from typing import Any

import numpy as np

import qloracle
from qloracle.affine import QuantizedAffine
from qloracle_conformance.arrays import HostArray, host


def _hosts(*arrays: Any) -> tuple[HostArray, ...]:
    return tuple(host(np.asarray(array)) for array in arrays)


def _affine_parameters(lo: HostArray, hi: HostArray, **options: Any) -> tuple[HostArray, ...]:
    return _hosts(*qloracle.affine_parameters(lo.items, hi.items, **options))


def _quantize_affine(x: HostArray, **options: Any) -> tuple[HostArray, ...]:
    quantized = qloracle.quantize_affine(x.items, fmt=x.dtype, **options)
    return _hosts(quantized.codes, quantized.scale, quantized.zero_point)


def _dequantize_affine(
    codes: HostArray, scale: HostArray, zero_point: HostArray, *, dtype: str, **how: Any
) -> HostArray:
    record = QuantizedAffine(codes.items, scale.items, zero_point.items, **how, dtype=dtype)
    return host(np.asarray(qloracle.dequantize_affine(record)), dtype)


def _quantize_symmetric(x: HostArray, clip: HostArray, **options: Any) -> tuple[HostArray, ...]:
    quantized = qloracle.quantize_symmetric(x.items, clip=clip.items, fmt=x.dtype, **options)
    return _hosts(quantized.codes, quantized.scale)


def _minmax_range(x: HostArray, **options: Any) -> tuple[HostArray, ...]:
    return _hosts(*qloracle.minmax_range(x.items, fmt=x.dtype, **options))


def _percentile_range(x: HostArray, *, lower: float, upper: float, **options: Any) -> tuple[HostArray, ...]:
    return _hosts(*qloracle.percentile_range(x.items, lower, upper, fmt=x.dtype, **options))


def _moving_range(
    previous_lo: HostArray, previous_hi: HostArray, current_lo: HostArray, current_hi: HostArray, *, weight: float
) -> tuple[HostArray, ...]:
    previous, current = (previous_lo.items, previous_hi.items), (current_lo.items, current_hi.items)
    return _hosts(*qloracle.moving_range(previous, current, weight))


def _fake_quantize(x: HostArray, scale: HostArray, zero_point: HostArray, **options: Any) -> HostArray:
    values = qloracle.fake_quantize(x.items, scale.items, zero_point.items, fmt=x.dtype, **options)
    return host(np.asarray(values), x.dtype)


def _fake_quantize_backward(
    dy: HostArray, x: HostArray, scale: HostArray, zero_point: HostArray, **options: Any
) -> HostArray:
    arrays = (array.items for array in (dy, x, scale, zero_point))
    return host(np.asarray(qloracle.fake_quantize_backward(*arrays, fmt=x.dtype, **options)), x.dtype)


OPS: dict[str, Callable[..., Any]] = {
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
