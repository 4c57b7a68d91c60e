"""A vector: a case, what the reference gives for it, and what every stage of an implementation's outputs may be."""

from dataclasses import dataclass

import numpy as np

from qloracle.int8 import LARGEST_CODE
from qloracle.tables import codebook_named
from qloracle_conformance.arrays import HostArray
from qloracle_conformance.backend import Claim, Level
from qloracle_conformance.generators.case import Case
from qloracle_conformance.judge import LEVELS, Allowed, StageResult
from qloracle_conformance.operations.operation import CONDUCT, Operation
from qloracle_conformance.pipe.selection import looser_of
from qloracle_conformance.vectors.locating import NoLimitsError, unit_of
from qloracle_conformance.vectors.units import CODE, INTEGER, NIBBLE, PACKING, READING, SHAPE, Unit

Outputs = tuple[HostArray, ...]


@dataclass(frozen=True)
class Expected:
    """What one stage of the outputs may be, given the reference's outputs wherever another stage comes before it."""

    stage: str
    clause: str
    level: str  # of the limits
    unit: Unit
    allowed: Allowed  # flat; empty where a stage has no elements of its own

    @property
    def exactly(self) -> bool:
        """Whether no element has any choice."""
        return bool(np.array_equal(self.allowed.lo, self.allowed.hi))

    @property
    def form(self) -> str:
        """The stage, and whether some element has a choice: what one vector of each kind should show."""
        return f"{self.stage} {'exactly' if self.exactly else 'between'}"


@dataclass(frozen=True)
class Refusal:
    """An error in place of outputs: an argument that no rule admits."""

    kind: str  # "value" or "type"
    argument: str  # the one that the message must blame


@dataclass(frozen=True)
class Source:
    """Where a case comes from: counter-based, so that nothing else changes it."""

    family: str
    seed: int
    index: int
    cut: bool  # whether only a part of the generated case was kept


@dataclass(frozen=True)
class Vector:
    """One vector."""

    id: str
    operation: str
    source: Source
    case: Case
    outputs: Outputs = ()
    expected: tuple[Expected, ...] = ()
    refusal: Refusal | None = None
    flags: tuple[str, ...] = ()  # names of mutants that break a limit


def expectations(operation: Operation, case: Case, outputs: Outputs, claim: Claim, level: Level) -> list[Expected]:
    """Return what each stage of an operation may give for a case, given the reference's outputs.

    Raises
    ------
    NoLimitsError
        If the judge compares something that is no element of an output.
    """
    found = []
    for result in operation.judge(case, outputs, claim):
        if result.stage in CONDUCT:
            continue
        if result.problem or (result.blocked is not None and np.any(result.blocked)):
            raise NoLimitsError(f"{operation.name}.{result.stage}: {result.problem or 'blocked'}")
        unit = unit_of(operation, case, outputs, claim, result)
        wanted = looser_of(level, operation.strictest_of(result.stage))
        found.append(_expected(operation, case, outputs, claim, result, unit, wanted))
    return found


def _expected(
    operation: Operation, case: Case, outputs: Outputs, claim: Claim, result: StageResult, unit: Unit, wanted: Level
) -> Expected:
    limits = result.required(wanted)
    level = next(name for name in LEVELS if result.allowed.get(name) is limits)
    if unit.kind in (READING, SHAPE):
        nothing = np.empty(0, np.int64)
        limits = Allowed(nothing, nothing)
    elif unit.kind == PACKING:
        of_bytes = unit.ordinals(outputs[unit.output], outputs[unit.output].items.size)
        limits = Allowed(of_bytes, of_bytes)
    elif level == "tie" and unit.kind in (CODE, NIBBLE, INTEGER):
        limits = _with_neighbours(operation, case, outputs, claim, result, unit)
    flat = Allowed(limits.lo.reshape(-1), limits.hi.reshape(-1))
    return Expected(result.stage, operation.stages[result.stage], level, unit, flat)


def _with_neighbours(
    operation: Operation, case: Case, outputs: Outputs, claim: Claim, result: StageResult, unit: Unit
) -> Allowed:
    """Return limits at level tie: the judge is asked about both neighbours of every code."""
    exact, count = result.allowed["exact"], result.got.size
    lo, hi = exact.lo.reshape(-1).copy(), exact.hi.reshape(-1).copy()
    for step in (-1, 1):
        other = unit.shifted(outputs[unit.output], count, step, _codes_of(case, unit))
        changed = (*outputs[: unit.output], other, *outputs[unit.output + 1 :])
        told = next(r for r in operation.judge(case, changed, claim) if r.stage == result.stage)
        if "tie" in told.allowed and told.got.shape == result.got.shape:
            lo = np.minimum(lo, told.allowed["tie"].lo.reshape(-1))
            hi = np.maximum(hi, told.allowed["tie"].hi.reshape(-1))
    return Allowed(lo, hi)


def _codes_of(case: Case, unit: Unit) -> tuple[int, int]:
    """Return the smallest and the largest ordinal that a code may have."""
    if unit.kind != INTEGER:
        return 0, int(codebook_named(unit.of).value_order.size) - 1
    return case.options.get("qmin", -LARGEST_CODE), case.options.get("qmax", LARGEST_CODE)
