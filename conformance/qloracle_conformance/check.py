"""One run of the suite against one backend: what `qloracle check` does, without a command line."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from threadpoolctl import threadpool_limits

from qloracle_conformance.deviations import Replayed, read_deviations, replay_deviations, with_known
from qloracle_conformance.engine import OUT_OF_TIME, Session, deadline, run_session
from qloracle_conformance.merging import in_order
from qloracle_conformance.parallel import run_parallel
from qloracle_conformance.plan import Plan, make_plan
from qloracle_conformance.report import Report, header, matrix_line
from qloracle_conformance.safetensors_file import read_matrices
from qloracle_conformance.settings import Settings
from qloracle_conformance.shards import parse_shard
from qloracle_conformance.shipped import deviations_path
from qloracle_conformance.summary import exit_code
from qloracle_conformance.table import print_counts, print_findings, print_matrices, print_verdicts
from qloracle_conformance.tally import Tally
from qloracle_conformance.verdict_line import property_line
from qloracle_conformance.verdicts import PropertyResult
from qloracle_conformance.weights import MatrixResult, check_matrices
from qloracle_conformance.worker import WorkerProcess


def check(settings: Settings, out: Console, progress_to: Console) -> int:
    """Judge a backend, print tables, write the report, and return the exit code.

    Raises
    ------
    UsageError, BackendLoadError, FileError
        For a selection, a backend or a file that makes no run; nothing is written but what was complete.
    SuiteError
        If the suite itself fails.
    KeyboardInterrupt
        If the user stops the run; the report then lacks its footer.
    """
    started = time.perf_counter()
    # The oracles multiply matrices; one thread keeps their sums, and so the reports, the same on any machine.
    with threadpool_limits(limits=1):
        return _check(settings, out, progress_to, started)


def _check(settings: Settings, out: Console, progress_to: Console, started: float) -> int:
    matrices = read_matrices(settings.weights) if settings.weights else []
    worker = WorkerProcess(settings.backend, settings.device, settings.timeout)
    try:
        plan = make_plan(worker.info, settings.profile, settings.seed, settings.only, settings.stage, settings.explore)
        if settings.shard is not None:
            shard = parse_shard(settings.shard)
            matrices = matrices if shard.index == 1 else []  # a property of real weights covers all matrices
            plan = replace(plan, tasks=shard.of(plan.tasks), absent=plan.absent if shard.index == 1 else ())
        listed = []
        if settings.deviations:
            path = deviations_path(settings.deviations, worker.info, settings.device)
            listed = read_deviations(path, worker.info.name)
        known = replay_deviations(listed, worker, plan.properties)
        report = Report(settings.report)
        try:
            return _run(settings, worker, plan, matrices, known, report, out, progress_to, started)
        finally:
            report.close()
    finally:
        worker.close()


@dataclass
class _Log:
    """What a run has found so far, where it is written, and how far it has come."""

    report: Report
    advance: Callable[[str], None]
    known: Mapping[str, Replayed] = field(default_factory=dict)
    lines: list[dict[str, Any]] = field(default_factory=list)
    unordered: list[Mapping[str, Any]] = field(default_factory=list)  # from several processes, in any order
    measured: list[MatrixResult] = field(default_factory=list)

    def record(self, found: Iterable[Mapping[str, Any]]) -> None:
        """Keep and write verdicts."""
        for line in found:
            self.lines.append(with_known(line, self.known))
            self.report.line("property", self.lines[-1])

    def on_task(self, name: str, found: Sequence[Mapping[str, Any]]) -> None:
        """Record the verdicts of a task."""
        self.record(found)
        self.advance(name)

    def on_task_elsewhere(self, name: str, found: Sequence[Mapping[str, Any]]) -> None:
        """Keep the verdicts of a task that another process judged."""
        self.unordered += found
        self.advance(name)

    def on_matrix(self, result: MatrixResult) -> None:
        """Record what was measured on a matrix."""
        self.measured.append(result)
        self.report.line("matrix", matrix_line(result))
        self.advance(result.name)


def _run(
    settings: Settings, worker: WorkerProcess, plan: Plan, matrices: list[Any], known: Mapping[str, Replayed],
    report: Report, out: Console, progress_to: Console, started: float,
) -> int:  # fmt: skip
    report.line("header", header(worker.info, settings.backend, settings.device, _recorded(settings)))
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=progress_to, transient=True) as progress:
        bar = progress.add_task("starting", total=len(plan.tasks) + len(matrices))
        log = _Log(report, lambda name: progress.update(bar, advance=1, description=name), known)
        _judge(settings, worker, plan, matrices, log, started)
    late = sum(line["message"] == OUT_OF_TIME for line in log.lines)
    code = 2 if late else exit_code(log.lines) if log.lines else 1
    seconds = time.perf_counter() - started
    report.line("footer", {"exit_code": code, "properties": len(log.lines), "unclaimed": list(plan.unclaimed),
                           "seconds": round(seconds, 1)})  # fmt: skip
    _print(settings, worker, plan, log, out, seconds)
    if late:
        out.print(f"[bold red]{late} properties were not reached within --max-time: no verdict on the whole[/]")
    return code


def _judge(
    settings: Settings, worker: WorkerProcess, plan: Plan, matrices: list[Any], log: _Log, started: float
) -> None:
    session = Session(worker, settings.backend, settings.device, plan, settings.witnesses, log.on_task,
                      deadline=deadline(settings.max_time, started))  # fmt: skip
    log.record([property_line(result) for result in _absent(plan)])
    if settings.jobs == 1:
        run_session(session)
    elif plan.tasks:
        run_parallel(settings, len(plan.tasks), log.on_task_elsewhere)
        log.record(in_order(log.unordered))
    if session.interrupted:
        raise KeyboardInterrupt
    if matrices:
        found = check_matrices(session, matrices, log.on_matrix)
        log.record([property_line(session.finished(task, result)) for task, result in found])


def _recorded(settings: Settings) -> dict[str, Any]:
    """Return the settings that a report names: those that decide what is judged."""
    names = ("only", "stage", "profile", "explore", "seed", "weights")
    shard = {} if settings.shard is None else {"shard": settings.shard}
    return {**{name: getattr(settings, name) for name in names}, **shard}


def _absent(plan: Plan) -> list[PropertyResult]:
    """Return an error for every operation that is claimed and not there."""
    return [
        PropertyResult(
            f"{name}.claim.absent", name, "claim", "absent", "", "exact", "assumed", "error", Tally(attained=None),
            "claimed, but the backend has no such function",
        )
        for name in plan.absent
    ]  # fmt: skip


def _print(settings: Settings, worker: WorkerProcess, plan: Plan, log: _Log, out: Console, seconds: float) -> None:
    name, version = escape(worker.info.name), escape(worker.info.version)
    device = escape(settings.device)
    out.print(f"[bold]{name} {version}[/] on {device}, profile {settings.profile}, seed {settings.seed}")
    print_verdicts(out, log.lines, plan)
    print_findings(out, log.lines)
    if log.measured:
        out.print()
        print_matrices(out, log.measured)
    print_counts(out, log.lines, plan, seconds)
    if not log.lines:
        out.print("no case was generated, which is an error: the backend claims nothing of what was selected")
    if settings.report is not None:
        out.print(f"report: {escape(str(settings.report))}")
