"""Judging what happens to gradients before the step: a limit on their norm, and accumulation."""

import numpy as np

from qloracle.formats import Array
from qloracle.optim.accumulate import accumulate_gradients, accumulate_gradients_bound
from qloracle.optim.clipping import clip_by_norm, clip_by_norm_bound, real_norm
from qloracle_conformance.arrays import HostArray
from qloracle_conformance.backend import Claim
from qloracle_conformance.generators.case import Case
from qloracle_conformance.judge import StageResult, blocked_stage
from qloracle_conformance.operations.adamw import judge_after_gradient
from qloracle_conformance.operations.operation import Outputs, broken, expect
from qloracle_conformance.operations.sums import bound_stage, lattice_stage

TENSORS = ("first", "second")


def judge_clip(case: Case, outputs: Outputs, claim: Claim) -> list[StageResult]:
    """Judge both tensors."""
    tensors, most = [case.array(name).single() for name in TENSORS], case.options["max_norm"]
    reals = clip_by_norm(tensors, most)
    bounds = clip_by_norm_bound(tensors, most, roundings=claim.roundings)
    results = []
    for index, (name, real, bound) in enumerate(zip(TENSORS, reals, bounds, strict=True)):
        got = expect(outputs, index, name, case.array(name).dtype, real.shape)
        if isinstance(got, StageResult):
            results.append(got)
        else:
            results.append(lattice_stage(name, got, real) if case.lattice else bound_stage(name, got, real, bound))
    return results


def judge_accumulate(case: Case, outputs: Outputs, claim: Claim) -> list[StageResult]:
    """Judge the accumulated gradient."""
    return [_gradient_stage(case, outputs, claim)]


def judge_accumulated_step(case: Case, outputs: Outputs, claim: Claim) -> list[StageResult]:
    """Judge (gradient, p', m', v'), the last three given the backend's own gradient."""
    first = _gradient_stage(case, outputs, claim)
    if first.problem:
        return [first, *(blocked_stage(stage) for stage in "mvp")]
    doubtful = broken(first, claim, "gradient")
    # A parameter that never moved is wrong whatever its gradient is: only a wrong gradient blocks its own element.
    return [first, *judge_after_gradient(case, outputs[0], outputs[1:], claim, doubtful if doubtful.any() else None)]


def _gradient_stage(case: Case, outputs: Outputs, claim: Claim) -> StageResult:
    gradients, counts = case.array("gradients"), case.array("counts").items
    how = {"reduction": case.options["reduction"], "fmt": gradients.dtype}
    real = accumulate_gradients(gradients.items, counts, **how)
    got = expect(outputs, 0, "gradient", gradients.dtype, real.shape)
    if isinstance(got, StageResult):
        return got
    if case.lattice:
        return lattice_stage("gradient", got, real)
    bound = accumulate_gradients_bound(gradients.items, counts, **how, roundings=claim.roundings)
    return bound_stage("gradient", got, real, bound)


def clip_intermediates(case: Case) -> dict[str, Array]:
    """Return what `explain` prints: the norm, and both tensors."""
    tensors = [case.array(name).single() for name in TENSORS]
    norm = real_norm(np.concatenate([tensor.astype(np.float64).reshape(-1) for tensor in tensors]))
    clipped = clip_by_norm(tensors, case.options["max_norm"])
    with np.errstate(all="ignore"):
        factor = np.minimum(1.0, np.divide(case.options["max_norm"], norm))
    return {"norm": np.asarray(norm), "c": np.asarray(factor), **dict(zip(TENSORS, clipped, strict=True))}


def accumulate_intermediates(case: Case) -> dict[str, Array]:
    """Return what `explain` prints: the gradient."""
    gradients: HostArray = case.array("gradients")
    how = {"reduction": case.options["reduction"], "fmt": gradients.dtype}
    return {"gradient": accumulate_gradients(gradients.items, case.array("counts").items, **how)}
