"""What a script shows: the call that breaks a rule, its outputs, and what they should have been."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from qloracle_conformance.arrays import HostArray
from qloracle_conformance.backend import Backend, Claim
from qloracle_conformance.execution import InProcess, run_call
from qloracle_conformance.generators.case import Case
from qloracle_conformance.judge import StageResult
from qloracle_conformance.operations.operation import INPUTS, OUT, REPEAT, Operation, Outputs, level_of
from qloracle_conformance.registry import JUDGED, OPERATIONS
from qloracle_conformance.replay import replayed
from qloracle_conformance.scripts.checks import Check, checks_of
from qloracle_conformance.sequences.judging import claims_of
from qloracle_conformance.sequences.running import Workspace
from qloracle_conformance.sequences.step import MOVES, steps_of
from qloracle_conformance.task import call_of
from qloracle_conformance.usage import UsageError
from qloracle_conformance.verdicts import BROKEN
from qloracle_conformance.witness import Witness


@dataclass(frozen=True)
class Facts:
    """One call, and in what way it breaks a rule: exactly one of the four."""

    operation: Operation
    stage: str
    case: Case
    raised: str = ""  # what the call raised
    checks: Sequence[Check] = ()  # elements that are not allowed
    forms: Sequence[tuple[str, tuple[int, ...]]] = ()  # type and shape of every output, where one is wrong
    conduct: str = ""  # INPUTS or REPEAT: what the call did besides
    outputs: Sequence[HostArray] = field(default=(), repr=False)


def facts_of(witness: Witness, backend: Backend) -> Facts:
    """Run the case of a witness and return what a script needs.

    Raises
    ------
    UsageError
        If the witness does not fail with this backend, or fails in a way that one call does not show.
    """
    result = replayed(witness, InProcess(backend))
    if result.status not in BROKEN:
        raise UsageError(f"{witness.property} holds with {backend.name} {backend.version}: there is nothing to show")
    if witness.operation not in OPERATIONS:
        return _facts_of_sequence(witness, backend)
    return _facts(witness.case, witness.stage, witness.claim, backend)


def _facts(case: Case, stage: str, claim: Claim, backend: Backend) -> Facts:
    operation = OPERATIONS[case.operation]
    outcome = run_call(backend, call_of(case, operation))
    if outcome.failure:
        return Facts(operation, stage, case, raised=outcome.message)
    if stage == OUT:
        raise UsageError(f"{case.operation}.{stage}: a script does not show a wrong out=; `qloracle replay` does")
    if stage in (INPUTS, REPEAT):
        return Facts(operation, stage, case, conduct=stage)
    result = _judged(operation, case, outcome.outputs, claim, stage)
    if result.problem:
        return Facts(operation, stage, case, forms=_right_forms(case, operation), outputs=outcome.outputs)
    checks = checks_of(
        result, level_of(claim, stage), outcome.outputs, lambda tried: _judged(operation, case, tried, claim, stage)
    )
    if not checks:
        raise UsageError(f"{case.operation}.{stage}: no word of an output shows this fault; `qloracle replay` does")
    return Facts(operation, stage, case, checks=checks, outputs=outcome.outputs)


def _judged(operation: Operation, case: Case, outputs: Outputs, claim: Claim, stage: str) -> StageResult:
    return next(result for result in operation.judge(case, outputs, claim) if result.stage == stage)


def _right_forms(case: Case, operation: Operation) -> list[tuple[str, tuple[int, ...]]]:
    """Return type and shape of what the reference returns."""
    from qloracle_conformance.adapters.reference import backend

    outcome = run_call(backend(), call_of(case, operation))
    return [(array.dtype, array.shape) for array in outcome.outputs]


def _facts_of_sequence(witness: Witness, backend: Backend) -> Facts:
    """Return the facts of the first call of a sequence that fails when it is made alone."""
    case, claims = witness.case, claims_of(witness.case.options)
    space, layouts = Workspace(backend, call_of(case, JUDGED[case.operation])), dict(case.layouts)
    for step in steps_of(case.options):
        if step.do in MOVES:
            space.act(step)
            layouts |= dict.fromkeys(step.names, step.layout or "contiguous") if step.do in ("move", "load") else {}
            continue
        named = {role: name for role, name in step.given.items() if name is not None}
        given = {role: space.fetched(name) if name else None for role, name in step.given.items()}
        laid = {role: layouts.get(name, "contiguous") for role, name in named.items()}
        alone = Case(step.operation, given, step.options, laid, step.lattice, step.term)
        stage = _failing_stage(alone, claims[step.operation], backend)
        if stage:
            return _facts(alone, stage, claims[step.operation], backend)
        space.call_step(step, OPERATIONS[step.operation].function)
    raise UsageError(f"{witness.property}: no call of the sequence fails when it is made alone; `qloracle replay` does")


def _failing_stage(case: Case, claim: Claim, backend: Backend) -> str:
    """Return the first stage at which a call breaks its claim, or ""."""
    operation = OPERATIONS[case.operation]
    outcome = run_call(backend, call_of(case, operation))
    if outcome.failure:
        return next(iter(operation.stages))
    for result in operation.judge(case, outcome.outputs, claim):
        if result.problem or np.any(result.failing(level_of(claim, result.stage))):
            return result.stage
    return ""
