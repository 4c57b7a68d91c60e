"""Regenerating what is generated: the locked property ids, and the README's tables from the committed reports."""

import json
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

from rich.console import Console

from qloracle_conformance.files import FileError, read_text, write_atomically
from qloracle_conformance.operations.operation import INPUTS, REPEAT
from qloracle_conformance.plan import Plan
from qloracle_conformance.registry import properties
from qloracle_conformance.report import read_report
from qloracle_conformance.summary import Row, rows
from qloracle_conformance.table import print_matrices, print_verdicts
from qloracle_conformance.weights import MatrixResult

IDS = Path("conformance/qloracle_conformance/property_ids.txt")
README = Path("README.md")
REPORTS = {"torch": Path("reports/torch-cpu.jsonl"), "bitsandbytes": Path("reports/bitsandbytes-cpu.jsonl")}
BENCHMARK = Path("reports/bench-cpu.json")
EXCERPT = ("nf4.quantize", "nf4.dequantize", "lora.forward")
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
    """Yield the README with every marked part replaced by one made from its report."""
    if not (root / README).exists():
        raise FileError(f"{README} not found below {root.resolve()}: run this in the root of the repository")
    text = read_text(root / README)
    reports = {name: read_report(root / path) for name, path in REPORTS.items()}
    parts = {name: markdown(lines) for name, lines in reports.items()}
    parts |= {"conformance": excerpt(reports["torch"]), "bench": speed(root / BENCHMARK)}
    for name, body in parts.items():
        begin, end = f"<!-- generated: {name} -->", f"<!-- end: {name} -->"
        if begin not in text or end not in text:
            raise FileError(f"{README} lacks the marks {begin} and {end}")
        before, _, rest = text.partition(begin)
        text = f"{before}{begin}\n{body}{end}{rest.partition(end)[2]}"
    yield README, text


def excerpt(lines: list[dict[str, Any]]) -> str:
    """Return a part of what the terminal shows of a report: two operations, and the first matrices."""
    console = Console(file=StringIO(), width=118, highlight=False, color_system=None)
    shown = [x for x in lines if x["type"] == "property" and x["operation"] in EXCERPT and x["family"] != "weights"]
    print_verdicts(console, shown, Plan([], frozenset(), [], []))
    matrices = [_matrix(x) for x in lines if x["type"] == "matrix"][:4]
    console.print()
    print_matrices(console, matrices)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    return "```\n" + "\n".join(line.rstrip() for line in text.splitlines()) + "\n```\n"


def _matrix(line: dict[str, Any]) -> MatrixResult:
    shape = tuple(line["shape"])
    return MatrixResult(
        line["name"], shape, line["dtype"], line["not_finite"], line["bits_per_weight"], line["sqnr_db"]
    )


def speed(path: Path) -> str:
    """Return the benchmark's ratios as a Markdown table.

    Raises
    ------
    FileError
        If there is no report of `qloracle_conformance.bench`.
    """
    try:
        run = json.loads(read_text(path))
        rows = [
            f"| {r['operation']} | {r['format']} | {r['million_values_per_second']['reference']:.0f} |"
            f" {r['torch_over_bitsandbytes']:.2f} | {r['torch_over_reference']:.1f} |"
            for r in run["results"]
        ]
        versions = ", ".join(f"{name} {version}" for name, version in run["versions"].items())
        head = (
            f"NF4, block {run['block_size']}, {run['elements']:,} elements on {run['threads']} CPU threads, medians of"
        )
    except (KeyError, TypeError, ValueError) as error:
        raise FileError(f"{path} is no report of the benchmark: {type(error).__name__}: {error}") from error
    names = "| | format | reference on one thread, million values/s | torch : bitsandbytes | torch : reference |"
    table = "\n".join([names, "|---|---|---:|---:|---:|", *rows])
    return f"{head} {run['repeat']} in one run; {versions}. The last two columns are ratios of speeds.\n\n{table}\n"


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
