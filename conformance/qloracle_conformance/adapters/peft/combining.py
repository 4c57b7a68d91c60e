"""Starting adapters, and combining several of one layer with ``add_weighted_adapter``."""

from itertools import accumulate
from typing import Any

import torch

from qloracle_conformance.adapters.peft.layers import ADAPTER, NAME, LoraConfig, get_peft_model
from qloracle_conformance.adapters.torch_draws import normal, uniform

Tensor = torch.Tensor
COMBINED = "combined"


def lora_init(
    draws: Tensor, *, d_out: int, initialization: str, std: float | None, dtype: str
) -> tuple[Tensor, Tensor]:
    """What ``LoraConfig(init_lora_weights=True)`` starts from."""
    if (initialization, std) != ("kaiming", None):
        raise NotImplementedError(f"{initialization} with std={std} is not among what PEFT offers")
    rank, d_in = draws.shape
    base = torch.nn.Linear(d_in, d_out, device="meta")
    base.weight = torch.nn.Parameter(torch.zeros(d_out, d_in, dtype=getattr(torch, dtype)))
    with uniform(draws):
        layer = _started(base, rank)
    return layer.lora_A[ADAPTER].weight.detach(), layer.lora_B[ADAPTER].weight.detach()


def embedding_init(draws: Tensor, *, num_embeddings: int, dtype: str) -> tuple[Tensor, Tensor]:
    """What ``lora.Embedding`` starts from."""
    dim, rank = draws.shape
    base = torch.nn.Embedding(num_embeddings, dim, device="meta")
    base.weight = torch.nn.Parameter(torch.zeros(num_embeddings, dim, dtype=getattr(torch, dtype)))
    with normal(draws):
        layer = _started(base, rank)
    return layer.lora_embedding_A[ADAPTER].detach(), layer.lora_embedding_B[ADAPTER].detach()


def _started(base: torch.nn.Module, rank: int) -> Any:
    """Return a layer with PEFT's own start, in the type of its base."""
    config = LoraConfig(r=rank, target_modules=[NAME])
    model = get_peft_model(torch.nn.ModuleDict({NAME: base}), config, autocast_adapter_dtype=False)
    return model.base_model.model[NAME]


def combined(
    lora_a: Tensor, lora_b: Tensor, *, ranks: tuple[int, ...], alphas: tuple[float, ...], weights: tuple[float, ...],
    stabilized: tuple[bool, ...],
) -> Any:  # fmt: skip
    """Return a layer to which ``add_weighted_adapter(combination_type="cat")`` has added the combination."""
    base = torch.nn.Linear(lora_a.shape[1], len(lora_b), device="meta")
    base.weight = torch.nn.Parameter(lora_a.new_zeros(len(lora_b), lora_a.shape[1]))
    configs = {
        f"adapter{index}": LoraConfig(r=rank, lora_alpha=alpha, use_rslora=root, target_modules=[NAME])
        for index, (rank, alpha, root) in enumerate(zip(ranks, alphas, stabilized, strict=True))
    }
    first, *others = configs
    model = get_peft_model(
        torch.nn.ModuleDict({NAME: base}), configs[first], adapter_name=first, autocast_adapter_dtype=False
    )
    for name in others:
        model.add_adapter(name, configs[name], autocast_adapter_dtype=False)
    layer = model.base_model.model[NAME]
    ends = list(accumulate(ranks))
    for name, rank, end in zip(configs, ranks, ends, strict=True):
        layer.lora_A[name].weight = torch.nn.Parameter(lora_a[end - rank : end])
        layer.lora_B[name].weight = torch.nn.Parameter(lora_b[:, end - rank : end])
    model.add_weighted_adapter(list(configs), list(weights), COMBINED, combination_type="cat")
    return layer


def combine_adapters(lora_a: Tensor, lora_b: Tensor, **settings: Any) -> Tensor:
    """The change of the weight that merging the combination would make."""
    delta: Tensor = combined(lora_a, lora_b, **settings).get_delta_weight(COMBINED)
    return delta.detach()


def concatenate_adapters(lora_a: Tensor, lora_b: Tensor, **settings: Any) -> tuple[Tensor, Tensor]:
    """The matrices of the combination."""
    layer = combined(lora_a, lora_b, **settings)
    return layer.lora_A[COMBINED].weight.detach(), layer.lora_B[COMBINED].weight.detach()
