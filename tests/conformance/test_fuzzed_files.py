"""Damaged files: whatever a byte or a value in them becomes, the reader says one line that names the file, or reads it.

What a reader accepts is used: a witness is replayed and explained, a report compared and exported. Nothing but the
suite's own errors, which the commands turn into one line and exit code 2, may come out.
"""

import copy
import json
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console

from qloracle.errors import QloracleError
from qloracle_conformance.adapters.reference import backend as reference
from qloracle_conformance.comparing import compare
from qloracle_conformance.deviations import read_deviations
from qloracle_conformance.execution import InProcess
from qloracle_conformance.explain import explain_witness
from qloracle_conformance.exports import annotations, badge, junit
from qloracle_conformance.merging import merge
from qloracle_conformance.mutants.explored import Found, load_state, save_state
from qloracle_conformance.mutants.kills import Kill
from qloracle_conformance.reading import read_run
from qloracle_conformance.replay import replayed
from qloracle_conformance.safetensors_file import read_matrices
from qloracle_conformance.sweep import state as sweeps
from qloracle_conformance.sweep.work import UnitResult
from qloracle_conformance.witness import read_witness

from .commands import qloracle, write_module

ODD: tuple[Any, ...] = (
    None, True, -1, 0, 3, 10**30, 1.5, -0.0, 1e308, "", "x", "nan", "0", "[b]", "nf4", "\x00", [], [1], [[]], ["a"], {},
    {"a": 1}, {"steps": []}, "bfloat16", "exact", "../x", -(2**63), [2**40], "ffffffff",
)  # fmt: skip
FUZZ = settings(
    max_examples=250, deadline=None, database=None, derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
EXECUTOR = InProcess(reference())

Reader = Callable[[Path], object]


def nowhere() -> Console:
    return Console(file=StringIO(), width=100)


def use_witness(path: Path) -> None:
    witness = read_witness(path)
    explain_witness(nowhere(), witness)
    replayed(witness, EXECUTOR)


def use_report(path: Path) -> None:
    run = read_run(path)
    junit(run), badge(run), annotations(run)
    compare(path, path, nowhere())


def use_shard(path: Path) -> None:
    merge([path], None, nowhere())


def use_weights(path: Path) -> None:
    read_matrices(str(path))


def use_deviations(path: Path) -> None:
    read_deviations(path, "faulty")


def use_mutants_state(path: Path) -> None:
    load_state(path, "digest", resume=None)


def use_sweep_state(path: Path) -> None:
    sweeps.load(path, {"to": "bfloat16"}, resume=None)


FAULTY = """
    from dataclasses import replace
    import numpy as np
    from qloracle_conformance.adapters.reference import OPS, backend as reference
    from qloracle_conformance.arrays import host

    def quantize(x, *, codebook, block_size):
        data, absmax = OPS["quantize_blockwise"](x, codebook=codebook, block_size=block_size)
        return host(data.items ^ np.uint8(0x11)), absmax
    claims = tuple(c for c in reference().claims if c.operation in ("nf4.quantize", "packing.pack"))
    backend = replace(reference(), name="faulty", ops={**OPS, "quantize_blockwise": quantize}, claims=claims)
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one valid file of every kind."""
    folder = tmp_path_factory.mktemp("files")
    name = write_module(folder, "faulty", FAULTY)
    arguments = ("--only", "nf4.quantize.*.shapes", "--profile", "smoke", "--report", "report.jsonl", "--shard", "1/1")
    ended = qloracle(folder, "check", "--backend", name, *arguments)
    assert ended.code == 1, str(ended)
    witness = next(path for path in sorted((folder / "witnesses").iterdir()))
    (folder / "witness.json").write_bytes(witness.read_bytes())
    identifier = json.loads(witness.read_text())["property"]
    (folder / "deviations.toml").write_text(
        f'backend = "faulty"\n\n[[deviation]]\nproperties = ["{identifier}"]\nwitness = "witness.json"\n'
        'reason = "planted"\nversions = ">=0"\nsince = "1"\n'
    )
    kill = Kill("m", "f", 0, "nf4.quantize.codes.shapes", "c", "", 3, True)
    save_state(folder / "mutants.json", "digest", [Found("m", True, 0, (kill,)), Found("r", False, 0, (), ("a",))])
    unit = UnitResult(0, 9, 0, 1, 1, ((3, 3),), (3, 3), ((3, 1, 2),), (3, 1, 2))
    sweeps.save(folder / "sweep.json", {"to": "bfloat16"}, {0: unit})
    from safetensors.numpy import save_file

    save_file({"a": np.ones((2, 3), np.float32)}, str(folder / "weights.safetensors"))
    return folder


READERS: dict[str, tuple[str, Reader]] = {
    "witness": ("witness.json", use_witness),
    "report": ("report.jsonl", use_report),
    "shard": ("report.jsonl", use_shard),
    "deviations": ("deviations.toml", use_deviations),
    "mutants state": ("mutants.json", use_mutants_state),
    "sweep state": ("sweep.json", use_sweep_state),
    "weights": ("weights.safetensors", use_weights),
}


def require_read_or_refused(path: Path, reader: Reader) -> None:
    try:
        reader(path)
    except QloracleError as error:
        message = str(error)
        assert path.name in message or path.parent.name in message, f"the message names no file: {message!r}"
        assert message.strip(), "an empty message"


@pytest.mark.parametrize("kind", READERS)
def test_the_undamaged_file_is_read(files: Path, kind: str) -> None:
    name, reader = READERS[kind]
    reader(files / name)


@pytest.mark.parametrize("kind", READERS)
@pytest.mark.parametrize("content", [b"", b"\x00", b"\xff\xfe", b"{}", b"[]", b"null", b"[" * 100_000, b"1" * 5000])
def test_a_file_of_something_else_is_refused_by_name(files: Path, kind: str, content: bytes) -> None:
    name, reader = READERS[kind]
    path = files / f"other-{name}"
    path.write_bytes(content)
    with pytest.raises(QloracleError) as caught:
        reader(path)
    assert path.name in str(caught.value)


@pytest.mark.parametrize("kind", READERS)
def test_bytes_changed_taken_out_put_in_or_cut_off(files: Path, kind: str) -> None:
    name, reader = READERS[kind]
    valid = (files / name).read_bytes()
    path = files / f"bytes-{kind.replace(' ', '-')}-{name}"

    @FUZZ
    @given(st.data())
    def fuzz(data: st.DataObject) -> None:
        content = bytearray(valid)
        for _ in range(data.draw(st.integers(1, 3))):
            place = data.draw(st.integers(0, max(0, len(content) - 1)))
            match data.draw(st.sampled_from(("change", "remove", "insert", "cut", "repeat"))):
                case "change" if content:
                    content[place] = data.draw(st.sampled_from(b'\x00 "{}[],:0-9x\n\xff'))
                case "remove":
                    del content[place : place + data.draw(st.sampled_from((1, 2, 30)))]
                case "insert":
                    content[place:place] = data.draw(
                        st.sampled_from((b'"', b"]", b"0", b"\\u0000", b"\n", b"1e999", b"\xc3"))
                    )
                case "cut":
                    del content[place:]
                case _:
                    content[place:place] = content[place : place + 50]
        path.write_bytes(bytes(content))
        require_read_or_refused(path, reader)

    fuzz()


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the paths to all values inside a JSON value, itself left out."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [p for key, item in inner for p in ((*path, key), *places(item, (*path, key)))]


def with_changed(value: Any, path: tuple[Any, ...], odd: Any, *, remove: bool) -> Any:
    changed = copy.deepcopy(value)
    parent = changed
    for key in path[:-1]:
        parent = parent[key]
    if remove:
        del parent[path[-1]]
    else:
        parent[path[-1]] = odd
    return changed


@pytest.mark.parametrize("kind", ["witness", "report", "shard", "mutants state", "sweep state"])
def test_values_of_another_type_taken_out_or_out_of_range(files: Path, kind: str) -> None:
    name, reader = READERS[kind]
    lines = [json.loads(line) for line in (files / name).read_text().splitlines()] if name.endswith("l") else None
    valid = json.loads((files / name).read_text()) if lines is None else lines
    everywhere = [p for p in places(valid) if lines is None or len(p) > 1]
    path = files / f"values-{kind.replace(' ', '-')}-{name}"

    @FUZZ
    @given(st.data())
    def fuzz(data: st.DataObject) -> None:
        changed = with_changed(
            valid, data.draw(st.sampled_from(everywhere)), data.draw(st.sampled_from(ODD)),
            remove=data.draw(st.booleans()),
        )  # fmt: skip
        text = json.dumps(changed) if lines is None else "".join(json.dumps(line) + "\n" for line in changed)
        path.write_text(text)
        require_read_or_refused(path, reader)

    fuzz()


DEVIATION = {"properties": '["{id}"]', "witness": '"witness.json"', "reason": '"planted"', "versions": '">=0"'}
LITERALS = (
    "1",
    "true",
    '""',
    '"x"',
    "[]",
    "[1]",
    "{}",
    '["nf4.*"]',
    '["*"]',
    '"/"',
    '".."',
    '">>1"',
    "1979-05-27",
    "nan",
)


@pytest.mark.parametrize("key", [*DEVIATION, "backend", "link", "since", "surprise"])
@pytest.mark.parametrize("literal", LITERALS)
def test_a_deviation_of_odd_values_is_refused_by_file_and_entry(files: Path, key: str, literal: str) -> None:
    identifier = json.loads((files / "witness.json").read_text())["property"]
    entry = {name: value.replace("{id}", identifier) for name, value in DEVIATION.items()}
    backend = literal if key == "backend" else '"faulty"'
    entry |= {} if key == "backend" else {key: literal}
    path = files / "odd.toml"
    path.write_text(f"backend = {backend}\n[[deviation]]\n" + "".join(f"{k} = {v}\n" for k, v in entry.items()))
    require_read_or_refused(path, use_deviations)


def test_a_witness_of_a_newer_specification_a_retired_and_an_unknown_property_is_refused(
    files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from qloracle_conformance import witness_schema

    valid = json.loads((files / "witness.json").read_text())
    path = files / "named.json"

    def message(**changed: Any) -> str:
        path.write_text(json.dumps({**valid, **changed}))
        with pytest.raises(QloracleError) as caught:
            read_witness(path)
        return str(caught.value)

    name = f"{valid['operation']}.{valid['stage']}"
    assert "specification 99.0 is newer than" in message(specification="99.0")
    unknown = {"family": "nonesuch", "property": f"{name}.nonesuch"}
    assert f"named.json is of an unknown property: {name}.nonesuch" in message(**unknown)
    monkeypatch.setattr(witness_schema, "locked_ids", lambda: [f"{name}.nonesuch"])
    assert f"named.json is of a retired property: {name}.nonesuch" in message(**unknown)
    assert "property must be operation.stage.family" in message(property="nf4.quantize.absmax.other")
