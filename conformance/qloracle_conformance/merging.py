"""Merging the reports of all shards of a run into the report that the whole run would have written."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from qloracle_conformance.files import FileError
from qloracle_conformance.plan import Plan
from qloracle_conformance.reading import Run, read_run
from qloracle_conformance.registry import properties
from qloracle_conformance.report import Report
from qloracle_conformance.report_schema import FORMAT
from qloracle_conformance.shards import Shard, parse_shard
from qloracle_conformance.summary import exit_code
from qloracle_conformance.table import print_counts, print_findings, print_verdicts

_SHARED = ("specification", "backend", "environment", "claims")


def merge(paths: Sequence[Path], into: Path | None, console: Console) -> int:
    """Merge shards, print the tables of the whole run, and return its exit code.

    Raises
    ------
    FileError
        If a report is incomplete, the reports are not those of one run, or a shard is missing or there twice.
    """
    runs = [read_run(path) for path in paths]
    _require_one_run(runs)
    lines = in_order([line for run in runs for line in run.properties])
    matrices = [m for run in runs for m in run.matrices]
    first = runs[0]
    settings = {k: v for k, v in first.header["settings"].items() if k != "shard"}
    code, seconds = exit_code(lines) if lines else 1, sum(run.footer["seconds"] for run in runs)
    report = Report(into)
    try:
        report.line("header", {**_without_type(first.header), "settings": settings})
        for kind, members in (("property", lines), ("matrix", matrices)):
            for member in members:
                report.line(kind, _without_type(member))
        report.line("footer", {**_without_type(first.footer), "exit_code": code, "properties": len(lines),
                               "seconds": round(seconds, 1)})  # fmt: skip
    finally:
        report.close()
    plan = Plan([], frozenset(), first.footer["unclaimed"], [])
    print_verdicts(console, lines, plan)
    print_findings(console, lines)
    print_counts(console, lines, plan, seconds)
    return code


def _without_type(line: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in line.items() if key != "type"}


def in_order(lines: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return property lines in the order in which a whole run reports them: absent operations, then the registry's."""
    place = {name: index for index, name in enumerate(properties())}
    return sorted(lines, key=lambda line: (line["family"] != "absent", place.get(line["id"], -1)))


def _require_one_run(runs: Sequence[Run]) -> None:
    first = runs[0]
    shards: dict[Shard, Path] = {}
    for run in runs:
        if run.header["format"] != FORMAT:
            raise FileError(
                f"{run.path}, line 1: to be merged, format must be {FORMAT}, got {run.header['format']};"
                " run the shard again"
            )
        for key in _SHARED:
            if run.header[key] != first.header[key]:
                raise FileError(f"{run.path}, line 1: {key} must be that of {first.path}: {first.header[key]}")
        mine, theirs = ({k: v for k, v in r.header["settings"].items() if k != "shard"} for r in (run, first))
        if mine != theirs:
            raise FileError(f"{run.path}, line 1: settings must be those of {first.path}: {theirs}")
        named = run.header["settings"].get("shard")
        if named is None:
            raise FileError(f"{run.path}, line 1: no shard of a run, settings.shard is missing")
        shard = parse_shard(named)
        if shard in shards:
            raise FileError(f"{run.path}, line 1: shard {named} is that of {shards[shard]} too")
        shards[shard] = run.path
    count = next(iter(shards)).count
    missing = [f"{i}/{count}" for i in range(1, count + 1) if Shard(i, count) not in shards]
    if missing or len(shards) != count:
        raise FileError(
            f"{first.path}, line 1: a run of {count} shards needs all of them, missing: {', '.join(missing)}"
        )
