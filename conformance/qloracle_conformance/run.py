"""Running properties: the cases of one family of one operation, against one backend."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

import numpy as np

from qloracle_conformance.arrays import HostArray
from qloracle_conformance.backend import Claim
from qloracle_conformance.distribution import Distribution
from qloracle_conformance.execution import Call, Executor, Outcome, equal_bits
from qloracle_conformance.finding import Finding, find
from qloracle_conformance.generators.case import Case
from qloracle_conformance.generators.draw import CounterDraw
from qloracle_conformance.judge import LEVELS, StageResult, exactly, failed_stage
from qloracle_conformance.large.extent import Extent
from qloracle_conformance.operations.operation import CONDUCT, INPUTS, OUT, REPEAT, Operation, level_of

Status = Literal["pass", "fail", "differs", "error", "blocked", "known", "fixed", "not-claimed", "not-judged"]
BROKEN: tuple[Status, ...] = ("fail", "differs", "error")
MEETS_ALL = 20  # cases of a family, among which every stage occurs that is claimed
OPTIONAL = ("bias", "dropout", "lora_bias", "fan_in_fan_out")  # stages that are a feature of the same name


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


@dataclass(frozen=True)
class PropertyResult:
    """The verdict on one property."""

    id: str
    operation: str
    stage: str
    family: str
    clause: str
    claimed: str
    basis: str
    status: Status
    tally: Tally
    message: str = ""
    seconds: float = 0.0
    witness: str = ""


@dataclass(frozen=True)
class Task:
    """The unit of work: one family of one operation, judged at all its stages."""

    operation: Operation
    family: str
    claim: Claim
    cases: int
    examples: int  # of the search by Hypothesis, 0 for none
    seed: int


@dataclass
class TaskState:
    """What a task has counted so far."""

    tallies: dict[str, Tally] = field(default_factory=dict)
    failure: Outcome | None = None
    failed_case: Case | None = None
    seconds: float = 0.0


def fresh_state(task: Task) -> TaskState:
    """Return the state of a task that has counted nothing yet at any of its stages."""
    stages = task.operation.stages_of(task.family)
    return TaskState({stage: Tally() for stage in stages if stage != OUT or OUT in task.claim.features})


def call_of(case: Case, operation: Operation) -> Call:
    """Return the call that a case stands for."""
    return Call(operation.function, case.inputs, case.options, case.layouts, case.repeat)


def large_call(
    operation: Operation, inputs: Mapping[str, HostArray], options: Mapping[str, Any], extent: Extent
) -> Call:
    """Return a call whose inputs repeat up to an extent."""
    return Call(operation.function, inputs, options, {}, extent=extent)


def run_task(executor: Executor, task: Task, search: Callable[..., None] | None = None) -> list[PropertyResult]:
    """Run all cases of a task, then the search, and return the verdict on each of its properties.

    However few cases a run has, it goes on until every stage was met that the claim names, up to `MEETS_ALL` cases.
    """
    started = time.perf_counter()
    state = fresh_state(task)
    _run_cases(executor, task, state, range(task.cases))
    for index in range(task.cases, MEETS_ALL if task.cases else 0):
        if state.failure is not None or not _unmet(task, state):
            break
        _run_cases(executor, task, state, range(index, index + 1))
    if search is not None and task.examples and state.failure is None:
        search(executor, task, state)
    return verdicts(task, state, time.perf_counter() - started)


def _run_cases(executor: Executor, task: Task, state: TaskState, indices: range) -> None:
    """Run and judge enumerated cases until a call fails: one is judged while the backend works on the next."""
    upcoming = [case_at(task, index) for index in indices[:1]]
    unjudged: list[Callable[[], Judged]] = []
    for index in indices:
        case = upcoming.pop()
        call = _checked_call(case, task)
        outcome = executor.run(call, partial(_meanwhile, unjudged, upcoming, task, indices[index - indices[0] + 1 :]))
        unjudged.append(partial(judge_outcome, task, case, call, outcome, state))
        if outcome.failure or len(outcome.outputs) > task.operation.outputs:
            unjudged.pop()()
        if state.failure is not None:
            break
    for judge in unjudged:
        judge()


def _unmet(task: Task, state: TaskState) -> bool:
    """Return whether there is a stage that the claim names, and no case had so far."""
    return any(not tally.cases and not _left_out(task, stage) for stage, tally in state.tallies.items())


def _meanwhile(unjudged: list["Callable[[], Judged]"], upcoming: list[Case], task: Task, rest: range) -> None:
    """Judge what is waiting for it, and make the next case."""
    while unjudged:
        unjudged.pop()()
    upcoming += [case_at(task, index) for index in rest[:1]]


def case_at(task: Task, index: int) -> Case:
    """Return enumerated case `index` of a task: a pure function of both."""
    name = f"{task.operation.name}.{task.family}"
    return task.operation.families[task.family](CounterDraw(name, index, task.seed), task.claim)


def verdicts(task: Task, state: TaskState, seconds: float) -> list[PropertyResult]:
    """Return the verdict on each property of a task."""
    return [_verdict(task, stage, state, seconds) for stage in state.tallies]


@dataclass(frozen=True)
class Judged:
    """A case that was run and judged."""

    kept: bool  # every claim was kept
    outputs: tuple[HostArray, ...]  # empty if the call failed, or returned something else than is specified


def judge_case(
    executor: Executor,
    task: Task,
    case: Case,
    state: TaskState,
    meanwhile: Callable[[], None] | None = None,
    references: Sequence[tuple[HostArray, ...]] = (),
) -> Judged:
    """Run and judge one case, and count what came of it.

    `meanwhile` is done while the backend works. It may put the outputs of the reference into `references`: where the
    backend's are the same bits, the oracles of the stages have nothing to add and are not asked, which is for large
    inputs to operations whose outputs the rules fix.
    """
    call = _checked_call(case, task)
    return judge_outcome(task, case, call, executor.run(call, meanwhile), state, references)


def _checked_call(case: Case, task: Task) -> Call:
    """Return the call of a case, with given outputs where the claim has them and the case repeats calls."""
    return replace(call_of(case, task.operation), out=case.repeat and OUT in task.claim.features)


def judge_outcome(
    task: Task, case: Case, call: Call, outcome: Outcome, state: TaskState,
    references: Sequence[tuple[HostArray, ...]] = (),
) -> Judged:  # fmt: skip
    """Judge what came of a call, and count it; see `judge_case`."""
    returned, expected = len(outcome.outputs), task.operation.outputs
    if returned > expected:
        outcome = Outcome(failure="output", message=f"{returned} arrays were returned, {expected} are specified")
    if outcome.failure:
        kept = [count(state.tallies[r.stage], r, case, task) for r in before_the_end(task, case, outcome)]
        if all(kept):  # else the steps before the end say why a sequence ended
            state.failure, state.failed_case = outcome, case
        return Judged(False, ())
    same = bool(references) and equal_bits(outcome.outputs, references[0])
    given = outcome.steps or outcome.outputs
    judged = _all_exact(task, outcome) if same else task.operation.judge(case, given, task.claim)
    kept = [count(state.tallies[r.stage], r, case, task) for r in judged]
    conduct = _conduct(case, outcome, out=call.out)
    kept += [_count_conduct(state.tallies[stage], stage, problem, case, task) for stage, problem in conduct.items()]
    usable = returned == expected and not any(r.problem for r in judged)
    return Judged(all(kept), outcome.outputs if usable else ())


def before_the_end(task: Task, case: Case, outcome: Outcome) -> list[StageResult]:
    """Return what can be judged of a sequence that ended early; nothing for a single call."""
    return task.operation.judge(case, outcome.steps, task.claim) if outcome.steps else []


def _all_exact(task: Task, outcome: Outcome) -> list[StageResult]:
    """Return the results of outputs that are the reference's own bits: every stage exact, counted by output values."""
    compared = np.broadcast_to(np.int64(0), sum(array.items.size for array in outcome.outputs))
    exact = {"exact": exactly(compared)}
    return [StageResult(stage, compared, exact) for stage in task.operation.stages]


