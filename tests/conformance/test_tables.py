"""The terminal's tables: one row a stage, its worst status, and in words what fails, where and by how much."""

from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from qloracle_conformance.plan import Plan
from qloracle_conformance.summary import exit_code, rows
from qloracle_conformance.table import print_counts, print_findings, print_matrices, print_verdicts
from qloracle_conformance.weights import MatrixResult

NOTHING = Plan((), frozenset(), (), ())


def line(family: str = "normal", status: str = "pass", **fields: Any) -> dict[str, Any]:
    """A property line of a report."""
    return {
        "id": f"nf4.quantize.codes.{family}", "operation": "nf4.quantize", "stage": "codes", "family": family,
        "clause": "blockwise.quantize", "claimed": "exact", "attained": "exact", "basis": "promised", "status": status,
        "cases": 3, "elements": 1000, "not_judged": 0, "blocked": 0, "failing": 0, "boundary_hits": 7,
        "bound_used": 0.0, "window": 0.0, "message": "", "finding": None, "witness": "", "seconds": 0.5, **fields,
    }  # fmt: skip


def printed(show: Any, *arguments: Any) -> str:
    out = StringIO()
    show(Console(file=out, width=200, highlight=False), *arguments)
    return out.getvalue()


def test_the_properties_of_a_stage_are_one_row_that_adds_them_up() -> None:
    (row,) = rows([line("boundaries"), line("specials", boundary_hits=1)])
    assert (row.operation, row.stage, row.cases, row.elements, row.boundary_hits) == (
        "nf4.quantize",
        "codes",
        6,
        2000,
        8,
    )
    assert (row.seconds, row.properties, row.broken) == (1.0, 2, 0)


@pytest.mark.parametrize(
    ("statuses", "worst"),
    [
        (["pass", "error", "fail"], "error"),
        (["pass", "fail", "blocked"], "fail"),
        (["differs", "blocked"], "differs"),
        (["pass", "blocked"], "blocked"),
        (["pass", "not-judged"], "not-judged"),
        (["pass", "not-claimed"], "pass"),
        (["not-claimed"], "not-claimed"),
        (["pass"], "pass"),
    ],
)
def test_the_status_of_a_stage_is_the_worst_of_its_properties(statuses: list[str], worst: str) -> None:
    (row,) = rows([line(f"family{i}", status) for i, status in enumerate(statuses)])
    assert row.status == worst


@pytest.mark.parametrize(
    ("fields", "attained"),
    [
        ({"attained": "exact"}, "exact"),
        ({"attained": "tie", "window": 2.5}, "tie (2.5 x 2^-24)"),
        ({"attained": "bound", "bound_used": 0.42}, "bound (42% used)"),
        ({"attained": None, "status": "fail", "window": 17.0}, "none (17 x 2^-24)"),
        ({"attained": None, "status": "fail"}, "none"),
        ({"attained": None, "status": "error", "cases": 0}, "-"),
        ({"attained": "exact", "status": "blocked"}, "-"),
        ({"attained": "exact", "status": "not-judged"}, "-"),
        ({"attained": "exact", "status": "not-claimed", "cases": 0}, "-"),
    ],
)
def test_the_attained_level_says_how_much_of_its_room_was_used(fields: dict[str, Any], attained: str) -> None:
    (row,) = rows([line(**fields)])
    assert row.attained == attained


def test_the_attained_level_of_a_stage_is_the_loosest_of_its_properties() -> None:
    (row,) = rows([line("a"), line("b", attained="tie", window=1.5), line("c", cases=0, attained=None)])
    assert row.attained == "tie (1.5 x 2^-24)"


@pytest.mark.parametrize(
    ("status", "code"),
    [("pass", 0), ("not-claimed", 0), ("not-judged", 0), ("fail", 1), ("differs", 1), ("error", 1), ("blocked", 1)],
)
def test_the_exit_code_is_one_where_a_claim_is_broken_or_rests_on_a_broken_one(status: str, code: int) -> None:
    assert exit_code([line(), line("other", status)]) == code


