"""Running a sweep on several processes, with a progress bar and a state file."""

import json
import os
import resource
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

import qloracle
from qloracle_conformance.files import write_atomically
from qloracle_conformance.pools import results
from qloracle_conformance.sweep.report import joined, print_report
from qloracle_conformance.sweep.sides import Policies, other_side, policies
from qloracle_conformance.sweep.state import load, reference_digest, require_place, save
from qloracle_conformance.sweep.work import UNIT, UnitResult, sweep_unit
from qloracle_conformance.usage import UsageError

_BETWEEN_SAVES = 5.0  # seconds


@dataclass(frozen=True)
class Settings:
    """What the command line asks for."""

    to: str
    against: str
    rounding: str
    overflow: str | None
    nan: str | None
    words: str | None
    processes: int | None
    resume: bool | None
    state: Path | None
    report: Path | None


class Stopped(KeyboardInterrupt):
    """Ctrl-C, after the state was kept; the message says how to go on."""


def sweep(settings: Settings, console: Console, progress_console: Console) -> int:
    """Run a sweep, print what it found, and return the exit code: 0 without a mismatch, else 1.

    Raises
    ------
    UsageError
        If the settings make no sense.
    Stopped
        If the user stops it.
    """
    chosen = policies(settings.to, settings.against, settings.rounding, settings.overflow, settings.nan)
    other = other_side(settings.against, chosen)
    first, last = _range(settings.words)
    version = {"specification": qloracle.SPECIFICATION_VERSION, "against": settings.against, "version": other.version}
    identity = {**asdict(chosen), **version, "first": first, "last": last, "unit": UNIT,
                "source": reference_digest()}  # fmt: skip
    path = settings.state or Path(f"sweep-{chosen.to}-{settings.against.replace(':', '.')}.state.json")
    require_place("--state", path)
    if settings.report:
        require_place("--report", settings.report)
    done = load(path, identity, resume=settings.resume)
    units = len(range(first, last + 1, UNIT))
    earlier = len(done)
    if earlier:
        progress_console.print(f"goes on: {earlier} of {units} units were kept in {path}", markup=False, soft_wrap=True)
    started = time.perf_counter()
    try:
        _sweep(settings, chosen, (first, last), done, path, identity, progress_console)
    except KeyboardInterrupt:
        how = "the same command without --fresh" if settings.resume is False else "the same command"
        raise Stopped(f"stopped; {len(done)} of {units} units kept in {path}; {how} goes on") from None
    report = {
        "kind": "qloracle sweep 1",
        **asdict(chosen),
        **version,
        **joined([done[start] for start in sorted(done)], chosen.to),
        "units_of_earlier_runs": earlier,
        "seconds": round(time.perf_counter() - started, 1),  # of this run, as are the next two
        "processes": _processes(settings),
        "peak_process_bytes": _peak_bytes(),
    }
    if settings.report:
        write_atomically(settings.report, json.dumps(report, indent=2) + "\n")
    path.unlink(missing_ok=True)
    print_report(console, report)
    return 1 if report["mismatches"] else 0


def _range(words: str | None) -> tuple[int, int]:
    if words is None:
        return 0, 2**32 - 1
    low, _, high = words.partition(":")
    try:
        first, last = int(low, 0), int(high, 0)
    except ValueError:
        raise UsageError(f"--words must be FIRST:LAST, two float32 words, got {words!r}") from None
    if not 0 <= first <= last < 2**32:
        raise UsageError(f"--words must be FIRST:LAST from 0 to 0xffffffff, got {words!r}")
    return first, last


def _sweep(
    settings: Settings, chosen: Policies, ends: tuple[int, int], done: dict[int, UnitResult], path: Path,
    identity: dict[str, Any], console: Console,
) -> None:  # fmt: skip
    """Fill `done` with the units that are missing, saving it now and then and at the end, however that comes."""
    first, last = ends
    missing = [start for start in range(first, last + 1, UNIT) if start not in done]
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:.0f} %"),
               TextColumn("{task.fields[speed]}"), TimeRemainingColumn())  # fmt: skip
    began = saved = time.perf_counter()
    compared = 0
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("0 mismatches", total=last - first + 1, speed="")
        progress.advance(task, sum(unit.last - unit.first + 1 for unit in done.values()))
        try:
            for unit in _units(settings, chosen, missing, last):
                done[unit.first] = unit
                compared += unit.last - unit.first + 1
                now = time.perf_counter()
                wrong = sum(each.mismatches for each in done.values())
                speed = f"{compared / (now - began) / 1e6:.0f} M/s"
                progress.update(
                    task, advance=unit.last - unit.first + 1, description=f"{wrong:,} mismatches", speed=speed
                )
                if now - saved > _BETWEEN_SAVES:
                    save(path, identity, done)
                    saved = now
        finally:
            if missing:
                save(path, identity, done)


def _processes(settings: Settings) -> int:
    return settings.processes or os.cpu_count() or 1


def _peak_bytes() -> int:
    """Return the most memory that one process of this run had in use; macOS counts bytes, Linux KiB."""
    most = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return most if sys.platform == "darwin" else 1024 * most


def _units(settings: Settings, chosen: Policies, missing: list[int], last: int) -> Iterator[UnitResult]:
    jobs = [(settings.against, chosen, start, min(start + UNIT - 1, last)) for start in missing]
    yield from results(sweep_unit, jobs, _processes(settings), in_order=False)