def _conduct(case: Case, outcome: Outcome, *, out: bool) -> dict[str, str]:
    """Return what is wrong at the stages that every operation has, "" for nothing.

    Inputs unchanged, same bits again, given outputs written whole.
    """
    changed = ", ".join(outcome.changed_inputs)
    stages = {INPUTS: f"the call changed its input {changed}" if changed else ""}
    if case.repeat:
        unstable = "a second, identical call gave other bits, or a later one changed its result"
        stages[REPEAT] = unstable if outcome.unstable else ""
    if case.repeat and out:
        stages[OUT] = outcome.out
    return stages


def _count_conduct(tally: Tally, stage: str, problem: str, case: Case, task: Task) -> bool:
    """Add a stage that every operation has to its tally: one element, right or not."""
    if problem:
        return count(tally, failed_stage(stage, problem), case, task)
    tally.cases += 1
    tally.elements += 1
    tally.distribution.add_right(1)
    return True


def count(tally: Tally, result: StageResult, case: Case, task: Task) -> bool:
    """Add a stage's result to its tally and return whether the claim was kept."""
    claimed = level_of(task.claim, result.stage) if result.stage not in CONDUCT else "exact"
    tally.cases += 1
    tally.elements += result.got.size
    if result.problem:
        tally.failing, tally.attained = tally.failing + 1, None
        if tally.finding is None:
            tally.finding, tally.case = find(result, claimed, case, task.operation), case
        return False
    wrong = result.failing(claimed)
    tally.unjudged += int(np.sum(~result.required(claimed).judged))
    tally.blocked += 0 if result.blocked is None else int(np.sum(result.blocked))
    tally.failing += int(np.sum(wrong))
    _measure(tally, result)
    tally.distribution.add(result, wrong)
    tally.attained = looser(tally.attained, result.attained())
    if np.any(wrong) and (tally.case is None or case.elements < tally.case.elements):
        tally.finding, tally.case = find(result, claimed, case, task.operation), case
    return not np.any(wrong)


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


