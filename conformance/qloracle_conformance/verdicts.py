"""The verdict on each property of a task, from what was counted at its stages."""

from dataclasses import dataclass, field, replace
from typing import Literal

from qloracle_conformance.execution import Outcome
from qloracle_conformance.generators.case import Case
from qloracle_conformance.operations.operation import CONDUCT, OUT, level_of
from qloracle_conformance.tally import Tally
from qloracle_conformance.task import Task

Status = Literal["pass", "fail", "differs", "error", "blocked", "known", "fixed", "not-claimed", "not-judged"]
BROKEN: tuple[Status, ...] = ("fail", "differs", "error")
OPTIONAL = ("bias", "dropout", "lora_bias", "fan_in_fan_out")  # stages that are a feature of the same name


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


def verdicts(task: Task, state: TaskState, seconds: float) -> list[PropertyResult]:
    """Return the verdict on each property of a task."""
    return [_verdict(task, stage, state, seconds) for stage in state.tallies]


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
        reason = left_out(task, stage)
        return ("not-claimed", reason) if reason else ("error", "no case was generated")
    return _kept(tally)


def left_out(task: Task, stage: str) -> str:
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
