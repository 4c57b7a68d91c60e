"""Layers of the suite by means of the public functions of the backend."""

from collections.abc import Callable
from typing import Any

import qloracle_gpu.cupy as q
from qloracle_gpu.cupy.conformance.operations import Native, native

NAMES = {"float32": None, "float16": None, "bfloat16": "bfloat16"}  # formats whose arrays are bit patterns


def unwrapped(arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments with their arrays unwrapped."""
    return {key: value.array if isinstance(value, Native) else value for key, value in arguments.items()}


def blocks_record(arguments: dict[str, Any], dtype: str = "float32") -> q.QuantizedBlocks:
    """Take the parts of a blockwise weight out of the arguments."""
    parts = {key: arguments.pop(key) for key in ("data", "absmax", "codebook", "block_size", "shape")}
    return q.QuantizedBlocks(**unwrapped(parts), dtype=dtype)


def double_record(arguments: dict[str, Any], dtype: str = "float32") -> q.DoubleQuantized:
    """Take the parts of a weight with quantized absmax out of the arguments."""
    nested = [arguments.pop(key).array for key in ("absmax_codes", "nested_absmax", "offset")]
    parts = {key: arguments.pop(key) for key in ("data", "codebook", "block_size", "shape")}
    return q.DoubleQuantized(**unwrapped(parts), absmax=q.QuantizedAbsmax(*nested), dtype=dtype)


def int8_record(arguments: dict[str, Any], dtype: str = "float32") -> q.QuantizedInt8:
    """Take the parts of an INT8 weight out of the arguments."""
    parts = {key: arguments.pop(key) for key in ("codes", "absmax", "granularity", "block_size")}
    return q.QuantizedInt8(**unwrapped(parts), dtype=dtype)


def affine_record(arguments: dict[str, Any], dtype: str = "float32") -> q.QuantizedAffine:
    """Take the parts of an affine weight out of the arguments."""
    names = ("codes", "scale", "zero_point", "qmin", "qmax", "granularity", "group_size")
    return q.QuantizedAffine(**unwrapped({key: arguments.pop(key) for key in names}), dtype=dtype)


Weight = Callable[[dict[str, Any]], Any]


def _dense(arguments: dict[str, Any]) -> Any:
    return arguments.pop("weight").array


def _layer(function: Callable[..., Any], weight_of: Weight = _dense) -> Callable[..., Native]:
    def forward(*, x: Native, **arguments: Any) -> Native:
        weight = weight_of(arguments)
        return Native(function(x.array, weight=weight, fmt=NAMES[x.dtype], **unwrapped(arguments)), x.dtype)

    return forward


def _gradients(
    function: Callable[..., Any], weight_of: Weight = _dense, count: int | None = None
) -> Callable[..., tuple[Native, ...]]:
    def backward(*, dy: Native, **arguments: Any) -> tuple[Native, ...]:
        weight = weight_of(arguments)
        gradients = function(dy.array, weight=weight, fmt=NAMES[dy.dtype], **unwrapped(arguments))
        return tuple(Native(gradient, dy.dtype) for gradient in vars(gradients).values())[:count]

    return backward


def _matmul_of(weight_of: Weight) -> Callable[..., Native]:
    def matmul(x: Native, bias: Native | None = None, **arguments: Any) -> Native:
        weight, shift = weight_of(arguments), None if bias is None else bias.array
        return Native(q.quantized_matmul(x.array, weight, bias=shift, fmt=NAMES[x.dtype]), x.dtype)

    return matmul


def _weight_forward_of(weight_of: Weight) -> Callable[..., Native]:
    def forward(*, x: Native, bias: Native | None, **arguments: Any) -> Native:
        shift = None if bias is None else bias.array
        return Native(q.weight_only_forward(x.array, weight_of(arguments), bias=shift, fmt=NAMES[x.dtype]), x.dtype)

    return forward


def _weight_backward_of(weight_of: Weight) -> Callable[..., tuple[Native, ...]]:
    def backward(*, dy: Native, **arguments: Any) -> tuple[Native, ...]:
        gradients = q.weight_only_backward(dy.array, weight_of(arguments), fmt=NAMES[dy.dtype])
        return Native(gradients.x, dy.dtype), Native(gradients.bias, dy.dtype)

    return backward


def _embedding_lora_forward(*, ids: Native, weight: Native, **arguments: Any) -> Native:
    fmt = NAMES[weight.dtype]
    return Native(q.embedding_lora_forward(ids.array, weight.array, fmt=fmt, **unwrapped(arguments)), weight.dtype)


def _embedding_lora_backward(*, dy: Native, ids: Native, **arguments: Any) -> tuple[Native, Native]:
    gradients = q.embedding_lora_backward(dy.array, ids.array, fmt=NAMES[dy.dtype], **unwrapped(arguments))
    return Native(gradients.lora_a, dy.dtype), Native(gradients.lora_b, dy.dtype)


def _int8_linear_forward(x: Native, codes: Native, absmax: Native, bias: Native | None) -> tuple[Native, ...]:
    fmt, shift = NAMES[x.dtype], None if bias is None else bias.array
    parts = q.quantize_int8(x.array, granularity="row", fmt=fmt)
    y = q.int8_linear_forward(x.array, _row_weight(codes, absmax), bias=shift, fmt=fmt)
    return native(parts.codes), native(parts.absmax), Native(y, x.dtype)


def _row_weight(codes: Native, absmax: Native) -> q.QuantizedInt8:
    return q.QuantizedInt8(codes.array, absmax.array, "row", None, "float32")


def _llm_int8_forward(
    x: Native, codes: Native, absmax: Native, weight: Native | None, bias: Native | None, *, threshold: float,
    exclusion: str, outlier_weight: str,
) -> tuple[Native, ...]:  # fmt: skip
    fmt = NAMES[x.dtype]
    parts = q.decompose(x.array, threshold, exclusion=exclusion, fmt=fmt)
    y = q.llm_int8_forward(
        x.array, _row_weight(codes, absmax), None if weight is None else weight.array, threshold=threshold,
        exclusion=exclusion, outlier_weight=outlier_weight, bias=None if bias is None else bias.array, parts=parts,
        fmt=fmt,
    )  # fmt: skip
    return native(parts.outliers), native(parts.codes), native(parts.absmax), Native(y, x.dtype)


def _llm_int8_backward(dy: Native, codes: Native, absmax: Native) -> tuple[Native, Native]:
    gradients = q.llm_int8_backward(dy.array, _row_weight(codes, absmax), fmt=NAMES[dy.dtype])
    return Native(gradients.x, dy.dtype), Native(gradients.bias, dy.dtype)


LAYERS: dict[str, Callable[..., Any]] = {
    "lora_forward": _layer(q.lora_forward),
    "lora_backward": _gradients(q.lora_backward),
    "qlora_forward": _layer(q.qlora_forward, blocks_record),
    "qlora_backward": _gradients(q.qlora_backward, blocks_record, 4),
    "qlora_double_forward": _layer(q.qlora_forward, double_record),
    "qlora_double_backward": _gradients(q.qlora_backward, double_record, 4),
    "qlora_int8_forward": _layer(q.qlora_forward, int8_record),
    "qlora_int8_backward": _gradients(q.qlora_backward, int8_record, 4),
    "quantized_matmul": _matmul_of(blocks_record),
    "double_quantized_matmul": _matmul_of(double_record),
    "llm_int8_forward": _llm_int8_forward,
    "llm_int8_backward": _llm_int8_backward,
    "qlora_affine_forward": _layer(q.qlora_forward, affine_record),
    "qlora_affine_backward": _gradients(q.qlora_backward, affine_record, 4),
    "dora_forward": _layer(q.dora_forward),
    "dora_backward": _gradients(q.dora_backward),
    "qdora_forward": _layer(q.qdora_forward, blocks_record),
    "qdora_backward": _gradients(q.qdora_backward, blocks_record),
    "embedding_lora_forward": _embedding_lora_forward,
    "embedding_lora_backward": _embedding_lora_backward,
    "int8_weight_forward": _weight_forward_of(int8_record),
    "int8_weight_backward": _weight_backward_of(int8_record),
    "affine_weight_forward": _weight_forward_of(affine_record),
    "affine_weight_backward": _weight_backward_of(affine_record),
    "int8_linear_forward": _int8_linear_forward,
}
