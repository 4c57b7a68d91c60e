"""The reference's counts on host arrays."""

from collections.abc import Callable
from typing import Any

import numpy as np

from qloracle_conformance import counted
from qloracle_conformance.arrays import HostArray, host


def _tensor_bytes(shapes: HostArray, *, scheme: str, block_size: int) -> tuple[HostArray, ...]:
    return tuple(host(part) for part in counted.tensor_parts(shapes.items, scheme, block_size))


def _bits_per_weight(*, scheme: str, block_size: int) -> HostArray:
    return host(counted.bits(scheme, block_size))


def _table_bytes(quantized: HostArray, *, scheme: str, tables: str) -> HostArray:
    return host(counted.tables(quantized.items, scheme, tables))


def _tensor_kinds(shapes: HostArray, *, names: tuple[str, ...]) -> HostArray:
    return host(counted.kinds(shapes.items, names))


def _quantized_tensors(linear: HostArray, *, names: tuple[str, ...], skip: tuple[str, ...]) -> HostArray:
    return host(counted.selection(linear.items, names, skip))


def _model_footprint(
    shapes: HostArray, quantized: HostArray, item_bytes: HostArray, **options: Any
) -> tuple[HostArray, HostArray]:
    found = counted.model(shapes.items, quantized.items, item_bytes.items, **options)
    return host(np.array(found.total, np.int64)), host(np.array(found.printed, np.int64))


def _config_tensors(*, config: tuple[tuple[str, Any], ...]) -> HostArray:
    return host(counted.config(config))


def _adapter_shapes(shapes: HostArray, targeted: HostArray, *, rank: int) -> HostArray:
    return host(counted.adapters(shapes.items, targeted.items, rank))


def _state_bytes(sizes: HostArray, *, optimizer: str) -> HostArray:
    return host(counted.states(sizes.items, optimizer))


def _training_memory(shapes: HostArray, **options: Any) -> HostArray:
    return host(counted.training(shapes.items, **options))


OPS: dict[str, Callable[..., Any]] = {
    "tensor_bytes": _tensor_bytes,
    "bits_per_weight": _bits_per_weight,
    "table_bytes": _table_bytes,
    "tensor_kinds": _tensor_kinds,
    "quantized_tensors": _quantized_tensors,
    "model_footprint": _model_footprint,
    "config_tensors": _config_tensors,
    "adapter_shapes": _adapter_shapes,
    "state_bytes": _state_bytes,
    "training_memory": _training_memory,
}
