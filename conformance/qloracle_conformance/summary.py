"""Verdicts gathered by operation and stage: what the tables of terminal and README show."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qloracle_conformance.tally import looser

# The worst status of its properties is the status of a stage.
ORDER = ("error", "fail", "differs", "fixed", "blocked", "known", "not-judged", "pass", "not-claimed")
MARKS = {"pass": "green", "blocked": "yellow", "known": "yellow", "not-judged": "yellow", "not-claimed": "dim"}

WIDEST = 1e5  # in 2^−24 of a boundary: a code that is wrong farther from one than this is not a matter of rounding


@dataclass(frozen=True)
class Row:
    """One stage of one operation."""

    operation: str
    stage: str
    status: str
    claimed: str
    attained: str
    cases: int
    elements: int
    boundary_hits: int
    bound_used: float
    seconds: float
    finding: str  # pattern of failing indices, size of the error, cause
    broken: int  # properties that do not hold
    passed: int
    properties: int


def rows(lines: Iterable[Mapping[str, Any]]) -> list[Row]:
    """Return one row for each stage of each operation, from the property lines of a report."""
    grouped: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for line in lines:
        grouped.setdefault((line["operation"], line["stage"]), []).append(line)
    return [_row(operation, stage, members) for (operation, stage), members in grouped.items()]


def _row(operation: str, stage: str, members: Sequence[Mapping[str, Any]]) -> Row:
    attained: str | None = "exact"
    for line in members:
        if line["cases"]:
            attained = looser(attained, line["attained"])
    worst = min(members, key=lambda line: ORDER.index(line["status"]))
    used, window = max(line["bound_used"] for line in members), max(line["window"] for line in members)
    shown = _attained(attained, used, window, worst["status"])
    return Row(
        operation=operation,
        stage=stage,
        status=worst["status"],
        claimed=worst["claimed"],
        attained=shown,
        cases=sum(line["cases"] for line in members),
        elements=sum(line["elements"] for line in members),
        boundary_hits=sum(line["boundary_hits"] for line in members),
        bound_used=used,
        seconds=sum(line["seconds"] for line in members),
        finding="; also ".join(f"{line['family']}: {line['message']}" for line in _telling(members)),
        broken=sum(line["status"] in ("fail", "differs", "error") for line in members),
        passed=sum(line["status"] == "pass" for line in members),
        properties=len(members),
    )


def _telling(members: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return one line for each way in which a stage does not hold: of its properties the one that fails most widely."""
    chosen: list[Mapping[str, Any]] = []
    for status in ORDER[: ORDER.index("pass")]:
        lines = [line for line in members if line["status"] == status]
        # A blocked property says nothing that a broken one does not say better.
        if lines and not (chosen and status in ("blocked", "not-judged")):
            chosen.append(max(lines, key=lambda line: int(line["failing"])))
    return chosen


def _attained(level: str | None, used: float, window: float, status: str) -> str:
    if status in ("error", "blocked", "not-judged", "not-claimed"):
        return "-"
    if level is None:
        return f"none ({window:.3g} x 2^-24)" if 0 < window < WIDEST else "none"
    if level == "tie":
        return f"tie ({window:.2g} x 2^-24)"
    return f"bound ({used:.0%} used)" if level == "bound" else level


def exit_code(lines: Iterable[Mapping[str, Any]]) -> int:
    """Return 0 if every claim holds or is known not to, else 1.

    What is blocked rests on a stage that failed, shown or not; where deviations are known, on one of those. A deviation
    that is fixed is 1 too, until its entry is deleted.
    """
    found = {line["status"] for line in lines}
    return int(bool(found & {"fail", "differs", "error", "fixed"}) or ("blocked" in found and "known" not in found))
