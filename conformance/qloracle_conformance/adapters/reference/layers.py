"""Layers of the reference on host arrays."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from qloracle import lora, qlora
from qloracle.blockwise import QuantizedBlocks
from qloracle.rounding import encode
from qloracle_conformance.arrays import HostArray, host
from qloracle_conformance.operations.layers import Arguments


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


def _dequantized(
    data: HostArray, absmax: HostArray, codebook: str, block_size: int, shape: tuple[int, ...]
) -> HostArray:
    quantized = QuantizedBlocks(data.items, absmax.items, codebook, block_size, shape, "float32")
    return host(qlora.qlora_weight(quantized))


def _qlora_forward(
    x: HostArray,
    data: HostArray,
    absmax: HostArray,
    *,
    codebook: str,
    block_size: int,
    shape: tuple[int, ...],
    **rest: Any,
) -> HostArray:
    return _lora_forward(x, weight=_dequantized(data, absmax, codebook, block_size, shape), **rest)


def _qlora_backward(
    dy: HostArray,
    data: HostArray,
    absmax: HostArray,
    *,
    codebook: str,
    block_size: int,
    shape: tuple[int, ...],
    **rest: Any,
) -> tuple[HostArray, ...]:
    return _lora_backward(dy, weight=_dequantized(data, absmax, codebook, block_size, shape), **rest)


OPS: dict[str, Callable[..., Any]] = {
    "lora_forward": _lora_forward,
    "lora_backward": _lora_backward,
    "qlora_forward": _qlora_forward,
    "qlora_backward": _qlora_backward,
}
