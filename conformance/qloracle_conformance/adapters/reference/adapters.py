"""Starting, combining, selecting and counting adapters with the reference on host arrays."""

from collections.abc import Callable
from typing import Any

import numpy as np

from qloracle.adapter_patterns import adapter_settings
from qloracle.combining import LoraAdapter, combine_adapters, concatenate_adapters
from qloracle.counting import count_parameters, trainable_biases
from qloracle.formats import Array
from qloracle.initialization import embedding_init, lora_init
from qloracle.rounding import encode
from qloracle.targets import select_targets
from qloracle_conformance.arrays import HostArray, host


def _lora_init(draws: HostArray, *, d_out: int, dtype: str, **options: Any) -> tuple[HostArray, HostArray]:
    made = lora_init(draws.items, d_out, **options, fmt=dtype)
    return host(made.lora_a, dtype), host(made.lora_b, dtype)


def _embedding_init(draws: HostArray, *, num_embeddings: int, dtype: str) -> tuple[HostArray, HostArray]:
    made = embedding_init(draws.items, num_embeddings, fmt=dtype)
    return host(made.lora_a, dtype), host(made.lora_b, dtype)


def _adapters(lora_a: HostArray, lora_b: HostArray, options: dict[str, Any]) -> list[LoraAdapter]:
    a, b, ends = lora_a.single(), lora_b.single(), np.cumsum(options["ranks"])
    parts = zip(options["ranks"], ends, options["alphas"], options["stabilized"], strict=True)
    return [LoraAdapter(a[end - r : end], b[:, end - r : end], alpha, root) for r, end, alpha, root in parts]


def _stored(values: Array, dtype: str) -> HostArray:
    return host(np.asarray(encode(values, dtype)), dtype)


def _combine_adapters(lora_a: HostArray, lora_b: HostArray, *, weights: tuple[float, ...], **options: Any) -> HostArray:
    return _stored(combine_adapters(_adapters(lora_a, lora_b, options), weights), lora_a.dtype)


def _concatenate_adapters(
    lora_a: HostArray, lora_b: HostArray, *, weights: tuple[float, ...], **options: Any
) -> tuple[HostArray, HostArray]:
    made = concatenate_adapters(_adapters(lora_a, lora_b, options), weights, fmt=lora_a.dtype)
    return host(made.lora_a, lora_a.dtype), host(made.lora_b, lora_a.dtype)


def _select_targets(linear: HostArray | None, *, names: tuple[str, ...], targets: Any, **options: Any) -> HostArray:
    marks = None if linear is None else linear.items
    return host(select_targets(names, targets, linear=marks, **options))


def _adapter_settings(selected: HostArray, **options: Any) -> tuple[HostArray, HostArray, HostArray]:
    found = adapter_settings(**options, selected=selected.items)
    return host(found.rank), host(found.alpha), host(found.scale)


def _count_parameters(
    shapes: HostArray, ranks: HostArray, biases: HostArray, **options: Any
) -> tuple[HostArray, HostArray, HostArray]:
    found = count_parameters(shapes.items, ranks.items, biases=biases.items, **options)
    return host(found.base), host(found.adapter), host(found.bias)


def _trainable_biases(biases: HostArray, adapted: HostArray, *, bias: str) -> HostArray:
    return host(trainable_biases(biases.items, adapted.items, bias))


OPS: dict[str, Callable[..., Any]] = {
    "lora_init": _lora_init,
    "embedding_init": _embedding_init,
    "combine_adapters": _combine_adapters,
    "concatenate_adapters": _concatenate_adapters,
    "select_targets": _select_targets,
    "adapter_settings": _adapter_settings,
    "count_parameters": _count_parameters,
    "trainable_biases": _trainable_biases,
}
