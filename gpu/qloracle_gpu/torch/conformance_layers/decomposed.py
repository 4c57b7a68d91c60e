"""Layers without an adapter on quantized weights: `QuantizedLinear` of 4 bits, of INT8, and of LLM.int8()."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import qloracle_gpu.torch as q
from qloracle_gpu.torch.conformance_layers.layers import gradients
from qloracle_gpu.torch.conformance_layers.stored import quantized_linear, record_of

MODULE_RULE = {"exclusion": "columns", "outlier_weight": "dequantized"}  # LLM.int8() as the module does it


def _matmul(x: Tensor, *, bias: Tensor | None, compute_dtype: str, **arguments: Any) -> Tensor:
    y: Tensor = quantized_linear(record_of(arguments), bias, compute_dtype=compute_dtype)(x)
    return y.detach()


def _backward(dy: Tensor, *, compute_dtype: str, threshold: float | None = None, **arguments: Any) -> Any:
    record = record_of(arguments)
    layer = quantized_linear(
        record, dy.new_zeros(dy.shape[-1]), compute_dtype=compute_dtype, threshold=threshold
    )  # fmt: skip
    layer.requires_grad_(True)
    x = dy.new_zeros(*dy.shape[:-1], layer.in_features)
    return gradients(layer, dy, x, None, "bias")


def _llm_int8_backward(dy: Tensor, **arguments: Any) -> Any:
    return _backward(dy, threshold=6.0, **arguments)


def _int8_linear_forward(x: Tensor, codes: Tensor, absmax: Tensor, *, bias: Tensor | None, compute_dtype: str) -> Any:
    _, *parts, y = _llm_int8_forward(
        x, codes, absmax, weight=None, bias=bias, threshold=0.0, compute_dtype=compute_dtype, **MODULE_RULE
    )
    return *parts, y


def _llm_int8_forward(
    x: Tensor, codes: Tensor, absmax: Tensor, *, weight: Tensor | None, bias: Tensor | None, threshold: float,
    compute_dtype: str, **rule: str,
) -> tuple[Tensor, ...]:  # fmt: skip
    parts = q.decompose(x, threshold, exclusion=rule["exclusion"])
    found = (parts.outliers, parts.codes, parts.absmax)
    record = q.QuantizedInt8(codes, absmax, "row", None, "float32")
    if rule == MODULE_RULE:
        return *found, _module(x, record, bias, threshold, compute_dtype)
    how: dict[str, Any] = {**rule, "bias": bias, "weight_rounding": compute_dtype}
    return *found, q.llm_int8_forward(x, record, weight, threshold=threshold, **how)


def _module(x: Tensor, record: q.QuantizedInt8, bias: Tensor | None, threshold: float, compute_dtype: str) -> Tensor:
    layer = quantized_linear(record, bias, threshold=threshold, compute_dtype=compute_dtype)
    with torch.no_grad():
        y: Tensor = layer(x)
    return y


OPS: dict[str, Callable[..., Any]] = {
    "quantized_matmul": _matmul,
    "double_quantized_matmul": _matmul,
    "int8_weight_forward": _matmul,
    "int8_weight_backward": _backward,
    "int8_linear_forward": _int8_linear_forward,
    "llm_int8_forward": _llm_int8_forward,
    "llm_int8_backward": _llm_int8_backward,
}
