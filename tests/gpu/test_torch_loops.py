"""The C loops of the CPU: a fault in them is found, none reads beyond its data, and a machine can do without them.

That they give the bits of the reference is tested wherever a file of tests runs with both codes (see `conftest`).
"""

import ctypes
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import qloracle_gpu.torch as q
from qloracle_conformance.execution import InProcess
from qloracle_conformance.plan import make_plan
from qloracle_conformance.run import run_task
from qloracle_gpu.torch.conformance import backend
from qloracle_gpu.torch.kernels import compiled_loops
from qloracle_gpu.torch.kernels.availability import kernels_of
from qloracle_gpu.torch.kernels.compiled_loops import CACHE_VARIABLE, FLAGS, SWITCH, Loops, loops, loops_take

SOURCE = Path(compiled_loops.__file__).with_name("loops.c")
needs_compiler = pytest.mark.skipif(loops() is None, reason="NOT RUN: no C compiler that knows the loops")


def built(source: str, folder: Path) -> Loops:
    """Loops from another source."""
    (folder / "loops.c").write_text(source, encoding="utf-8")
    made = folder / "loops.so"
    subprocess.run(
        [os.environ.get("CC", "cc"), *FLAGS, "-shared", "-fPIC", str(folder / "loops.c"), "-o", str(made), "-lm"],
        check=True,
    )
    return Loops(ctypes.CDLL(str(made)), "changed")


def failing(operation: str) -> set[str]:
    """Stages of an operation that the suite finds broken in the torch backend."""
    executor = InProcess(backend())
    tasks = make_plan(executor.info, "smoke", 0, only=f"{operation}.*").tasks
    return {result.stage for task in tasks for result in run_task(executor, task) if result.status == "fail"}


# What is written instead of what in the source, and the operation and the stage that must fail for it.
FAULTS = {
    "swapped nibbles": (
        "values[i + 1] = table[byte & 15];", "values[i + 1] = table[byte >> 4];", "nf4.dequantize", "values"),
    "halves of bfloat16 away from zero": (
        "word + 0x7FFF + ((word >> 16) & 1)", "word + 0x8000", "dynamic_signed.dequantize", "values"),
    "values of a zero block with a sign": (
        "scale == 0.0f ? 0.0f : product", "product", "nf4.dequantize", "values"),
    "the last code from the wrong nibble": (
        "table[bytes[i / 2] >> 4];  ", "table[bytes[i / 2] & 15];", "nf4.dequantize", "values"),
    "the upper half of wide lookups shifted": (
        "memcpy(values + 8, &second", "memcpy(values + 8, &first", "nf4.dequantize", "values"),
    "an infinite absmax": ("largest < INFINITE", "largest <= INFINITE", "blocks.absmax", "absmax"),
    "boundaries left to the guess": ("found += code == UNDECIDED", "found += 0", "nf4.quantize", "codes"),
    "the first divisor for all rows": (
        "divisors + row * row_step", "divisors + 0 * row_step", "int8_row.quantize", "codes"),
    "the first divisor for all columns": (
        "divisor[(start + i) * column_step]", "divisor[start * column_step]", "int8_column.quantize", "codes"),
    "flushed subnormals of float16": (
        "bits & 0x7FFF, sign", "(bits & 0x7C00 ? bits & 0x7FFF : 0), sign", "nf4.quantize", "codes"),
    "INT8 in steps of 1/128": ("/ 127.0", "/ 128.0", "int8_row.dequantize", "values"),
    "a zero of INT8 with a sign": ("quotient + 0.0", "-quotient", "int8_tensor.dequantize", "values"),
    "even codes for odd ones in a product": (
        "__builtin_shuffle(values, pairs & 15)", "__builtin_shuffle(values, pairs >> 4)", "nf4.matmul", "y"),
    "the last row of x left out of a product": ("rows > 0; rows--", "rows > 1; rows--", "nf4.matmul", "y"),
    "the first rows of x for all in a product": (
        "y += ROWS_AT_ONCE * y_step", "y += 0 * y_step", "nf4.matmul", "y"),
    "the first scale of a row for all its products": (
        "start < inner; start += block_size, absmax++", "start < inner; start += block_size", "nf4.matmul", "y"),
    "one of two sums of a product lost": ("sum_of_16(sums[row][0] + sums[row][1])", "sum_of_16(sums[row][0])",
        "nf4.matmul", "y"),
    "a sticky bit forgotten": ("((words[i] & 0xFFFF) != 0)", "0", "float8_e4m3fn.encode", "bits"),
}  # fmt: skip


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_a_loop_is_found(fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right, wrong, operation, stage = FAULTS[fault]
    source = SOURCE.read_text(encoding="utf-8")
    assert right in source, "the fault changes nothing"
    faulty = built(source.replace(right, wrong), tmp_path)
    monkeypatch.setattr(compiled_loops, "loops", lambda: faulty)
    assert stage in failing(operation)


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize(
    "overrun", ["", "i + 32 <= stop", "column < columns; column++", "i < count; i++", "start < inner; start"]
)
def test_a_read_or_write_beyond_the_data_is_found_and_there_is_none(overrun: str, tmp_path: Path) -> None:
    """Under AddressSanitizer and UndefinedBehaviorSanitizer: the loops as they are, and with one bound too far."""
    library = subprocess.run(["cc", "-print-file-name=libasan.so"], check=True, capture_output=True, text=True).stdout
    if not Path(library.strip()).is_absolute():
        pytest.skip("NOT RUN: the compiler has no AddressSanitizer")
    source = SOURCE.read_text(encoding="utf-8")
    if overrun:
        further = overrun.replace("i + 32 <=", "i <=").replace(" < ", " <= ")
        assert overrun in source, "the fault changes nothing, or cannot be compiled here"
        source = source.replace(overrun, further)
    (tmp_path / "loops.c").write_text(source, encoding="utf-8")
    ended = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("sanitized_loops.py")), str(tmp_path)],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "LD_PRELOAD": library.strip(), "ASAN_OPTIONS": "detect_leaks=0"},
    )
    told = "AddressSanitizer: heap-buffer-overflow" in ended.stderr
    assert (told, ended.returncode == 0) == (bool(overrun), not overrun), ended.stdout + ended.stderr


