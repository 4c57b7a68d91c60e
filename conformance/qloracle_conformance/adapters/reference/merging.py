"""Merges of the reference on host arrays."""

from collections.abc import Callable
from typing import Any

import numpy as np

from qloracle import dora_merging, merging
from qloracle.errors import ArgumentValueError
from qloracle_conformance.arrays import HostArray, host


def _lora_merge(weight: HostArray, lora_a: HostArray, lora_b: HostArray, **options: Any) -> HostArray:
    merged = merging.lora_merge(weight.items, lora_a.single(), lora_b.single(), **options, fmt=weight.dtype)
    return host(merged, weight.dtype)


def _lora_unmerge(weight: HostArray, lora_a: HostArray, lora_b: HostArray, **options: Any) -> HostArray:
    found = merging.lora_unmerge(weight.items, lora_a.single(), lora_b.single(), **options, fmt=weight.dtype)
    return host(found, weight.dtype)


def _lora_merge_safe(weight: HostArray, **rest: Any) -> tuple[HostArray, HostArray]:
    try:
        return _lora_merge(weight, **rest, safe=True), host(np.array(True))
    except ArgumentValueError:
        return weight, host(np.array(False))


def _lora_merge_cycles(weight: HostArray, *, cycles: int, **rest: Any) -> HostArray:
    for _ in range(cycles):
        weight = _lora_unmerge(_lora_merge(weight, **rest), **rest)
    return weight


def _merge_bias(base_bias: HostArray, lora_bias: HostArray, **options: Any) -> HostArray:
    return host(
        merging.merge_bias(base_bias.items, lora_bias.single(), **options, fmt=base_bias.dtype), base_bias.dtype
    )


def _dora_merge(
    weight: HostArray, magnitude: HostArray, lora_a: HostArray, lora_b: HostArray, **options: Any
) -> tuple[HostArray, HostArray]:
    arrays = (weight.items, lora_a.single(), lora_b.single(), magnitude.single())
    merged = dora_merging.dora_merge(*arrays, **options, fmt=weight.dtype)
    return host(merged.weight, weight.dtype), host(merged.norms)


def _dora_unmerge(
    weight: HostArray, norms: HostArray, magnitude: HostArray, lora_a: HostArray, lora_b: HostArray, **options: Any
) -> HostArray:
    state = dora_merging.MergedDora(weight.items, norms.items)
    arrays = (lora_a.single(), lora_b.single(), magnitude.single())
    return host(dora_merging.dora_unmerge(state, *arrays, **options, fmt=weight.dtype), weight.dtype)


OPS: dict[str, Callable[..., Any]] = {
    "lora_merge": _lora_merge,
    "lora_unmerge": _lora_unmerge,
    "lora_merge_safe": _lora_merge_safe,
    "lora_merge_cycles": _lora_merge_cycles,
    "merge_bias": _merge_bias,
    "dora_merge": _dora_merge,
    "dora_unmerge": _dora_unmerge,
}
