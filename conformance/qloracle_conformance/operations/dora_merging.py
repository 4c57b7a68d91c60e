"""Judging merges of DoRA adapters, and how they are taken out again."""

import numpy as np

from qloracle.bounds.dora_merge import dora_merge_bound
from qloracle.bounds.dora_unmerge import dora_unmerge_bound
from qloracle.dora import merged_rows, over_norms, row_norms
from qloracle.dora_merging import MergedDora, unmerge_factor
from qloracle.formats import Array
from qloracle.lora import lora_scale
from qloracle.tracking.interval import Interval
from qloracle_conformance.backend import Claim
from qloracle_conformance.generators.case import Case
from qloracle_conformance.judge import StageResult
from qloracle_conformance.operations.merging import Arguments, arguments_of, change_of, merged_value, sum_stage
from qloracle_conformance.operations.operation import Outputs, expect
from qloracle_conformance.operations.sums import bound_stage, lattice_stage


def judge_dora_merge(case: Case, outputs: Outputs, claim: Claim) -> list[StageResult]:
    """Judge the norms, and the weight merged with them."""
    arguments = arguments_of(case, ("weight", "lora_a", "lora_b", "magnitude"))
    d_out, fan = len(arguments["magnitude"]), arguments["fan_in_fan_out"]
    norms = expect(outputs, 1, "norms", "float32", (d_out,))
    merged, limits = dora_merge_bound(**arguments, roundings=claim.roundings)
    with np.errstate(all="ignore"):
        rows = _rows(arguments)
        lengths = row_norms(rows)
        value = over_norms(arguments["magnitude"].astype(np.float64), lengths)[:, np.newaxis] * rows
    weight = sum_stage(case, outputs, "weight", arguments, lambda _: value.T if fan else value, lambda: merged)
    if isinstance(norms, StageResult):
        return [norms, weight]
    if case.lattice:
        return [lattice_stage("norms", norms, lengths), weight]
    return [bound_stage("norms", norms, lengths, limits), weight]


def _rows(arguments: Arguments) -> Array:
    w, a, b = (arguments[n].astype(np.float64) for n in ("weight", "lora_a", "lora_b"))
    scale = lora_scale(arguments["alpha"], len(a), rank_stabilized=arguments["rank_stabilized"])
    return merged_rows(w.T if arguments["fan_in_fan_out"] else w, a, b, scale)


def judge_dora_unmerge(case: Case, outputs: Outputs, claim: Claim) -> list[StageResult]:
    """Judge the weight from which a DoRA adapter was taken out, given the norms of the merge."""
    arguments = arguments_of(case, ("weight", "lora_a", "lora_b", "magnitude"))
    norms, fan = case.array("norms").items, arguments["fan_in_fan_out"]

    def value(changed: Arguments) -> Array:
        factor = unmerge_factor(norms, changed["magnitude"], len(norms), None)
        stored = changed["weight"].astype(np.float64)
        with np.errstate(all="ignore"):
            scaled: Array = factor * stored if fan else factor[:, np.newaxis] * stored
            total: Array = scaled + merged_value({**changed, "weight": np.zeros_like(stored)}, -1.0)
        return total

    def bound() -> Interval:
        state = MergedDora(arguments["weight"], norms)
        rest = {n: v for n, v in arguments.items() if n != "weight"}
        return dora_unmerge_bound(state, **rest, roundings=claim.roundings)

    return [sum_stage(case, outputs, "weight", arguments, value, bound)]


def dora_intermediates(case: Case) -> dict[str, Array]:
    """Return what `explain` prints: the rows of V, their norms, the magnitudes."""
    arguments = arguments_of(case, ("weight", "lora_a", "lora_b", "magnitude"))
    rows = _rows(arguments)
    norms, magnitude, fan = row_norms(rows), arguments["magnitude"], arguments["fan_in_fan_out"]
    with np.errstate(all="ignore"):
        gain = over_norms(magnitude.astype(np.float64), norms)
        merged = gain[:, np.newaxis] * rows
    return {
        "W + s B A": rows.T if fan else rows,
        "norm": norms,
        "magnitude": magnitude,
        "magnitude/norm": gain,
        "(magnitude/norm) (W + s B A)": merged.T if fan else merged,
    }


def dora_unmerge_intermediates(case: Case) -> dict[str, Array]:
    """Return what `explain` prints: norms over magnitudes, the merged weight times them, s B A, their difference."""
    arguments = arguments_of(case, ("weight", "lora_a", "lora_b", "magnitude"))
    norms, magnitude, fan = case.array("norms").items, arguments["magnitude"], arguments["fan_in_fan_out"]
    factor = unmerge_factor(norms, magnitude, len(norms), None)
    with np.errstate(all="ignore"):
        stored = arguments["weight"].astype(np.float64)
        scaled = factor * stored if fan else factor[:, np.newaxis] * stored
        change = change_of(arguments)
        left = scaled - change
    return {
        "merged W": arguments["weight"],
        "norm": norms,
        "magnitude": magnitude,
        "norm/magnitude": factor,
        "(norm/magnitude) merged W": scaled,
        "s B A": change,
        "less s B A": left,
    }
