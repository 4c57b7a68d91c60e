"""Merges of the reference into quantized weights on host arrays."""

from collections.abc import Callable
from typing import Any

import numpy as np

from qloracle.blockwise import dequantize_blockwise
from qloracle.merging import lora_unmerge
from qloracle.qlora import QuantizedWeight
from qloracle.quantizing_like import dequantized_weight, quantize_like
from qloracle.requantizing import merge_into_original, merge_requantize
from qloracle_conformance.arrays import HostArray, host
from qloracle_conformance.generators.requantizing import STORED, record_of

MERGING = ("alpha", "rank_stabilized", "fan_in_fan_out")


def arrays_of(kind: str, weight: QuantizedWeight) -> tuple[HostArray, ...]:
    """Return the arrays of a record in the order of `STORED`."""
    if kind == "double":
        nested = weight.absmax  # type: ignore[union-attr]
        return host(weight.data), host(nested.codes), host(nested.absmax), host(np.asarray(nested.offset))  # type: ignore[union-attr]
    return tuple(host(np.asarray(getattr(weight, name))) for name in STORED[kind])


def _merge_of(kind: str) -> Callable[..., tuple[HostArray, ...]]:
    def merge(*, lora_a: HostArray, lora_b: HostArray, scales: str, **rest: Any) -> tuple[HostArray, ...]:
        weight = record_of(kind, {name: rest[name] for name in STORED[kind]}, rest)
        options = {name: rest[name] for name in MERGING}
        made = merge_requantize(weight, lora_a.single(), lora_b.single(), scales=scales, **options)
        return arrays_of(kind, made)

    return merge


def _merge_original(
    *, original: HostArray, lora_a: HostArray, lora_b: HostArray, scales: str, **rest: Any
) -> tuple[HostArray, ...]:
    like = record_of("blocks", {name: rest[name] for name in STORED["blocks"]}, rest)
    options = {name: rest[name] for name in MERGING}
    made = merge_into_original(
        original.items, like, lora_a.single(), lora_b.single(), fmt=original.dtype, scales=scales, **options
    )
    return arrays_of("blocks", made)


def _merge_cycles(*, lora_a: HostArray, lora_b: HostArray, cycles: int, **rest: Any) -> HostArray:
    weight = record_of("blocks", {name: rest[name] for name in STORED["blocks"]}, rest)
    a, b, options, dtype = lora_a.single(), lora_b.single(), {name: rest[name] for name in MERGING}, rest["dtype"]
    for _ in range(cycles):
        weight = merge_requantize(weight, a, b, **options)
        weight = quantize_like(lora_unmerge(dequantized_weight(weight), a, b, fmt=dtype, **options), weight, fmt=dtype)
    return host(np.asarray(dequantize_blockwise(weight)), dtype)  # type: ignore[arg-type]


OPS: dict[str, Callable[..., Any]] = {
    "merge_blocks": _merge_of("blocks"),
    "merge_double": _merge_of("double"),
    "merge_int8": _merge_of("int8"),
    "merge_affine": _merge_of("affine"),
    "merge_blocks_original": _merge_original,
    "merge_blocks_cycles": _merge_cycles,
}
