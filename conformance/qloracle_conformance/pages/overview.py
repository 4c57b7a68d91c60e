"""What the first page says: circumstances, counts, what does not hold, and the matrix of operations and stages."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qloracle_conformance.operations.operation import CONDUCT, INPUTS
from qloracle_conformance.reading import Run
from qloracle_conformance.summary import ORDER, Row, rows
from qloracle_conformance.verdicts import BROKEN

NOT_RECORDED = "not recorded"
NOT_CLAIMED = "not-claimed"
MARKS = {
    "pass": "✓", "fail": "✗", "differs": "≠", "error": "!", "blocked": "⊘", "known": "k", "fixed": "↺",
    "not-judged": "?", NOT_CLAIMED: "–",
}  # fmt: skip
MEANINGS = {
    "pass": "the claim holds",
    "fail": "a promise of the backend's documentation does not hold",
    "differs": "an assumption of the adapter's author does not hold",
    "error": "the backend raised, crashed, hung or returned something that cannot be judged",
    "blocked": "rests on a stage that does not hold: no verdict",
    "known": "does not hold, and is on the list of known deviations",
    "fixed": "is on the list of known deviations, and holds: delete the entry",
    "not-judged": "no element could be judged: no verdict",
    NOT_CLAIMED: "the backend does not claim it: nothing was run, and nothing is known",
}

# What is asked for first of an environment, and under which keys backends record it.
_NAMED = {
    "device": ("device",),
    "driver": ("driver", "driver_version", "cuda_driver", "cuda"),
    "instruction set": ("cpu_capability", "capability", "instruction_set", "isa"),
    "threads": ("threads",),
    "subnormals kept (no FTZ)": ("subnormals_kept", "ftz"),
    "flags": ("flags", "float32_matmul_precision", "allow_tf32"),
}


@dataclass(frozen=True)
class Cell:
    """One stage of one operation, and the page that says most about it."""

    row: Row
    property: str  # id of the property with the worst verdict


@dataclass(frozen=True)
class OperationRow:
    """One operation of the matrix."""

    name: str
    status: str
    cells: Sequence[Cell]
    cases: int
    elements: int


@dataclass(frozen=True)
class Broken:
    """One way in which a stage, or a call as a whole, does not hold: its first property, as the terminal shows it."""

    operation: str
    stages: Sequence[str]
    status: str
    count: int  # properties that do not hold in this way
    line: Mapping[str, Any]
    replay: str


def circumstances(run: Run) -> list[tuple[str, str]]:
    """Return what was judged, with what, and where; what a backend did not record is said to be missing."""
    head, environment = run.header, run.header["environment"]
    backend, settings, suite = head["backend"], head["settings"], head["suite"]
    found = [
        ("backend", f"{backend['name']} {backend['version']}"),
        ("asked for as", f"{backend['requested']} on {backend['device']}"),
    ]
    for name, keys in _NAMED.items():
        told = {key: str(environment[key]) for key in keys if key in environment}
        shown = [value if len(told) == 1 else f"{key}: {value}" for key, value in told.items()]
        found.append((name, ", ".join(shown) or NOT_RECORDED))
    selection = ", ".join(
        f"{key}: {settings[key]}" for key in ("only", "stage", "weights", "shard") if settings.get(key)
    )
    found += [
        ("specification", head["specification"]),
        ("profile, seed", f"{settings['profile']}, {settings['seed']}{', explore' if settings.get('explore') else ''}"),
        ("selection", selection or "all that is claimed"),
        ("suite", f"Python {suite['python']}, NumPy {suite['numpy']}, {suite['machine']}"),
        ("threads given to the backend", str(suite["worker_threads"])),
        ("subnormals kept by the judge", str(suite["subnormals_kept"])),
        ("judged", f"{head['time']}, in {run.footer['seconds']:g} s, exit code {run.footer['exit_code']}"),
    ]  # fmt: skip
    return found


def other_environment(run: Run) -> list[tuple[str, str]]:
    """Return the rest of what the backend recorded."""
    named = {key for keys in _NAMED.values() for key in keys}
    return [(key, str(value)) for key, value in run.header["environment"].items() if key not in named]


def counts(run: Run) -> dict[str, int]:
    """Return the number of properties of each status, the worst first; operations that are not claimed left out."""
    found = [line["status"] for line in run.properties]
    return {status: found.count(status) for status in ORDER if status in found}


def matrix(run: Run) -> list[OperationRow]:
    """Return a row for each operation: those judged as the report has them, then those that are not claimed."""
    grouped: dict[str, list[Cell]] = {}
    for row in rows(run.properties):
        grouped.setdefault(row.operation, []).append(Cell(row, _telling(run, row)))
    judged = [_operation(name, cells) for name, cells in grouped.items()]
    absent = [name for name in run.footer["unclaimed"] if name not in grouped]
    return [*judged, *(OperationRow(name, NOT_CLAIMED, (), 0, 0) for name in absent)]


def _operation(name: str, cells: list[Cell]) -> OperationRow:
    own = [c for c in cells if c.row.stage not in CONDUCT]
    conduct = [c for c in cells if c.row.stage in CONDUCT]
    worst = min((c.row.status for c in cells), key=ORDER.index)
    calls = next((c.row.cases for c in cells if c.row.stage == INPUTS), 0)
    return OperationRow(name, worst, [*own, *conduct], calls, sum(c.row.elements for c in own))


def _telling(run: Run, row: Row) -> str:
    """Return the property of a stage that a reader wants first: the first one with the stage's own status."""
    members = [x for x in run.properties if (x["operation"], x["stage"]) == (row.operation, row.stage)]
    return str(next(x["id"] for x in members if x["status"] == row.status))


def broken(run: Run) -> list[Broken]:
    """Return every way in which a stage does not hold, or cannot be said to; a call that failed is said once."""
    grouped: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for line in run.properties:
        if line["status"] not in ("pass", NOT_CLAIMED):
            reason = line["message"] if line["status"] == "error" else line["stage"]
            grouped.setdefault((line["operation"], line["status"], reason), []).append(line)
    worse = {(o, x["stage"]) for (o, status, _), lines in grouped.items() if status in BROKEN for x in lines}
    found = [
        Broken(
            o, list(dict.fromkeys(x["stage"] for x in lines)), status, len(lines), lines[0], replay_command(lines[0])
        )
        for (o, status, _), lines in grouped.items()
        # What is blocked says nothing that the broken stage beside it does not say better.
        if status not in ("blocked", "not-judged") or (o, lines[0]["stage"]) not in worse
    ]
    return sorted(found, key=lambda b: ORDER.index(b.status))


def replay_command(line: Mapping[str, Any]) -> str:
    """Return the command that runs a failing case again; "" without a witness."""
    return f"qloracle replay {shlex.quote(line['witness'])}" if line["witness"] else ""
