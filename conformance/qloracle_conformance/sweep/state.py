"""What a sweep has done so far, in a file from which it goes on."""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import qloracle
from qloracle_conformance.files import FileError, read_text, write_atomically
from qloracle_conformance.plan import UsageError
from qloracle_conformance.sweep.work import UnitResult

KIND = "qloracle sweep state 1"


def reference_digest() -> str:
    """Return a digest of the reference's source: results of another reference are not those of this one."""
    digest = hashlib.sha256()
    for path in sorted(Path(qloracle.__file__).parent.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


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
    try:
        found = json.loads(read_text(path))
        if found["kind"] != KIND:
            raise ValueError(found["kind"])
        units = [_unit(entry) for entry in found["units"]]
    except (ValueError, KeyError, TypeError) as error:
        raise FileError(f"{path} is no state of a sweep ({error}); --fresh replaces it") from error
    if found["identity"] != identity:
        differing = sorted(k for k in {*identity, *found["identity"]} if identity.get(k) != found["identity"].get(k))
        raise UsageError(f"{path} belongs to another sweep ({', '.join(differing)} differ); --fresh replaces it")
    return {unit.first: unit for unit in units}


def _unit(entry: dict[str, Any]) -> UnitResult:
    pairs = {name: tuple(tuple(item) for item in entry[name]) for name in ("runs", "samples")}
    singles = {name: None if entry[name] is None else tuple(entry[name]) for name in ("last_run", "last_sample")}
    return UnitResult(**{**entry, **pairs, **singles})