def test_the_table_names_stage_family_pattern_and_size_of_a_failure() -> None:
    failing = line("boundaries", "fail", attained=None, message="odd elements: 31 of 32; off by up to 2 codes")
    text = printed(print_verdicts, [line(), failing], NOTHING)
    (row,) = [x for x in text.splitlines() if "nf4.quantize" in x]
    for part in (
        "codes",
        "fail",
        "exact",
        "none",
        "2.0 k",
        "14",
        "boundaries: odd elements: 31 of 32; off by up to 2 codes",
    ):
        assert part in row, f"{part!r} is missing in {row!r}"


def test_the_conduct_of_an_operation_has_a_row_only_where_it_is_not_impeccable() -> None:
    good = {**line(), "id": "nf4.quantize.inputs.normal", "stage": "inputs"}
    bad = {**good, "id": "nf4.quantize.inputs.memory", "status": "fail", "message": "the call changed its input x"}
    assert "  inputs  " not in printed(print_verdicts, [line(), good], NOTHING)
    text = printed(print_verdicts, [line(), good, bad], NOTHING)
    assert "the call changed its input x" in text
    assert "inputs unchanged, same bits when repeated: 1 of 2 properties" in text


def test_what_is_not_claimed_is_listed() -> None:
    plan = Plan((), frozenset(), ("lora.forward",), ())
    assert "not claimed: lora.forward" in printed(print_verdicts, [line()], plan)
    assert "1 pass, 1 operations not claimed" in printed(print_counts, [line()], plan, 1.0)


def test_a_finding_is_printed_with_everything_needed_to_see_it_again() -> None:
    finding = {
        "element": 5, "pattern": "odd elements: 31 of 32", "got": "0x3f800001 (1.00000012)",
        "allowed": "0x3f800000 (1)", "error": "off by up to 2 ulp", "cause": "a reciprocal",
        "context": {"x/absmax": "0.5"},
    }  # fmt: skip
    failing = line("boundaries", "fail", finding=finding, witness="some folder/w.json")
    text = printed(print_findings, [line(), failing])
    shown = [x.strip() for x in text.strip().splitlines()]
    assert shown == [
        "nf4.quantize.codes.boundaries: fail, 1 of 2 properties",
        "clause   blockwise.quantize",
        "where    odd elements: 31 of 32",
        "size     off by up to 2 ulp",
        "cause    a reciprocal",
        "got      0x3f800001 (1.00000012) at element 5 of the witness",
        "allowed  0x3f800000 (1)",
        "given    x/absmax = 0.5",
        "replay   qloracle replay 'some folder/w.json'",
    ]


def test_nothing_is_found_where_all_is_well_or_nothing_was_claimed() -> None:
    assert printed(print_findings, [line(), line("bias", "not-claimed")]) == ""


def test_text_in_brackets_is_printed_as_it_is() -> None:
    failing = line(status="error", message="raised: KeyError: [red]")
    assert "raised: KeyError: [red]" in printed(print_findings, [failing])
    assert "raised: KeyError: [red]" in printed(print_verdicts, [failing], NOTHING)


def test_a_matrix_is_printed_with_shape_bits_and_noise_of_each_scheme() -> None:
    matrix = MatrixResult("layer.0", (12, 20), "float32", 3)
    matrix.bits |= {"int8_row": 9.6, "nf4": 4.5, "nf4_double": 4.127}
    matrix.sqnr |= {"int8_row": 46.014, "nf4": 21.446}
    text = printed(print_matrices, [matrix])
    (row,) = [x.split() for x in text.splitlines() if x.startswith("layer.0 ")]
    assert row == ["layer.0", "12x20", "9.600", "46.01", "4.500", "21.45", "4.127", "-"]
    assert "layer.0: 3 values are NaN or infinite; their blocks are poisoned by rule" in text


@pytest.mark.parametrize(("elements", "shown"), [(999, "999"), (1000, "1.0 k"), (2_500_000, "2.5 M"), (10**9, "1.0 G")])
def test_large_numbers_are_shortened(elements: int, shown: str) -> None:
    text = printed(print_verdicts, [line(elements=elements)], NOTHING)
    assert f"  {shown}  " in text
