"""Which call of a sequence is at fault, and whether it is wrong when it is all that is called."""

import re
from dataclasses import replace

from qloracle_conformance.execution import Executor
from qloracle_conformance.generators.case import Case
from qloracle_conformance.run import judge_case
from qloracle_conformance.sequences.step import steps_of
from qloracle_conformance.task import Task, call_of
from qloracle_conformance.verdicts import fresh_state

_STEP = re.compile(r"\bstep (\d+) \(([\w.]+)\)")


def culprit(message: str) -> tuple[int, str] | None:
    """Return number and operation of the step that the message of a verdict names first, None if it names none."""
    found = _STEP.search(message)
    return (int(found[1]), found[2]) if found else None


def layout_before(case: Case, number: int, name: str) -> str:
    """Return the memory layout that an array has before a step: its own, or that of the last move."""
    layout = case.layouts.get(name, "contiguous")
    for step in steps_of(case.options)[: number - 1]:
        if name in step.names and step.do in ("move", "load"):
            layout = step.layout or "contiguous"
    return layout


def fails_alone(executor: Executor, task: Task, case: Case, number: int) -> bool:
    """Return whether a step fails in a backend that was asked nothing else, given the same arrays and layouts.

    The arrays may come from a backend that was asked other things before: whatever they are, alone it fails or not.
    """
    call = call_of(case, task.operation)
    outcome, step = executor.run(call), steps_of(case.options)[number - 1]
    if len(outcome.steps) < number:
        executor.close()
        outcome = executor.run(call)
    if len(outcome.steps) < number:
        return bool(outcome.failure)  # it gave no outputs: said by its own properties too
    given = {role: array for role, array in outcome.steps[number - 1].given.items() if array is not None}
    alone = replace(step, given={role: role if role in given else None for role in step.given})
    options = {"steps": (alone.as_json(),), "claims": {step.operation: case.options["claims"][step.operation]}}
    executor.close()
    state = fresh_state(task)
    layouts = {role: layout_before(case, number, str(step.given[role])) for role in given}
    judge_case(executor, task, replace(case, inputs=given, layouts=layouts, options=options), state)
    return state.failure is not None or any(tally.failing for tally in state.tallies.values())
