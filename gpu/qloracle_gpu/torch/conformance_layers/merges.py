"""Merges: into the weight that a module holds, in place, so that the module gets a copy of what it is given."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

import qloracle_gpu.torch as q
from qloracle.errors import ArgumentValueError
from qloracle_gpu.torch.conformance_layers.layers import lora_embedding, lora_linear, qlora_linear
from qloracle_gpu.torch.conformance_layers.stored import parts_of, record_of
from qloracle_gpu.torch.modules import LoRAEmbedding, LoRALinear
from qloracle_gpu.torch.modules.adapted_layer import AdaptedLayer
from qloracle_gpu.torch.qlora import QuantizedWeight

FOUR_BITS = ("nf4", "fp4", "linear_signed_4bit", "linear_unsigned_4bit")  # tables that a QuantizedLinear takes
Layer = LoRALinear | LoRAEmbedding
RULE = ("alpha", "rank_stabilized", "fan_in_fan_out", "scales")


def _merging(layers: Callable[..., list[Layer]], change: Callable[[Layer], None]) -> Callable[..., Tensor]:
    """Return the operation that changes the weight of layers, and returns it: NaN where two of them do not agree."""

    def merging(weight: Tensor, **arguments: Any) -> Tensor:
        first, *others = layers(weight, **arguments)
        change(first)
        made = first.weight.detach()
        for other in others:
            change(other)
            made = made.where(_bits(made) == _bits(other.weight.detach()), torch.nan)
        return made

    return merging


def _bits(values: Tensor) -> Tensor:
    return values.view(torch.int32 if values.itemsize == 4 else torch.int16)


def _mergeable(weight: Tensor, **arguments: Any) -> list[Layer]:
    """Return what holds such a weight: a linear layer, and an embedding too if it is stored as one's table is."""
    found: list[Layer] = [lora_linear(weight.clone(), **arguments)]
    if arguments["fan_in_fan_out"] and "magnitude" not in arguments:
        adapter = {name: value for name, value in arguments.items() if name != "fan_in_fan_out"}
        found.append(lora_embedding(weight.clone(), **adapter))
    return found


def _merged(weight: Tensor, **arguments: Any) -> list[Layer]:
    """Return layers that hold a weight which is merged already."""
    found = _mergeable(weight, **arguments)
    for layer in found:
        layer.merge()
        with torch.no_grad():
            layer.weight.copy_(weight)
    return found


def _merge(layer: Layer) -> None:
    layer.merge()


def _unmerge(layer: Layer) -> None:
    layer.unmerge()


def _cycle(layer: AdaptedLayer, cycles: int) -> None:
    for _ in range(cycles):
        layer.merge()
        layer.unmerge()


def _lora_merge_cycles(weight: Tensor, *, cycles: int, **arguments: Any) -> Tensor:
    return _merging(_mergeable, partial(_cycle, cycles=cycles))(weight, **arguments)


def _lora_merge_safe(weight: Tensor, **arguments: Any) -> tuple[Tensor, Tensor]:
    layer, accepted = _mergeable(weight, **arguments)[0], True
    try:
        layer.merge(safe=True)
    except ArgumentValueError:
        accepted = False
    return layer.weight.detach(), torch.tensor(accepted)


def _merge_bias(base_bias: Tensor, lora_bias: Tensor, *, rank: int, unmerge: bool, **adapter: Any) -> Tensor:
    d_out = len(base_bias)
    matrices = base_bias.new_zeros(rank, 1), base_bias.new_zeros(d_out, rank)
    layer = lora_linear(base_bias.new_zeros(d_out, 1), *matrices, base_bias.clone(), lora_bias=lora_bias, **adapter)
    layer.merge()
    own = layer.get_parameter("bias")
    if unmerge:
        with torch.no_grad():
            own.copy_(base_bias)
        layer.unmerge()
    return own.detach()


def _dora_merge(weight: Tensor, **arguments: Any) -> tuple[Tensor, Tensor | None]:
    layer = lora_linear(weight.clone(), **arguments)
    layer.merge()
    return layer.weight.detach(), layer._norms  # noqa: SLF001  # what unmerging will use


def _dora_unmerge(weight: Tensor, norms: Tensor, **arguments: Any) -> Tensor:
    (layer,) = _merged(weight, **arguments)
    layer._norms = norms  # noqa: SLF001  # where merging puts them
    layer.unmerge()
    return layer.weight.detach()


def _merge_stored(*, dtype: str, **arguments: Any) -> tuple[Tensor, ...]:
    """Merge by the module where it has such a weight; it computes fresh scales, and holds no transposed weight."""
    if _module_merges(arguments):
        layer = qlora_linear(**_adapter(arguments), dtype=dtype)
        layer.merge()
        return parts_of(layer.weight.record())
    how = {name: arguments.pop(name) for name in RULE}
    matrices = arguments.pop("lora_a"), arguments.pop("lora_b")
    return parts_of(q.merge_requantize(record_of(arguments, dtype), *matrices, **how))


def _module_merges(arguments: dict[str, Any]) -> bool:
    return (
        arguments.get("scales", "fresh") == "fresh"
        and not arguments["fan_in_fan_out"]
        and arguments.get("codebook", "nf4") in FOUR_BITS
    )


def _adapter(arguments: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in arguments.items() if name not in ("scales", "fan_in_fan_out")}


def _merge_original(
    original: Tensor, lora_a: Tensor, lora_b: Tensor, *, dtype: str, **arguments: Any
) -> tuple[Tensor, ...]:
    how = {name: arguments.pop(name) for name in RULE}
    return parts_of(q.merge_into_original(original, record_of(arguments, dtype), lora_a, lora_b, **how))


def _merge_cycles(*, cycles: int, dtype: str, **arguments: Any) -> Tensor:
    """Merge and unmerge by the module, which has its weight back bit for bit; else by requantizing, which drifts."""
    if _module_merges(arguments):
        layer = qlora_linear(**_adapter(arguments), dtype=dtype)
        _cycle(layer, cycles)
        return q.dequantize_blockwise(layer.weight.record())  # type: ignore[arg-type]
    matrices = arguments.pop("lora_a"), arguments.pop("lora_b")
    how = {name: arguments.pop(name) for name in RULE[:3]}
    record: QuantizedWeight = record_of(arguments, dtype)
    for _ in range(cycles):
        merged = q.merge_requantize(record, *matrices, **how)
        plain = q.dequantize_blockwise(merged)  # type: ignore[arg-type]
        record = q.quantize_like(q.lora_unmerge(plain, *matrices, **how), merged)
    return q.dequantize_blockwise(record)  # type: ignore[arg-type]


OPS: dict[str, Callable[..., Any]] = {
    "lora_merge": _merging(_mergeable, _merge),
    "lora_unmerge": _merging(_merged, _unmerge),
    "lora_merge_safe": _lora_merge_safe,
    "lora_merge_cycles": _lora_merge_cycles,
    "merge_bias": _merge_bias,
    "dora_merge": _dora_merge,
    "dora_unmerge": _dora_unmerge,
    **dict.fromkeys(("merge_blocks", "merge_double", "merge_int8"), _merge_stored),
    "merge_blocks_original": _merge_original,
    "merge_blocks_cycles": _merge_cycles,
}
