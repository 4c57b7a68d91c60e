"""Which layers PEFT adapts, with which rank and alpha, how many parameters train, and which biases."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from peft.tuners.lora import LoraLayer, LoraModel
from peft.tuners.tuners_utils import _maybe_include_all_linear_layers

from qloracle_conformance.adapters.peft.layers import LoraConfig, get_peft_model

Tensor = torch.Tensor
Names = tuple[str, ...]
ANCHOR = "anchor"  # a layer that always has an adapter: PEFT refuses a model in which it finds none


def model_of(modules: Mapping[str, torch.nn.Module]) -> torch.nn.Module:
    """Return a model whose modules have the given names; dots make nested modules."""
    root = torch.nn.Module()
    for name, module in modules.items():
        parent = root
        *path, last = name.split(".")
        for part in path:
            if not hasattr(parent, part):
                parent.add_module(part, torch.nn.Module())
            parent = parent.get_submodule(part)
        parent.add_module(last, module)
    return root


def exactly(names: Sequence[str]) -> str:
    """Return the regular expression of ``target_modules`` that matches these names and no other."""
    return "|".join(re.escape(name) for name in (ANCHOR, *names))


def layers_of(model: Any) -> dict[str, LoraLayer]:
    """Return the layers with an adapter by their names in the model that was given."""
    found = model.base_model.model.named_modules()
    return {name: module for name, module in found if isinstance(module, LoraLayer)}


def select_targets(
    linear: Tensor | None, *, names: Names, targets: str | Names, exclude: str | Names,
    layers: tuple[int, ...] | None, layers_pattern: str | None,
) -> Tensor:  # fmt: skip
    """PEFT's own tests of each name, in the order in which ``get_peft_model`` makes them."""
    config = LoraConfig(
        target_modules=targets if isinstance(targets, str) else list(targets),
        exclude_modules=exclude if isinstance(exclude, str) else list(exclude),
        layers_to_transform=None if layers is None else list(layers),
        layers_pattern=layers_pattern,
    )
    marks = [True] * len(names) if linear is None else linear.tolist()
    with torch.device("meta"):
        made = {n: torch.nn.Linear(1, 1) if m else torch.nn.Embedding(1, 1) for n, m in zip(names, marks, strict=True)}
    config = _maybe_include_all_linear_layers(config, model_of(made))
    chosen = [bool(LoraModel._check_target_module_exists(config, name)) for name in names]  # noqa: SLF001
    return torch.tensor(chosen)


def adapter_settings(
    selected: Tensor, *, names: Names, rank: int, alpha: float, rank_pattern: Mapping[str, int],
    alpha_pattern: Mapping[str, float], rank_stabilized: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """What each layer of a model has after ``get_peft_model``."""
    with torch.device("meta"):
        model = model_of({name: torch.nn.Linear(1, 1) for name in (*names, ANCHOR)})
    chosen = [name for name, mark in zip(names, selected.tolist(), strict=True) if mark]
    config = LoraConfig(
        r=rank, lora_alpha=alpha, rank_pattern=dict(rank_pattern), alpha_pattern=dict(alpha_pattern),
        use_rslora=rank_stabilized, target_modules=exactly(chosen),
    )  # fmt: skip
    found = layers_of(get_peft_model(model, config, low_cpu_mem_usage=True))
    none: dict[str, Any] = {"default": 0}

    def column(attribute: str, dtype: torch.dtype) -> Tensor:
        values = [getattr(found[name], attribute, none)["default"] if name in found else 0 for name in names]
        return torch.tensor(values, dtype=dtype)

    return column("r", torch.int64), column("lora_alpha", torch.float64), column("scaling", torch.float64)


def adapted_model(shapes: Tensor, ranks: Tensor, biases: Tensor, *, bias: str, **settings: Any) -> tuple[Any, Names]:
    """Return a model of linear layers without storage, some of which have an adapter, and their names."""
    names = tuple(f"layer{index}" for index in range(len(shapes)))
    with torch.device("meta"):
        parts = zip(names, shapes.tolist(), biases.tolist(), strict=True)
        made = {name: torch.nn.Linear(d_in, d_out, bias=has) for name, (d_out, d_in), has in parts}
        made[ANCHOR] = torch.nn.Linear(1, 1, bias=False)
    rank_of = {name: rank for name, rank in zip(names, ranks.tolist(), strict=True) if rank}
    config = LoraConfig(r=1, rank_pattern=rank_of, target_modules=exactly(list(rank_of)), bias=bias, **settings)
    return get_peft_model(model_of(made), config, low_cpu_mem_usage=True), names


def count_parameters(
    shapes: Tensor, ranks: Tensor, biases: Tensor, *, bias: str, dora: bool, lora_bias: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Sizes of the parameters that there are, and of those that train."""
    model, names = adapted_model(shapes, ranks, biases, bias=bias, use_dora=dora, lora_bias=lora_bias)
    counts = []
    for name in names:
        module = model.base_model.model.get_submodule(name)
        base = module.get_base_layer() if isinstance(module, LoraLayer) else module
        own = {id(p) for p in base.parameters()}
        trained = [p for p in module.parameters() if p.requires_grad]
        counts.append((
            sum(p.numel() for p in base.parameters()),
            sum(p.numel() for p in trained if id(p) not in own),
            sum(p.numel() for p in trained if id(p) in own),
        ))  # fmt: skip
    columns = torch.tensor(counts, dtype=torch.int64).reshape(-1, 3).unbind(1)
    return columns[0].contiguous(), columns[1].contiguous(), columns[2].contiguous()


def trainable_biases(biases: Tensor, adapted: Tensor, *, bias: str) -> Tensor:
    """Which biases have ``requires_grad`` after ``get_peft_model``."""
    shapes = torch.full((len(biases), 2), 2)
    model, names = adapted_model(shapes, adapted.long(), biases, bias=bias)
    modules = [model.base_model.model.get_submodule(name) for name in names]
    return torch.tensor([m.bias is not None and m.bias.requires_grad for m in modules])
