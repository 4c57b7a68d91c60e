"""What is counted at one stage over the cases of a family, and what is kept of those that fail."""

from dataclasses import dataclass, field

import numpy as np

from qloracle_conformance.distribution import Distribution
from qloracle_conformance.finding import Finding, find
from qloracle_conformance.generators.case import Case
from qloracle_conformance.judge import LEVELS, StageResult
from qloracle_conformance.operations.operation import CONDUCT, level_of
from qloracle_conformance.task import Task


@dataclass
class Tally:
    """What was counted at one stage over the cases of a family."""

    cases: int = 0
    elements: int = 0
    unjudged: int = 0
    blocked: int = 0
    failing: int = 0
    boundary_hits: int = 0
    used: float = 0.0  # largest part of an error bound
    window: float = 0.0  # largest distance to a boundary, in 2^−24 of it, at which a code was not the exact one
    attained: str | None = "exact"
    finding: Finding | None = None
    case: Case | None = None  # the first failing one
    distribution: Distribution = field(default_factory=Distribution)


def count(tally: Tally, result: StageResult, case: Case, task: Task) -> bool:
    """Add a stage's result to its tally and return whether the claim was kept."""
    claimed = level_of(task.claim, result.stage) if result.stage not in CONDUCT else "exact"
    tally.cases += 1
    tally.elements += result.got.size
    if result.problem:
        tally.failing, tally.attained = tally.failing + 1, None
        _keep_smallest(tally, result, claimed, case, task)
        return False
    wrong = result.failing(claimed)
    tally.unjudged += int(np.sum(~result.required(claimed).judged))
    tally.blocked += 0 if result.blocked is None else int(np.sum(result.blocked))
    tally.failing += int(np.sum(wrong))
    _measure(tally, result)
    tally.distribution.add(result, wrong)
    tally.attained = looser(tally.attained, result.attained())
    if np.any(wrong):
        _keep_smallest(tally, result, claimed, case, task)
    return not np.any(wrong)


def _keep_smallest(tally: Tally, result: StageResult, claimed: str, case: Case, task: Task) -> None:
    """Keep a failing case, and what there is to say of it, if it is the smallest so far."""
    if tally.case is None or case.elements < tally.case.elements:
        tally.finding, tally.case = find(result, claimed, case, task.operation), case


def _measure(tally: Tally, result: StageResult) -> None:
    """Count boundary hits, the used part of the bound, and the window of codes that are not the exact ones."""
    if result.distance is not None:
        tally.boundary_hits += int(np.sum(result.distance <= 1.0))
        inexact = ~result.allowed["exact"].accepts(result.got)
        if result.blocked is not None:
            inexact &= ~result.blocked
        if np.any(inexact) and np.any(np.isfinite(result.distance[inexact])):
            tally.window = max(tally.window, float(np.nanmax(result.distance[inexact])))
    if result.used is not None and np.any(np.isfinite(result.used)):
        tally.used = max(tally.used, float(np.nanmax(result.used)))


def looser(first: str | None, second: str | None) -> str | None:
    """Return the looser of two attained levels; None is looser than all."""
    if first is None or second is None:
        return None
    return LEVELS[max(LEVELS.index(first), LEVELS.index(second))]
