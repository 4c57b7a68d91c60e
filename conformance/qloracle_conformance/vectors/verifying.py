"""Verifying a folder of vectors: whole, unchanged, of known properties, and what the reference gives today."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from qloracle import SPECIFICATION_VERSION
from qloracle.errors import QloracleError
from qloracle_conformance.exchange.records import case_body
from qloracle_conformance.files import FileError, read_text
from qloracle_conformance.operations.operation import Operation
from qloracle_conformance.registry import OPERATIONS, locked_ids, properties
from qloracle_conformance.task import Task
from qloracle_conformance.vectors.building import Settings, refused_vector, vector_of
from qloracle_conformance.vectors.choosing import case_of
from qloracle_conformance.vectors.hunting import hunted
from qloracle_conformance.vectors.locating import NoLimitsError, claims
from qloracle_conformance.vectors.manifest import NAME, digest, read_manifest
from qloracle_conformance.vectors.parsing import Stored, stored_vectors
from qloracle_conformance.vectors.refusals import FAMILY, refusal_of
from qloracle_conformance.vectors.text import vector_text
from qloracle_conformance.vectors.writing import with_progress

SHOWN = 10  # differences that are printed; the others are counted


def verify_vectors(folder: Path, out: Console, progress_to: Console) -> int:
    """Check the files of a folder, derive all of them anew, and return 0 if nothing differs, else 1.

    Raises
    ------
    FileError
        If a file is missing, corrupt, malformed, of a newer specification, or of properties that are not known.
    """
    manifest = read_manifest(folder)
    found = complete_set(folder, manifest)
    differing = with_progress(lambda advance: differences(found, manifest, advance), progress_to)
    for line in differing[:SHOWN]:
        out.print(f"[bold red]differs[/] {escape(line)}", soft_wrap=True)
    if len(differing) > SHOWN:
        out.print(f"and {len(differing) - SHOWN} more")
    verdict = f"{len(differing)} differ from the reference" if differing else "all as the reference gives them"
    out.print(
        f"{len(found):,} vectors of specification {manifest['specification']}, level {manifest['level']}: {verdict}"
    )
    if manifest["specification"] != SPECIFICATION_VERSION:
        out.print(f"judged by specification {SPECIFICATION_VERSION}; where they come from was not checked")
    return int(bool(differing))


def complete_set(folder: Path, manifest: Mapping[str, Any]) -> list[Stored]:
    """Return all vectors of a folder whose files are whole.

    Raises
    ------
    FileError
        If they are not: the message names the file, the line and the rule.
    """
    listed = {entry["path"] for entry in manifest["files"]}
    if len(listed) != len(manifest["files"]):
        raise FileError(f"{folder / NAME}: a file is listed twice")
    extra = sorted(path.name for path in folder.glob("*.txt") if path.name not in listed)
    if extra:
        raise FileError(f"{folder / extra[0]}: the manifest does not list this file")
    found: list[Stored] = []
    for entry in manifest["files"]:
        path = folder / entry["path"]
        text = _unchanged(path, entry)
        members = list(stored_vectors(path, text))
        if len(members) != entry["vectors"]:
            raise FileError(f"{path}: the manifest counts {entry['vectors']} vectors, there are {len(members)}")
        found += members
    _require_distinct(found)
    for stored in found:
        _require_known(stored, manifest)
    _require_counts(folder, found, manifest)
    return found


def _unchanged(path: Path, entry: Mapping[str, Any]) -> str:
    text = read_text(path)
    if len(text.encode()) != entry["bytes"] or digest(text) != entry["sha256"]:
        raise FileError(f"{path}: the file is not the one of the manifest: its SHA-256 must be {entry['sha256']}")
    return text


def _require_distinct(found: Iterable[Stored]) -> None:
    seen: dict[str, Stored] = {}
    for stored in found:
        if stored.id in seen:
            raise stored.reject(f"an id stands once, {stored.id} was used at line {seen[stored.id].line}")
        seen[stored.id] = stored


def _require_known(stored: Stored, manifest: Mapping[str, Any]) -> None:
    entry = manifest["operations"].get(stored.operation)
    if entry is None or entry["file"] != stored.path.name:
        raise stored.reject(f"the manifest does not name this file for {stored.operation}")
    if stored.refused:
        return
    for stage in stored.stages:
        name = f"{stored.operation}.{stage}.{stored.source.family}"
        if name not in properties():
            kind = "a retired" if name in locked_ids() else "an unknown"
            raise stored.reject(f"{name} is {kind} property id")
        if name not in entry["properties"]:
            raise stored.reject(f"the manifest does not list the property {name}")


def _require_counts(folder: Path, found: Iterable[Stored], manifest: Mapping[str, Any]) -> None:
    counts: dict[str, int] = {}
    held: set[str] = set()
    for stored in found:
        counts[stored.operation] = counts.get(stored.operation, 0) + 1
        held |= {f"{stored.operation}.{stage}.{stored.source.family}" for stage in stored.stages}
    for name, entry in manifest["operations"].items():
        if counts.get(name, 0) != entry["vectors"]:
            raise FileError(
                f"{folder / NAME}: operations/{name}: {entry['vectors']} vectors, there are {counts.get(name, 0)}"
            )
        missing = [p for p in entry["properties"] if p not in held]
        if missing:
            raise FileError(f"{folder / NAME}: operations/{name}: no vector is of the property {missing[0]}")


def differences(found: Iterable[Stored], manifest: Mapping[str, Any], advance: Callable[[str, int], None]) -> list[str]:
    """Return one line for each vector that is not what the reference gives, or not the case that it names."""
    settings = Settings(size=manifest["size"], level=manifest["level"], seed=manifest["seed"])
    same = manifest["specification"] == SPECIFICATION_VERSION
    grouped: dict[str, list[Stored]] = {}
    for stored in found:
        grouped.setdefault(stored.operation, []).append(stored)
    differing = []
    for name, members in grouped.items():
        advance(name, len(grouped))
        for stored in members:
            told = _difference(OPERATIONS[name], stored, settings, same_specification=same)
            differing += [told] if told else []
    return differing


def _difference(operation: Operation, stored: Stored, settings: Settings, *, same_specification: bool) -> str:
    try:
        derived = _derived(operation, stored, settings)
    except (NoLimitsError, QloracleError) as error:
        return f"{stored.path}, line {stored.line}: {stored.id}: the reference gives no vector: {error}"
    pairs = enumerate(zip_longest(stored.lines, derived))
    wrong = next(((i, here, there) for i, (here, there) in pairs if here != there), None)
    if wrong is not None:
        offset, here, there = wrong
        return (
            f"{stored.path}, line {stored.line + offset}: {stored.id}: {_short(here)}; the reference: {_short(there)}"
        )
    if same_specification and not stored.refused and not _generated(operation, stored, settings):
        return f"{stored.path}, line {stored.line}: {stored.id}: not the case of that family, seed and index"
    return ""


def _derived(operation: Operation, stored: Stored, settings: Settings) -> list[str]:
    """Return the lines of a vector made anew from the case that a file holds."""
    if stored.source.family.startswith(f"{FAMILY}."):
        refusal = refusal_of(stored.case)
        made = None if refusal is None else refused_vector(operation, stored.source, stored.case, refusal)
    else:
        made = vector_of(operation, stored.source, stored.case, settings.level)
        made = replace(made, flags=hunted(made))
    return [] if made is None else vector_text(made).splitlines()


def _generated(operation: Operation, stored: Stored, settings: Settings) -> bool:
    """Return whether the generators give the case of a vector at the place that it names."""
    source = stored.source
    if source.family not in operation.families:
        return False
    task = Task(operation, source.family, claims()[operation.name], 1, 0, source.seed)
    found = case_of(task, source.index, settings.limits.largest)
    return found is not None and case_body(found[1]) == case_body(stored.case)


def _short(line: str | None) -> str:
    if line is None:
        return "no line here"
    return repr(line if len(line) <= 60 else line[:57] + "...")
