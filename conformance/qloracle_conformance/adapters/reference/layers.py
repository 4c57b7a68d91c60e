"""Layers of the reference on host arrays."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from qloracle import dora, embedding_lora, lora, qlora, quantized_product
from qloracle.formats import Array
from qloracle.rounding import encode
from qloracle_conformance.arrays import HostArray, host
from qloracle_conformance.operations.layers import Arguments
from qloracle_conformance.operations.stored import ARRAYS, OPTIONS, record_of


def plain_arguments(arrays: Mapping[str, HostArray | None], options: Mapping[str, Any]) -> Arguments:
    """Return the arguments of a layer as the reference takes them: floats widened, the mask as bool."""
    named = {n: (a.items if a.dtype == "bool" else a.single()) for n, a in arrays.items() if a is not None}
    return {**named, **options}


def _lora_forward(x: HostArray, **rest: Any) -> HostArray:
    arrays = {"x": x, **{n: v for n, v in rest.items() if isinstance(v, HostArray)}}
    options = {n: v for n, v in rest.items() if not isinstance(v, HostArray) and v is not None}
    return host(np.asarray(encode(lora.lora_forward(**plain_arguments(arrays, options)), x.dtype)), x.dtype)


def _lora_backward(dy: HostArray, **rest: Any) -> tuple[HostArray, ...]:
    arrays = {"dy": dy, **{n: v for n, v in rest.items() if isinstance(v, HostArray)}}
    options = {n: v for n, v in rest.items() if not isinstance(v, HostArray) and v is not None}
    gradients = lora.lora_backward(**plain_arguments(arrays, options))
    return tuple(host(np.asarray(encode(g, dy.dtype)), dy.dtype) for g in vars(gradients).values())


def _plain(**rest: Any) -> dict[str, Any]:
    """Return the arguments of a layer with the weight restored from what stands for it."""
    arrays = {name: rest.pop(name) for name in ARRAYS if name in rest}
    options = {name: rest.pop(name) for name in OPTIONS if name in rest}
    return {**rest, "weight": host(qlora.qlora_weight(record_of(arrays, options)))}


def _qlora_forward(**rest: Any) -> HostArray:
    return _lora_forward(**_plain(**rest))


def _qlora_backward(**rest: Any) -> tuple[HostArray, ...]:
    return _lora_backward(**_plain(**rest))[:4]


def _dora_forward(**rest: Any) -> HostArray:
    return _float(dora.dora_forward(**_arguments(rest)), rest["x"].dtype)


def _dora_backward(**rest: Any) -> tuple[HostArray, ...]:
    gradients = dora.dora_backward(**_arguments(rest))
    return tuple(_float(g, rest["dy"].dtype) for g in vars(gradients).values())


def _qdora_forward(**rest: Any) -> HostArray:
    return _dora_forward(**_plain(**rest))


def _qdora_backward(**rest: Any) -> tuple[HostArray, ...]:
    return _dora_backward(**_plain(**rest))


def _embedding_lora_forward(ids: HostArray, **rest: Any) -> HostArray:
    return _float(embedding_lora.embedding_lora_forward(ids.items, **_arguments(rest)), rest["weight"].dtype)


def _embedding_lora_backward(ids: HostArray, **rest: Any) -> tuple[HostArray, ...]:
    gradients = embedding_lora.embedding_lora_backward(ids=ids.items, **_arguments(rest))
    return tuple(_float(g, rest["dy"].dtype) for g in vars(gradients).values())


def _quantized_matmul(x: HostArray, bias: HostArray | None, **rest: Any) -> HostArray:
    arrays = {n: v for n, v in rest.items() if isinstance(v, HostArray)}
    record = record_of(arrays, {n: v for n, v in rest.items() if n not in arrays})
    shift = None if bias is None else bias.single()
    return _float(quantized_product.quantized_matmul(x.single(), record, bias=shift), x.dtype)


def _arguments(rest: Mapping[str, Any]) -> Arguments:
    arrays = {n: v for n, v in rest.items() if isinstance(v, HostArray)}
    return plain_arguments(arrays, {n: v for n, v in rest.items() if n not in arrays and v is not None})


def _float(values: Array, dtype: str) -> HostArray:
    return host(np.asarray(encode(values, dtype)), dtype)


OPS: dict[str, Callable[..., Any]] = {
    "lora_forward": _lora_forward,
    "lora_backward": _lora_backward,
    **{f"{kind}_forward": _qlora_forward for kind in ("qlora", "qlora_double", "qlora_int8", "qlora_affine")},
    **{f"{kind}_backward": _qlora_backward for kind in ("qlora", "qlora_double", "qlora_int8", "qlora_affine")},
    "dora_forward": _dora_forward,
    "dora_backward": _dora_backward,
    "qdora_forward": _qdora_forward,
    "qdora_backward": _qdora_backward,
    "embedding_lora_forward": _embedding_lora_forward,
    "embedding_lora_backward": _embedding_lora_backward,
    "quantized_matmul": _quantized_matmul,
    "double_quantized_matmul": _quantized_matmul,
}
