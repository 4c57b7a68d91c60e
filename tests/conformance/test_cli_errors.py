"""Bad input to the command line: one clear message, the right exit code, no traceback, and nothing lost."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from qloracle import SPECIFICATION_VERSION
from qloracle_conformance.loading import BackendLoadError, attribute_named

from .commands import REFERENCE, Ended, qloracle, refused, require_one_message, write_module

SMALL = ("--backend", REFERENCE, "--only", "packing.pack", "--profile", "smoke", "--spec", SPECIFICATION_VERSION)
MATRIX_HEADER = b'{"a":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]}}'


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--backend", "nonesuch"), "unknown backend 'nonesuch'; known: "),
        (("--backend", "nonesuch_module:backend"), "needs the module 'nonesuch_module'"),
        (("--backend", "fails_to_import:backend"), "importing 'fails_to_import' failed: RuntimeError: no device"),
        (("--backend", "no_backend:backend"), "module 'no_backend' has no attribute 'backend'"),
        (("--backend", "no_backend:number"), "must be a Backend, or return one; got int"),
        (("--backend", REFERENCE, "--profile", "huge"), "profile must be one of smoke, default, thorough, got 'huge'"),
        (("--backend", REFERENCE, "--spec", "9.7"), f"--spec must be {SPECIFICATION_VERSION}, the specification that"),
        (("--backend", REFERENCE, "--only", "nf5.*"), "no property matches --only nf5.*"),
        ((*SMALL, "--report", "a_file/report.jsonl"), "cannot write report a_file/report.jsonl: "),
        ((*SMALL, "--report", "a_pipe"), "cannot write report a_pipe: it exists and is no regular file"),
        ((*SMALL, "--weights", "nonesuch.safetensors"), "weights file nonesuch.safetensors does not exist"),
        ((*SMALL, "--weights", "a_file"), "a_file is no complete safetensors file"),
        ((*SMALL, "--weights", "cut_in_the_data"), "cut_in_the_data is no complete safetensors file"),
        (("--backend", "claims:unknown_operation"), "claims unknown operation 'nf5.quantize'; known: bfloat16.encode"),
    ],
    ids=lambda value: " ".join(value).replace("/", "_") if isinstance(value, tuple) else None,
)  # fmt: skip
def test_a_check_that_makes_no_run_says_why_in_one_line(
    tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    write_bad_files(tmp_path)
    require_one_message(qloracle(tmp_path, "check", *arguments), 2, message)
    assert not list(tmp_path.rglob("*.partial")), "a half-written file was left behind"


def write_bad_files(folder: Path) -> None:
    (folder / "a_folder").mkdir()
    os.mkfifo(folder / "a_pipe")
    for name, content in {
        "a_file": b"this is not what you are looking for",
        "cut_in_the_data": len(MATRIX_HEADER).to_bytes(8, "little") + MATRIX_HEADER + bytes(15),
    }.items():
        (folder / name).write_bytes(content)
    write_module(folder, "fails_to_import", "raise RuntimeError('no device')")
    write_module(folder, "no_backend", "number = 3")
    write_module(
        folder, "claims",
        """
        from dataclasses import replace
        from qloracle_conformance import Claim
        from qloracle_conformance.adapters.reference import backend
        unknown_operation = replace(backend(), claims=(Claim("nf5.quantize", {}),))
        """,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("explain", "nonesuch"), "nonesuch"),
        (("explain", "nonesuch.json"), "cannot read nonesuch.json: No such file or directory"),
        (("replay", "nonesuch.json"), "cannot read nonesuch.json: No such file or directory"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_other_commands_say_in_one_line_what_they_cannot_find(
    tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    require_one_message(refused(tmp_path, *arguments), 2, message)


@pytest.mark.parametrize("arguments", [("check", "--seed", "x"), ("nonesuch",)])
def test_a_wrong_option_or_command_is_wrong_usage(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    ended = qloracle(tmp_path, *arguments)
    assert ended.code == 2, str(ended)
    assert "Traceback" not in ended.err, str(ended)


FAULTY = """
    from dataclasses import replace
    import numpy as np
    from qloracle_conformance.adapters.reference import OPS, backend as reference
    from qloracle_conformance.arrays import host
    def pack(codes, *, pad_code):
        return host(np.zeros((codes.items.size + 1) // 2, np.uint8))
    backend = replace(reference(), name="faulty", ops={**OPS, "pack_4bit": pack})
"""


@pytest.fixture(scope="module")
def witness(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """The content of a witness of a backend that packs nothing but zeros."""
    folder = tmp_path_factory.mktemp("faulty")
    name = write_module(folder, "faulty", FAULTY)
    ended = qloracle(folder, "check", "--backend", name, "--only", "packing.pack.packed.shapes", "--profile", "smoke")
    assert ended.code == 1, str(ended)
    (path,) = (folder / "witnesses").iterdir()
    content: dict[str, object] = json.loads(path.read_text())
    return content


def damaged(**changed: object) -> Callable[[dict[str, object]], str]:
    return lambda content: json.dumps({**content, **changed})


@pytest.mark.parametrize(
    ("command", "damage", "message"),
    [
        ("replay", lambda content: "not JSON", "is no complete witness file: JSONDecodeError"),
        ("replay", lambda content: json.dumps(content)[:200], "is no complete witness file: JSONDecodeError"),
        ("replay", damaged(qloracle_witness=99), "must be a witness file of version"),
        ("replay", damaged(operation="nf5.quantize"), "names an operation or stage that this version does not know"),
        ("explain", damaged(operation="nf5.quantize"), "names an operation or stage that this version does not know"),
        ("explain", damaged(qloracle_witness=99), "must be a witness file of version"),
    ],
    ids=["no JSON", "truncated", "version", "operation", "explain operation", "explain version"],
)  # fmt: skip
def test_a_bad_witness_is_refused_in_one_line(
    tmp_path: Path, witness: dict[str, object], command: str, damage: Callable[[dict[str, object]], str], message: str
) -> None:
    (tmp_path / "w.json").write_text(damage(witness))
    require_one_message(refused(tmp_path, command, "w.json"), 2, message)


def test_a_replay_on_a_backend_that_does_not_exist_is_refused(tmp_path: Path, witness: dict[str, object]) -> None:
    (tmp_path / "w.json").write_text(json.dumps(witness))
    require_one_message(refused(tmp_path, "replay", "w.json", "--backend", "nonesuch"), 2, "unknown backend 'nonesuch'")


def test_a_witness_folder_that_cannot_be_written_ends_the_run_and_keeps_the_report(tmp_path: Path) -> None:
    (tmp_path / "a_file").write_text("")
    name = write_module(tmp_path, "faulty", FAULTY)
    arguments = ("--only", "packing.*", "--profile", "smoke", "--witnesses", "a_file/below", "--report", "report.jsonl")
    ended = qloracle(tmp_path, "check", "--backend", name, *arguments)
    require_one_message(ended, 2, "cannot write a_file/below/")
    lines = [json.loads(line) for line in (tmp_path / "report.jsonl").read_text().splitlines()]
    kinds = {line["type"] for line in lines}
    assert lines[0]["type"] == "header"
    assert kinds <= {"header", "property"}, "a report that was cut short has a footer"


def test_a_debug_run_shows_the_traceback_before_the_message_and_keeps_the_exit_code(tmp_path: Path) -> None:
    ended: Ended = qloracle(tmp_path, "--debug", "check", "--backend", "nonesuch")
    assert ended.code == 2, str(ended)
    assert ended.err.startswith("Traceback (most recent call last):"), str(ended)
    assert ended.err.strip().splitlines()[-1].startswith("qloracle: unknown backend 'nonesuch'"), str(ended)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("torch", "; try: pip install 'qloracle[torch]'"),
        ("torch-layers", "; try: pip install 'qloracle[torch]'"),
        ("torch_casts", "; try: pip install 'qloracle[torch]'"),
        ("peft-4bit", "; try: pip install 'qloracle[peft]'"),
        ("somebody.else", ""),
        ("mine", ""),
    ],
)
def test_a_backend_whose_module_is_missing_names_an_extra_that_exists(name: str, hint: str) -> None:
    with pytest.raises(BackendLoadError) as error:
        attribute_named("no_such_module:backend", name)
    assert str(error.value) == f"backend {name!r} needs the module 'no_such_module'{hint}"
