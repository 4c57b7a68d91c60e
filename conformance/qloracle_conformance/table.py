"""The terminal's view of a run."""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from qloracle_conformance.operations.operation import CONDUCT, INPUTS, OUT
from qloracle_conformance.plan import Plan
from qloracle_conformance.summary import MARKS, rows
from qloracle_conformance.weights import SHOWN, MatrixResult


def print_verdicts(console: Console, lines: Sequence[Mapping[str, Any]], plan: Plan) -> None:
    """Print operation x stage with claimed and attained level, and what fails in words."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("operation", "stage", "status", "claimed", "attained"):
        table.add_column(name, no_wrap=True)
    for name in ("cases", "values", "on boundary", "time"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("where it fails, by how much", overflow="fold")
    previous = ""
    # An operation's conduct (inputs, repeat) has a row of its own only where it is not impeccable.
    for row in (r for r in rows(lines) if r.stage not in CONDUCT or r.status != "pass"):
        colour = MARKS.get(row.status, "bold red")
        table.add_row(
            "" if row.operation == previous else row.operation, row.stage, f"[{colour}]{row.status}[/]", row.claimed,
            row.attained, f"{row.cases:,}", _short(row.elements),
            f"{row.boundary_hits:,}" if row.boundary_hits else "-", f"{row.seconds:.1f} s", escape(row.finding),
        )  # fmt: skip
        previous = row.operation
    console.print(table)
    conduct = [r for r in rows(lines) if r.stage in CONDUCT]
    if conduct:
        kept = sum(r.passed for r in conduct)
        of = sum(r.properties for r in conduct)
        written = ", given outputs written whole and nothing else" if any(r.stage == OUT for r in conduct) else ""
        console.print(f"inputs unchanged, same bits when repeated{written}: {kept} of {of} properties")
    if plan.unclaimed:
        console.print(f"not claimed: {', '.join(plan.unclaimed)}")


def print_findings(console: Console, lines: Sequence[Mapping[str, Any]]) -> None:
    """Print for each stage that fails its first failing property: place, size, cause, and the command to replay it."""
    said: set[tuple[str, str]] = set()
    for row in rows(lines):
        if row.status in ("pass", "not-claimed"):
            continue
        if row.status in ("error", "blocked"):  # what is at fault for all stages is said once, not once a stage
            if (row.operation, row.finding) in said:
                continue
            said.add((row.operation, row.finding))
        members = [
            x for x in lines if (x["operation"], x["stage"], x["status"]) == (row.operation, row.stage, row.status)
        ]
        first = members[0]
        console.print(
            f"\n[bold]{first['id']}[/]: [bold red]{row.status}[/], {row.broken} of {row.properties} properties"
        )
        _print_finding(console, first)


def _print_finding(console: Console, line: Mapping[str, Any]) -> None:
    def item(name: str, value: str) -> None:
        if value:
            console.print(f"  {name:<8} {escape(value)}", soft_wrap=True)

    finding = line["finding"]
    item("clause", line["clause"])
    if finding is None:
        item("why", line["message"])
    else:
        item("where", finding["pattern"])
        item("size", finding["error"])
        item("cause", finding["cause"])
        place = f"at element {finding['element']} of the {'witness' if line['witness'] else 'case'}"
        item("got", f"{finding['got']} {place}" if finding["allowed"] else "")
        item("allowed", finding["allowed"])
        item("given", ", ".join(f"{k} = {v}" for k, v in finding["context"].items()))
    item("replay", f"qloracle replay {shlex.quote(line['witness'])}" if line["witness"] else "")


def print_counts(console: Console, lines: Sequence[Mapping[str, Any]], plan: Plan, seconds: float) -> None:
    """Print how many properties have which status, and the time."""
    counts: dict[str, int] = {}
    for line in lines:
        counts[line["status"]] = counts.get(line["status"], 0) + 1
    shown = ", ".join(f"{n} {status}" for status, n in sorted(counts.items()))
    hits = sum(line["boundary_hits"] for line in lines)
    cases = sum(line["cases"] for line in lines if line["stage"] == INPUTS)
    console.print(
        f"\n{shown or 'no property'}, {len(plan.unclaimed)} operations not claimed;"
        f" {cases:,} calls, {hits:,} values on a boundary, {seconds:.0f} s"
    )


def print_matrices(console: Console, measured: Iterable[MatrixResult]) -> None:
    """Print shape, bits per weight and SQNR of every matrix under the shown schemes."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("matrix")
    table.add_column("shape", no_wrap=True)
    for name in SHOWN:
        table.add_column(f"{name}\nbits", justify="right", no_wrap=True)
        table.add_column("\nSQNR dB", justify="right", no_wrap=True)
    bad = []
    for result in measured:
        cells = []
        for schemes in SHOWN.values():
            scheme = next((s for s in schemes if s in result.bits), "")
            cells.append(f"{result.bits[scheme]:.3f}" if scheme else "-")
            cells.append(f"{result.sqnr[scheme]:.2f}" if scheme in result.sqnr else "-")
        table.add_row(escape(result.name), "x".join(map(str, result.shape)), *cells)
        if result.not_finite:
            bad.append(
                f"{result.name}: {result.not_finite} values are NaN or infinite; their blocks are poisoned by rule"
            )
    console.print(table)
    for line in bad:
        console.print(f"[yellow]{escape(line)}[/]", soft_wrap=True)


def _short(number: int) -> str:
    for limit, unit in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if number >= limit:
            return f"{number / limit:.1f} {unit}"
    return str(number)
