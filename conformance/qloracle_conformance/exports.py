"""What other programs read, as functions of a report: JUnit XML, annotations of a pull request, a badge."""

import re
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from qloracle_conformance.files import write_atomically
from qloracle_conformance.judge import LEVELS
from qloracle_conformance.reading import Run
from qloracle_conformance.summary import rows
from qloracle_conformance.verdicts import BROKEN

FAILING = (*BROKEN, "fixed")  # what makes the exit code of a run 1: an entry of a deviation that is fixed must go
_NOT_XML = re.compile("[^\t\n\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_CHARACTER = 6.6  # pixels of a badge's letter, about


def junit(run: Run) -> str:
    """Return a report as JUnit XML: a suite for each operation, a case for each property."""
    backend = run.header["backend"]
    name = f"qloracle {backend['name']} {backend['version']} on {backend['device']}"
    root = ET.Element("testsuites", name=_printable(name))
    by_operation: dict[str, list[Mapping[str, Any]]] = {}
    for line in run.properties:
        by_operation.setdefault(line["operation"], []).append(line)
    for operation, lines in by_operation.items():
        suite = ET.SubElement(root, "testsuite", name=_printable(operation), timestamp=run.header["time"].rstrip("Z"))
        properties = ET.SubElement(suite, "properties")
        for key, value in (("specification", run.header["specification"]), ("backend", name)):
            ET.SubElement(properties, "property", name=key, value=_printable(value))
        for line in lines:
            _add_case(suite, line)
        _count(suite, [suite], lines)
    _count(root, list(root), run.properties)
    ET.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _add_case(suite: ET.Element, line: Mapping[str, Any]) -> None:
    case = ET.SubElement(
        suite, "testcase", name=_printable(line["id"]), classname=_printable(f"{line['operation']}.{line['stage']}"),
        time=f"{line['seconds']:.3f}",
    )  # fmt: skip
    if line["status"] in FAILING:
        tag = "error" if line["status"] == "error" else "failure"
        found = ET.SubElement(case, tag, message=_printable(line["message"]), type=line["status"])
        found.text = _details(line)
    elif line["status"] != "pass":  # known, blocked, not judged: no pass, and no failure of its own
        ET.SubElement(case, "skipped", message=_printable(f"{line['status']}: {line['message']}"))


def _count(element: ET.Element, suites: Sequence[ET.Element], lines: Sequence[Mapping[str, Any]]) -> None:
    """Write into a suite, or all of them, what its cases are."""
    element.set("tests", str(len(lines)))
    for tag, plural in (("failure", "failures"), ("error", "errors"), ("skipped", "skipped")):
        if element.tag == "testsuite" or tag != "skipped":  # the schemas know no skipped of all suites
            element.set(plural, str(sum(len(suite.findall(f"testcase/{tag}")) for suite in suites)))
    element.set("time", f"{sum(line['seconds'] for line in lines):.3f}")


def _details(line: Mapping[str, Any]) -> str:
    finding = line["finding"] or {}
    told = {"clause": line["clause"], "where": finding.get("pattern"), "got": finding.get("got"),
            "allowed": finding.get("allowed"), "cause": finding.get("cause"), "witness": line["witness"]}  # fmt: skip
    return _printable("\n".join(f"{key}: {value}" for key, value in told.items() if value))


def _printable(text: str) -> str:
    """Return a text without the characters that XML cannot hold."""
    return _NOT_XML.sub("\ufffd", text)


def annotations(run: Run) -> str:
    """Return a workflow command for each stage that does not hold, as GitHub and compatible services read them.

    What has no verdict is a warning; known deviations are none of either.
    """
    lines = []
    for row in rows(run.properties):
        kind = "error" if row.status in FAILING else "warning" if row.status in ("blocked", "not-judged") else ""
        if kind:
            where = f"{row.operation} {row.stage} ({row.broken} of {row.properties} properties)"
            title = _parameter(f"qloracle {row.status}")
            lines.append(f"::{kind} title={title}::{_command(f'{where}: {row.finding}')}")
    return "".join(f"{line}\n" for line in lines)


def _command(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _parameter(text: str) -> str:
    return _command(text).replace(":", "%3A").replace(",", "%2C")


def badge(run: Run) -> str:
    """Return an SVG that states the specification version and at which levels how many operations hold."""
    left = f"qloracle {run.header['specification']}"
    counts = standing(run)
    right = ", ".join(f"{count} {name}" for name, count in counts.items() if count) or "nothing claimed"
    bad = counts["broken"] or not any(counts.values())
    colour = "#b3261e" if bad else "#7a5c00" if counts["known"] or counts["not judged"] else "#2e7d32"
    a, b = (round(len(text) * _CHARACTER + 14) for text in (left, right))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{a + b}" height="20" role="img"'
        f' aria-label="{escape(f"{left}: {right}")}"><title>{escape(f"{left}: {right}")}</title>'
        f'<rect width="{a}" height="20" fill="#444"/><rect x="{a}" width="{b}" height="20" fill="{colour}"/>'
        '<g fill="#fff" font-family="Verdana,Geneva,sans-serif" font-size="11" text-anchor="middle">'
        f'<text x="{a / 2:g}" y="14">{escape(left)}</text><text x="{a + b / 2:g}" y="14">{escape(right)}</text>'
        "</g></svg>\n"
    )


def standing(run: Run) -> dict[str, int]:
    """Return how many operations hold, by the loosest level that they claim, and how many do not, by why not."""
    claimed: dict[str, list[Mapping[str, Any]]] = {}
    for line in run.properties:
        if line["status"] != "not-claimed":
            claimed.setdefault(line["operation"], []).append(line)
    counts = dict.fromkeys((*LEVELS, "known", "not judged", "broken"), 0)
    for lines in claimed.values():
        found = {line["status"] for line in lines}
        if found & set(FAILING):
            counts["broken"] += 1
        elif found & {"blocked", "not-judged"}:
            counts["not judged"] += 1
        elif "known" in found:
            counts["known"] += 1
        else:
            counts[LEVELS[max(LEVELS.index(line["claimed"]) for line in lines)]] += 1
    return counts


def write_exports(run: Run, junit_to: Path | None, badge_to: Path | None) -> None:
    """Write the files that were asked for.

    Raises
    ------
    FileError
        If one cannot be written.
    """
    if junit_to is not None:
        write_atomically(junit_to, junit(run))
    if badge_to is not None:
        write_atomically(badge_to, badge(run))
