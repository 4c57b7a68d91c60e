"""Running properties: the cases of one family of one operation, against one backend."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from qloracle_conformance.arrays import HostArray
from qloracle_conformance.execution import Call, Executor, Outcome, equal_bits
from qloracle_conformance.generators.case import Case
from qloracle_conformance.judge import StageResult, exactly, failed_stage
from qloracle_conformance.operations.operation import INPUTS, OUT, REPEAT
from qloracle_conformance.tally import Tally, count
from qloracle_conformance.task import Task, call_of, case_at
from qloracle_conformance.verdicts import PropertyResult, TaskState, fresh_state, left_out, verdicts

MEETS_ALL = 20  # cases of a family, among which every stage occurs that is claimed


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
    return any(not tally.cases and not left_out(task, stage) for stage, tally in state.tallies.items())


def _meanwhile(unjudged: list["Callable[[], Judged]"], upcoming: list[Case], task: Task, rest: range) -> None:
    """Judge what is waiting for it, and make the next case."""
    while unjudged:
        unjudged.pop()()
    upcoming += [case_at(task, index) for index in rest[:1]]


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
