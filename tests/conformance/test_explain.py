"""Explaining: every clause, every operation, and every intermediate of a witness."""

from dataclasses import replace
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from qloracle.blockwise import quantize_blockwise
from qloracle_conformance.arrays import host
from qloracle_conformance.explain import explain_clause, explain_witness
from qloracle_conformance.generators.case import Case
from qloracle_conformance.plan import UsageError
from qloracle_conformance.registry import OPERATIONS
from qloracle_conformance.spec.clauses import clauses
from qloracle_conformance.witness import Witness

from .claims import CLAIMS, case_of, each
from .commands import qloracle

WORKED = np.array([1.2, -0.5, -4.3, 1.2, -3.1, 0.8, 2.4, 5.4], np.float32)  # the design's example of absmax INT8


def explained(what: str | Witness) -> str:
    out = StringIO()
    console = Console(file=out, width=200, highlight=False)
    if isinstance(what, str):
        explain_clause(console, what)
    else:
        explain_witness(console, what)
    return out.getvalue()


def witness_of(case: Case, stage: str, element: int = 0) -> Witness:
    operation = OPERATIONS[case.operation]
    claim = replace(CLAIMS[case.operation], basis="promised", source="its manual")
    finding = {"element": element, "pattern": "row 1", "got": "3", "allowed": "4", "error": "off by one", "cause": ""}
    clause = operation.stages[stage]
    name = f"{case.operation}.{stage}.x"
    return Witness(name, case.operation, stage, "x", clause, "mine", "cpu", claim, case, finding)


@pytest.mark.parametrize("clause", clauses())
def test_every_clause_is_printed_with_a_rule(clause: str) -> None:
    text = explained(clause)
    assert f"[{clause}]" in text
    assert clause == "bounds.sum" or "\nqloracle." in text, f"{clause}: no function carries the rule: {text!r}"
    assert len(text.splitlines()) > 6, f"{clause}: no rule in {text!r}"


def test_a_clause_is_printed_with_signature_formula_and_rounding_points() -> None:
    text = explained("blockwise.quantize")
    assert ".quantize_codes(x: array, absmax: array" in text
    assert "Rounding points" in text


@pytest.mark.parametrize("operation", each())
def test_every_operation_is_printed_stage_by_stage(operation: str) -> None:
    text = explained(operation)
    assert f"{operation}: function {OPERATIONS[operation].function}, judged stage by stage" in text
    for stage, clause in OPERATIONS[operation].stages.items():
        assert any(line.split() == [stage, "by", "clause", f"[{clause}]"] for line in text.splitlines()), stage


def test_a_name_that_nothing_has_is_refused_with_the_nearest_that_exist() -> None:
    with pytest.raises(UsageError) as caught:
        explained("nf4.quantise")
    for part in (
        "no clause, operation or file 'nf4.quantise'",
        "did you mean nf4.quantize",
        "`qloracle explain` alone",
    ):
        assert part in str(caught.value)


def columns(text: str) -> dict[str, list[str]]:
    """The cells of the table of intermediates, by the number of the element."""
    rows = text.partition("element ")[2].splitlines()[1:]
    return {row.split()[0]: row.split()[1:] for row in rows if row.strip()}


def test_a_witness_of_int8_shows_the_quotient_and_the_code_of_every_element() -> None:
    case = Case("int8_tensor.quantize", {"x": host(WORKED)}, {"granularity": "tensor", "block_size": None})
    text = explained(witness_of(case, "codes"))
    assert [cells[-1] for cells in columns(text).values()] == ["28", "-12", "-101", "28", "-73", "19", "56", "127"]
    for name in ("x", "absmax of its group", "127·x/absmax", "code"):
        assert name in text
    assert "0x40accccd (5.4000001)" in text


def test_a_witness_of_nf4_shows_absmax_quotient_midpoints_code_and_entry() -> None:
    case = Case("nf4.quantize", {"x": host(WORKED)}, {"codebook": "nf4", "block_size": 4})
    text = explained(witness_of(case, "codes"))
    for name in ("absmax of its block", "x/absmax", "midpoint below", "midpoint above", "code", "entry"):
        assert name in text
    data = quantize_blockwise(WORKED, codebook="nf4", block_size=4).data
    codes = [str(nibble) for byte in data.tolist() for nibble in (byte >> 4, byte & 15)]
    assert [cells[-3] for cells in columns(text).values()] == codes  # code, then the entry's word and value


def test_a_witness_is_printed_with_claim_finding_inputs_and_options() -> None:
    text = explained(witness_of(case_of("lora.forward", "ramps"), "whole"))
    for part in (
        "lora.forward.whole.x by clause [lora.forward], backend mine", "(promised its manual)", "pattern  row 1",
        "got      3", "allowed  4", "error    off by one", "input mask: left out", "'alpha': ", "x W^T + b",
    ):  # fmt: skip
        assert part in text, f"{part!r} is missing in\n{text}"


@pytest.mark.parametrize("operation", each())
def test_a_witness_of_every_operation_can_be_explained(operation: str) -> None:
    families = OPERATIONS[operation].families
    for family in {next(iter(families)), *({"shapes", "specials", "memory"} & set(families))}:
        text = explained(witness_of(case_of(operation, family, 2), next(iter(OPERATIONS[operation].stages)), 1))
        assert f"{operation}." in text, f"{operation}.{family}"


def test_many_elements_are_shown_around_the_failing_one() -> None:
    case = Case("bfloat16.encode", {"values": host(np.arange(1000, dtype=np.float32))}, {"fmt": "bfloat16"})
    text = explained(witness_of(case, "bits", 700))
    assert "elements 668 to 731 of 1000" in text
    assert next(iter(columns(text))) == "668"


def test_the_command_explains_a_clause(tmp_path: Path) -> None:
    ended = qloracle(tmp_path, "explain", "packing.nibbles")
    assert ended.code == 0, str(ended)
    assert "[packing.nibbles]" in ended.out, str(ended)
    assert "high nibble" in ended.out, str(ended)
