"""Vectors: a C program reads them, wrong programs leave their limits, and a changed folder is never accepted."""

import json
import re
import shutil
import subprocess
import zlib
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from rich.console import Console

from qloracle.tables import codebook_named
from qloracle_conformance.files import FileError
from qloracle_conformance.mutants.catalogue import catalogue
from qloracle_conformance.registry import OPERATIONS
from qloracle_conformance.task import Task, case_at
from qloracle_conformance.vectors.building import Settings, build, vector_of
from qloracle_conformance.vectors.canonical import canonical_files, shipped_folder
from qloracle_conformance.vectors.choosing import plain
from qloracle_conformance.vectors.comparing import failing_stages
from qloracle_conformance.vectors.locating import claims
from qloracle_conformance.vectors.manifest import digest, schema
from qloracle_conformance.vectors.parsing import stored_vectors
from qloracle_conformance.vectors.vector import Source, Vector
from qloracle_conformance.vectors.verifying import complete_set, verify_vectors
from qloracle_conformance.vectors.writing import texts_of

from .c_programs import FAULTS, compiled
from .commands import qloracle, refused, require_one_message

LARGEST_COMPRESSED = 2 * 10**6
ONLY = "packing.pack.packed.shapes"  # small, and quick to make
SOURCES = ("blockwise.txt", "conversions.txt")  # the files of the C program's operations


def console() -> Console:
    return Console(file=StringIO(), width=200, color_system=None)


def verified(folder: Path) -> tuple[int, str]:
    out = console()
    return verify_vectors(folder, out, console()), out.file.getvalue()  # type: ignore[attr-defined]


