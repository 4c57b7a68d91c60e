"""Judging merges of LoRA adapters into weights and biases, safe merges, and cycles of merges."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from qloracle.bounds.cycles import merge_cycles_bound
from qloracle.bounds.merge import lora_merge_bound, merge_bias_bound
from qloracle.formats import Array, from_bits
from qloracle.lora import lora_scale
from qloracle.merge_operands import low_rank
from qloracle.merging import lora_merge, lora_unmerge
from qloracle.rounding import decode, encode
from qloracle.tracking.interval import Interval
from qloracle_conformance.backend import Claim
from qloracle_conformance.generators.case import Case
from qloracle_conformance.judge import StageResult, either_zero, exactly, failed_stage, float_ordinals
from qloracle_conformance.operations.operation import Outputs, expect
from qloracle_conformance.operations.sums import bound_stage, lattice_stage

Arguments = dict[str, Any]
_CYCLES_SHOWN = 3


def arguments_of(case: Case, names: tuple[str, ...] = ("weight", "lora_a", "lora_b")) -> Arguments:
    """Return the arguments of the reference: arrays as float32 and the options."""
    arrays = {name: case.array(name).single() for name in names}
    options = {n: case.options[n] for n in ("alpha", "rank_stabilized", "fan_in_fan_out") if n in case.options}
    return {**arrays, **options}


def merged_value(arguments: Arguments, sign: float = 1.0) -> Array:
    """Return W + s B A as it is stored, in float64."""
    weight, fan = arguments["weight"].astype(np.float64), arguments["fan_in_fan_out"]
    a, b = (arguments[n].astype(np.float64) for n in ("lora_a", "lora_b"))
    scale = sign * lora_scale(arguments["alpha"], len(a), rank_stabilized=arguments["rank_stabilized"])
    with np.errstate(all="ignore"):
        change = scale * low_rank(a, b)
        value: Array = weight + (change.T if fan else change)
    return value


def judge_merge(case: Case, outputs: Outputs, claim: Claim) -> list[StageResult]:
    """Judge the merged weight."""
    return [_merge_stage(case, outputs, claim, unmerge=False)]


def judge_unmerge(case: Case, outputs: Outputs, claim: Claim) -> list[StageResult]:
    """Judge the unmerged weight."""
    return [_merge_stage(case, outputs, claim, unmerge=True)]


def _merge_stage(case: Case, outputs: Outputs, claim: Claim, *, unmerge: bool) -> StageResult:
    arguments, sign = arguments_of(case), -1.0 if unmerge else 1.0

    def value(changed: Arguments) -> Array:
        return merged_value(changed, sign)

    def bound() -> Interval:
        return lora_merge_bound(**arguments, unmerge=unmerge, roundings=claim.roundings)

    return sum_stage(case, outputs, "weight", arguments, value, bound)


def sum_stage(
    case: Case, outputs: Outputs, stage: str, arguments: Arguments, value: Callable[[Arguments], Array],
    bound: Callable[[], Interval],
) -> StageResult:  # fmt: skip
    """Judge output 0: exact on a lattice, where a known mistake is named that explains what is wrong; else in bound."""
    first = "base_bias" if stage == "bias" else "weight"
    right = value(arguments)
    got = expect(outputs, 0, stage, case.array(first).dtype, case.array(first).shape)
    if isinstance(got, StageResult):
        return got
    if not case.lattice:
        return bound_stage(stage, got, right, bound())
    result = lattice_stage(stage, got, right)
    if result.allowed["exact"].accepts(result.got).all():
        return result
    return replace(result, cause=_named_mistake(arguments, value, got.words(), got.dtype))


def _named_mistake(arguments: Arguments, value: Callable[[Arguments], Array], words: Array, dtype: str) -> str:
    for name, changed in _mistakes(arguments).items():
        with np.errstate(all="ignore"):
            wrong = either_zero(exactly(float_ordinals(encode(value(changed), dtype), dtype)))
        if wrong.lo.shape == words.shape and wrong.accepts(float_ordinals(words, dtype)).all():
            return name
    return ""


def _mistakes(arguments: Arguments) -> dict[str, Arguments]:
    """Return arguments that turn the right formula into well-known wrong ones."""
    rank = len(arguments["lora_a"]) if "lora_a" in arguments else arguments["rank"]
    alpha, stabilized = arguments["alpha"], arguments["rank_stabilized"]
    unit = float(np.sqrt(rank)) if stabilized else float(rank)
    wrong = {
        "alpha is used instead of alpha/r": {**arguments, "alpha": alpha * unit},
        "the scale alpha/r is missing": {**arguments, "alpha": unit},
        "the scale is applied twice": {**arguments, "alpha": alpha * alpha / unit},
        "alpha/r and alpha/sqrt(r) are mixed up": {**arguments, "rank_stabilized": not stabilized},
        "the adapter is missing": {**arguments, "alpha": 0.0},
        "the adapter is added twice": {**arguments, "alpha": 2 * alpha},
        "the adapter has the wrong sign": {**arguments, "alpha": -alpha},
    }
    shape = arguments["weight"].shape if "weight" in arguments else (0, 1)
    if shape[0] == shape[1]:
        wrong["fan_in_fan_out is ignored"] = {**arguments, "fan_in_fan_out": not arguments["fan_in_fan_out"]}
    return wrong


def judge_safe(case: Case, outputs: Outputs, claim: Claim) -> list[StageResult]:
    """Judge whether the merge was accepted, and the weight: merged if it was, else the old one bit by bit."""
    arguments = arguments_of(case)
    accepted = expect(outputs, 1, "accepted", "bool", ())
    if isinstance(accepted, StageResult):
        return [accepted, failed_stage("weight", "judged given whether the merge was accepted")]
    dtype, value = case.array("weight").dtype, merged_value(arguments)
    bound = lora_merge_bound(**arguments, roundings=claim.roundings)
    finite = [np.isfinite(decode(encode(end, dtype), dtype)) for end in (value, bound.lo, bound.hi)]
    known = bool((bound.judged & (finite[1] == finite[2])).all()) or case.lattice
    verdict = np.array([int(finite[0].all())], np.int64)
    got = accepted.items.astype(np.int64).reshape(1)
    first = StageResult("accepted", got, {"exact": exactly(verdict if known else got)}, words=accepted.words())
    if bool(accepted.items):
        weight = sum_stage(case, outputs, "weight", arguments, merged_value, lambda: bound)
        return [first, weight]
    return [first, _as_it_was(case, outputs)]


def _as_it_was(case: Case, outputs: Outputs) -> StageResult:
    given = case.array("weight")
    got = expect(outputs, 0, "weight", given.dtype, given.shape)
    if isinstance(got, StageResult):
        return got
    allowed = {"exact": exactly(given.words().astype(np.int64))}
    return StageResult("weight", got.words().astype(np.int64), allowed, words=got.words(), dtype=given.dtype)


def judge_cycles(case: Case, outputs: Outputs, claim: Claim) -> list[StageResult]:
    """Judge the weight after some cycles of merging and unmerging."""
    arguments, dtype = arguments_of(case), case.array("weight").dtype

    def value(changed: Arguments) -> Array:
        options = {n: changed[n] for n in ("alpha", "rank_stabilized", "fan_in_fan_out")}
        state = from_bits(encode(changed["weight"], dtype), dtype)
        for _ in range(case.options["cycles"]):
            for step in (lora_merge, lora_unmerge):
                state = step(state, changed["lora_a"], changed["lora_b"], **options, fmt=dtype)
        return decode(state, dtype)

    def bound() -> Interval:
        given = {**arguments, "weight": case.array("weight").items}
        return merge_cycles_bound(**given, cycles=case.options["cycles"], fmt=dtype, roundings=claim.roundings)

    return [sum_stage(case, outputs, "weight", arguments, value, bound)]


def judge_bias(case: Case, outputs: Outputs, claim: Claim) -> list[StageResult]:
    """Judge a merged or unmerged bias."""
    arguments = {**arguments_of(case, ("base_bias", "lora_bias")), "rank": case.options["rank"]}
    sign = -1.0 if case.options["unmerge"] else 1.0

    def value(changed: Arguments) -> Array:
        scale = sign * lora_scale(changed["alpha"], changed["rank"], rank_stabilized=changed["rank_stabilized"])
        result: Array = changed["base_bias"].astype(np.float64) + scale * changed["lora_bias"].astype(np.float64)
        return result

    def bound() -> Interval:
        given = {**{n: v for n, v in arguments.items() if n != "base_bias"}, "bias": arguments["base_bias"]}
        return merge_bias_bound(**given, unmerge=case.options["unmerge"], roundings=claim.roundings)

    return [sum_stage(case, outputs, "bias", arguments, value, bound)]


def merge_intermediates(case: Case) -> dict[str, Array]:
    """Return what `explain` prints: the weight, its change, their sum."""
    arguments = arguments_of(case)
    return {"W": arguments["weight"], "s B A": change_of(arguments), "W + s B A": merged_value(arguments)}


def unmerge_intermediates(case: Case) -> dict[str, Array]:
    """Return what `explain` prints: the merged weight, the change to take out, their difference."""
    arguments = arguments_of(case)
    return {"W": arguments["weight"], "s B A": change_of(arguments), "W - s B A": merged_value(arguments, -1.0)}


def cycles_intermediates(case: Case) -> dict[str, Array]:
    """Return what `explain` prints: the weight after every merge and unmerge, or the first few and the last ones."""
    arguments, dtype, cycles = arguments_of(case), case.array("weight").dtype, case.options["cycles"]
    shown = {"W": arguments["weight"], "s B A": change_of(arguments)}
    state = from_bits(encode(arguments["weight"], dtype), dtype)
    options = {n: arguments[n] for n in ("alpha", "rank_stabilized", "fan_in_fan_out")}
    for cycle in range(1, cycles + 1):
        for step, name in ((lora_merge, "merged"), (lora_unmerge, "unmerged")):
            state = step(state, arguments["lora_a"], arguments["lora_b"], **options, fmt=dtype)
            if cycle <= _CYCLES_SHOWN or cycle == cycles:
                shown[f"{name} {cycle}"] = decode(state, dtype)
    return shown


def bias_intermediates(case: Case) -> dict[str, Array]:
    """Return what `explain` prints: both biases, the scale, the multiple and the sum."""
    options = case.options
    bias, change = (case.array(name).real() for name in ("base_bias", "lora_bias"))
    scale = lora_scale(options["alpha"], options["rank"], rank_stabilized=options["rank_stabilized"])
    with np.errstate(all="ignore"):
        part = scale * change
        total = ("b - s b_B", bias - part) if options["unmerge"] else ("b + s b_B", bias + part)
    return {"s": np.asarray(scale), "base_bias": bias, "lora_bias": change, "s b_B": part, total[0]: total[1]}


def change_of(arguments: Arguments) -> Array:
    """Return s B A as it is added to the stored weight."""
    return merged_value({**arguments, "weight": np.zeros_like(arguments["weight"])})
