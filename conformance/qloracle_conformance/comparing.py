"""Comparing two reports: which verdicts changed."""

from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from qloracle_conformance.reading import Run, read_run
from qloracle_conformance.verdicts import BROKEN

ABSENT = "-"


def compare(before: Path, after: Path, console: Console) -> int:
    """Print every property whose status or attained level differs; return 1 if one broke that held before.

    Raises
    ------
    FileError
        If a report is incomplete.
    """
    old, new = read_run(before), read_run(after)
    console.print(f"before: {escape(_named(old))}\nafter:  {escape(_named(new))}", soft_wrap=True)
    was, now = (
        {line["id"]: (line["status"], line["attained"] or "none", line["message"]) for line in run.properties}
        for run in (old, new)
    )
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("property", "before", "after", "what is said now"):
        table.add_column(name, overflow="fold")
    changed, worse = 0, 0
    for name in dict.fromkeys((*was, *now)):
        first, second = was.get(name, (ABSENT, "", "")), now.get(name, (ABSENT, "", ""))
        if first[:2] == second[:2]:
            continue
        changed += 1
        broke = second[0] in BROKEN and first[0] not in BROKEN
        worse += broke
        colour = "bold red" if broke else "green" if first[0] in BROKEN else "yellow"
        table.add_row(name, _shown(first), f"[{colour}]{_shown(second)}[/]", escape(second[2]))
    if changed:
        console.print(table)
    console.print(f"{changed} of {len(set(was) | set(now))} verdicts changed, {worse} are broken that were not")
    return 1 if worse else 0


def _named(run: Run) -> str:
    backend, settings = run.header["backend"], run.header["settings"]
    return (
        f"{backend['name']} {backend['version']} on {backend['device']}, specification {run.header['specification']},"
        f" profile {settings['profile']}, seed {settings['seed']}, {run.header['time']} ({run.path})"
    )


def _shown(verdict: tuple[str, str, str]) -> str:
    status, attained, _ = verdict
    return f"{status} ({attained})" if attained else status