def _verdict(task: Task, stage: str, state: TaskState, seconds: float) -> PropertyResult:
    tally, common = state.tallies[stage], stage in CONDUCT
    claimed = "exact" if common else level_of(task.claim, stage)
    status, message = _status(task, stage, tally, state)
    return PropertyResult(
        id=f"{task.operation.name}.{stage}.{task.family}",
        operation=task.operation.name,
        stage=stage,
        family=task.family,
        clause="" if common else task.operation.stages[stage],
        claimed=claimed,
        basis=task.claim.basis,
        status=status,
        tally=replace(tally, case=tally.case or (state.failed_case if state.failure else None)),
        message=message,
        seconds=seconds / len(state.tallies),
    )


def _status(task: Task, stage: str, tally: Tally, state: TaskState) -> tuple[Status, str]:
    if tally.failing:
        return ("fail" if task.claim.basis == "promised" else "differs"), tally.finding.line() if tally.finding else ""
    if state.failure is not None:
        return "error", f"{state.failure.failure}: {state.failure.message}"
    if not tally.cases:
        reason = _left_out(task, stage)
        return ("not-claimed", reason) if reason else ("error", "no case was generated")
    return _kept(tally)


def _left_out(task: Task, stage: str) -> str:
    """Return why a claim leaves a stage out, "" if it does not."""
    if stage in OPTIONAL and stage not in task.claim.features:
        return f"the claim does not list the feature {stage}"
    option, values = task.operation.optional.get(stage, ("", ()))
    if option and not set(values) & set(task.claim.options.get(option, ())):
        return f"the claim lists none of {', '.join(map(str, values))} as {option}"
    return ""


def _kept(tally: Tally) -> tuple[Status, str]:
    """Return the status of a stage that broke nothing: a pass, unless there was nothing to see."""
    if tally.blocked:
        return "blocked", f"{tally.blocked} elements rest on an earlier stage that failed"
    if tally.elements and tally.unjudged == tally.elements:
        return "not-judged", "no element could be judged"
    return "pass", ""
