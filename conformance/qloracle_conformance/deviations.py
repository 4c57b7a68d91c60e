"""Known deviations: broken claims that a library's maintainers know of, each with a witness that still fails.

A file of deviations is TOML::

    backend = "bitsandbytes"

    [[deviation]]
    properties = ["nf4.dequantize.values.*"]  # ids or shell patterns, all of one operation and stage
    witness = "nf4.dequantize.values.shapes.json"  # beside this file; it must break one of these properties
    reason = "absmax of the wrong block where a block begins inside a row"
    link = "https://example.org/issues/1"  # optional
    versions = ">=0.50,<0.51"  # of the backend
    since = "0.50"  # optional: the first version that is known to have it

Every witness is replayed before a run. Where it still fails, what the entry covers is ``known``; where it passes, its
property is ``fixed``, and the run fails until the entry is deleted.
"""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion, Version

from qloracle_conformance.files import FileError, read_text
from qloracle_conformance.registry import properties
from qloracle_conformance.replay import replayed
from qloracle_conformance.verdicts import BROKEN
from qloracle_conformance.witness import Witness, read_witness
from qloracle_conformance.worker import WorkerProcess

_REQUIRED = {"properties": list, "witness": str, "reason": str, "versions": str}
_OPTIONAL = {"link": str, "since": str}


@dataclass(frozen=True)
class Deviation:
    """One entry of a file of deviations."""

    place: str  # file and number of the entry, for messages
    properties: tuple[str, ...]  # ids
    witness: Witness
    reason: str
    versions: SpecifierSet
    link: str = ""
    since: str = ""


@dataclass(frozen=True)
class Replayed:
    """A deviation that applies to the backend's version, and whether its witness still fails."""

    deviation: Deviation
    still_fails: bool


def read_deviations(path: Path, backend: str) -> list[Deviation]:
    """Read a file of deviations of the backend called `backend`.

    Raises
    ------
    FileError
        If the file cannot be read, is for another backend, or an entry breaks a rule: the message names file, entry
        and rule.
    """
    try:
        content = tomllib.loads(read_text(path))
    except tomllib.TOMLDecodeError as error:
        raise FileError(f"{path}: no TOML: {error}") from error
    if content.get("backend") != backend:
        raise FileError(f"{path}: backend must be {backend!r}, the one that is judged, got {content.get('backend')!r}")
    unknown = set(content) - {"backend", "deviation"}
    if unknown or not isinstance(content.get("deviation", []), list):
        raise FileError(f"{path}: beside backend there are only [[deviation]] tables, got {', '.join(unknown)}")
    return [_entry(path, number, entry) for number, entry in enumerate(content.get("deviation", []), 1)]


def _entry(path: Path, number: int, entry: Mapping[str, Any]) -> Deviation:
    place = f"{path}, deviation {number}"
    for key, kind in _REQUIRED.items():
        if not isinstance(entry.get(key), kind) or not entry[key]:
            raise FileError(f"{place}: {key} must be given, got {entry.get(key)!r}")
    for key in entry:
        if key not in _REQUIRED and not isinstance(entry[key], _OPTIONAL.get(key, ())):
            raise FileError(f"{place}: unknown key {key!r}; known: {', '.join((*_REQUIRED, *_OPTIONAL))}")
    try:
        versions = SpecifierSet(entry["versions"])
    except InvalidSpecifier as error:
        raise FileError(f"{place}: versions must be a range such as '>=1.2,<2', got {entry['versions']!r}") from error
    covered = _covered(place, entry["properties"])
    try:
        witness = read_witness(path.parent / entry["witness"])
    except FileError as error:
        raise FileError(f"{place}: {error}") from error
    if witness.property not in covered:
        raise FileError(f"{place}: the witness must break one of the properties, it is of {witness.property}")
    return Deviation(place, covered, witness, entry["reason"], versions, entry.get("link", ""), entry.get("since", ""))


def _covered(place: str, patterns: Sequence[str]) -> tuple[str, ...]:
    covered: dict[str, None] = {}
    for pattern in patterns:
        if not isinstance(pattern, str):
            raise FileError(f"{place}: properties must be ids or patterns, got {pattern!r}")
        found = [name for name in properties() if fnmatchcase(name, pattern)]
        if not found:
            raise FileError(f"{place}: no property is called {pattern!r}")
        covered.update(dict.fromkeys(found))
    stages = {name.rpartition(".")[0] for name in covered}
    if len(stages) != 1:
        raise FileError(f"{place}: properties must be of one operation and stage, got {', '.join(sorted(stages))}")
    return tuple(covered)


def replay_deviations(
    deviations: Sequence[Deviation], worker: WorkerProcess, selected: frozenset[str]
) -> dict[str, Replayed]:
    """Replay the witness of every deviation that applies, and return what is known by property.

    Raises
    ------
    FileError
        If the backend's version is none that a range could hold.
    """
    known: dict[str, Replayed] = {}
    for deviation in deviations:
        try:
            applies = deviation.versions.contains(Version(worker.info.version), prereleases=True)
        except InvalidVersion as error:
            raise FileError(
                f"{deviation.place}: the backend's version {worker.info.version!r} is none that a range could hold"
            ) from error
        if applies and selected.intersection(deviation.properties):
            outcome = Replayed(deviation, replayed(deviation.witness, worker).status in BROKEN)
            known |= {name: outcome for name in deviation.properties if name not in known or outcome.still_fails}
    return known


def with_known(line: Mapping[str, Any], known: Mapping[str, Replayed]) -> dict[str, Any]:
    """Return a property line of a report with the status that the known deviations give it."""
    found = known.get(line["id"])
    own = found is not None and found.deviation.witness.property == line["id"]
    if found is None or not (own or line["status"] in BROKEN):
        return dict(line)
    if found.still_fails:
        return {**line, "status": "known", "message": _joined(f"known: {found.deviation.reason}", line["message"])}
    if line["status"] in BROKEN:
        return {
            **line,
            "message": _joined(line["message"], f"the witness of {found.deviation.place} passes: another fault"),
        }
    return {**line, "status": "fixed", "message": f"the witness of {found.deviation.place} passes: delete the entry"}


def _joined(*parts: str) -> str:
    return "; ".join(part for part in parts if part)
