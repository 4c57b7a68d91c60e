"""Regenerating what is generated: the locked property ids, and the README's tables from the committed reports."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console

from qloracle_conformance.files import FileError, read_text, write_atomically
from qloracle_conformance.operations.operation import INPUTS, REPEAT
from qloracle_conformance.registry import properties
from qloracle_conformance.report import read_report
from qloracle_conformance.summary import Row, rows

IDS = Path("conformance/qloracle_conformance/property_ids.txt")
README = Path("README.md")
REPORTS = {"torch": Path("reports/torch-cpu.jsonl"), "bitsandbytes": Path("reports/bitsandbytes-cpu.jsonl")}
_HEAD = "# Ids of properties, locked: an id never changes its meaning and is never used again.\n"


def generate_files(root: Path, check_only: bool, console: Console) -> int:
    """Write the generated files, or say which are out of date, and return the exit code.

    Raises
    ------
    FileError
        If `root` is no checkout of the repository, a report is cut short, or an id would disappear.
    """
    stale = 0
    for path, text in (*_ids(root), *_readme(root)):
        if (root / path).exists() and read_text(root / path) == text:
            continue
        stale += 1
        console.print(f"{path} {'is out of date' if check_only else 'written'}")
        if not check_only:
            write_atomically(root / path, text)
    console.print("generated files are up to date" if not stale else f"{stale} generated files")
    return 1 if stale and check_only else 0


def _ids(root: Path) -> Iterator[tuple[Path, str]]:
    """Yield the lock file; ids that were there must stay."""
    known = list(properties())
    if (root / IDS).exists():
        locked = [line for line in read_text(root / IDS).splitlines() if line and not line.startswith("#")]
        missing = [i for i in locked if i not in known]
        if missing:
            raise FileError(f"{IDS} locks ids that no property has any more: {', '.join(missing[:3])}")
    yield IDS, _HEAD + "\n".join(known) + "\n"


def _readme(root: Path) -> Iterator[tuple[Path, str]]:
    """Yield the README with every marked table replaced by one made from its report."""
    if not (root / README).exists():
        raise FileError(f"{README} not found below {root.resolve()}: run this in the root of the repository")
    text = read_text(root / README)
    for name, path in REPORTS.items():
        begin, end = f"<!-- generated: {name} -->", f"<!-- end: {name} -->"
        if begin not in text or end not in text:
            raise FileError(f"{README} lacks the marks {begin} and {end}")
        body = markdown(read_report(root / path)) if (root / path).exists() else "Not yet run.\n"
        before, _, rest = text.partition(begin)
        text = f"{before}{begin}\n{body}{end}{rest.partition(end)[2]}"
    yield README, text


def markdown(lines: list[dict[str, Any]]) -> str:
    """Return a report as a Markdown table with its circumstances.

    Raises
    ------
    FileError
        If the report has no footer.
    """
    head = next((line for line in lines if line["type"] == "header"), None)
    if head is None or lines[-1]["type"] != "footer":
        raise FileError("a report without header or footer was cut short; run it again")
    backend, suite, settings = head["backend"], head["suite"], head["settings"]
    found = [r for r in rows(x for x in lines if x["type"] == "property") if r.stage not in (INPUTS, REPEAT)]
    table = ["| operation | stage | claimed | attained | verdict | cases | values on a boundary | what differs |",
             "|---|---|---|---|---|---:|---:|---|"]  # fmt: skip
    table += [_line(r) for r in found]
    unclaimed = lines[-1]["unclaimed"]
    note = f"\nNot claimed: {', '.join(unclaimed)}.\n" if unclaimed else ""
    capability = head["environment"].get("cpu_capability", "")
    return (
        f"{backend['name']} {backend['version']} on {backend['device']} ({capability}), profile {settings['profile']},"
        f" seed {settings['seed']}, NumPy {suite['numpy']}, Python {suite['python']}, {head['time'][:10]}.\n\n"
        + "\n".join(table) + "\n" + note
    )  # fmt: skip


def _line(row: Row) -> str:
    finding = row.finding.replace("|", "\\|")
    hits = f"{row.boundary_hits:,}" if row.boundary_hits else "–"
    return (
        f"| {row.operation} | {row.stage} | {row.claimed} | {row.attained} | {row.status} | {row.cases:,} | {hits} |"
        f" {finding} |"
    )
