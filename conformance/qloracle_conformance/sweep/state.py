"""What a sweep has done so far, in a file from which it goes on."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import qloracle
from qloracle_conformance.files import FileError, read_text, write_atomically
from qloracle_conformance.sweep.work import UnitResult
from qloracle_conformance.usage import UsageError

KIND = "qloracle sweep state 1"


def reference_digest() -> str:
    """Return a digest of the reference's source: results of another reference are not those of this one."""
    digest = hashlib.sha256()
    for path in sorted(Path(qloracle.__file__).parent.rglob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def require_place(option: str, path: Path) -> None:
    """Require that a file can be written there: a mistyped folder is not made, nor found out after a long run.

    Raises
    ------
    UsageError
        If its folder does not exist, or it is a folder itself.
    """
    if not path.parent.is_dir():
        raise UsageError(f"{option} {path}: there is no folder {path.parent}")
    if path.is_dir():
        raise UsageError(f"{option} {path} is a folder")


def save(path: Path, identity: dict[str, Any], done: dict[int, UnitResult]) -> None:
    """Write the state."""
    units = [asdict(done[first]) for first in sorted(done)]
    write_atomically(path, json.dumps({"kind": KIND, "identity": identity, "units": units}))


def load(path: Path, identity: dict[str, Any], *, resume: bool | None) -> dict[int, UnitResult]:
    """Return the units that an earlier run did.

    `resume` None goes on if the file belongs to the same sweep; True requires that; False begins anew.

    Raises
    ------
    UsageError
        If the file belongs to another sweep, or there is none although `resume` is True.
    FileError
        If the file cannot be read, or is no state of a sweep.
    """
    if resume is False:
        return {}
    if not path.exists():
        if resume:
            raise UsageError(f"--resume: there is no state {path}; --fresh, or neither, begins anew")
        return {}
    stored, entries = _parts(path)
    if stored != identity:
        differing = [name for name in {**identity, **stored} if identity.get(name) != stored.get(name)]
        how = "; ".join(_difference(name, identity.get(name), stored.get(name)) for name in differing)
        raise UsageError(f"{path} belongs to another sweep ({how}); --fresh replaces it")
    try:
        units = [_unit(entry) for entry in entries]
    except (KeyError, TypeError) as error:
        raise _no_state(path, "one of its units is incomplete") from error
    for number, unit in enumerate(units, 1):
        if not all(isinstance(value, int) for value in _numbers(unit)):
            raise _no_state(path, f"unit {number} holds something else than numbers")
    return {unit.first: unit for unit in units}


def _numbers(unit: UnitResult) -> Iterator[object]:
    """Yield everything that a unit counts."""
    yield from (unit.first, unit.last, unit.refused, unit.mismatches, unit.run_count)
    for group in (*unit.runs, *unit.samples, unit.last_run or (), unit.last_sample or ()):
        yield from group


def _parts(path: Path) -> tuple[dict[str, Any], list[Any]]:
    """Return the identity and the units of a state file."""
    try:
        found = json.loads(read_text(path))
    except (RecursionError, ValueError) as error:
        raise _no_state(path, f"it holds no JSON: {error}") from error
    if not isinstance(found, dict) or found.get("kind") != KIND:
        raise _no_state(path, f"it is not marked as {KIND!r}")
    identity, units = found.get("identity"), found.get("units")
    if not isinstance(identity, dict) or not isinstance(units, list):
        raise _no_state(path, "it lacks the sweep that it belongs to, or its units")
    return identity, units


def _no_state(path: Path, why: str) -> FileError:
    return FileError(f"{path} is no state of a sweep: {why}; --fresh replaces it")


def _difference(name: str, asked: object, stored: object) -> str:
    return "the reference's source has changed" if name == "source" else f"{name}: {asked} asked, {stored} in the file"


def _unit(entry: dict[str, Any]) -> UnitResult:
    pairs = {name: tuple(tuple(item) for item in entry[name]) for name in ("runs", "samples")}
    singles = {name: None if entry[name] is None else tuple(entry[name]) for name in ("last_run", "last_sample")}
    return UnitResult(**{**entry, **pairs, **singles})
