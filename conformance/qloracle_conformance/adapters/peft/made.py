"""The records of PEFT's backends: functions and claims put together."""

from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from typing import Any

import torch

from qloracle_conformance.adapters.peft import claims, combining, layers, merging, selecting
from qloracle_conformance.adapters.torch_arrays import environment, fetch, placed
from qloracle_conformance.backend import Backend

FLOAT: dict[str, Callable[..., Any]] = {
    "lora_forward": layers.lora_forward,
    "lora_backward": layers.lora_backward,
    "dora_forward": layers.dora_forward,
    "dora_backward": layers.dora_backward,
    "embedding_lora_forward": layers.embedding_forward,
    "embedding_lora_backward": layers.embedding_backward,
    "lora_merge": merging.lora_merge,
    "lora_unmerge": merging.lora_unmerge,
    "lora_merge_safe": merging.lora_merge_safe,
    "lora_merge_cycles": merging.lora_merge_cycles,
    "merge_bias": merging.merge_bias,
    "dora_merge": merging.dora_merge,
    "dora_unmerge": merging.dora_unmerge,
    "lora_init": combining.lora_init,
    "embedding_init": combining.embedding_init,
    "combine_adapters": combining.combine_adapters,
    "concatenate_adapters": combining.concatenate_adapters,
    "select_targets": selecting.select_targets,
    "adapter_settings": selecting.adapter_settings,
    "count_parameters": selecting.count_parameters,
    "trainable_biases": selecting.trainable_biases,
}


def made_backend(kind: str, dtype: str) -> Backend:
    """Return the backend of one kind of base layer and one format."""
    ops, found = FLOAT, environment(torch.device("cpu"))
    if kind != "float":
        ops, found = _quantized(kind), {**found, "bitsandbytes": version("bitsandbytes")}
    names = [part for part in ("peft", kind, dtype) if part not in ("float", "float32")]
    claimed = claims.claims_of(kind, dtype)
    return Backend("-".join(names), version("peft"), partial(placed, device="cpu"), fetch, ops, claimed, found)


def _quantized(kind: str) -> dict[str, Callable[..., Any]]:
    from qloracle_conformance.adapters.peft import quantized  # needs bitsandbytes

    bits = int(kind.removesuffix("bit"))
    names = {4: ("qlora", "qlora_double", "qdora"), 8: ("qlora_int8",)}[bits]
    ops: dict[str, Callable[..., Any]] = {f"{name}_forward": quantized.qlora_forward for name in names}
    ops |= {f"{name}_backward": quantized.qlora_backward for name in names}
    merges: dict[int, dict[str, Callable[..., Any]]] = {
        4: {
            "merge_blocks": quantized.merge_blocks,
            "merge_double": quantized.merge_double,
            "merge_blocks_cycles": quantized.merge_blocks_cycles,
        },
        8: {"merge_int8": quantized.merge_int8},
    }
    return {**ops, **merges[bits], "merge_bias": partial(quantized.merge_bias, bits=bits)}
