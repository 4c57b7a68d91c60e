"""Layers with INT8 or affine weights of the reference on host arrays."""

from collections.abc import Callable
from typing import Any

import numpy as np

import qloracle
from qloracle.affine import QuantizedAffine
from qloracle.decomposition import decompose
from qloracle.formats import Array
from qloracle.int8 import QuantizedInt8, quantize_int8
from qloracle.rounding import encode
from qloracle_conformance.arrays import HostArray, host


def _rounded(values: Array, dtype: str) -> HostArray:
    return host(np.asarray(encode(values, dtype)), dtype)


def _int8(
    codes: HostArray, absmax: HostArray, granularity: str = "row", block_size: int | None = None
) -> QuantizedInt8:
    return QuantizedInt8(codes.items, absmax.items, granularity, block_size, "float32")


def _affine(codes: HostArray, scale: HostArray, zero_point: HostArray, **how: Any) -> QuantizedAffine:
    return QuantizedAffine(codes.items, scale.items, zero_point.items, **how, dtype="float32")


def _forward(x: HostArray, weight: QuantizedInt8 | QuantizedAffine, bias: HostArray | None) -> HostArray:
    shift = None if bias is None else bias.single()
    return _rounded(qloracle.weight_only_forward(x.single(), weight, bias=shift), x.dtype)


def _backward(dy: HostArray, weight: QuantizedInt8 | QuantizedAffine) -> tuple[HostArray, ...]:
    gradients = qloracle.weight_only_backward(dy.single(), weight)
    return _rounded(gradients.x, dy.dtype), _rounded(gradients.bias, dy.dtype)


def _int8_weight_forward(x: HostArray, codes: HostArray, absmax: HostArray, bias: HostArray | None, **how: Any) -> Any:
    return _forward(x, _int8(codes, absmax, **how), bias)


def _int8_weight_backward(dy: HostArray, codes: HostArray, absmax: HostArray, **how: Any) -> Any:
    return _backward(dy, _int8(codes, absmax, **how))


def _affine_weight_forward(
    x: HostArray, codes: HostArray, scale: HostArray, zero_point: HostArray, bias: HostArray | None, **how: Any
) -> Any:
    return _forward(x, _affine(codes, scale, zero_point, **how), bias)


def _affine_weight_backward(
    dy: HostArray, codes: HostArray, scale: HostArray, zero_point: HostArray, **how: Any
) -> Any:
    return _backward(dy, _affine(codes, scale, zero_point, **how))


def _int8_linear_forward(x: HostArray, codes: HostArray, absmax: HostArray, bias: HostArray | None) -> Any:
    quantized = quantize_int8(x.items, granularity="row", fmt=x.dtype)
    shift = None if bias is None else bias.single()
    y = qloracle.int8_linear_forward(x.single(), _int8(codes, absmax), bias=shift)
    return host(quantized.codes), host(np.asarray(quantized.absmax)), _rounded(y, x.dtype)


def _llm_int8_forward(
    x: HostArray, codes: HostArray, absmax: HostArray, weight: HostArray | None, bias: HostArray | None, *,
    threshold: float, exclusion: str, outlier_weight: str,
) -> Any:  # fmt: skip
    parts = decompose(x.single(), threshold, exclusion=exclusion)
    original, shift = (None if array is None else array.single() for array in (weight, bias))
    y = qloracle.llm_int8_forward(
        x.single(), _int8(codes, absmax), original, threshold=threshold, exclusion=exclusion,
        outlier_weight=outlier_weight, bias=shift,
    )  # fmt: skip
    return host(parts.outliers), host(parts.codes), host(np.asarray(parts.absmax)), _rounded(y, x.dtype)


def _llm_int8_backward(dy: HostArray, codes: HostArray, absmax: HostArray) -> Any:
    gradients = qloracle.llm_int8_backward(dy.single(), _int8(codes, absmax))
    return _rounded(gradients.x, dy.dtype), _rounded(gradients.bias, dy.dtype)


OPS: dict[str, Callable[..., Any]] = {
    "int8_weight_forward": _int8_weight_forward,
    "int8_weight_backward": _int8_weight_backward,
    "affine_weight_forward": _affine_weight_forward,
    "affine_weight_backward": _affine_weight_backward,
    "int8_linear_forward": _int8_linear_forward,
    "llm_int8_forward": _llm_int8_forward,
    "llm_int8_backward": _llm_int8_backward,
}
