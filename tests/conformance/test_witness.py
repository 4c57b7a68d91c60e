"""Witness files: what is written is what is read, whatever the operation, and plain JSON without anything else."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qloracle.bounds import Roundings
from qloracle_conformance.adapters.reference import backend as reference
from qloracle_conformance.arrays import LAYOUTS, HostArray, host
from qloracle_conformance.backend import describe
from qloracle_conformance.files import FileError
from qloracle_conformance.finding import Finding
from qloracle_conformance.generators.case import Case
from qloracle_conformance.registry import OPERATIONS
from qloracle_conformance.tally import Tally
from qloracle_conformance.verdicts import PropertyResult
from qloracle_conformance.witness import Witness, read_witness, write_witness

from .claims import case_of, cases_of, each, same_array, task_of

FINDING = Finding(3, "element 3 alone, of 8", "NaN", "0x3f800000 (1)", "1 NaN against a number", "a cause", {"x": "1"})


def written(folder: Path, case: Case, stage: str = "", **claim: Any) -> Path:
    """The file of a witness for the first stage of an operation, or another one."""
    operation = OPERATIONS[case.operation]
    task = task_of(case.operation, "memory", seed=5, **claim)
    stage = stage or next(iter(operation.stages))
    result = PropertyResult(
        f"{case.operation}.{stage}.memory", case.operation, stage, "memory", operation.stages.get(stage, ""), "tie",
        task.claim.basis, "fail", Tally(finding=FINDING),
    )  # fmt: skip
    return write_witness(folder, "pkg.module:backend", "cuda:1", describe(reference()), task, result, case)


def require_same_case(got: Case, expected: Case) -> None:
    assert got.operation == expected.operation
    assert dict(got.options) == dict(expected.options)
    assert {n: type(v) for n, v in got.options.items()} == {n: type(v) for n, v in expected.options.items()}
    assert (got.lattice, got.term, got.repeat) == (expected.lattice, expected.term, expected.repeat)
    assert list(got.inputs) == list(expected.inputs)
    for name, array in expected.inputs.items():
        back = got.inputs[name]
        assert (back is None) == (array is None), name
        if array is not None and back is not None:
            assert same_array(back, array), f"{name} came back as other bits"
            assert got.layouts[name] == expected.layouts.get(name, "contiguous")


@pytest.mark.parametrize("operation", each())
def test_a_case_of_every_family_comes_back_as_it_was(operation: str, tmp_path: Path) -> None:
    for family in OPERATIONS[operation].families:
        if family in ("wide_lattice", "tiles", "extents", "sweep"):
            continue  # large; nothing in them that the others do not have
        case = case_of(operation, family, 1)
        require_same_case(read_witness(written(tmp_path, case)).case, case)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_comes_back(layout: str, tmp_path: Path) -> None:
    case = case_of("nf4.quantize", "memory", layouts=(layout,))
    assert read_witness(written(tmp_path, case)).case.layouts == {"x": layout}


def test_nan_payloads_infinities_and_signed_zeros_come_back_bit_for_bit(tmp_path: Path) -> None:
    words = np.array([0x7F800001, 0xFFC12345, 0x7F800000, 0xFF800000, 0x80000000, 0x00000001], np.uint32)
    case = Case("blocks.absmax", {"x": host(words.view(np.float32))}, {"block_size": 2})
    back = read_witness(written(tmp_path, case)).case.array("x")
    assert back.words().tolist() == words.tolist()


@pytest.mark.parametrize("shape", [(), (0,), (2, 0, 3), (1, 1)])
def test_arrays_without_axes_or_elements_come_back(shape: tuple[int, ...], tmp_path: Path) -> None:
    case = Case("blocks.absmax", {"x": HostArray(np.zeros(shape, np.uint16), "bfloat16")}, {"block_size": 2})
    back = read_witness(written(tmp_path, case)).case.array("x")
    assert (back.shape, back.dtype) == (shape, "bfloat16")


def test_the_claim_comes_back_with_its_level_basis_and_roundings(tmp_path: Path) -> None:
    roundings = Roundings(accumulate="float32", intermediate="bfloat16", weight="float16")
    case = case_of("lora.forward", "normal")
    path = written(tmp_path, case, "whole", levels={"*": "bound"}, basis="promised", source="URL", roundings=roundings)
    claim = read_witness(path).claim
    assert (dict(claim.levels), claim.basis, claim.source, claim.roundings) == (
        {"*": "bound"}, "promised", "URL", roundings,
    )  # fmt: skip


def test_everything_that_tells_a_reader_what_failed_comes_back(tmp_path: Path) -> None:
    witness: Witness = read_witness(written(tmp_path, case_of("nf4.quantize", "normal"), "codes"))
    assert (witness.property, witness.operation, witness.stage, witness.family) == (
        "nf4.quantize.codes.memory", "nf4.quantize", "codes", "memory",
    )  # fmt: skip
    assert (witness.clause, witness.backend, witness.device) == ("blockwise.quantize", "pkg.module:backend", "cuda:1")
    assert witness.finding == FINDING.as_json()


def test_a_witness_of_unchanged_inputs_or_repeated_calls_can_be_read(tmp_path: Path) -> None:
    for stage in ("inputs", "repeat"):
        assert read_witness(written(tmp_path, case_of("nf4.quantize", "memory"), stage)).stage == stage


def test_the_file_is_named_after_backend_and_property_and_is_plain_json(tmp_path: Path) -> None:
    path = written(tmp_path / "deep" / "folder", case_of("packing.pack", "shapes"))
    assert path == tmp_path / "deep" / "folder" / "pkg.module_backend.packing.pack.packed.memory.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    assert (content["qloracle_witness"], content["seed"]) == (1, 5)
    assert not list(path.parent.glob("*.partial"))


def test_words_are_written_in_hex_of_full_width(tmp_path: Path) -> None:
    inputs = {"x": host(np.array([1.0, -0.0, 2.0**-149], np.float32))}
    path = written(tmp_path, Case("blocks.absmax", inputs, {"block_size": 64}))
    assert json.loads(path.read_text())["inputs"]["x"] == {
        "dtype": "float32", "shape": [3], "layout": "contiguous", "words": "3f800000 80000000 00000001",
    }  # fmt: skip


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a_file").write_text("")
    with pytest.raises(FileError, match=r"^cannot write .*a_file/below/"):
        written(tmp_path / "a_file" / "below", case_of("packing.pack", "shapes"))


def changed(**values: Any) -> Any:
    return lambda content: {**content, **values}


def with_input(**values: Any) -> Any:
    def change(content: dict[str, Any]) -> dict[str, Any]:
        return {**content, "inputs": {"codes": {**content["inputs"]["codes"], **values}}}

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: [], "must be a witness file of version 1"),
        (lambda content: {}, "must be a witness file of version 1"),
        (changed(qloracle_witness=2), "must be a witness file of version 1"),
        (
            changed(operation="nf5.quantize"),
            "names an operation or stage that this version does not know: nf5.quantize",
        ),
        (changed(stage="cods"), "names an operation or stage that this version does not know: packing.pack cods"),
        (changed(claim={}), "is no complete witness file: a witness needs the key 'claim.levels'"),
        (changed(inputs=None), "needs the key 'inputs' as dict, got None"),
        (changed(options=[]), "needs the key 'options' as dict, got []"),
        (with_input(dtype="uint7"), "is no complete witness file: KeyError"),
        (with_input(words="zz"), "is no complete witness file: ValueError"),
        (with_input(words="fff"), "is no complete witness file: OverflowError"),
        (with_input(shape=[2]), "is no complete witness file: ValueError"),
        (lambda content: {k: v for k, v in content.items() if k != "seed"}, ""),
        *(
            (
                lambda content, key=key: {k: v for k, v in content.items() if k != key},
                f"is no complete witness file: a witness needs the key '{key}'",
            )
            for key in ("property", "stage", "family", "backend", "claim", "finding", "options", "term", "inputs")
        ),
    ],
)
def test_a_damaged_witness_is_refused_with_its_reason(change: Any, message: str, tmp_path: Path) -> None:
    (case,) = (c for c in cases_of("packing.pack", "shapes", 8) if c.array("codes").shape == (1,))
    path = written(tmp_path, case)
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    if not message:
        read_witness(path)  # what no replay needs may be absent
        return
    with pytest.raises(FileError) as caught:
        read_witness(path)
    assert message in str(caught.value)


def test_a_large_tensor_of_a_weights_file_is_written_by_reference_and_read_from_that_file_alone(tmp_path: Path) -> None:
    from hashlib import sha256

    from safetensors.numpy import save_file

    big = np.arange(1 << 19, dtype=np.float32).reshape(512, 1024)
    save_file({"big": big}, tmp_path / "w.safetensors")
    digest = sha256((tmp_path / "w.safetensors").read_bytes()).hexdigest()
    stored = {"x": {"weights": str(tmp_path / "w.safetensors"), "sha256": digest, "tensor": "big"}}
    case = replace(Case("nf4.quantize", {"x": host(big)}, {"codebook": "nf4", "block_size": 64}), stored=stored)
    path = written(tmp_path, case)
    assert path.stat().st_size < 10_000
    assert read_witness(path).case.array("x").items.tobytes() == big.tobytes()
    save_file({"big": big + 1}, tmp_path / "w.safetensors")
    with pytest.raises(FileError, match="is not the file of the witness: tensor 'big'"):
        read_witness(path)
