"""Witness files: one failing case as plain JSON, enough to replay it anywhere, without Hypothesis."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from qloracle import SPECIFICATION_VERSION
from qloracle.bounds import Roundings
from qloracle_conformance.arrays import STORAGE, HostArray
from qloracle_conformance.backend import BackendInfo, Claim
from qloracle_conformance.files import FileError, read_text, write_atomically
from qloracle_conformance.generators.case import Case
from qloracle_conformance.safetensors_file import read_stored
from qloracle_conformance.sequences.judging import claims_of
from qloracle_conformance.sequences.step import require_runnable, steps_of
from qloracle_conformance.task import Task
from qloracle_conformance.verdicts import PropertyResult
from qloracle_conformance.witness_schema import VERSION, require_witness

LARGEST_INLINE = 1 << 18  # items of a tensor that the weights file can give instead


@dataclass(frozen=True)
class Witness:
    """A failing case and the claim that it broke."""

    property: str
    operation: str
    stage: str
    family: str
    clause: str
    backend: str  # the name that `check` was called with
    device: str
    claim: Claim
    case: Case
    finding: dict[str, Any]  # what was seen, for readers
    path: Path | None = None  # that it was read from


def write_witness(
    folder: Path, name: str, device: str, info: BackendInfo, task: Task, result: PropertyResult, case: Case
) -> Path:
    """Write the witness of a result and return its path.

    Raises
    ------
    FileError
        If it cannot be written.
    """
    found = result.tally.finding
    content = {
        "qloracle_witness": VERSION,
        "specification": SPECIFICATION_VERSION,
        "property": result.id,
        "operation": result.operation,
        "stage": result.stage,
        "family": result.family,
        "clause": result.clause,
        "backend": {"name": name, "version": info.version, "device": device},
        "claim": {
            "level": result.claimed,
            "levels": dict(task.claim.levels),
            "basis": task.claim.basis,
            "source": task.claim.source,
            "roundings": vars(task.claim.roundings),
            "features": list(task.claim.features),
        },
        "seed": task.seed,
        "finding": found.as_json() if found else {"error": result.message},
        "options": {k: list(v) if isinstance(v, tuple) else v for k, v in case.options.items()},
        "term": case.term,
        "lattice": case.lattice,
        "repeat": case.repeat,
        "inputs": {n: None if a is None else _array_json(a, n, case) for n, a in case.inputs.items()},
    }
    path = folder / f"{name.replace(':', '_').replace('/', '_')}.{result.id}.json"
    write_atomically(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    return path


def _array_json(array: HostArray, name: str, case: Case) -> dict[str, Any]:
    """Return an array inline in hex; a large tensor of a weights file by file, hash and name."""
    layout = case.layouts.get(name, "contiguous")
    described = {"dtype": array.dtype, "shape": list(array.shape), "layout": layout}
    if name in case.stored and array.items.size > LARGEST_INLINE:
        return {**described, "stored": dict(case.stored[name])}
    width = 2 * array.words().dtype.itemsize
    return {**described, "words": " ".join(f"{w:0{width}x}" for w in array.words().reshape(-1).tolist())}


def read_witness(path: Path) -> Witness:
    """Read a witness file.

    Raises
    ------
    FileError
        If it cannot be read, is no witness, is of another version or a newer specification, or names what does not
        exist: the message names file, key and rule.
    """
    try:
        witness = replace(_parsed(require_witness(path, json.loads(read_text(path)))), path=path)
        if "steps" in witness.case.options:
            require_runnable(steps_of(witness.case.options), witness.case.inputs, claims_of(witness.case.options))
    except (ArithmeticError, AttributeError, LookupError, MemoryError, RecursionError, TypeError, ValueError) as error:
        raise FileError(f"{path} is no complete witness file: {type(error).__name__}: {error}") from error
    return witness


def _parsed(content: Mapping[str, Any]) -> Witness:
    claim, backend = content["claim"], content["backend"]
    options = {name: _without_lists(value) for name, value in content["options"].items()}
    inputs = {n: None if a is None else _array(a) for n, a in content["inputs"].items()}
    layouts = {n: a["layout"] for n, a in content["inputs"].items() if a is not None}
    case = Case(content["operation"], inputs, options, layouts, content["lattice"], content["term"], content["repeat"])
    return Witness(
        property=content["property"],
        operation=content["operation"],
        stage=content["stage"],
        family=content["family"],
        clause=content["clause"],
        backend=backend["name"],
        device=backend["device"],
        claim=Claim(
            content["operation"],
            claim["levels"],
            features=tuple(claim.get("features", Claim.features)),  # not in files of earlier versions
            roundings=Roundings(**claim["roundings"]),
            basis=claim["basis"],
            source=claim["source"],
        ),
        case=case,
        finding=content["finding"],
    )


def _without_lists(value: Any) -> Any:
    """Return an option as it was before JSON turned its tuples to lists."""
    return tuple(_without_lists(item) for item in value) if isinstance(value, list) else value


def _array(stored: dict[str, Any]) -> HostArray:
    if "stored" in stored:
        return read_stored(**stored["stored"])
    dtype = np.dtype(STORAGE[stored["dtype"]])
    words = np.array([int(w, 16) for w in stored["words"].split()], f"u{dtype.itemsize}")
    return HostArray(words.view(dtype).reshape(stored["shape"]), stored["dtype"])