def made(operation: str, family: str, index: int = 0, level: str = "exact") -> Vector:
    task = Task(OPERATIONS[operation], family, claims()[operation], 1, 0, 0)
    source = Source(family, 0, index, cut=False)
    return vector_of(task.operation, source, plain(case_at(task, index)), level)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small set, written by the command."""
    folder = tmp_path_factory.mktemp("vectors")
    ended = qloracle(folder, "vectors", "write", "set", "--only", ONLY)
    assert ended.code == 0, str(ended)
    return folder / "set"


@pytest.fixture
def copy(written: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(written, tmp_path / "set"))


@pytest.fixture(scope="module")
def shipped() -> dict[str, Any]:
    content: dict[str, Any] = json.loads((shipped_folder() / "manifest.json").read_text(encoding="utf-8"))
    return content


# The C program


def run_on_vectors(program: Path) -> subprocess.CompletedProcess[str]:
    files = [str(shipped_folder() / name) for name in SOURCES]
    return subprocess.run([program, "vectors", *files], check=False, capture_output=True, text=True, timeout=180)


def test_the_right_c_program_stays_inside_the_limits_of_the_shipped_vectors(tmp_path: Path) -> None:
    done = run_on_vectors(compiled(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    compared, *_ = done.stdout.splitlines()[-1].split()
    assert int(compared) >= 30, done.stdout


@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_c_program_leaves_the_limits_of_its_stage(fault: str, tmp_path: Path) -> None:
    done = run_on_vectors(compiled(tmp_path, fault))
    operation, stage = FAULTS[fault]
    failures = [line.split() for line in done.stdout.splitlines() if line.startswith("FAIL ")]
    assert done.returncode == 1, done.stdout + done.stderr
    assert all(ident.startswith(operation) for _, ident, _ in failures), done.stdout
    # What the reading of packed codes gets wrong shows in the values; a file has nothing else to compare.
    stages = {"FAULT_READ_SWAPPED": {"values"}, "FAULT_TAIL": {"absmax", "codes"}}.get(fault, {stage})
    assert {found for _, _, found in failures} <= stages, done.stdout
    assert failures[0][2] == ("values" if fault == "FAULT_READ_SWAPPED" else stage), done.stdout


# The shipped set


def test_the_shipped_set_is_whole_and_every_id_is_known_and_unique() -> None:
    found = complete_set(shipped_folder(), json.loads((shipped_folder() / "manifest.json").read_text(encoding="utf-8")))
    assert len({stored.id for stored in found}) == len(found) > 1000


def test_the_shipped_set_is_small_enough_for_a_wheel() -> None:
    sizes = [len(zlib.compress(path.read_bytes(), 6)) for path in shipped_folder().iterdir()]
    assert sum(sizes) < LARGEST_COMPRESSED
    assert len(sizes) < 30


def test_the_shipped_set_covers_every_operation_and_stage(shipped: dict[str, Any]) -> None:
    assert set(shipped["operations"]) == set(OPERATIONS)
    for name, entry in shipped["operations"].items():
        held = {p.removeprefix(f"{name}.").split(".")[0] for p in entry["properties"]}
        assert held == set(OPERATIONS[name].stages), f"{name} has no vector of {set(OPERATIONS[name].stages) - held}"


def test_most_of_the_known_mistakes_leave_the_limits_of_a_shipped_vector(shipped: dict[str, Any]) -> None:
    shown, missed = len(shipped["flags"]), len(shipped["not_covered"]["mistakes"])
    assert shown > 8 * missed, f"{shown} shown, {missed} not"
    assert set(shipped["flags"].items()) <= {(m.name, m.fault) for m in catalogue()}


def test_a_part_of_the_shipped_set_is_made_again_byte_for_byte() -> None:
    again = build(Settings(only="packing.*"))
    assert texts_of(again)["packing.txt"] == (shipped_folder() / "packing.txt").read_text(encoding="utf-8")


@pytest.mark.exhaustive
def test_the_shipped_set_is_made_again_byte_for_byte() -> None:
    root = Path(__file__).resolve().parents[2]
    for path, text in canonical_files(root, console()):
        assert (root / path).read_text(encoding="utf-8") == text, f"{path}: run `qloracle generate`"


@pytest.mark.exhaustive
def test_the_shipped_set_is_verified() -> None:
    code, printed = verified(shipped_folder())
    assert code == 0, printed


# What vectors hold


def test_limits_at_level_tie_are_those_of_the_window() -> None:
    vector = made("nf4.quantize", "boundaries", 2, "tie")
    codes = next(e for e in vector.expected if e.stage == "codes")
    x, block_size = vector.case.array("x").single().reshape(-1), vector.case.options["block_size"]
    absmax = np.repeat(vector.outputs[1].items, block_size)[: x.size].astype(np.float64)
    midpoints = codebook_named("nf4").midpoints
    distance = np.abs(x[:, np.newaxis] / absmax[:, np.newaxis] - midpoints) / (np.abs(midpoints) * 2.0**-24)
    near = (distance.min(axis=1) <= 3) & (absmax >= 2.0**-128) & (absmax <= 2.0**126)
    assert near.sum() > 1000
    assert np.array_equal(codes.allowed.hi > codes.allowed.lo, near)
    assert codes.allowed.hi.max() <= 15
    exact = next(e for e in made("nf4.quantize", "boundaries", 2).expected if e.stage == "codes")
    assert np.all((codes.allowed.lo <= exact.allowed.lo) & (exact.allowed.hi <= codes.allowed.hi))


def test_the_reference_stays_inside_its_own_limits_and_neighbours_do_not() -> None:
    for name in ("bfloat16.encode", "int8_row.quantize", "affine_group.quantize", "nf4_double.quantize", "lora.merge"):
        vector = next(v for v in (made(name, "shapes", index) for index in range(9)) if v.outputs[0].items.size)
        assert failing_stages(vector, vector.outputs) == []
        other = (type(vector.outputs[0])(vector.outputs[0].items[:-1], vector.outputs[0].dtype), *vector.outputs[1:])
        assert failing_stages(vector, other), name
        assert failing_stages(vector, ()) == [e.stage for e in vector.expected], name


def test_exchanged_nibbles_are_a_fault_of_packing_and_not_of_codes() -> None:
    vector = made("nf4.quantize", "shapes", 2)
    data = vector.outputs[0]
    swapped = type(data)((data.items << 4 | data.items >> 4).astype(np.uint8), "uint8")
    assert failing_stages(vector, (swapped, vector.outputs[1])) == ["packing"]
    changed = type(data)(data.items ^ np.uint8(0x10), "uint8")
    assert failing_stages(vector, (changed, vector.outputs[1])) == ["codes"]


def test_lattices_have_one_allowed_value_and_sums_an_interval() -> None:
    lattice, normal = made("lora.forward", "small_lattice"), made("lora.forward", "few")
    assert lattice.expected[0].level == "exact"
    assert normal.expected[0].level == "bound"
    assert np.all(normal.expected[0].allowed.lo < normal.expected[0].allowed.hi)


def test_flags_name_the_mutants_that_leave_the_limits() -> None:
    flags = {flag for vector in build(Settings(only="nf4.quantize.*.boundaries")).vectors() for flag in vector.flags}
    assert {"midpoints-up", "reciprocal-as-exact", "nibbles-swapped"} <= flags


def test_refused_arguments_are_vectors_with_the_argument() -> None:
    text = (shipped_folder() / "blockwise.txt").read_text(encoding="utf-8")
    refused = [s for s in stored_vectors(Path("blockwise.txt"), text) if s.refused]
    ends = {(s.operation, s.source.family): s.lines[-2] for s in refused}
    assert ends["nf4.quantize", "refused.block_size_zero"] == "error value block_size"
    assert ends["nf4.dequantize", "refused.codebook_unknown"] == "error value codebook"


def test_the_same_settings_write_the_same_bytes_on_any_number_of_processes(written: Path, tmp_path: Path) -> None:
    ended = qloracle(tmp_path, "vectors", "write", "again", "--only", ONLY, "-j", "2")
    assert ended.code == 0, str(ended)
    names = sorted(path.name for path in written.iterdir())
    assert names == ["FORMAT.md", "manifest.json", "packing.txt"]
    assert names == sorted(path.name for path in (tmp_path / "again").iterdir())
    for name in names:
        assert (written / name).read_bytes() == (tmp_path / "again" / name).read_bytes(), name


def test_the_manifest_keeps_the_schema_and_the_schema_is_one(written: Path) -> None:
    jsonschema.Draft202012Validator.check_schema(schema())
    jsonschema.validate(json.loads((written / "manifest.json").read_text(encoding="utf-8")), schema())


# Verifying


def test_an_unchanged_folder_is_verified(written: Path) -> None:
    code, printed = verified(written)
    assert code == 0, printed
    assert "all as the reference gives them" in printed


def change(folder: Path, name: str, edit: Callable[[str], str]) -> None:
    path = folder / name
    path.write_text(edit(path.read_text(encoding="utf-8")), encoding="utf-8")


def seal(folder: Path) -> None:
    """Write digests that fit, as somebody would who changes vectors on purpose."""

    def fitting(text: str) -> str:
        manifest = json.loads(text)
        for entry in manifest["files"]:
            text = (folder / entry["path"]).read_text(encoding="utf-8")
            entry["sha256"], entry["bytes"] = digest(text), len(text.encode())
        return json.dumps(manifest)

    change(folder, "manifest.json", fitting)


def in_manifest(**changes: object) -> Callable[[str], str]:
    return lambda text: json.dumps({**json.loads(text), **changes})


MANIFEST: dict[str, tuple[Callable[[str], str], str]] = {
    "no JSON": (lambda t: t[:40], "manifest.json, line "),
    "a list": (lambda t: "[]", "qloracle_vectors must be 1"),
    "a newer form": (in_manifest(qloracle_vectors=2), "qloracle_vectors must be 1"),
    "a newer specification": (in_manifest(specification="99.0"), "specification 99.0 is newer than"),
    "an unknown key": (in_manifest(more=1), "more"),
    "an unknown level": (in_manifest(level="loose"), "level: 'loose' is not one of"),
    "no files": (in_manifest(files=[]), "files: "),
    "a path elsewhere": (lambda t: t.replace('"packing.txt"', '"../packing.txt"', 1), "files/0/path"),
    "a missing file": (lambda t: t.replace("packing.txt", "other.txt", 1), "packing.txt: the manifest does not list"),
    "another count": (lambda t: t.replace('"vectors": ', '"vectors": 1'), "the manifest counts"),
    "another property": (lambda t: t.replace("packed.shapes", "packed.extents"), "does not list the property"),
}


@pytest.mark.parametrize("name", MANIFEST)
def test_a_manifest_that_breaks_a_rule_is_one_message(name: str, copy: Path) -> None:
    edit, message = MANIFEST[name]
    change(copy, "manifest.json", edit)
    with pytest.raises(FileError) as raised:
        verified(copy)
    assert message in str(raised.value)


FILES: dict[str, tuple[Callable[[str], str], str]] = {
    "cut short": (lambda t: t[: t.rindex("end")], "was cut short inside the vector of line"),
    "twice": (lambda t: t + "\n" + t, "the manifest counts"),
    "another input": (lambda t: re.sub(r"(\ninput codes uint8 1 [1-9]\d*\n)\w\w", r"\g<1>ff", t, count=1), "digest"),
    "another word": (lambda t: t.replace("vector packing", "victor packing", 1), "line 1: a vector begins with"),
    "another source": (lambda t: t.replace("source shapes 0", "source shapes zero", 1), "line 2: seed and index"),
    "another family": (lambda t: t.replace("source shapes 0", "source forms 0", 1), "digest"),
    "an unknown operation": (lambda t: t.replace(" packing.pack ", " packing.wrap ", 1), "line 1: a vector begins"),
    "an unknown stage": (lambda t: t.replace("\nstage packed", "\nstage wrapped", 1), "an unknown property id"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_breaks_a_rule_is_one_message_with_its_line(name: str, copy: Path) -> None:
    edit, message = FILES[name]
    change(copy, "packing.txt", edit)
    with pytest.raises(FileError, match=r"packing\.txt: the file is not the one of the manifest"):
        verified(copy)
    seal(copy)
    with pytest.raises(FileError, match=r"packing\.txt") as raised:
        verified(copy)
    assert message in str(raised.value)


def test_an_id_that_stands_twice_is_refused(copy: Path) -> None:
    change(copy, "packing.txt", lambda text: text + "\n" + text)
    seal(copy)
    change(copy, "manifest.json", _doubled)
    with pytest.raises(FileError, match="an id stands once"):
        verified(copy)


def _doubled(text: str) -> str:
    manifest = json.loads(text)
    manifest["files"][0]["vectors"] *= 2
    return json.dumps(manifest)


def test_a_limit_that_was_changed_on_purpose_differs_from_the_reference(copy: Path) -> None:
    text = (copy / "packing.txt").read_text(encoding="utf-8")
    first = next(stored_vectors(copy / "packing.txt", text))
    place = next(i for i, line in enumerate(first.lines) if line.startswith("stage "))
    lines = text.splitlines(keepends=True)
    number = place + 2  # the ordinals
    lines[number] = lines[number].replace(lines[number].split()[0], "77", 1)
    change(copy, "packing.txt", lambda _: "".join(lines))
    seal(copy)
    code, printed = verified(copy)
    assert code == 1, printed
    assert f"packing.txt, line {number + 1}: {first.id}" in printed
    assert "the reference:" in printed


def test_a_retired_id_is_told_from_an_unknown_one(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from qloracle_conformance.vectors import verifying

    known = {k: v for k, v in verifying.properties().items() if k != ONLY}
    monkeypatch.setattr(verifying, "properties", lambda: known)
    with pytest.raises(FileError, match=f"{ONLY} is a retired property id"):
        verified(copy)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("write", "here", "--only", "nothing.*"), "no property that a file can hold matches"),
        (("write", "here", "--only", "nf4.quantize.repeat.memory"), "no property that a file can hold matches"),
        (("write", "here", "--size", "huge"), "--size must be one of small, medium, large"),
        (("write", "here", "--level", "bound"), "--level must be one of exact, tie"),
        (("verify", "nowhere"), "cannot read nowhere/manifest.json"),
    ],
)
def test_wrong_usage_is_one_message(arguments: tuple[str, ...], message: str, tmp_path: Path) -> None:
    require_one_message(refused(tmp_path, "vectors", *arguments), 2, message)


def test_a_folder_with_files_of_another_set_is_not_written_into(copy: Path) -> None:
    (copy / "other.txt").write_text("", encoding="utf-8")
    ended = qloracle(copy.parent, "vectors", "write", "set", "--only", ONLY)
    require_one_message(ended, 2, "set holds other.txt, which is no file of this set")


def test_a_manifest_of_something_else_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{}", encoding="utf-8")
    ended = qloracle(tmp_path, "vectors", "write", ".", "--only", ONLY)
    require_one_message(ended, 2, "manifest.json is no manifest of vectors")
    assert (tmp_path / "manifest.json").read_text(encoding="utf-8") == "{}"
