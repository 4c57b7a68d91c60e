"""Reading reports: what a complete one must have, and one message that says file, line and rule where it has not."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qloracle import SPECIFICATION_VERSION
from qloracle_conformance.files import FileError, read_text
from qloracle_conformance.report import FORMAT

_KEYS: dict[str, dict[str, type | tuple[type, ...]]] = {
    "header": {
        "format": int, "specification": str, "backend": dict, "environment": dict, "settings": dict, "suite": dict,
        "claims": list, "time": str,
    },
    "property": {
        "id": str, "operation": str, "stage": str, "family": str, "clause": str, "claimed": str,
        "attained": (str, type(None)), "basis": str, "status": str, "cases": int, "elements": int, "not_judged": int,
        "blocked": int, "failing": int, "boundary_hits": int, "bound_used": (int, float), "window": (int, float),
        "message": str, "finding": (dict, type(None)), "witness": str, "seconds": (int, float),
    },
    "matrix": {"name": str, "shape": list, "dtype": str, "not_finite": int, "bits_per_weight": dict, "sqnr_db": dict},
    "footer": {"exit_code": int, "properties": int, "unclaimed": list, "seconds": (int, float)},
}  # fmt: skip


@dataclass(frozen=True)
class Run:
    """A complete report."""

    path: Path
    header: Mapping[str, Any]
    properties: Sequence[Mapping[str, Any]]
    matrices: Sequence[Mapping[str, Any]]
    footer: Mapping[str, Any]


def read_run(path: Path) -> Run:
    """Read a report.

    Raises
    ------
    FileError
        If it cannot be read, a line breaks the schema, the specification is newer than this one, or the footer is
        missing: the message names file, line and rule.
    """
    lines = [_line(path, number, text) for number, text in enumerate(read_text(path).splitlines(), 1)]
    kinds = [line["type"] for line in lines]
    if not lines or kinds[0] != "header":
        raise FileError(f"{path}, line 1: a report begins with its header")
    if "footer" not in kinds:
        raise FileError(f"{path}, line {len(lines)}: the report has no footer, it was cut short; run it again")
    if kinds.index("footer") != len(lines) - 1 or kinds.count("header") != 1:
        raise FileError(f"{path}, line {kinds.index('footer') + 1}: one header, one footer, and nothing after it")
    found = [line for line in lines if line["type"] == "property"]
    if lines[-1]["properties"] != len(found):
        raise FileError(
            f"{path}, line {len(lines)}: the footer counts {lines[-1]['properties']} properties, there are {len(found)}"
        )
    return Run(path, lines[0], found, [line for line in lines if line["type"] == "matrix"], lines[-1])


def _line(path: Path, number: int, text: str) -> dict[str, Any]:
    try:
        line = json.loads(text)
    except json.JSONDecodeError as error:
        raise FileError(f"{path}, line {number}: no JSON: {error.msg}") from error
    kind = line.get("type") if isinstance(line, dict) else None
    if kind not in _KEYS:
        raise FileError(f"{path}, line {number}: type must be one of {', '.join(_KEYS)}, got {kind!r}")
    for key, types in _KEYS[kind].items():
        if not isinstance(line.get(key), types) or isinstance(line.get(key), bool):
            raise FileError(f"{path}, line {number}: a {kind} needs the key {key!r} of its type, got {line.get(key)!r}")
    if kind == "header":
        _require_known_versions(path, line)
    return dict(line)


def _require_known_versions(path: Path, header: Mapping[str, Any]) -> None:
    if header["format"] != FORMAT:
        raise FileError(f"{path}, line 1: format must be {FORMAT}, got {header['format']}")
    if version(header["specification"]) > version(SPECIFICATION_VERSION):
        raise FileError(
            f"{path}, line 1: specification {header['specification']} is newer than {SPECIFICATION_VERSION}, the one"
            " that this program knows"
        )


def version(text: str) -> tuple[int, ...]:
    """Return a version as numbers, so that 0.10 is newer than 0.9; what is no version is newer than all."""
    parts = text.split(".")
    return tuple(int(p) for p in parts) if all(p.isdecimal() for p in parts) else (1 << 30,)
