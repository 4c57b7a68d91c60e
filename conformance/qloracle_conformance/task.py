"""The unit of work: one family of one operation, and the calls that its cases stand for."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from qloracle_conformance.arrays import HostArray
from qloracle_conformance.backend import Claim
from qloracle_conformance.execution import Call
from qloracle_conformance.generators.case import Case
from qloracle_conformance.generators.draw import CounterDraw
from qloracle_conformance.large.extent import Extent
from qloracle_conformance.operations.operation import Operation


@dataclass(frozen=True)
class Task:
    """The unit of work: one family of one operation, judged at all its stages."""

    operation: Operation
    family: str
    claim: Claim
    cases: int
    examples: int  # of the search by Hypothesis, 0 for none
    seed: int


def case_at(task: Task, index: int) -> Case:
    """Return enumerated case `index` of a task: a pure function of both."""
    name = f"{task.operation.name}.{task.family}"
    return task.operation.families[task.family](CounterDraw(name, index, task.seed), task.claim)


def call_of(case: Case, operation: Operation) -> Call:
    """Return the call that a case stands for."""
    return Call(operation.function, case.inputs, case.options, case.layouts, case.repeat)


def large_call(
    operation: Operation, inputs: Mapping[str, HostArray], options: Mapping[str, Any], extent: Extent
) -> Call:
    """Return a call whose inputs repeat up to an extent."""
    return Call(operation.function, inputs, options, {}, extent=extent)
