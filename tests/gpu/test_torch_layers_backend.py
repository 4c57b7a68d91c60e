"""The modules as the conformance suite sees them, and faults planted in them."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from qloracle_conformance.backend import Backend, describe
from qloracle_conformance.execution import InProcess
from qloracle_conformance.plan import make_plan
from qloracle_conformance.registry import OPERATIONS
from qloracle_conformance.run import run_task
from qloracle_gpu.torch import conformance_layers, lora
from qloracle_gpu.torch.merge_operands import require_finite
from qloracle_gpu.torch.modules import (
    adapted_layer,
    adapter,
    applying,
    config,
    lora_embedding,
    lora_linear,
    qlora_linear,
    quantized_linear,
    quantized_tensor,
)

from .suite_runs import passed_operations

MODULES = conformance_layers.backend()
LAYERS = "qloracle_gpu.torch.conformance_layers"
Plant = Callable[[pytest.MonkeyPatch], None]


def broken_by(family: str, profile: str = "smoke", backend: Backend = MODULES) -> set[str]:
    """Operation and stage of what the suite accuses by wrong values, judging a family of cases in this process."""
    operation, _, name = family.rpartition(".")
    plan = make_plan(describe(backend), profile, 0, f"{operation}.*.{name}")
    assert plan.tasks, f"{family} selects nothing"
    found = [result for task in plan.tasks for result in run_task(InProcess(backend), replace(task, examples=0))]
    return {f"{r.operation}.{r.stage}" for r in found if r.status == "fail"}


@dataclass(frozen=True)
class Fault:
    """A fault of a module, the family of cases that should see it, and the stage that it should accuse."""

    plant: Plant
    family: str
    accused: str
    profile: str = "smoke"  # "default" where only one case in many asks the module


def changed(place: Any, name: str, fault: Callable[..., Any]) -> Plant:
    """Let a function of a module be called by `fault`, which is given the right one first."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        right = getattr(place, name)

        def planted(*args: Any, **options: Any) -> Any:
            return fault(right, *args, **options)

        planted.__wrapped__ = planted  # type: ignore[attr-defined]  # operators call what a rule wraps
        patch.setattr(place, name, planted)

    return plant


