"""What other programs read, as functions of a report: JUnit XML, annotations of a pull request, a badge."""

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from qloracle_conformance.files import write_atomically
from qloracle_conformance.reading import Run
from qloracle_conformance.run import BROKEN
from qloracle_conformance.summary import rows

_CHARACTER = 6.6  # pixels of a badge's letter, about


def junit(run: Run) -> str:
    """Return a report as JUnit XML: a suite for each operation, a case for each property."""
    backend = run.header["backend"]
    name = f"qloracle {backend['name']} {backend['version']} on {backend['device']}"
    root = ET.Element("testsuites", name=name)
    by_operation: dict[str, ET.Element] = {}
    for line in run.properties:
        if line["operation"] not in by_operation:
            by_operation[line["operation"]] = ET.SubElement(root, "testsuite", name=line["operation"])
        suite = by_operation[line["operation"]]
        case = ET.SubElement(
            suite, "testcase", classname=f"{line['operation']}.{line['stage']}", name=line["id"],
            time=f"{line['seconds']:.3f}",
        )  # fmt: skip
        if line["status"] in BROKEN:
            tag = "error" if line["status"] == "error" else "failure"
            found = ET.SubElement(case, tag, message=_printable(line["message"]), type=line["status"])
            found.text = _details(line)
        elif line["status"] != "pass":  # known, blocked, not judged: no pass, and no failure of its own
            ET.SubElement(case, "skipped", message=_printable(f"{line['status']}: {line['message']}"))
    for suite in by_operation.values():
        suite.set("tests", str(len(suite)))
        for tag, plural in (("failure", "failures"), ("error", "errors"), ("skipped", "skipped")):
            suite.set(plural, str(len(suite.findall(f"testcase/{tag}"))))
    ET.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _details(line: Mapping[str, Any]) -> str:
    finding = line["finding"] or {}
    told = {"clause": line["clause"], "where": finding.get("pattern"), "got": finding.get("got"),
            "allowed": finding.get("allowed"), "cause": finding.get("cause"), "witness": line["witness"]}  # fmt: skip
    return _printable("\n".join(f"{key}: {value}" for key, value in told.items() if value))


def _printable(text: str) -> str:
    """Return a text without the control characters that XML cannot hold."""
    return "".join(c if c in "\n\t" or c >= " " else "\ufffd" for c in text)


def annotations(run: Run) -> str:
    """Return one workflow command for each broken stage, as GitHub and compatible services read them."""
    lines = []
    for row in rows(run.properties):
        if row.status in BROKEN:
            text = f"{row.operation} {row.stage} ({row.broken} of {row.properties} properties): {row.finding}"
            lines.append(f"::error title=qloracle {_command(row.status)}::{_command(text)}")
    return "".join(f"{line}\n" for line in lines)


def _command(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def badge(run: Run) -> str:
    """Return an SVG that states the specification version and at which levels how many operations hold."""
    left = f"qloracle {run.header['specification']}"
    held = _levels(run)
    broken = len({r.operation for r in rows(run.properties) if r.status in BROKEN})
    parts = [f"{count} {level}" for level, count in held.items() if count]
    right = ", ".join([*parts, f"{broken} broken"] if broken else parts) or "nothing claimed"
    colour = "#b3261e" if broken or not parts else "#2e7d32"
    a, b = (round(len(text) * _CHARACTER + 14) for text in (left, right))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{a + b}" height="20" role="img"'
        f' aria-label="{escape(f"{left}: {right}")}"><title>{escape(f"{left}: {right}")}</title>'
        f'<rect width="{a}" height="20" fill="#444"/><rect x="{a}" width="{b}" height="20" fill="{colour}"/>'
        '<g fill="#fff" font-family="Verdana,Geneva,sans-serif" font-size="11" text-anchor="middle">'
        f'<text x="{a / 2:g}" y="14">{escape(left)}</text><text x="{a + b / 2:g}" y="14">{escape(right)}</text>'
        "</g></svg>\n"
    )


def _levels(run: Run) -> dict[str, int]:
    """Return the number of operations that hold, by the loosest level that they claim."""
    order = ("exact", "tie", "bound")
    loosest: dict[str, int] = {}
    failed: set[str] = set()
    for line in run.properties:
        loosest[line["operation"]] = max(loosest.get(line["operation"], 0), order.index(line["claimed"]))
        if line["status"] not in ("pass", "not-claimed"):
            failed.add(line["operation"])
    return {
        level: sum(place == i and name not in failed for name, place in loosest.items())
        for i, level in enumerate(order)
    }


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
