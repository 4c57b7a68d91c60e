"""What a witness file must hold, and which names in it must exist: one message that says file, key and rule."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qloracle import SPECIFICATION_VERSION
from qloracle_conformance.files import FileError
from qloracle_conformance.operations.operation import CONDUCT
from qloracle_conformance.registry import JUDGED, locked_ids, properties
from qloracle_conformance.report_schema import first_problem

VERSION = 1
_CLAIM = {"levels": dict, "basis": str, "source": str, "roundings": dict}
_WITNESS: dict[str, Any] = {
    "specification": str, "property": str, "operation": str, "stage": str, "family": str, "clause": str,
    "backend": {"name": str, "device": str}, "claim": _CLAIM, "finding": dict, "options": dict, "term": str,
    "lattice": bool, "repeat": bool, "inputs": dict,
}  # fmt: skip
_ARRAY: dict[str, Any] = {"dtype": str, "shape": [int], "layout": str}


def require_witness(path: Path, content: Any) -> Mapping[str, Any]:
    """Return the content of a witness file, if it is one that this version can read.

    Raises
    ------
    FileError
        If it is of another version or a newer specification, lacks a key, or names what does not exist.
    """
    from qloracle_conformance.reading import version  # which imports, by way of reports, the writer of witnesses

    if not isinstance(content, dict) or content.get("qloracle_witness") != VERSION:
        raise FileError(f"{path} must be a witness file of version {VERSION}")
    problem = first_problem(content, _WITNESS)
    for name, array in content["inputs"].items() if not problem else ():
        found = "" if array is None else _array_problem(array, name)
        problem = problem or found
    if problem:
        raise FileError(f"{path} is no complete witness file: a witness {problem}")
    if version(content["specification"]) > version(SPECIFICATION_VERSION):
        raise FileError(
            f"{path}: specification {content['specification']} is newer than {SPECIFICATION_VERSION}, the one that this"
            " program knows"
        )
    _require_names(path, content)
    return content


def _array_problem(array: Any, name: str) -> str:
    if not isinstance(array, dict):
        return f"needs the key 'inputs.{name}' as an object or null, got {array!r}"
    stored = {"stored": {"weights": str, "sha256": str, "tensor": str}}
    return first_problem(array, {**_ARRAY, **(stored if "stored" in array else {"words": str})}, f"inputs.{name}.")


def _require_names(path: Path, content: Mapping[str, Any]) -> None:
    name, stage, identifier = content["operation"], content["stage"], content["property"]
    operation = JUDGED.get(name)
    if operation is None or stage not in (*operation.stages, *CONDUCT):
        raise FileError(f"{path} names an operation or stage that this version does not know: {name} {stage}")
    if identifier != f"{name}.{stage}.{content['family']}":
        raise FileError(f"{path}: property must be operation.stage.family, got {identifier!r}")
    if identifier not in properties() and identifier in locked_ids():
        raise FileError(f"{path} is of a retired property: {identifier}")
    if content["family"] not in {p.family for p in properties().values()}:
        raise FileError(f"{path} is of an unknown property: {identifier}")
