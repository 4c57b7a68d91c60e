"""`qloracle check --large`: operations on tensors around 2^31 elements, judged at their ends and at every limit."""

import math
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table
from threadpoolctl import threadpool_limits

from qloracle_conformance.backend import Claim
from qloracle_conformance.execution import Executor, Outcome
from qloracle_conformance.generators.case import Case
from qloracle_conformance.judge import StageResult, exactly, failed_stage
from qloracle_conformance.large.memory import available, needed
from qloracle_conformance.large.operations import FAMILY, LARGE, LargeCase, large_case
from qloracle_conformance.large.running import patterned
from qloracle_conformance.operations.operation import INPUTS, with_default_options
from qloracle_conformance.plan import Plan, make_plan
from qloracle_conformance.registry import OPERATIONS
from qloracle_conformance.report import Report, header
from qloracle_conformance.settings import Settings
from qloracle_conformance.summary import exit_code
from qloracle_conformance.table import print_counts, print_findings, print_verdicts
from qloracle_conformance.tally import count
from qloracle_conformance.task import Task, large_call
from qloracle_conformance.usage import UsageError
from qloracle_conformance.verdict_line import property_line
from qloracle_conformance.verdicts import PropertyResult, fresh_state, verdicts
from qloracle_conformance.worker import WorkerProcess

GIB = 1 << 30
LEAST, MOST = 1 << 12, 1 << 36
SECONDS = 600.0  # that a call may take at least
_POWER = re.compile(r"2(?:\^|\*\*)(\d+)([+-]\d+)?")


@dataclass(frozen=True)
class LargeJob:
    """One operation, and whether there is memory for it."""

    name: str
    claim: Claim
    case: LargeCase
    fits: bool


def parse_elements(text: str) -> int:
    """Return a number of elements: ``2147483648``, ``2^31`` or ``2^31+64``.

    Raises
    ------
    UsageError
        If it is none, or out of range.
    """
    power = _POWER.fullmatch(text.strip())
    number = (1 << int(power[1])) + int(power[2] or 0) if power and int(power[1]) < MOST.bit_length() else None
    if number is None and text.strip().isdecimal():
        number = int(text)
    if number is None or not LEAST <= number <= MOST:
        raise UsageError(f"--elements must be a number such as 2^31 from {LEAST} to 2^36, got {text!r}")
    return number


def check_large(settings: Settings, elements: str, memory: float | None, out: Console, progress_to: Console) -> int:
    """Judge large tensors, print what it takes and the verdicts, and return the exit code.

    Raises
    ------
    UsageError, BackendLoadError, FileError
        For a selection, a backend or a file that makes no run, or where nothing fits into memory.
    """
    started, count_of = time.perf_counter(), parse_elements(elements)
    with threadpool_limits(limits=1):
        worker = WorkerProcess(settings.backend, settings.device, max(settings.timeout, SECONDS))
        try:
            jobs, plan = _jobs(settings, worker, count_of, memory)
            _print_memory(out, jobs, count_of, memory)
            if not any(job.fits for job in jobs):
                raise UsageError("nothing that was selected fits into memory: choose fewer --elements")
            report = Report(settings.report)
            try:
                report.line("header", header(worker.info, settings.backend, settings.device, {
                    "only": settings.only, "seed": settings.seed, "large": count_of}))  # fmt: skip
                lines = _judge_all(settings, worker, jobs, report, progress_to)
                code: int = exit_code(lines)
                seconds = time.perf_counter() - started
                report.line("footer", {"exit_code": code, "properties": len(lines), "unclaimed": list(plan.unclaimed),
                                       "seconds": round(seconds, 1)})  # fmt: skip
            finally:
                report.close()
        finally:
            worker.close()
    print_verdicts(out, lines, replace(plan, unclaimed=()))
    print_findings(out, lines)
    print_counts(out, lines, replace(plan, unclaimed=()), seconds)
    return code


