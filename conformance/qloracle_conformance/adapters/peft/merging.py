"""Merges as PEFT makes them: into the weight of the base layer, in place. So the layer gets a copy of the weight."""

from typing import Any

import torch

from qloracle_conformance.adapters.peft.layers import ADAPTER, linear, lora_layer

Tensor = torch.Tensor


def mergeable(weight: Tensor, lora_a: Tensor, lora_b: Tensor, *, fan_in_fan_out: bool, **settings: Any) -> Any:
    """Return a layer whose adapter has the type that it is given in, as after ``autocast_adapter_dtype`` or without."""
    base = linear(weight.clone(), None, fan_in_fan_out=fan_in_fan_out)
    autocast = lora_a.dtype != weight.dtype
    return lora_layer(base, lora_a, lora_b, fan_in_fan_out=fan_in_fan_out, autocast=autocast, **settings)


def weight_of(layer: Any) -> Tensor:
    """Return the weight of the base layer."""
    weight: Tensor = layer.get_base_layer().weight.detach()
    return weight


def lora_merge(weight: Tensor, lora_a: Tensor, lora_b: Tensor, **settings: Any) -> Tensor:
    """``merge()``."""
    layer = mergeable(weight, lora_a, lora_b, **settings)
    layer.merge()
    return weight_of(layer)


def lora_unmerge(weight: Tensor, lora_a: Tensor, lora_b: Tensor, **settings: Any) -> Tensor:
    """``unmerge()`` of a layer that holds the merged weight."""
    layer = mergeable(weight, lora_a, lora_b, **settings)
    layer.merged_adapters.append(ADAPTER)
    layer.unmerge()
    return weight_of(layer)


def lora_merge_safe(weight: Tensor, lora_a: Tensor, lora_b: Tensor, **settings: Any) -> tuple[Tensor, Tensor]:
    """``merge(safe_merge=True)``, which raises ValueError to refuse."""
    layer = mergeable(weight, lora_a, lora_b, **settings)
    try:
        layer.merge(safe_merge=True)
    except ValueError:
        return weight_of(layer), torch.tensor(False)
    return weight_of(layer), torch.tensor(True)


def lora_merge_cycles(weight: Tensor, lora_a: Tensor, lora_b: Tensor, *, cycles: int, **settings: Any) -> Tensor:
    """``merge()`` and ``unmerge()`` in turn."""
    layer = mergeable(weight, lora_a, lora_b, **settings)
    for _ in range(cycles):
        layer.merge()
        layer.unmerge()
    return weight_of(layer)


def merge_bias_of(layer: Any, bias: Tensor, *, unmerge: bool) -> Tensor:
    """Return the bias of a layer after it was merged; or, given a merged one, after it was unmerged."""
    layer.get_base_layer().bias.data = bias.clone()
    if unmerge:
        layer.merge()
        layer.get_base_layer().bias.data = bias.clone()
        layer.unmerge()
    else:
        layer.merge()
    merged: Tensor = layer.get_base_layer().bias.detach()
    return merged


def merge_bias(
    base_bias: Tensor, lora_bias: Tensor, *, alpha: float, rank: int, rank_stabilized: bool, unmerge: bool
) -> Tensor:
    """The bias of ``lora.Linear`` with ``lora_bias``; all matrices are zeros."""
    base = linear(base_bias.new_zeros(len(base_bias), 1), base_bias.clone(), fan_in_fan_out=False)
    zeros = base_bias.new_zeros(rank, 1), base_bias.new_zeros(len(base_bias), rank)
    layer = lora_layer(base, *zeros, alpha=alpha, rank_stabilized=rank_stabilized, lora_bias=lora_bias, autocast=False)
    return merge_bias_of(layer, base_bias, unmerge=unmerge)


def dora_merge(
    weight: Tensor, magnitude: Tensor, lora_a: Tensor, lora_b: Tensor, **settings: Any
) -> tuple[Tensor, Tensor]:
    """``merge()`` with ``use_dora``; the norms are those that PEFT keeps for unmerging."""
    layer = mergeable(weight, lora_a, lora_b, magnitude=magnitude, **settings)
    layer.merge()
    return weight_of(layer), layer._cache_pop(f"{ADAPTER}-weight_norm").float()  # noqa: SLF001  # no other way to them


def dora_unmerge(
    weight: Tensor, norms: Tensor, magnitude: Tensor, lora_a: Tensor, lora_b: Tensor, **settings: Any
) -> Tensor:
    """``unmerge()`` with ``use_dora``, given the norms of the merge."""
    layer = mergeable(weight, lora_a, lora_b, magnitude=magnitude, **settings)
    layer._cache_store(f"{ADAPTER}-weight_norm", norms)  # noqa: SLF001  # where merging puts them
    layer.merged_adapters.append(ADAPTER)
    layer.unmerge()
    return weight_of(layer)
