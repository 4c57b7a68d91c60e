"""Layers and optimizers of the suite by means of the public functions of the backend."""

from collections.abc import Callable
from typing import Any

import qloracle_gpu.cupy as q
from qloracle_gpu.cupy.conformance.operations import Native, native

NAMES = {"float32": None, "float16": None, "bfloat16": "bfloat16"}  # formats whose arrays are bit patterns


def _arrays(arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments with their arrays unwrapped."""
    return {key: value.array if isinstance(value, Native) else value for key, value in arguments.items()}


def _layer_forward(x: Native, **arguments: Any) -> Native:
    return Native(q.lora_forward(x.array, fmt=NAMES[x.dtype], **_arrays(arguments)), x.dtype)


def _layer_backward(dy: Native, **arguments: Any) -> tuple[Native, ...]:
    gradients = q.lora_backward(dy.array, fmt=NAMES[dy.dtype], **_arrays(arguments))
    return tuple(Native(gradient, dy.dtype) for gradient in vars(gradients).values())


def _blocks(arguments: dict[str, Any]) -> q.QuantizedBlocks:
    """Take the parts of a blockwise weight out of the arguments."""
    parts = {key: arguments.pop(key) for key in ("data", "absmax", "codebook", "block_size", "shape")}
    return q.QuantizedBlocks(**_arrays(parts), dtype="float32")


def _double(arguments: dict[str, Any]) -> q.DoubleQuantized:
    nested = [arguments.pop(key).array for key in ("absmax_codes", "nested_absmax", "offset")]
    parts = {key: arguments.pop(key) for key in ("data", "codebook", "block_size", "shape")}
    return q.DoubleQuantized(**_arrays(parts), absmax=q.QuantizedAbsmax(*nested), dtype="float32")


def _int8(arguments: dict[str, Any]) -> q.QuantizedInt8:
    parts = {key: arguments.pop(key) for key in ("codes", "absmax", "granularity", "block_size")}
    return q.QuantizedInt8(**_arrays(parts), dtype="float32")


Weight = Callable[[dict[str, Any]], Any]


def _forward_of(weight_of: Weight) -> Callable[..., Native]:
    def forward(*, x: Native, **arguments: Any) -> Native:
        weight = weight_of(arguments)
        return Native(q.qlora_forward(x.array, weight, fmt=NAMES[x.dtype], **_arrays(arguments)), x.dtype)

    return forward


def _backward_of(weight_of: Weight) -> Callable[..., tuple[Native, ...]]:
    def backward(*, dy: Native, x: Native, **arguments: Any) -> tuple[Native, ...]:
        weight = weight_of(arguments)
        gradients = q.qlora_backward(dy.array, x.array, weight, fmt=NAMES[dy.dtype], **_arrays(arguments))
        return tuple(Native(gradient, dy.dtype) for gradient in vars(gradients).values())[:4]

    return backward


def _matmul_of(weight_of: Weight) -> Callable[..., Native]:
    def matmul(x: Native, bias: Native | None = None, **arguments: Any) -> Native:
        weight, shift = weight_of(arguments), None if bias is None else bias.array
        return Native(q.quantized_matmul(x.array, weight, bias=shift, fmt=NAMES[x.dtype]), x.dtype)

    return matmul


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


def _adamw_step(
    p: Native, gradient: Native, m: Native, v: Native, random_bits: Native | None, *, step: int, **options: Any
) -> tuple[Native, ...]:
    bits, state = None if random_bits is None else random_bits.array, q.AdamwState(m.array, v.array, step - 1)
    new, after = q.adamw_step(
        p.array, gradient.array, state, q.AdamwOptions(**options), fmt=NAMES[p.dtype], random_bits=bits
    )
    return Native(new, p.dtype), native(after.m), native(after.v)


def _adamw8bit_step(
    p: Native, gradient: Native, codes_m: Native, absmax_m: Native, codes_v: Native, absmax_v: Native, *, step: int,
    block_size: int, **options: Any,
) -> tuple[Native, ...]:  # fmt: skip
    parts = (codes_m.array, absmax_m.array, codes_v.array, absmax_v.array)
    state = q.Adamw8bitState(*parts, step=step - 1, block_size=block_size)
    new, after = q.adamw8bit_step(p.array, gradient.array, state, q.AdamwOptions(**options), fmt=NAMES[p.dtype])
    made = (after.codes_m, after.absmax_m, after.codes_v, after.absmax_v)
    return Native(new, p.dtype), *(native(part) for part in made)


LAYERS: dict[str, Callable[..., Any]] = {
    "lora_forward": _layer_forward,
    "lora_backward": _layer_backward,
    "qlora_forward": _forward_of(_blocks),
    "qlora_backward": _backward_of(_blocks),
    "qlora_double_forward": _forward_of(_double),
    "qlora_double_backward": _backward_of(_double),
    "qlora_int8_forward": _forward_of(_int8),
    "qlora_int8_backward": _backward_of(_int8),
    "quantized_matmul": _matmul_of(_blocks),
    "double_quantized_matmul": _matmul_of(_double),
    "llm_int8_forward": _llm_int8_forward,
    "llm_int8_backward": _llm_int8_backward,
    "adamw_step": _adamw_step,
    "adamw8bit_step": _adamw8bit_step,
}
