"""Finding which output a stage judges: by changing outputs and watching what the judge compares."""

from dataclasses import replace
from functools import cache

import numpy as np

from qloracle_conformance.adapters.reference import OPS
from qloracle_conformance.adapters.reference import backend as reference
from qloracle_conformance.arrays import HostArray
from qloracle_conformance.backend import Claim
from qloracle_conformance.generators.case import Case
from qloracle_conformance.judge import StageResult
from qloracle_conformance.operations.operation import Operation
from qloracle_conformance.pipe.selection import MEMORY_FAMILIES
from qloracle_conformance.registry import OPERATIONS
from qloracle_conformance.task import Task, case_at
from qloracle_conformance.vectors.units import Unit, units_of

Outputs = tuple[HostArray, ...]
_TRIED, _LARGEST = 6, 2000  # cases of a family that are looked at, and elements that they may have


class NoLimitsError(Exception):
    """A stage of a case has no limits that a file can hold."""


@cache
def claims() -> dict[str, Claim]:
    """Return what the reference claims of every operation, on contiguous arrays: all that a file can ask."""
    return {claim.operation: replace(claim, layouts=("contiguous",)) for claim in reference().claims}


def reference_outputs(case: Case) -> Outputs:
    """Return what the reference gives for a case.

    Raises
    ------
    QloracleError
        If it refuses the case.
    """
    copies = {n: None if a is None else HostArray(a.items.copy(), a.dtype) for n, a in case.inputs.items()}
    given = OPS[OPERATIONS[case.operation].function](**copies, **case.options)
    return given if isinstance(given, tuple) else (given,)


def unit_of(operation: Operation, case: Case, outputs: Outputs, claim: Claim, result: StageResult) -> Unit:
    """Return what the elements of a stage are.

    Raises
    ------
    NoLimitsError
        If no output holds what the judge compares.
    """
    units = units_of(result, outputs, case)
    if len({unit.output for unit in units}) > 1:
        if all(array.items.size for array in outputs):
            units = [u for u in units if _reads(operation, case, outputs, claim, result, u.output)]
        else:
            units = [u for u in units if u.output == _output_of(operation.name, result.stage)]
    if not units:
        raise NoLimitsError(f"{operation.name}.{result.stage}: no output holds what is compared")
    return units[0]


def _reads(operation: Operation, case: Case, outputs: Outputs, claim: Claim, result: StageResult, index: int) -> bool:
    """Return whether a stage compares an output: other contents of it are another thing to compare."""
    changed = (*outputs[:index], _flipped(outputs[index]), *outputs[index + 1 :])
    told = [r for r in operation.judge(case, changed, claim) if r.stage == result.stage]
    return not told or bool(told[0].problem) or not np.array_equal(told[0].got, result.got)


def _flipped(array: HostArray) -> HostArray:
    """Return an array in which every number, code and NaN is another one."""
    words = array.words()
    width = words.dtype.itemsize
    flip = 1 if array.dtype == "bool" else 0x44 if width == 1 else 1 << (8 * width - 2)
    return HostArray((words ^ words.dtype.type(flip)).view(array.items.dtype).reshape(array.shape), array.dtype)


@cache
def _output_of(name: str, stage: str) -> int:
    """Return the output that a stage judges, found on a case that has elements."""
    operation, claim = OPERATIONS[name], claims()[name]
    for family in (f for f in operation.families if f not in MEMORY_FAMILIES):
        for index in range(_TRIED):
            case = case_at(Task(operation, family, claim, _TRIED, 0, 0), index)
            if not 0 < case.elements <= _LARGEST:
                continue
            outputs = reference_outputs(case)
            if not all(array.items.size for array in outputs):
                continue
            for result in operation.judge(case, outputs, claim):
                if result.stage == stage:
                    return unit_of(operation, case, outputs, claim, result).output
    return -1
