"""Claims and tasks for tests: those of the reference, and restrictions of them."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from _pytest.mark import ParameterSet

from qloracle_conformance.adapters.reference import backend as reference
from qloracle_conformance.arrays import HostArray
from qloracle_conformance.backend import Claim
from qloracle_conformance.generators.case import Case
from qloracle_conformance.generators.draw import CounterDraw
from qloracle_conformance.registry import OPERATIONS
from qloracle_conformance.task import Task

CLAIMS: dict[str, Claim] = {claim.operation: claim for claim in reference().claims}
FAMILIES = [(name, family) for name, operation in OPERATIONS.items() for family in operation.families]

REPRESENTATIVES = {operation.function: name for name, operation in reversed(OPERATIONS.items())}


def each(names: Iterable[str] = OPERATIONS) -> list[ParameterSet]:
    """The operations as parameters; in every run the first of each function, the others in the exhaustive one.

    Operations of one function differ by an option, such as the codebook; the smoke run of the suite covers them all.
    """
    representative = set(REPRESENTATIVES.values())
    return [
        pytest.param(name, marks=() if name in representative else pytest.mark.exhaustive, id=name) for name in names
    ]


def case_of(operation: str, family: str, index: int = 0, seed: int = 0, **restricted: Any) -> Case:
    """Case `index` of a family under the reference's claim, with some of its fields replaced."""
    claim = replace(CLAIMS[operation], **restricted)
    return OPERATIONS[operation].families[family](CounterDraw(f"{operation}.{family}", index, seed), claim)


def cases_of(operation: str, family: str, count: int, **restricted: Any) -> Iterator[Case]:
    """The first cases of a family."""
    return (case_of(operation, family, index, **restricted) for index in range(count))


def task_of(operation: str, family: str, cases: int = 1, examples: int = 0, seed: int = 0, **restricted: Any) -> Task:
    """A task under the reference's claim, with some of its fields replaced."""
    claim = replace(CLAIMS[operation], **restricted)
    return Task(OPERATIONS[operation], family, claim, cases, examples, seed)


def same_array(first: HostArray, second: HostArray) -> bool:
    """Whether two arrays have one type, one shape and the same bits."""
    described = [(a.dtype, a.shape, a.words().tobytes()) for a in (first, second)]
    return described[0] == described[1]


def same_bits(first: Case, second: Case) -> bool:
    """Whether two cases are the same call: every bit of every input, every option, every layout."""
    described = [
        (c.operation, dict(c.options), dict(c.layouts), c.lattice, c.term, c.repeat, list(c.inputs))
        for c in (first, second)
    ]
    if described[0] != described[1]:
        return False
    for name in first.inputs:
        a, b = first.inputs[name], second.inputs[name]
        if (a is None) != (b is None):
            return False
        if a is not None and b is not None and not same_array(a, b):
            return False
    return True
