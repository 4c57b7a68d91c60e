"""The manifest of a set of vectors: what it holds, what that means, and the digest of every file."""

import inspect
import json
from collections.abc import Mapping
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import Any

from qloracle import SPECIFICATION_VERSION
from qloracle_conformance.files import FileError, read_text
from qloracle_conformance.protocols import PROTOCOLS
from qloracle_conformance.reading import version
from qloracle_conformance.registry import OPERATIONS
from qloracle_conformance.vectors.building import VectorSet
from qloracle_conformance.vectors.hunting import descriptions, mistakes_of
from qloracle_conformance.vectors.units import UNITS
from qloracle_conformance.vectors.vector import Vector

VERSION = 1
NAME = "manifest.json"


def schema() -> dict[str, Any]:
    """Return the JSON Schema of a manifest."""
    text = files(__package__).joinpath("schema.json").read_text(encoding="utf-8")
    content: dict[str, Any] = json.loads(text)
    return content


def manifest_of(made: VectorSet, texts: Mapping[str, str]) -> dict[str, Any]:
    """Return the manifest of a set whose files have these texts."""
    covered = {name for vector in made.vectors() for name in properties_of(vector)}
    shown = {flag for vector in made.vectors() for flag in vector.flags}
    asked = dict.fromkeys(p.operation for p in made.wanted.values())
    known = {name for operation in asked for name in mistakes_of(operation)}
    return {
        "qloracle_vectors": VERSION,
        "specification": SPECIFICATION_VERSION,
        "level": made.settings.level,
        "size": made.settings.size,
        "seed": made.settings.seed,
        "only": made.settings.only,
        "units": UNITS,
        "files": [
            {"path": path, "sha256": digest(text), "bytes": len(text.encode()), "vectors": len(made.files[path])}
            for path, text in texts.items()
        ],
        "operations": {
            name: _operation(path, name, [v for v in members if v.operation == name])
            for path, members in made.files.items() for name in dict.fromkeys(v.operation for v in members)
        },
        "flags": {name: fault for name, fault in descriptions().items() if name in shown},
        "not_covered": {
            "properties": [name for name in made.wanted if name not in covered],
            "mistakes": [name for name in descriptions() if name in known - shown],
        },
    }  # fmt: skip


def digest(text: str) -> str:
    """Return the SHA-256 of a text."""
    return sha256(text.encode()).hexdigest()


def manifest_text(manifest: Mapping[str, Any]) -> str:
    """Return a manifest as JSON."""
    return json.dumps(manifest, indent=1, ensure_ascii=False) + "\n"


def properties_of(vector: Vector) -> list[str]:
    """Return the ids of the properties that a vector is of; one that is refused is of none."""
    return [f"{vector.operation}.{expected.stage}.{vector.source.family}" for expected in vector.expected]


def _operation(path: str, name: str, vectors: list[Vector]) -> dict[str, Any]:
    operation = OPERATIONS[name]
    call = PROTOCOLS[operation.function].__call__
    parameters = [str(p.name) for p in inspect.signature(call).parameters.values() if p.name != "self"]
    properties = dict.fromkeys(p for vector in vectors for p in properties_of(vector))
    return {
        "function": operation.function,
        "file": path,
        "arguments": ", ".join(parameters),
        "returns": " ".join((inspect.getdoc(call) or "").split()),
        "vectors": len(vectors),
        "stages": dict(operation.stages),
        "properties": list(properties),
    }


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest of a folder.

    Raises
    ------
    FileError
        If there is none, it breaks the schema, or it is of a newer specification than this one.
    """
    path = folder / NAME
    try:
        content = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise FileError(f"{path}, line {error.lineno}: no JSON: {error.msg}") from error
    if not isinstance(content, dict) or content.get("qloracle_vectors") != VERSION:
        raise FileError(f"{path}: qloracle_vectors must be {VERSION}, the form that this program knows")
    specification = content.get("specification")
    if isinstance(specification, str) and version(specification) > version(SPECIFICATION_VERSION):
        raise FileError(
            f"{path}: specification {specification} is newer than {SPECIFICATION_VERSION}, the one that this program"
            " knows"
        )
    _require_schema(path, content)
    return content


def _require_schema(path: Path, content: Any) -> None:
    import jsonschema

    validator = jsonschema.Draft202012Validator(schema())
    error = next(
        iter(sorted(validator.iter_errors(content), key=lambda e: [str(part) for part in e.absolute_path])), None
    )
    if error is not None:
        place = "/".join(map(str, error.absolute_path)) or "the whole"
        raise FileError(f"{path}: {place}: {error.message[:200]} (vectors/schema.json)")
