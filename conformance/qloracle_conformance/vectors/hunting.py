"""Which mistakes a vector hunts: those of the mutant catalogue whose outputs leave its limits, at a stage of theirs."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np

from qloracle_conformance.arrays import HostArray
from qloracle_conformance.mutants.catalogue import catalogue
from qloracle_conformance.mutants.mutant import Op
from qloracle_conformance.operations.operation import REPEAT
from qloracle_conformance.registry import OPERATIONS
from qloracle_conformance.vectors.comparing import failing_stages
from qloracle_conformance.vectors.vector import Vector


@dataclass(frozen=True)
class Mistake:
    """A mutant of one function."""

    name: str
    fault: str
    run: Op
    stages: tuple[str, ...]
    operations: str  # prefix of the operations that it is of


@cache
def mistakes() -> Mapping[str, tuple[Mistake, ...]]:
    """Return the mutants of every function of a backend, but for those that err now and then: no file shows them."""
    found: dict[str, tuple[Mistake, ...]] = {}
    for mutant in (m for m in catalogue() if m.start is None and REPEAT not in m.stages):
        for function, run in mutant.ops.items():
            made = Mistake(mutant.name, mutant.fault, run, mutant.stages, mutant.operations)
            found[function] = (*found.get(function, ()), made)
    return found


def mistakes_of(operation: str) -> dict[str, Mistake]:
    """Return the mutants that change what an operation computes, by name."""
    known = mistakes().get(OPERATIONS[operation].function, ())
    return {m.name: m for m in known if operation.startswith(m.operations)}


def hunted(vector: Vector) -> tuple[str, ...]:
    """Return the names of the mistakes that a vector shows, in alphabetical order."""
    return tuple(sorted(name for name, m in mistakes_of(vector.operation).items() if shows(vector, m)))


def shows(vector: Vector, mistake: Mistake) -> bool:
    """Return whether a mistake leaves the limits of a vector, at one of its stages."""
    copies = {n: None if a is None else HostArray(a.items.copy(), a.dtype) for n, a in vector.case.inputs.items()}
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            given = mistake.run(**copies, **vector.case.options)
    except Exception:  # noqa: BLE001  # a mistake that raises shows itself
        return False
    outputs = given if isinstance(given, tuple) else (given,)
    return any(stage in mistake.stages for stage in failing_stages(vector, outputs))


def descriptions() -> dict[str, str]:
    """Return what every mistake of the catalogue is, by name."""
    return {mutant.name: mutant.fault for mutant in catalogue()}