def method(place: Any, name: str, fault: Callable[..., Any]) -> Plant:
    """The same for a method: `fault` is given the right one, then the object."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        right = getattr(place, name)
        patch.setattr(place, name, lambda self, *args, **options: fault(right, self, *args, **options))

    return plant


def unscaled(right: Any, self: Any, *args: Any, **options: Any) -> Any:
    how = right(self, *args, **options)
    return replace(how, alpha=how.alpha * (self.options.rank**0.5 if how.rank_stabilized else self.options.rank))


def dropped_base(right: Any, x: Any, weight: Any, trained: Any, mask: Any, how: Any) -> Any:
    return right(x if mask is None else x * mask / (1 - how.dropout), weight, trained, None, replace(how, dropout=0.0))


def through_the_norm(right: Any, x: Any, weight: Any, trained: Any, mask: Any, how: Any) -> Any:
    scale = how.alpha / (trained.lora_a.shape[0] ** (0.5 if how.rank_stabilized else 1))
    merged = weight.float() + scale * trained.lora_b @ trained.lora_a
    y = x.float() @ (merged * (trained.magnitude / merged.norm(dim=1))[:, None]).T + trained.bias
    return y.to(x.dtype)


def narrow_product(right: Any, x: Any, weight: Any, trained: Any, *rest: Any) -> Any:
    return right(x, weight, replace(trained, lora_a=trained.lora_a.bfloat16().float()), *rest)


def twice(right: Any, weight: Any, *args: Any, **options: Any) -> Any:
    return right(right(weight, *args, **options), *args, **options)


def through_bfloat16(right: Any, weight: Any, *args: Any, **options: Any) -> Any:
    return right(weight, *args, **options).bfloat16().to(weight.dtype)


def without_last_row(right: Any, dy: Any, *args: Any, **options: Any) -> Any:
    found = right(dy, *args, **options)
    return replace(found, bias=dy.reshape(-1, dy.shape[-1])[:-1].float().sum(0))


def reshaped(right: Any, ids: Any, weight: Any, lora_a: Any, *rest: Any) -> Any:
    return right(ids, weight, lora_a.T.reshape(lora_a.shape), *rest)


def rounded_formats(right: Any, *args: Any) -> Any:
    return replace(right(*args), compute=torch.bfloat16)


def kept_scales(right: Any, *args: Any, **options: Any) -> Any:
    return right(*args, **options, scales="kept")


def written_before_looking(right: Any, self: Any, *, safe: bool = False) -> Any:
    made = right(self)
    self.weight.copy_(made[0])
    if safe:
        require_finite(made[0])
    return made


def half_taken_out(right: Any, self: Any) -> None:
    right(self)
    self.weight._buffers["absmax"] = self.weight.absmax / 2


def of_other_rank(right: Any, *args: Any, **options: Any) -> Any:
    return right(*args, **{**options, "rank": options["rank"] + 1})


def kept_the_rest(right: Any, self: Any, x: Any) -> Any:
    mask = right(self, x)
    return mask if mask is None else ~mask


def without_offset(right: Any, codes: Any, absmax: Any, absmax_codes: Any, offset: Any, *settings: Any) -> Any:
    return right(codes, absmax, absmax_codes, None if offset is None else 0 * offset, *settings)


def larger_threshold(right: Any, *args: Any, threshold: Any) -> Any:
    return right(*args, threshold=threshold and 1.5 * threshold)


def one_rank_more(right: Any, options: Any, *rest: Any) -> Any:
    return right(replace(options, rank=options.rank + 1), *rest)


def misread(right: Any, weight: Any, *args: Any, **options: Any) -> Any:
    return right(weight.T.contiguous().reshape(weight.shape), *args, **options)


FAULTS = {
    "alpha instead of alpha/r": Fault(
        method(adapter.Adapter, "product", unscaled), "lora.forward.limits", "lora.forward.scale"
    ),
    "dropout on the base": Fault(
        changed(lora_linear, "adapted", dropped_base), "lora.forward.squares", "lora.forward.whole"
    ),
    "dropout keeps what it should drop": Fault(
        method(adapter.Adapter, "dropout_mask", kept_the_rest),
        "qlora.forward.limits",
        "qlora.forward.dropout",
    ),
    "the gradient goes through DoRA's norm": Fault(
        changed(lora_linear, "adapted", through_the_norm), "dora.backward.squares", "dora.backward.lora_b"
    ),
    "A of 8 bits in the adapter's product": Fault(
        changed(lora_linear, "adapted", narrow_product), "lora.forward.few", "lora.forward.whole"
    ),
    "merged twice": Fault(changed(lora_linear, "lora_merge", twice), "lora.merge.small_lattice", "lora.merge.weight"),
    "DoRA merged twice": Fault(
        changed(lora_linear, "dora_merge", lambda right, w, *a, **o: right(right(w, *a, **o).weight, *a, **o)),
        "dora.merge.small_lattice",
        "dora.merge.norms",
    ),
    "unmerging loses bits": Fault(
        changed(lora_linear, "lora_unmerge", through_bfloat16), "lora.unmerge.normal", "lora.unmerge.weight"
    ),
    "unmerging forgets DoRA's norms": Fault(
        changed(lora_linear, "MergedDora", lambda right, w, n: right(w, torch.ones_like(n))),
        "dora.unmerge.small_lattice",
        "dora.unmerge.weight",
    ),
    "the bias gradient lacks a row": Fault(
        changed(lora, "lora_backward", without_last_row), "lora.backward.squares", "lora.backward.bias"
    ),
    "A of an embedding read row by row": Fault(
        changed(lora_embedding, "looked_up", reshaped), "embedding.forward.small_lattice", "embedding.forward.adapter"
    ),
    "an embedding merges untransposed": Fault(
        changed(lora_embedding, "lora_merge", misread),
        "lora.merge.small_lattice",
        "lora.merge.weight",
    ),
    "rsLoRA is forgotten in merges": Fault(
        method(adapted_layer.AdaptedLayer, "_scale", lambda right, self: {**right(self), "rank_stabilized": False}),
        "lora.merge.small_lattice",
        "lora.merge.weight",
    ),
    "the adapter's bias merges with another rank": Fault(
        changed(adapted_layer, "merge_bias", of_other_rank), "bias.merge.small_lattice", "bias.merge.bias"
    ),
    "a safe merge writes before it looks": Fault(
        method(lora_linear.LoRALinear, "merged_parameters", written_before_looking),
        "lora.merge_safe.specials",
        "lora.merge_safe.weight",
    ),
    "the weight is rounded to bfloat16": Fault(
        changed(qlora_linear, "compute_formats", rounded_formats), "qlora.forward.few", "qlora.forward.whole"
    ),
    "scales stay when a quantized weight merges": Fault(
        changed(qlora_linear, "merge_requantize", kept_scales), "blocks.merge.normal", "blocks.merge.absmax"
    ),
    "unmerging halves the absmax": Fault(
        method(qlora_linear.QLoRALinear, "_take_out", half_taken_out),
        "blocks.merge_cycles.tiles",
        "blocks.merge_cycles.values",
    ),
    "the nested codebook of absmax is another": Fault(
        changed(
            quantized_linear, "quantize_double", lambda right, *a, **o: right(*a, **{**o, "nested_codebook": "nf4"})
        ),
        "nf4_double.quantize.normal",
        "nf4_double.quantize.nested_codes",
    ),
    "the offset of absmax is dropped": Fault(
        changed(quantized_tensor, "FlatWeight", without_offset),
        "qlora_double.forward.small_lattice",
        "qlora_double.forward.base",
    ),
    "a larger threshold for outliers": Fault(
        changed(quantized_linear, "Product", larger_threshold),
        "llm_int8.forward.thresholds",
        "llm_int8.forward.y",
        "default",
    ),
    "Kaiming-uniform becomes Gaussian": Fault(
        changed(adapter, "lora_init", lambda right, d, n, **o: right(d, n, initialization="gaussian")),
        "lora.init.range_ends",
        "lora.init.lora_a",
    ),
    "lora_only trains all biases": Fault(
        changed(applying, "_train_biases", lambda right, model, mode: right(model, "all")),
        "adapters.biases.modes",
        "adapters.biases.trains",
    ),
    "rank patterns are ignored": Fault(
        changed(config, "of_pattern", lambda right, argument, patterns, name, default: default),
        "adapters.patterns.patterns",
        "adapters.patterns.rank",
    ),
    "an adapter has one rank more": Fault(
        changed(lora_linear, "linear_matrices", one_rank_more), "adapters.count.shapes", "adapters.count.adapter"
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_planted_in_a_module_is_accused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fault = FAULTS[name]
    assert not broken_by(fault.family, fault.profile), "accused without the fault"
    fault.plant(monkeypatch)
    assert fault.accused in broken_by(fault.family, fault.profile), f"{name} passes {fault.family}"


def test_what_is_claimed_of_modules_needs_a_source_and_has_a_function() -> None:
    missing = [c.operation for c in MODULES.claims if OPERATIONS[c.operation].function not in MODULES.ops]
    assert not missing, f"claimed, but there is no function for {missing}"
    assert {c.basis for c in MODULES.claims} == {"promised"}


def test_only_quantized_layers_have_another_compute_dtype() -> None:
    narrow = conformance_layers.backend_bfloat16()
    assert {c.roundings.weight for c in narrow.claims} == {"bfloat16"} == {d for c in narrow.claims for d in c.dtypes}
    assert {c.operation for c in narrow.claims} < {c.operation for c in MODULES.claims}


def test_layers_that_compute_in_bfloat16_round_their_weight_to_it() -> None:
    claimed = [c for c in conformance_layers.backend_bfloat16().claims if c.operation == "qlora.forward"]
    strict = replace(claimed[0], roundings=replace(claimed[0].roundings, weight="float32"))
    faulty = replace(conformance_layers.backend_bfloat16(), claims=(strict,))
    assert "qlora.forward.whole" in broken_by("qlora.forward.normal", "default", faulty)
    honest = replace(faulty, claims=tuple(claimed))
    assert not broken_by("qlora.forward.normal", "default", honest)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["backend", "backend_bfloat16"])
def test_the_suite_finds_no_fault_of_the_modules(name: str, tmp_path: Path) -> None:
    passed = passed_operations(f"{LAYERS}:{name}", tmp_path)
    assert {c.operation for c in getattr(conformance_layers, name)().claims} <= passed
