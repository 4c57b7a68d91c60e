"""What other programs read of a report: JUnit XML by its schema's rules, workflow commands, a badge."""

import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from qloracle_conformance.exports import _parameter, annotations, badge, junit, standing, write_exports
from qloracle_conformance.reading import Run

FOREIGN = 'a\x00b\x1b[31m <&"\ufffe> 50%\r\nnext, line: end'
FINDING = {"element": 3, "pattern": "element 3 alone", "got": "1", "allowed": "2", "error": "", "cause": FOREIGN,
           "context": {}}  # fmt: skip


def line(operation: str, status: str, claimed: str = "exact", stage: str = "codes", **more: Any) -> dict[str, Any]:
    return {
        "type": "property", "id": f"{operation}.{stage}.{status}", "operation": operation, "stage": stage,
        "family": status, "clause": "blockwise.quantize", "claimed": claimed, "attained": claimed, "basis": "promised",
        "status": status, "cases": 2, "elements": 9, "not_judged": 0, "blocked": 0, "failing": 0, "boundary_hits": 0,
        "bound_used": 0.0, "window": 0.0, "ordinal_errors": {}, "bound_parts": [], "steps": None, "places": None,
        "message": "", "finding": None, "witness": "", "seconds": 0.25, **more,
    }  # fmt: skip


def run_of(*lines: dict[str, Any]) -> Run:
    header = {"specification": "0.2", "backend": {"name": FOREIGN, "version": "1", "device": "cpu"},
              "time": "2026-01-02T03:04:05Z"}  # fmt: skip
    return Run(Path("r.jsonl"), header, lines, (), {})


EVERY = (
    line("a.pass", "pass"), line("b.fail", "fail", message=FOREIGN, finding=FINDING, witness="w.json"),
    line("b.fail", "pass", stage="absmax"), line("c.differs", "differs", message="m"), line("d.error", "error"),
    line("e.blocked", "blocked"), line("f.known", "known", message="known: why"), line("g.fixed", "fixed"),
    line("h.unjudged", "not-judged"), line("i.unclaimed", "not-claimed"), line("j.bound", "pass", "bound"),
    line("j.bound", "pass", "tie", stage="absmax"),
)  # fmt: skip

# What junit-10.xsd, the schema of Jenkins, allows: attributes of each element, and its children in any number.
ALLOWED = {
    "testsuites": ({"name", "time", "tests", "failures", "disabled", "errors"}, {"testsuite"}),
    "testsuite": (
        {"name", "tests", "failures", "errors", "time", "disabled", "skipped", "timestamp", "hostname", "id"},
        {"properties", "testcase", "system-out", "system-err"},
    ),
    "properties": (set(), {"property"}),
    "property": ({"name", "value"}, set()),
    "testcase": (
        {"name", "assertions", "time", "classname", "status", "class", "file", "line"},
        {"skipped", "error", "failure", "system-out", "system-err"},
    ),
    "failure": ({"type", "message"}, set()),
    "error": ({"type", "message"}, set()),
    "skipped": ({"type", "message"}, set()),
}  # fmt: skip
REQUIRED = {"testsuite": {"name", "tests"}, "testcase": {"name", "classname"}, "property": {"name", "value"}}


def check_schema(element: ET.Element) -> None:
    attributes, children = ALLOWED[element.tag]
    assert set(element.attrib) <= attributes, f"{element.tag}: {set(element.attrib) - attributes}"
    assert REQUIRED.get(element.tag, set()) <= set(element.attrib), element.tag
    assert {child.tag for child in element} <= children, element.tag
    for name in ("tests", "failures", "errors", "skipped"):
        assert element.get(name, "0").isdecimal()
    assert re.fullmatch(r"\d+\.\d+", element.get("time", "0.0"))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", element.get("timestamp", "2026-01-01T00:00:00"))
    for child in element:
        check_schema(child)


