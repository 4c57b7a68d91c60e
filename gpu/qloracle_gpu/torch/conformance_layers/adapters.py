"""Starting, combining, placing and counting adapters: on models of modules without storage, where modules decide."""

from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn

import qloracle_gpu.torch as q
from qloracle_conformance.adapters.torch_draws import Drawn
from qloracle_gpu.torch.modules import (
    LoraConfig,
    LoRAEmbedding,
    LoRALinear,
    LoraOptions,
    apply_lora,
    trainable_parameters,
)

ANCHOR = "anchor"  # a layer that always has an adapter: apply_lora refuses a model in which it finds none


def _lora_init(draws: Tensor, *, d_out: int, initialization: str, std: float | None, dtype: str) -> tuple[Tensor, ...]:
    if dtype != "float32" or std is not None:  # a module's adapter is float32, and its deviation the rule's own
        made = q.lora_init(draws, d_out, initialization=initialization, std=std, fmt=dtype)
        return made.lora_a, made.lora_b
    rank, d_in = draws.shape
    operation = torch.ops.aten.rand.default if initialization == "kaiming" else torch.ops.aten.randn.default
    base = nn.Linear(d_in, d_out, bias=False, device="meta").to_empty(device=draws.device)
    with _drawn(operation, draws):
        adapter = LoRALinear(base, LoraOptions(rank, init=initialization)).adapter
    return adapter.lora_a.detach(), adapter.lora_b.detach()


def _embedding_init(draws: Tensor, *, num_embeddings: int, dtype: str) -> tuple[Tensor, ...]:
    if dtype != "float32":
        made = q.embedding_init(draws, num_embeddings, fmt=dtype)
        return made.lora_a, made.lora_b
    dim, rank = draws.shape
    base = nn.Embedding(num_embeddings, dim, device="meta").to_empty(device=draws.device)
    with _drawn(torch.ops.aten.randn.default, draws):
        adapter = LoRAEmbedding(base, LoraOptions(rank)).adapter
    return adapter.lora_a.detach(), adapter.lora_b.detach()


def _drawn(operation: Any, draws: Tensor) -> Drawn:
    return Drawn(operation, lambda *_, **__: draws.clone())


def _adapters(
    lora_a: Tensor, lora_b: Tensor, *, ranks: Sequence[int], alphas: Sequence[float], stabilized: Sequence[bool]
) -> list[q.LoraAdapter]:
    parts = zip(ranks, accumulate(ranks), alphas, stabilized, strict=True)
    return [
        q.LoraAdapter(lora_a[end - r : end], lora_b[:, end - r : end], alpha, root) for r, end, alpha, root in parts
    ]


def _combine_adapters(lora_a: Tensor, lora_b: Tensor, *, weights: Sequence[float], **options: Any) -> Tensor:
    name = str(lora_a.dtype).removeprefix("torch.")
    return q.combine_adapters(_adapters(lora_a, lora_b, **options), weights, out_dtype=name)


def _concatenate_adapters(
    lora_a: Tensor, lora_b: Tensor, *, weights: Sequence[float], **options: Any
) -> tuple[Tensor, Tensor]:
    name = str(lora_a.dtype).removeprefix("torch.")
    made = q.concatenate_adapters(_adapters(lora_a, lora_b, **options), weights, fmt=name)
    return made.lora_a, made.lora_b


def _select_targets(linear: Tensor | None, **options: Any) -> Tensor:
    return q.select_targets(**options, linear=linear)


def _adapter_settings(
    selected: Tensor, *, names: Sequence[str], rank: int, alpha: float, rank_pattern: Mapping[str, int],
    alpha_pattern: Mapping[str, float], rank_stabilized: bool,
) -> tuple[Tensor, ...]:  # fmt: skip
    """What `apply_lora` gives each layer: the options of a config for its name."""
    config = LoraConfig(
        names, rank, alpha, rank_pattern=rank_pattern, alpha_pattern=alpha_pattern, use_rslora=rank_stabilized
    )
    found = [config.options_for(name) if mark else None for name, mark in zip(names, selected.tolist(), strict=True)]
    return (
        torch.tensor([0 if o is None else o.rank for o in found], dtype=torch.int64),
        torch.tensor([0 if o is None else o.alpha for o in found], dtype=torch.float64),
        torch.tensor([0 if o is None else o.scale for o in found], dtype=torch.float64),
    )


def _adapted_model(shapes: Tensor, ranks: Tensor, biases: Tensor, **options: Any) -> nn.ModuleDict:
    """Return a model of linear layers without storage; those of a rank above 0 have an adapter."""
    with torch.device("meta"):
        parts = zip(shapes.tolist(), biases.tolist(), strict=True)
        made: dict[str, nn.Module] = {
            f"layer{index}": nn.Linear(d_in, d_out, bias=has) for index, ((d_out, d_in), has) in enumerate(parts)
        }
        model = nn.ModuleDict({**made, ANCHOR: nn.Linear(1, 1, bias=False)})
    rank_of = {f"layer{index}": rank for index, rank in enumerate(ranks.tolist()) if rank}
    return apply_lora(model, LoraConfig([*rank_of, ANCHOR], 1, rank_pattern=rank_of, **options))


def _count_parameters(
    shapes: Tensor, ranks: Tensor, biases: Tensor, *, bias: str, dora: bool, lora_bias: bool
) -> tuple[Tensor, ...]:
    """Counts of `trainable_parameters`, but where a module refuses what is counted: a bias of the adapter with DoRA."""
    if dora and lora_bias:
        found = q.count_parameters(shapes, ranks, biases=biases, bias=bias, dora=dora, lora_bias=lora_bias)
        return found.base, found.adapter, found.bias
    model = _adapted_model(shapes, ranks, biases, bias=bias, use_dora=dora, lora_bias=lora_bias)
    counts = [_counts(model[f"layer{index}"]) for index in range(len(shapes))]
    return torch.tensor(counts, dtype=torch.int64).reshape(-1, 3).unbind(1)


def _counts(layer: nn.Module) -> tuple[int, int, int]:
    whole = trainable_parameters(layer)
    adapter = trainable_parameters(layer.adapter).total if isinstance(layer, LoRALinear) else 0
    return whole.total - adapter, adapter, whole.trainable - adapter


def _trainable_biases(biases: Tensor, adapted: Tensor, *, bias: str) -> Tensor:
    """Which biases have `requires_grad` after `apply_lora`."""
    model = _adapted_model(torch.full((len(biases), 2), 2), adapted.long(), biases, bias=bias)
    found = (dict(model[f"layer{index}"].named_parameters()).get("bias") for index in range(len(biases)))
    return torch.tensor([parameter is not None and parameter.requires_grad for parameter in found], dtype=torch.bool)


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
