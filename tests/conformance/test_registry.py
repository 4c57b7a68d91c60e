"""The registry: ids are locked, each names a rule of the reference, and each can be reached."""

import re

import pytest

from qloracle_conformance.adapters.reference import backend as reference
from qloracle_conformance.execution import InProcess
from qloracle_conformance.explain import clauses
from qloracle_conformance.registry import OPERATIONS, locked_ids, properties, selected
from qloracle_conformance.run import run_task

from .claims import CLAIMS, FAMILIES, each, task_of


def test_the_ids_of_all_properties_are_those_of_the_lock_file() -> None:
    locked, known = locked_ids(), list(properties())
    assert locked == known, (
        f"not locked: {sorted(set(known) - set(locked))[:5]}; locked but gone: {sorted(set(locked) - set(known))[:5]};"
        " `qloracle generate` writes the file"
    )


def test_no_id_is_locked_twice() -> None:
    locked = locked_ids()
    assert len(set(locked)) == len(locked)


def test_an_id_is_operation_stage_and_family() -> None:
    for name, prop in properties().items():
        assert name == f"{prop.operation}.{prop.stage}.{prop.family}"
        assert re.fullmatch(r"[a-z0-9_]+\.[a-z0-9_]+\.[a-z0-9_]+\.[a-z0-9_]+", name), f"{name} is no slug"


@pytest.mark.parametrize("operation", each())
def test_every_stage_is_judged_by_a_clause_of_the_reference(operation: str) -> None:
    known = clauses()
    missing = {stage: c for stage, c in OPERATIONS[operation].stages.items() if c not in known}
    assert not missing, f"{operation}: no docstring of the reference carries {missing}"


def test_an_operation_that_another_rests_on_exists() -> None:
    resting = {op.name: op.given for op in OPERATIONS.values() if op.given}
    assert resting
    assert set(resting.values()) <= set(OPERATIONS)


def test_the_reference_claims_every_operation_and_has_every_function() -> None:
    assert set(CLAIMS) == set(OPERATIONS)
    assert {op.function for op in OPERATIONS.values()} <= set(reference().ops)


@pytest.mark.slow
@pytest.mark.parametrize("operation", each())
def test_the_cases_of_the_smallest_profile_reach_every_stage_and_the_reference_passes(operation: str) -> None:
    executor = InProcess(reference())
    for family in OPERATIONS[operation].families:
        for result in run_task(executor, task_of(operation, family, cases=6)):
            assert result.tally.cases > 0, f"{result.id} has no case"
            assert result.tally.elements > 0, f"{result.id} has no element"
            assert result.status == "pass", f"{result.id}: {result.status}: {result.message}"
            assert result.id in properties()


@pytest.mark.exhaustive
@pytest.mark.parametrize(("operation", "family"), FAMILIES)
def test_the_reference_passes_fifty_cases_of_every_family_under_another_seed(operation: str, family: str) -> None:
    for result in run_task(InProcess(reference()), task_of(operation, family, cases=50, seed=1)):
        assert result.status == "pass", f"{result.id}: {result.status}: {result.message}"


@pytest.mark.parametrize(
    ("pattern", "count"),
    [
        ("nf4.quantize.codes.boundaries", 1),
        ("nf4.quantize.codes", len(OPERATIONS["nf4.quantize"].families) + 2),
        ("nf4.quantize.codes.*", len(OPERATIONS["nf4.quantize"].families) + 2),
        ("absmax.quantize.offset", len(OPERATIONS["absmax.quantize"].families)),
        ("nf4.*.absmax.normal", 1),
        ("*.absmax.quantize.*", 0),
        ("nf4.quant", 0),
        ("nonesuch", 0),
    ],
)
def test_a_selection_is_a_shell_pattern_or_the_beginning_of_ids(pattern: str, count: int) -> None:
    assert len(selected(pattern)) == count


def test_without_a_pattern_everything_is_selected() -> None:
    assert selected(None) == properties()