def test_junit_keeps_the_rules_of_the_schema() -> None:
    check_schema(ET.fromstring(junit(run_of(*EVERY))))  # noqa: S314


def test_a_schema_check_that_can_fail() -> None:
    root = ET.fromstring(junit(run_of(*EVERY)))  # noqa: S314
    root[0].set("colour", "red")
    with pytest.raises(AssertionError, match="colour"):
        check_schema(root)


def test_junit_has_a_case_for_each_property_and_counts_them_right() -> None:
    root = ET.fromstring(junit(run_of(*EVERY)))  # noqa: S314
    cases = root.findall("testsuite/testcase")
    assert [case.get("name") for case in cases] == [x["id"] for x in EVERY]
    kinds = {case.get("name"): [child.tag for child in case] for case in cases}
    assert {name for name, found in kinds.items() if found == []} == {x["id"] for x in EVERY if x["status"] == "pass"}
    failing = {name for name, found in kinds.items() if found in (["failure"], ["error"])}
    assert failing == {"b.fail.codes.fail", "c.differs.codes.differs", "d.error.codes.error", "g.fixed.codes.fixed"}
    skipped = {name for name, found in kinds.items() if found == ["skipped"]}
    assert {"f.known.codes.known", "e.blocked.codes.blocked", "i.unclaimed.codes.not-claimed"} < skipped
    assert (root.get("tests"), root.get("failures"), root.get("errors"), root.get("time")) == ("12", "3", "1", "3.000")
    suite = next(s for s in root if s.get("name") == "b.fail")
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors"), suite.get("time")) == (
        "2",
        "1",
        "0",
        "0.500",
    )


def test_characters_that_xml_cannot_hold_are_replaced(tmp_path: Path) -> None:
    write_exports(run_of(*EVERY, line("k.half", "fail", message="half \ud800")), tmp_path / "j.xml", tmp_path / "b.svg")
    text = (tmp_path / "j.xml").read_text(encoding="utf-8")
    root = ET.fromstring(text)  # noqa: S314
    (found,) = [f for f in root.iter("failure") if "50%" in str(f.get("message"))]
    assert str(found.get("message")).startswith('a\ufffdb\ufffd[31m <&"\ufffd> 50%')


def test_a_workflow_command_is_one_line_and_escaped() -> None:
    told = annotations(run_of(*EVERY)).splitlines()
    assert [x.partition(" ")[0] for x in told] == ["::error"] * 3 + ["::warning", "::error", "::warning"]
    assert told[0].startswith("::error title=qloracle fail::b.fail codes (1 of 1 properties): fail: a\x00b")
    assert told[0].endswith("50%25%0D%0Anext, line: end")
    assert not any("known" in x or "unclaimed" in x for x in told)


def test_a_parameter_of_a_workflow_command_hides_colons_and_commas() -> None:
    assert _parameter("a:b,c%\n") == "a%3Ab%2Cc%25%0A"


def test_every_operation_stands_in_the_badge_once() -> None:
    counts = standing(run_of(*EVERY))
    assert counts == {"exact": 1, "tie": 0, "bound": 1, "known": 1, "not judged": 2, "broken": 4}


def test_the_badge_states_version_and_levels_and_no_percentage() -> None:
    text = badge(run_of(*EVERY))
    root = ET.fromstring(text)  # noqa: S314
    assert root.get("aria-label") == "qloracle 0.2: 1 exact, 1 bound, 1 known, 2 not judged, 4 broken"
    assert "%" not in text


@pytest.mark.parametrize(
    ("lines", "colour"),
    [((EVERY[0],), "#2e7d32"), ((EVERY[0], EVERY[6]), "#7a5c00"), ((EVERY[1],), "#b3261e"), ((EVERY[9],), "#b3261e")],
)
def test_the_badge_is_green_only_where_everything_claimed_holds(lines: tuple[Any, ...], colour: str) -> None:
    assert colour in badge(run_of(*lines))
