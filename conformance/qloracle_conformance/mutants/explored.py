"""What a run over many seeds has found: the state that it goes on from, and the matrix that it writes."""

import ast
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from qloracle import SPECIFICATION_VERSION
from qloracle_conformance.files import FileError, read_text, write_atomically
from qloracle_conformance.mutants.kills import Kill
from qloracle_conformance.usage import UsageError

STATE, MATRIX = "qloracle mutants state 1", "qloracle mutants matrix 1"
ROOT = "qloracle_conformance.mutants.matrix"  # what decides a result is what this module imports
OURS = ("qloracle", "qloracle_conformance")
_KILL = {
    "mutant": str, "fault": str, "length": int, "property": str, "clause": str, "bound": str, "cases": int,
    "right_stage": bool,
}  # fmt: skip


@dataclass(frozen=True)
class Found:
    """What one seed found about one mutant or rewrite."""

    member: str
    is_mutant: bool
    seed: int
    kills: tuple[Kill, ...] = ()  # of a mutant, one for each length
    accusations: tuple[str, ...] = ()  # of a rewrite

    @property
    def good(self) -> bool:
        """Whether the suite was right about it."""
        return not self.accusations and all(k.right_stage for k in self.kills)


@cache
def suite_digest() -> str:
    """Return a digest of all sources that the results depend on: the catalogue, the suite and the reference."""
    digest = hashlib.sha256()
    for name in sorted(_imported(ROOT, set())):
        digest.update(name.encode() + b"\0" + _source(name))
    return digest.hexdigest()


def _imported(name: str, seen: set[str]) -> set[str]:
    """Return the modules of ours that a module imports, however deep and however late, itself included."""
    if name in seen or _path(name) is None:
        return seen
    seen.add(name)
    for node in ast.walk(ast.parse(_source(name))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.partition(".")[0] in OURS:
            for target in (node.module, *(f"{node.module}.{alias.name}" for alias in node.names)):
                _imported(target, seen)
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.partition(".")[0] in OURS:
                    _imported(alias.name, seen)
    return seen


@cache
def _path(name: str) -> Path | None:
    """Return the file of a module; None where the name is no module."""
    try:
        spec = find_spec(name)
    except (ImportError, AttributeError):
        return None
    return Path(spec.origin) if spec is not None and spec.origin else None


def _source(name: str) -> bytes:
    path = _path(name)
    return b"" if path is None else path.read_bytes()


def save_state(path: Path, digest: str, done: Sequence[Found]) -> None:
    """Write the state.

    Raises
    ------
    FileError
        If it cannot be written.
    """
    content = {"kind": STATE, "specification": SPECIFICATION_VERSION, "suite": digest,
               "found": [asdict(found) for found in done]}  # fmt: skip
    write_atomically(path, json.dumps(content))


def load_state(path: Path, digest: str, *, resume: bool | None) -> list[Found]:
    """Return what earlier runs of the same catalogue and suite found.

    `resume` None goes on if there is a state; True requires one; False begins anew.

    Raises
    ------
    UsageError
        If the state is of another catalogue or suite, or there is none although `resume` is True.
    FileError
        If the file cannot be read, or is no such state: the message names file, entry and rule.
    """
    if not path.parent.is_dir() or path.is_dir():
        raise UsageError(f"--state {path}: it must be a file in a folder that exists")
    if resume is False:
        return []
    if not path.exists():
        if resume:
            raise UsageError(f"--resume: there is no state {path}; --fresh, or neither, begins anew")
        return []
    content = _object(path, STATE, "state of `qloracle mutants --explore`")
    entries = content.get("found")
    if not isinstance(entries, list):
        raise FileError(f"{path}: found must be a list, got {type(entries).__name__}; --fresh replaces it")
    if (content.get("suite"), content.get("specification")) != (digest, SPECIFICATION_VERSION):
        raise UsageError(
            f"--state {path} is of another catalogue or suite: its sources have changed; --fresh begins anew"
        )
    return [_found(path, number, entry) for number, entry in enumerate(entries, 1)]


def _object(path: Path, kind: str, what: str) -> dict[str, Any]:
    try:
        content = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise FileError(f"{path} is no {what}: it holds no JSON: {error}") from error
    if not isinstance(content, dict) or content.get("kind") != kind:
        raise FileError(f"{path} is no {what}: kind must be {kind!r}")
    return content


def _found(path: Path, number: int, entry: Any) -> Found:
    types = {"member": str, "is_mutant": bool, "seed": int, "kills": list, "accusations": list}
    if not isinstance(entry, dict) or any(not isinstance(entry.get(name), kind) for name, kind in types.items()):
        raise FileError(f"{path}, entry {number} of found: it needs {', '.join(types)}; --fresh replaces the file")
    for kill in entry["kills"]:
        named = isinstance(kill, dict) and set(kill) == set(_KILL)
        if not named or any(not isinstance(kill[name], kind) for name, kind in _KILL.items()):
            raise FileError(f"{path}, entry {number} of found: a kill needs {', '.join(_KILL)}; --fresh replaces it")
    kills = tuple(Kill(**kill) for kill in entry["kills"])
    return Found(entry["member"], entry["is_mutant"], entry["seed"], kills, tuple(map(str, entry["accusations"])))


def matrix_text(found: Sequence[Found], seeds: Sequence[int]) -> str:
    """Return the matrix of all seeds as JSON, one mutant or rewrite a line, in the order in which they are given."""
    mutants = [json.dumps(row, ensure_ascii=False) for row in mutant_rows(found)]
    rewrites = [json.dumps(row, ensure_ascii=False) for row in rewrite_rows(found)]
    head = {"kind": MATRIX, "specification": SPECIFICATION_VERSION, "seeds": list(seeds)}
    parts = [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in head.items()]
    for name, rows in (("mutants", mutants), ("rewrites", rewrites)):
        lines = ",\n  ".join(rows)
        parts.append(f'"{name}": [\n  {lines}\n ]')
    return "{\n " + ",\n ".join(parts) + "\n}\n"


def mutant_rows(found: Sequence[Found]) -> list[dict[str, Any]]:
    """Return a row for each mutant, and each length that it was confined to."""
    rows: dict[tuple[str, int], dict[str, Any]] = {}
    for f in found:
        for kill in f.kills:
            row = rows.setdefault((kill.mutant, kill.length), {
                "mutant": kill.mutant, "fault": kill.fault, "length": kill.length, "by": {}, "missed": [],
            })  # fmt: skip
            if not kill.right_stage:
                row["missed"].append({"seed": f.seed, "property": kill.property, "cases": kill.cases})
                continue
            by = row["by"].setdefault(kill.property, {"clause": kill.clause, "bound": kill.bound, "cases": {}})
            by["cases"][str(f.seed)] = kill.cases
    return list(rows.values())


def rewrite_rows(found: Sequence[Found]) -> list[dict[str, Any]]:
    """Return a row for each rewrite."""
    rows: dict[str, dict[str, Any]] = {}
    for f in found:
        if not f.is_mutant:
            row = rows.setdefault(f.member, {"rewrite": f.member, "seeds": [], "accused": {}})
            row["seeds"].append(f.seed)
            if f.accusations:
                row["accused"][str(f.seed)] = list(f.accusations)
    return list(rows.values())
