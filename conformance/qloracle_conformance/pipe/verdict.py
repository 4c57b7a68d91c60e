"""What `qloracle judge` does: reads answers, prints the tables of `check`, and returns its exit code."""

import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from threadpoolctl import threadpool_limits

from qloracle_conformance.backend import BackendInfo
from qloracle_conformance.exchange.reading import TokenLines
from qloracle_conformance.pipe.judging import Answers, judge_task, reproducing
from qloracle_conformance.pipe.selection import Selection, Sent, tasks_of
from qloracle_conformance.plan import Plan
from qloracle_conformance.report import Report, header
from qloracle_conformance.summary import exit_code
from qloracle_conformance.table import print_findings, print_verdicts
from qloracle_conformance.usage import UsageError
from qloracle_conformance.verdict_line import property_line


@dataclass(frozen=True)
class Program:
    """What is said of the program that answers."""

    name: str
    answers: Iterable[str]  # its lines
    source: str = "standard input"  # how messages call them
    options: tuple[str, ...] = ()  # those of this run that a reader needs to send one case again


def judge_answers(
    selection: Selection, program: Program, report_to: Path | None, out: Console, progress: Console
) -> int:
    """Judge a program's answers to the cases of a selection.

    Raises
    ------
    UsageError
        If the selection names something that does not exist, or no case at all.
    FileError
        If an answer is malformed, or to another case: the message names the line.
    """
    with threadpool_limits(limits=1):
        return _judge(selection, program, report_to, out, progress)


def _judge(selection: Selection, program: Program, report_to: Path | None, out: Console, progress_to: Console) -> int:
    started, tasks = time.perf_counter(), tasks_of(selection)
    info = BackendInfo(program.name, "", (tasks[0].operation.function,), (tasks[0].claim,), {})
    answers = Answers(info, TokenLines(program.source, program.answers))
    report = Report(report_to)
    found: list[dict[str, Any]] = []
    broken: dict[str, Sent] = {}
    try:
        report.line("header", header(info, program.name, "pipe", _recorded(selection)))
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=progress_to, transient=True) as progress:
            bar = progress.add_task("waiting for answers", total=len(tasks))
            for task in tasks:
                judged = judge_task(task, selection, answers)
                broken |= judged.broken
                for line in map(property_line, judged.results):
                    found.append(line)
                    report.line("property", line)
                progress.update(bar, advance=1, description=task.family)
        answers.require_end()
        if not found:
            raise UsageError(
                f"no case of {selection.operation} is left: allow more with --count, --largest or --option"
            )
        code, seconds = exit_code(found), time.perf_counter() - started
        report.line(
            "footer", {"exit_code": code, "properties": len(found), "unclaimed": [], "seconds": round(seconds, 1)}
        )
    finally:
        report.close()
    _print(selection, program, answers, found, broken, seconds, out)
    return code


def _print(
    selection: Selection, program: Program, answers: Answers, found: list[dict[str, Any]], broken: dict[str, Sent],
    seconds: float, out: Console,
) -> None:  # fmt: skip
    out.print(f"[bold]{escape(program.name)}[/] through a pipe, {answers.taken} answers, seed {selection.seed}")
    plan = Plan([], frozenset(line["id"] for line in found), [], [])
    print_verdicts(out, found, plan)
    out.print("changed inputs, repeated calls and memory layouts are not judged: a pipe does not show them")
    print_findings(out, found)
    first = next((sent for name, sent in broken.items() if _is_broken(name, found)), None)
    if first is not None:
        out.print(f"\nthe case of the first failure, {first.id}, alone:", soft_wrap=True)
        out.print(f"  {escape(reproducing(first, program.options, selection.level))}", soft_wrap=True)
    statuses = sorted({line["status"] for line in found})
    counts = ", ".join(f"{sum(line['status'] == status for line in found)} {status}" for status in statuses)
    hits = sum(line["boundary_hits"] for line in found)
    out.print(f"\n{counts}; {answers.taken:,} answers, {hits:,} values on a boundary, {seconds:.0f} s")


def _is_broken(name: str, found: list[dict[str, Any]]) -> bool:
    return any(line["id"] == name and line["status"] in ("fail", "differs", "error") for line in found)


def _recorded(selection: Selection) -> dict[str, Any]:
    """Return the settings that a report names, under the names that those of `check` have."""
    return {
        "only": selection.operation, "stage": None, "profile": f"pipe, {selection.count} cases a family",
        "explore": False, "seed": selection.seed, "weights": None,
    }  # fmt: skip


def standard_input() -> Iterable[str]:
    """Return the lines of standard input; bytes that are no UTF-8 are said with their line."""
    sys.stdin.reconfigure(encoding="utf-8", errors="strict")  # type: ignore[union-attr]
    return sys.stdin
