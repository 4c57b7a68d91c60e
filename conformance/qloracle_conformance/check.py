"""One run of the suite against one backend: what `qloracle check` does, without a command line."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from threadpoolctl import threadpool_limits

from qloracle_conformance.engine import Session, run_session
from qloracle_conformance.plan import Plan, make_plan
from qloracle_conformance.report import Report, header, matrix_line, property_line
from qloracle_conformance.run import PropertyResult, Tally, Task
from qloracle_conformance.safetensors_file import read_matrices
from qloracle_conformance.summary import exit_code
from qloracle_conformance.table import print_counts, print_findings, print_matrices, print_verdicts
from qloracle_conformance.weights import MatrixResult, check_matrices
from qloracle_conformance.worker import WorkerProcess


@dataclass(frozen=True)
class Settings:
    """What a run was asked for."""

    backend: str
    device: str = "cpu"
    only: str | None = None
    stage: str | None = None
    profile: str = "default"
    explore: bool = False
    seed: int = 0
    weights: str | None = None
    report: Path | None = None
    witnesses: Path = Path("witnesses")
    timeout: float = 60.0


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
        report = Report(settings.report)
        try:
            return _run(settings, worker, plan, matrices, report, out, progress_to, started)
        finally:
            report.close()
    finally:
        worker.close()


def _run(
    settings: Settings, worker: WorkerProcess, plan: Plan, matrices: list[Any], report: Report, out: Console,
    progress_to: Console, started: float,
) -> int:  # fmt: skip
    lines: list[dict[str, Any]] = []
    measured: list[MatrixResult] = []
    shown = {k: v for k, v in vars(settings).items() if k in ("only", "stage", "profile", "explore", "seed", "weights")}
    report.line("header", header(worker.info, settings.backend, settings.device, shown))
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=progress_to, transient=True) as progress:
        bar = progress.add_task("starting", total=len(plan.tasks) + len(matrices))

        def record(results: list[PropertyResult]) -> None:
            for result in results:
                lines.append(property_line(result))
                report.line("property", lines[-1])

        def on_result(task: Task, results: list[PropertyResult]) -> None:
            record(results)
            progress.update(bar, advance=1, description=f"{task.operation.name}.{task.family}")

        def on_matrix(result: MatrixResult) -> None:
            measured.append(result)
            report.line("matrix", matrix_line(result))
            progress.update(bar, advance=1, description=result.name)

        session = Session(worker, settings.backend, settings.device, plan, settings.witnesses, on_result)
        record(_absent(plan))
        run_session(session)
        if session.interrupted:
            raise KeyboardInterrupt
        if matrices:
            record([session.finished(task, r) for task, r in check_matrices(session, matrices, on_matrix)])
    code = exit_code(lines) if lines else 1
    seconds = time.perf_counter() - started
    report.line("footer", {"exit_code": code, "properties": len(lines), "unclaimed": list(plan.unclaimed),
                           "seconds": round(seconds, 1)})  # fmt: skip
    _print(settings, worker, plan, lines, measured, out, seconds)
    return code


def _absent(plan: Plan) -> list[PropertyResult]:
    """Return an error for every operation that is claimed and not there."""
    return [
        PropertyResult(
            f"{name}.claim.absent", name, "claim", "absent", "", "exact", "assumed", "error", Tally(attained=None),
            "claimed, but the backend has no such function",
        )
        for name in plan.absent
    ]  # fmt: skip


def _print(
    settings: Settings, worker: WorkerProcess, plan: Plan, lines: list[dict[str, Any]], measured: list[MatrixResult],
    out: Console, seconds: float,
) -> None:  # fmt: skip
    name, version = escape(worker.info.name), escape(worker.info.version)
    device = escape(settings.device)
    out.print(f"[bold]{name} {version}[/] on {device}, profile {settings.profile}, seed {settings.seed}")
    print_verdicts(out, lines, plan)
    print_findings(out, lines)
    if measured:
        out.print()
        print_matrices(out, measured)
    print_counts(out, lines, plan, seconds)
    if not lines:
        out.print("no case was generated, which is an error: the backend claims nothing of what was selected")
    if settings.report is not None:
        out.print(f"report: {escape(str(settings.report))}")
