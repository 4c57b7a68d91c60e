"""Judging what adapters start from, their combinations, which layers they go to, and how many parameters they have."""

from dataclasses import replace
from math import sqrt

import numpy as np

from qloracle.adapter_patterns import adapter_settings
from qloracle.bounds.combine import combine_bound, concatenate_bound
from qloracle.combining import combine_adapters, concatenate_adapters
from qloracle.counting import count_parameters, trainable_biases
from qloracle.formats import FLOAT32, Array, to_bits
from qloracle.initialization import embedding_init, lora_init
from qloracle.rounding import encode
from qloracle.targets import select_targets
from qloracle.tracking.interval import Interval, exact_input, interval, scaled
from qloracle_conformance.arrays import HostArray
from qloracle_conformance.backend import Claim
from qloracle_conformance.generators.case import Case
from qloracle_conformance.generators.combining import adapters_of
from qloracle_conformance.judge import Allowed, StageResult, from_interval
from qloracle_conformance.operations.operation import Outputs, expect, float_stage, integer_stage
from qloracle_conformance.operations.sums import bound_stage, lattice_stage

START_ROUNDINGS = 5  # of A at level bound: the root, its reciprocal, 2u − 1, the product; or 1/r, std, the product


def judge_init(case: Case, outputs: Outputs, claim: Claim) -> list[StageResult]:
    """Judge A, exactly one rounding, or at level bound a few float32 ones, and B."""
    options, dtype = case.options, case.options["dtype"]
    arguments = {name: options[name] for name in ("initialization", "std")}
    right = lora_init(case.array("draws").items, options["d_out"], **arguments, fmt=dtype)
    return _matrices(case, outputs, right.lora_a, right.lora_b, "lora_a")


def judge_embedding_init(case: Case, outputs: Outputs, claim: Claim) -> list[StageResult]:
    """Judge A, zeros, and B, one rounding of the draws."""
    right = embedding_init(case.array("draws").items, case.options["num_embeddings"], fmt=case.options["dtype"])
    return _matrices(case, outputs, right.lora_a, right.lora_b, "")


def _matrices(case: Case, outputs: Outputs, a: Array, b: Array, free: str) -> list[StageResult]:
    dtype, stages = case.options["dtype"], []
    for index, (name, right) in enumerate((("lora_a", a), ("lora_b", b))):
        got = expect(outputs, index, name, dtype, right.shape)
        if isinstance(got, StageResult):
            stages.append(got)
            continue
        result = float_stage(name, got, to_bits(right, dtype), dtype)
        stages.append(_with_bound(result, case, dtype) if name == free else result)
    return stages


def _with_bound(result: StageResult, case: Case, dtype: str) -> StageResult:
    """Add the limits of an implementation that computes A in float32."""
    draws = case.array("draws").items.astype(np.float64)
    factor, around = _factor(case), np.abs(draws)
    value = factor * draws
    if case.options["initialization"] == "kaiming":
        value, around = factor * (2 * draws - 1), 2 * np.abs(draws) + 1
    reach = interval(FLOAT32, (scaled(exact_input(around), factor, START_ROUNDINGS, FLOAT32), 1))
    radius = reach.hi - factor * around
    limits = from_interval(Interval(value - radius, value + radius, reach.judged), dtype)
    one = result.allowed["exact"]
    bound = Allowed(np.minimum(limits.lo, one.lo), np.maximum(limits.hi, one.hi))
    return replace(result, allowed={**result.allowed, "bound": bound})


def _factor(case: Case) -> float:
    rank, d_in = case.array("draws").shape
    if case.options["initialization"] == "kaiming":
        return 1 / sqrt(d_in)
    return 1 / rank if case.options["std"] is None else float(case.options["std"])


def judge_combine(case: Case, outputs: Outputs, claim: Claim) -> list[StageResult]:
    """Judge the change of the weight that several adapters make."""
    adapters, weights = adapters_of(case), case.options["weights"]
    value = combine_adapters(adapters, weights)
    got = expect(outputs, 0, "delta", case.array("lora_a").dtype, value.shape)
    if isinstance(got, StageResult):
        return [got]
    if not case.lattice:
        return [bound_stage("delta", got, value, combine_bound(adapters, weights, roundings=claim.roundings))]
    result = lattice_stage("delta", got, value)
    if result.allowed["exact"].accepts(result.got).all():
        return [result]
    return [replace(result, cause=_mistake(case, got))]