@pytest.fixture
def found_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Loops | None]:
    """What a process with changed variables of its environment, and a cache of its own, would find."""

    def find(cache: str = "cache", **variables: str) -> Loops | None:
        monkeypatch.delenv(SWITCH, raising=False)
        for name, value in {CACHE_VARIABLE: str(tmp_path / cache), **variables}.items():
            monkeypatch.setenv(name, value)
        found: Loops | None = loops.__wrapped__()
        monkeypatch.setattr(compiled_loops, "loops", lambda: found)
        quantized = q.quantize_blockwise(torch.tensor([-1.0, 1.0, 0.5, 0.0]))
        assert quantized.data.tolist() == [0x0F, 0xC7]
        return found

    return find


@needs_compiler
def test_loops_are_compiled_once_and_kept(found_anew: Callable[..., Loops | None], tmp_path: Path) -> None:
    assert found_anew() is not None
    (made,) = (tmp_path / "cache").iterdir()
    before = made.stat()
    assert found_anew() is not None
    assert (made.stat().st_ino, made.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


@needs_compiler
def test_a_cache_that_cannot_be_written_costs_a_compilation_only(
    found_anew: Callable[..., Loops | None], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    assert found_anew("file/cache") is not None


@needs_compiler
def test_a_damaged_file_of_the_cache_is_not_trusted_to_load(
    found_anew: Callable[..., Loops | None], tmp_path: Path
) -> None:
    found_anew()
    (made,) = (tmp_path / "cache").iterdir()
    made.rename(tmp_path / "whole")
    made.write_bytes((tmp_path / "whole").read_bytes()[:100])
    assert found_anew() is not None


@pytest.mark.parametrize("variables", [{SWITCH: "0"}, {"CC": "false"}, {"CC": "no such compiler"}])
def test_without_a_compiler_the_eager_code_runs(
    variables: dict[str, str], found_anew: Callable[..., Loops | None], tmp_path: Path
) -> None:
    assert found_anew(**variables) is None
    assert not list(tmp_path.iterdir())
    assert kernels_of("cpu") == "eager"


@needs_compiler
def test_a_compiler_that_refuses_the_source_leaves_nothing_behind(
    found_anew: Callable[..., Loops | None], tmp_path: Path
) -> None:
    refusing = tmp_path / "refusing"
    refusing.write_text('#!/bin/sh\n[ "$1" = --version ] && echo old 1.0\n')
    refusing.chmod(0o755)
    assert found_anew(CC=str(refusing)) is None
    assert not list((tmp_path / "cache").iterdir())
    assert kernels_of("cpu") == "eager"


@needs_compiler
def test_loops_leave_tensors_alone_whose_memory_is_not_their_content() -> None:
    class Disguised(torch.Tensor):
        pass

    negated = torch.tensor([1 + 2j, -3 + 4j]).conj().imag
    assert negated.is_neg()
    assert not loops_take(negated)
    assert not loops_take(torch.ones(2).as_subclass(Disguised))
    assert q.block_absmax(negated, 1).tolist() == [2, 4]
    assert q.dequantize_blockwise(q.quantize_blockwise(negated, block_size=1)).tolist() == [-2, -4]