def _jobs(
    settings: Settings, worker: WorkerProcess, elements: int, memory: float | None
) -> tuple[list[LargeJob], Plan]:
    plan = make_plan(worker.info, "smoke", settings.seed, settings.only, settings.stage)
    claims = {c.operation: with_default_options(c, OPERATIONS[c.operation]) for c in worker.info.claims}
    selected = dict.fromkeys(p.rsplit(".", 2)[0] for p in plan.properties if p.endswith(f".{FAMILY}"))
    there = [n for n in LARGE if n in selected and n in claims and OPERATIONS[n].function in worker.info.functions]
    usable = [n for n in there if 1 in claims[n].ndims]
    if not usable:
        raise UsageError(
            f"the backend claims none of the selected operations that have large cases: {', '.join(LARGE)}"
        )
    limit = memory * GIB if memory is not None else available()
    jobs = []
    for name in usable:
        case = large_case(name, claims[name], elements, settings.seed)
        jobs.append(LargeJob(name, claims[name], case, limit is None or needed(case) <= limit))
    return jobs, plan


def _print_memory(out: Console, jobs: list[LargeJob], elements: int, memory: float | None) -> None:
    free = available()
    most = f"{memory:g} GiB as --memory says" if memory is not None else _gib(free) if free else "an unknown amount"
    power = math.log2(elements)
    size = f"2^{int(power)}" if power.is_integer() else f"{elements:,}"
    out.print(f"large: {size} elements; free: {most}; what a backend needs for itself on the way comes on top")
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("operation", "inputs", "outputs", "estimate", ""):
        table.add_column(name, no_wrap=True)
    for job in jobs:
        table.add_row(job.name, _gib(job.case.bytes_in), _gib(job.case.bytes_out), _gib(needed(job.case)),
                      "" if job.fits else "[yellow]refused: does not fit[/]")  # fmt: skip
    out.print(table)


def _gib(size: float) -> str:
    return f"{size / GIB:.2f} GiB" if size >= GIB / 64 else f"{size / 2**20:.2f} MiB"


def _judge_all(
    settings: Settings, worker: Executor, jobs: list[LargeJob], report: Report, progress_to: Console
) -> list[Mapping[str, Any]]:
    lines: list[Mapping[str, Any]] = []
    with Progress(console=progress_to, transient=True) as progress:
        bar = progress.add_task("large", total=len(jobs))
        for job in jobs:
            progress.update(bar, description=escape(job.name))
            for result in judge_large(worker, job, settings.seed):
                if settings.stage in (None, result.stage):
                    lines.append(property_line(result))
                    report.line("property", lines[-1])
            progress.advance(bar)
    return lines


def judge_large(executor: Executor, job: LargeJob, seed: int = 0) -> list[PropertyResult]:
    """Run one operation and judge its windows by the oracles of its stages."""
    operation, case = OPERATIONS[job.name], job.case
    task = Task(operation, FAMILY, job.claim, 1, 0, seed)
    state, started = fresh_state(task), time.perf_counter()
    if not job.fits:
        found = verdicts(task, state, 0.0)
        return [replace(r, status="not-judged", message="refused: the memory does not suffice") for r in found]
    outcome = executor.run(large_call(operation, case.inputs, case.options, case.extent))
    if outcome.failure:
        state.failure = outcome
    else:
        for result, window in _results(job, outcome):
            count(state.tallies[result.stage], result, window, task)
    return verdicts(task, state, time.perf_counter() - started)


def _results(job: LargeJob, outcome: Outcome) -> list[tuple[StageResult, Case]]:
    """Return the results of every window, with the small case that it is."""
    extent, options = job.case.extent, dict(job.case.options)
    found: list[tuple[StageResult, Case]] = []
    for index, window in enumerate(extent.windows):
        outputs = tuple(outcome.outputs[part * len(extent.windows) + index] for part in range(len(extent.outputs)))
        size = window[1] - window[0]
        local = {**options, **({"shape": (size,)} if "shape" in options else {}),
                 **({"size": size} if "size" in options else {})}  # fmt: skip
        inputs = {
            name: replace(pattern, items=patterned(pattern, extent.inputs[name], window))
            for name, pattern in job.case.inputs.items()
        }
        case = Case(job.name, inputs, local)
        place = f"elements {window[0]:,} to {window[1] - 1:,} of {extent.elements:,}"
        for result in OPERATIONS[job.name].judge(case, outputs, job.claim):
            cause = f"{place}: {result.cause}" if result.cause else place
            found.append((replace(result, cause=cause, extra={"window": place}), case))
    clean = StageResult(INPUTS, np.zeros(1, np.int64), {"exact": exactly(np.zeros(1, np.int64))})
    changed = ", ".join(outcome.changed_inputs)
    found.append((failed_stage(INPUTS, f"the call changed its input {changed}") if changed else clean, found[0][1]))
    return found
