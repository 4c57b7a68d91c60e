"""Reading reports: what a complete one must have, and one message that says file, line and rule where it has not."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from qloracle import SPECIFICATION_VERSION
from qloracle_conformance.files import FileError, read_text
from qloracle_conformance.report_schema import ADDED_IN_2, FORMAT, LINES, first_problem

READABLE = (1, FORMAT)
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


@dataclass(frozen=True)
class Run:
    """A complete report."""

    path: Path
    header: Mapping[str, Any]
    properties: Sequence[Mapping[str, Any]]
    matrices: Sequence[Mapping[str, Any]]
    footer: Mapping[str, Any]


def read_run(path: Path) -> Run:
    """Read a report; one of format 1 gets empty distributions.

    Raises
    ------
    FileError
        If it cannot be read, a line breaks the schema, the specification is newer than this one, or the footer is
        missing: the message names file, line and rule.
    """
    lines: list[dict[str, Any]] = []
    for number, text in enumerate(read_text(path).splitlines(), 1):
        lines.append(_line(path, number, text, lines[0] if lines else None))
    kinds = [line["type"] for line in lines]
    if not lines:
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
    _require_distinct(path, lines)
    return Run(path, lines[0], found, [line for line in lines if line["type"] == "matrix"], lines[-1])


def _require_distinct(path: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    seen: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        if line["type"] == "property" and seen.setdefault(line["id"], number) != number:
            raise FileError(f"{path}, line {number}: property {line['id']} is on line {seen[line['id']]} already")


def _line(path: Path, number: int, text: str, header: Mapping[str, Any] | None) -> dict[str, Any]:
    try:
        line = json.loads(text, parse_constant=_refuse_constant)
    except (RecursionError, ValueError) as error:
        message = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
        raise FileError(f"{path}, line {number}: no JSON: {message}") from error
    if _SURROGATE.search(text) and not _is_text(line):
        raise FileError(f"{path}, line {number}: half a surrogate pair is no text")
    kind = line.get("type") if isinstance(line, dict) else None
    if not isinstance(kind, str) or kind not in LINES:
        raise FileError(f"{path}, line {number}: type must be one of {', '.join(LINES)}, got {kind!r}")
    if header is None:
        if kind != "header":
            raise FileError(f"{path}, line {number}: a report begins with its header")
        _require_known_versions(path, line)
    elif kind == "property" and header["format"] == 1:
        line = {**line, **{key: line.get(key, value) for key, value in ADDED_IN_2.items()}}
    problem = first_problem(line, LINES[kind])
    if problem:
        raise FileError(f"{path}, line {number}: a {kind} {problem}")
    return dict(line)


def _is_text(line: Any) -> bool:
    try:
        json.dumps(line, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"JSON has no {name}")


def _require_known_versions(path: Path, header: Mapping[str, Any]) -> None:
    if header.get("format") not in READABLE:
        raise FileError(
            f"{path}, line 1: format must be one of {', '.join(map(str, READABLE))}, got {header.get('format')!r}"
        )
    specification = str(header.get("specification"))
    if version(specification) > version(SPECIFICATION_VERSION):
        raise FileError(
            f"{path}, line 1: specification {specification} is newer than {SPECIFICATION_VERSION}, the one"
            " that this program knows"
        )


def version(text: str) -> tuple[int, ...]:
    """Return a version as numbers, so that 0.10 is newer than 0.9; what is no version is newer than all."""
    parts = text.split(".")
    return tuple(int(p) for p in parts) if all(p.isdecimal() for p in parts) else (1 << 30,)
