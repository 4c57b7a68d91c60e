"""Judging a sequence: every call by the oracles of its operation, given the arrays as they were just before it."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from qloracle.bounds import Roundings
from qloracle.formats import Array
from qloracle_conformance.backend import Claim
from qloracle_conformance.generators.case import Case
from qloracle_conformance.judge import LEVELS, StageResult, exactly, failed_stage
from qloracle_conformance.operations.operation import Operation, level_of
from qloracle_conformance.sequences.step import MOVES, Step, steps_of

KEPT = "kept"  # the stage of what earlier calls returned: no later step changes it


def claim_as_json(claim: Claim) -> dict[str, Any]:
    """Return of a claim what judging a step needs."""
    return {"levels": dict(claim.levels), "roundings": dict(vars(claim.roundings)), "features": list(claim.features)}


def claims_of(options: Mapping[str, Any]) -> dict[str, Claim]:
    """Return the claims that the options of a sequence carry, by operation."""
    return {
        name: Claim(name, given["levels"], features=tuple(given["features"]), roundings=Roundings(**given["roundings"]))
        for name, given in options["claims"].items()
    }


def judge_sequence(case: Case, outcomes: tuple[Any, ...], claim: Claim) -> list[StageResult]:
    """Judge the steps that were made, in their order; `outcomes` are the `StepOutcome` of each."""
    from qloracle_conformance.registry import OPERATIONS

    steps, claims = steps_of(case.options), claims_of(case.options)
    makers = {name: f"step {n} ({s.operation})" for n, s in enumerate(steps, 1) for name in s.made}
    results, broken = list[tuple[Operation, StageResult]](), set[str]()
    kept = list[StageResult]()
    for number, (step, outcome) in enumerate(zip(steps, outcomes, strict=False), 1):
        kept += _kept(number, step, [name for name in outcome.disturbed if name in makers], makers)
        if step.do in MOVES:
            continue
        operation, own = OPERATIONS[step.operation], claims[step.operation]
        called = Case(step.operation, outcome.given, step.options, lattice=step.lattice, term=step.term)
        for result in operation.judge(called, outcome.outputs, own):
            told = _told(result, number, step, level_of(own, result.stage))
            results.append((operation, told))
            if told.problem or np.any(told.failing(LEVELS[-1])):
                broken.add(step.operation)
    return [*kept, *(_blocked(result) if o.given in broken else result for o, result in results)]


def _told(result: StageResult, number: int, step: Step, level: str) -> StageResult:
    """Return the result as one of the sequence's stage; limits looser than the operation's own claim are left out."""
    allowed = {name: a for name, a in result.allowed.items() if LEVELS.index(name) <= LEVELS.index(level)}
    where = f"step {number} ({step.operation}), stage {result.stage}"
    cause = f"{where}: {result.cause}" if result.cause else where
    shown = {"step": f"{number}: {step}", "stage": result.stage}
    problem = f"{where}: {result.problem}" if result.problem else ""
    return replace(result, stage=step.do, allowed=allowed, cause=cause, problem=problem, extra=shown)


def _blocked(result: StageResult) -> StageResult:
    """Return the result of a step that rests on an operation which failed in the same sequence."""
    everywhere: Array = np.ones(result.got.shape, np.bool_)
    return replace(result, blocked=everywhere, problem="")


def _kept(number: int, step: Step, disturbed: Sequence[str], makers: Mapping[str, str]) -> list[StageResult]:
    if disturbed:
        first = disturbed[0]
        return [failed_stage(KEPT, f"step {number} ({step.operation or step.do}) changed {', '.join(disturbed)};"
                             f" {first} is a result of {makers[first]}")]  # fmt: skip
    return [StageResult(KEPT, np.zeros(1, np.int64), {"exact": exactly(np.zeros(1, np.int64))})]
