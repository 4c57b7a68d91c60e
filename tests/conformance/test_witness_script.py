"""A witness becomes a script that imports no qloracle, exits 1 where the fault shows and 0 where it is gone."""

import subprocess
import sys
from pathlib import Path

import pytest

from qloracle_conformance.scripts.inlining import Inlined, inline
from qloracle_conformance.usage import UsageError

from .commands import qloracle, require_one_message, write_module

pytestmark = pytest.mark.slow

BACKEND = '''
    """A NumPy backend whose functions stand alone."""
    from functools import partial
    import numpy as np
    from qloracle_conformance import Backend, Claim

    FAULT = {fault!r}
    OFFSET: int = 3
    BASE, STEP = 3, 1


    def place(buffer, dtype, shape, strides, offset, *, device):
        width = buffer.dtype.itemsize
        return np.lib.stride_tricks.as_strided(buffer[offset:], shape, [s * width for s in strides])


    def fetch(array):
        return array, array.dtype.name


    def shifted(acc):
        return acc + OFFSET - BASE + (STEP if FAULT == "value" else 0)


    def int8_matmul(a, b):
        acc = shifted(np.matmul(a.astype(np.int32), b.T.astype(np.int32)))
        if FAULT == "raises":
            raise RuntimeError("no such kernel")
        if FAULT == "inputs":
            a[...] = 0
        return acc.astype(np.int64) if FAULT == "type" else acc


    def pack_4bit(codes, *, pad_code):
        flat = np.append(codes.reshape(-1), np.full(codes.size % 2, pad_code, np.uint8))
        return (flat[0::2] << 4 | flat[1::2]).astype(np.uint8) ^ (0x10 if FAULT == "value" else 0)


    claims = (
        Claim("int8.matmul", {{"acc": "exact"}}, source="mine"),
        Claim("packing.pack", {{"*": "exact"}}, source="mine"),
    )
    backend = Backend(
        "mine", "1.0", partial(place, device="cpu"), fetch, {{"int8_matmul": int8_matmul, "pack_4bit": pack_4bit}},
        claims,
    )
'''
PROPERTIES = {"value": "acc", "type": "acc", "raises": "acc", "inputs": "inputs"}


def witness_of(folder: Path, fault: str, operation: str = "int8.matmul") -> Path:
    """Judge the backend with a fault and return the first witness of the stage where it shows."""
    write_module(folder, "mine", BACKEND.format(fault=fault))
    stage = "packed" if operation == "packing.pack" else PROPERTIES[fault]
    only = f"{operation}.{stage}.memory"
    ended = qloracle(folder, "check", "--backend", "mine:backend", "--only", only, "--profile", "smoke")
    assert ended.code == 1, str(ended)
    return folder / "witnesses" / f"mine_backend.{only}.json"


def run_script(folder: Path, script: str) -> tuple[int, str]:
    """Run a script in an interpreter that finds no qloracle."""
    (folder / "script.py").write_text(script, encoding="utf-8")
    blocked = (
        "import runpy, sys\n"
        "sys.modules.update(dict.fromkeys(('qloracle', 'qloracle_conformance', 'qloracle_gpu')))\n"
        "runpy.run_path('script.py', run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", blocked], cwd=folder, check=False, capture_output=True, text=True, timeout=60
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout


@pytest.mark.parametrize("fault", PROPERTIES)
def test_the_script_shows_the_fault_and_passes_once_it_is_gone(fault: str, tmp_path: Path) -> None:
    witness = witness_of(tmp_path, fault)
    ended = qloracle(tmp_path, "witness-script", str(witness))
    assert ended.code == 0, str(ended)
    assert "qloracle_conformance" not in ended.out
    assert run_script(tmp_path, ended.out)[0] == 1
    right = ended.out.replace(f"FAULT = {fault!r}", "FAULT = ''")
    assert right != ended.out, "the script must hold the constant that the function reads"
    code, told = run_script(tmp_path, right)
    assert code == 0, told


def test_nibbles_of_a_byte_are_told_apart(tmp_path: Path) -> None:
    witness = witness_of(tmp_path, "value", "packing.pack")
    ended = qloracle(tmp_path, "witness-script", str(witness))
    assert ended.code == 0, str(ended)
    code, told = run_script(tmp_path, ended.out)
    assert (code, "<-- wrong" in told) == (1, True), told


def test_a_script_can_be_written_to_a_file(tmp_path: Path) -> None:
    witness = witness_of(tmp_path, "value")
    ended = qloracle(tmp_path, "witness-script", str(witness), "-o", "shown.py")
    assert ended.code == 0, str(ended)
    assert (tmp_path / "shown.py").read_text().startswith("#!/usr/bin/env python3")


def test_a_fault_that_is_gone_makes_no_script(tmp_path: Path) -> None:
    witness = witness_of(tmp_path, "value")
    write_module(tmp_path, "mine", BACKEND.format(fault=""))
    require_one_message(qloracle(tmp_path, "witness-script", str(witness)), 2, "there is nothing to show")


def test_a_backend_that_needs_qloracle_makes_no_script(tmp_path: Path) -> None:
    witness = witness_of(tmp_path, "value")
    source = BACKEND.format(fault="value").replace("def shifted(acc):", "def shifted(acc):\n        import qloracle")
    write_module(tmp_path, "mine", source)
    require_one_message(qloracle(tmp_path, "witness-script", str(witness)), 2, "must not import qloracle")


def test_a_script_that_would_crash_is_not_written(tmp_path: Path) -> None:
    witness = witness_of(tmp_path, "value")
    source = BACKEND.format(fault="value").replace("    OFFSET: int = 3", "    if True:\n        OFFSET = 3")
    write_module(tmp_path, "mine", source)
    ended = qloracle(tmp_path, "witness-script", str(witness))
    require_one_message(ended, 2, "a script of mine would not define OFFSET")


def test_a_file_that_is_no_witness_is_one_message(tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text("{}")
    require_one_message(qloracle(tmp_path, "witness-script", "bad.json"), 2, "bad.json")
    require_one_message(qloracle(tmp_path, "witness-script", "nowhere.json"), 2, "nowhere.json")


def test_functions_that_no_script_can_hold_are_refused() -> None:
    for function in (lambda: 0, "".join, PROPERTIES.get):
        with pytest.raises(UsageError, match="from the top of a module"):
            inline(function, Inlined())