def _mistake(case: Case, got: HostArray) -> str:
    """Name the known mistake under which the sum is what the backend returned."""
    adapters, weights = adapters_of(case), case.options["weights"]
    twice = [replace(a, alpha=a.alpha * _scale(a.alpha, a.lora_a, stabilized=a.rank_stabilized)) for a in adapters]
    first = [replace(a, alpha=adapters[0].alpha, rank_stabilized=adapters[0].rank_stabilized) for a in adapters]
    wrong = {
        "the scale is applied twice": combine_adapters(twice, weights),
        "all adapters have the alpha of the first": combine_adapters(first, weights),
        "the weights are left out": combine_adapters(adapters, [1.0] * len(adapters)),
    }
    for name, value in wrong.items():
        stage = lattice_stage("delta", got, value)
        if stage.allowed["exact"].accepts(stage.got).all():
            return name
    return ""


def _scale(alpha: float, lora_a: Array, *, stabilized: bool) -> float:
    return alpha / (sqrt(len(lora_a)) if stabilized else len(lora_a))


def judge_concatenate(case: Case, outputs: Outputs, claim: Claim) -> list[StageResult]:
    """Judge the stacked A, scaled, and B, which is copied."""
    adapters, weights, dtype = adapters_of(case), case.options["weights"], case.array("lora_a").dtype
    right = concatenate_adapters(adapters, weights)
    limits = concatenate_bound(adapters, weights, roundings=claim.roundings)
    shapes = {"lora_a": right.lora_a.shape, "lora_b": right.lora_b.shape}
    found = {name: expect(outputs, i, name, dtype, shape) for i, (name, shape) in enumerate(shapes.items())}
    stages = []
    for name, got in found.items():
        if isinstance(got, StageResult):
            stages.append(got)
        elif name == "lora_b":
            stages.append(float_stage(name, got, encode(right.lora_b, dtype), dtype))
        elif case.lattice:
            stages.append(lattice_stage(name, got, (limits.lo + limits.hi) / 2))
        else:
            stages.append(bound_stage(name, got, (limits.lo + limits.hi) / 2, limits))
    return stages


def judge_targets(case: Case, outputs: Outputs, claim: Claim) -> list[StageResult]:
    """Judge which names are selected."""
    options, marks = case.options, case.inputs["linear"]
    chosen = {name: options[name] for name in ("exclude", "layers", "layers_pattern")}
    linear = None if marks is None else marks.items
    right = select_targets(options["names"], options["targets"], linear=linear, **chosen)
    got = expect(outputs, 0, "selected", "bool", right.shape)
    return [got if isinstance(got, StageResult) else integer_stage("selected", got, right)]


def judge_patterns(case: Case, outputs: Outputs, claim: Claim) -> list[StageResult]:
    """Judge rank and alpha of each layer, and its scale given both."""
    right = adapter_settings(**case.options, selected=case.array("selected").items)
    stages = []
    for index, (name, dtype, values) in enumerate(
        (("rank", "int64", right.rank), ("alpha", "float64", right.alpha), ("scale", "float64", right.scale))
    ):
        got = expect(outputs, index, name, dtype, values.shape)
        if isinstance(got, StageResult):
            stages.append(got)
        elif dtype == "int64":
            stages.append(integer_stage(name, got, values))
        else:
            stages.append(float_stage(name, got, values.view(np.uint64), "float64"))
    return stages


def judge_count(case: Case, outputs: Outputs, claim: Claim) -> list[StageResult]:
    """Judge the counts of each layer."""
    shapes, ranks, biases = (case.array(name).items for name in ("shapes", "ranks", "biases"))
    right = count_parameters(shapes, ranks, biases=biases, **case.options)
    stages = []
    for index, (name, values) in enumerate(vars(right).items()):
        got = expect(outputs, index, name, "int64", values.shape)
        stages.append(got if isinstance(got, StageResult) else integer_stage(name, got, values))
    return stages


def judge_biases(case: Case, outputs: Outputs, claim: Claim) -> list[StageResult]:
    """Judge which biases train."""
    right = trainable_biases(case.array("biases").items, case.array("adapted").items, case.options["bias"])
    got = expect(outputs, 0, "trains", "bool", right.shape)
    return [got if isinstance(got, StageResult) else integer_stage("trains", got, right)]


def init_intermediates(case: Case) -> dict[str, Array]:
    """Return what `explain` prints: the draws and their multiples."""
    draws = case.array("draws").items
    if "initialization" not in case.options:
        return {"draw": draws}
    value = 2 * draws.astype(np.float64) - 1 if case.options["initialization"] == "kaiming" else draws
    return {"draw": draws, "times the factor": _factor(case) * value}


def combine_intermediates(case: Case) -> dict[str, Array]:
    """Return what `explain` prints: the sum of the changes."""
    return {"sum of w s B A": combine_adapters(adapters_of(case), case.options["weights"])}


def plain_intermediates(case: Case) -> dict[str, Array]:
    """Return what `explain` prints of names and counts: the inputs."""
    return {name: array.items for name, array in case.inputs.items() if array is not None}
