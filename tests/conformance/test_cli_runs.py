"""Whole runs through the command line: each fault is a verdict of its own, and the others are judged all the same."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from qloracle_conformance.registry import OPERATIONS

from .commands import PROGRAM, REFERENCE, Ended, environment, qloracle, write_module

ODD = """
    import ctypes, os, sys, time
    from dataclasses import replace

    import numpy as np

    from qloracle_conformance.adapters.reference import OPS, backend as reference
    from qloracle_conformance.arrays import HostArray, host

    calls = []

    def raises(values, *, fmt):
        if fmt == "float16":
            raise RuntimeError("no kernel for float16")
        return OPS["encode"](values, fmt=fmt)

    def hangs(packed, *, size):
        time.sleep(3600)

    def overwrites(x, **options):
        result = OPS["quantize_int8"](x, **options)
        x.items[...] = 0
        return result

    def unstable(codes, absmax, **options):
        calls.append(0)
        values = OPS["dequantize_int8"](codes, absmax, **options)
        items = values.items.copy()
        items.reshape(-1)[:1] = len(calls)
        return HostArray(items, values.dtype)

    def talks(acc, row_absmax, column_absmax, bias, **options):
        print("launching kernel", flush=True)
        os.write(2, b"warning: slow path")
        return OPS["scale_int8_matmul"](acc, row_absmax, column_absmax, bias, **options)

    def wrong_type(x, *, block_size):
        return host(OPS["block_absmax"](x, block_size=block_size).items.astype(np.float64))

    def wrong_shape(**arguments):
        return host(OPS["dequantize_absmax"](**arguments).items[np.newaxis])

    ops = {
        "encode": raises,
        "decode": lambda bits, *, dtype: os._exit(7),
        "pack_4bit": lambda codes, *, pad_code: ctypes.string_at(0),
        "unpack_4bit": hangs,
        "block_absmax": wrong_type,
        "dequantize_absmax": wrong_shape,
        "quantize_absmax": lambda absmax, **options: OPS["quantize_absmax"](absmax, **options)[:1],
        "quantize_int8": overwrites,
        "dequantize_int8": unstable,
        "int8_matmul": lambda a, b: None,
        "scale_int8_matmul": talks,
    }
    base = reference()
    claimed = [c for c in base.claims if not c.operation.startswith("qlora")]
    taken = lambda c: tuple(f for f in c.features if f != "out")  # the wrapped functions take no output
    claims = tuple(replace(c, basis="promised", source="a test", features=taken(c)) for c in claimed)
    backend = replace(base, name="odd", ops={**OPS, **ops}, claims=claims)
"""


def report_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a report; JSON has neither NaN nor infinity."""

    def refuse(word: str) -> None:
        raise AssertionError(f"{path} holds {word}, which is no JSON")

    return [json.loads(line, parse_constant=refuse) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def odd_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Ended, list[dict[str, Any]]]:
    """A run against a backend of which nearly every function does something else that none should."""
    folder = tmp_path_factory.mktemp("odd")
    name = write_module(folder, "odd", ODD)
    arguments = ("--only", "*.memory", "--profile", "smoke", "--timeout", "0.7", "--report", "report.jsonl")
    ended = qloracle(folder, "check", "--backend", name, *arguments)
    return ended, report_lines(folder / "report.jsonl")


def statuses(lines: list[dict[str, Any]], operation: str) -> dict[str, set[str]]:
    """The statuses of an operation's properties, by stage."""
    found: dict[str, set[str]] = {}
    for line in lines:
        if line["type"] == "property" and line["operation"] == operation:
            found.setdefault(line["stage"], set()).add(line["status"])
    assert found, f"the report has no property of {operation}"
    return found


def messages(lines: list[dict[str, Any]], operation: str, stage: str) -> str:
    return "\n".join(x["message"] for x in lines if (x.get("operation"), x.get("stage")) == (operation, stage))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("operation", "stage", "message"),
    [
        ("float16.encode", "bits", "raised: RuntimeError: no kernel for float16"),
        ("float16.decode", "values", "crashed: the worker process died: exit code 7"),
        ("packing.pack", "packed", "crashed: the worker process died: signal SIGSEGV"),
        ("packing.unpack", "codes", "timeout: no answer within 0.7 s; the worker was ended"),
        ("int8.matmul", "acc", "output: output 0 cannot be fetched: NoneType"),
    ],
)
def test_a_call_that_gives_nothing_is_an_error_with_its_reason(
    odd_run: tuple[Ended, list[dict[str, Any]]], operation: str, stage: str, message: str
) -> None:
    assert statuses(odd_run[1], operation)[stage] == {"error"}
    assert message in messages(odd_run[1], operation, stage)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("operation", "stage", "message"),
    [
        ("blocks.absmax", "absmax", "output 0 must be float32, got float64"),
        ("absmax.dequantize", "absmax", "output 0 must have shape ("),
        ("absmax.quantize", "offset", "output 2 is missing: 1 returned"),
        ("int8_tensor.quantize", "inputs", "the call changed its input x"),
        ("int8_tensor.dequantize", "repeat", "gave other bits"),
    ],
)
def test_an_output_that_breaks_a_promise_fails_with_what_is_wrong(
    odd_run: tuple[Ended, list[dict[str, Any]]], operation: str, stage: str, message: str
) -> None:
    assert "fail" in statuses(odd_run[1], operation)[stage]
    assert message in messages(odd_run[1], operation, stage)


@pytest.mark.slow
@pytest.mark.parametrize(
    "operation", ["bfloat16.encode", "int8.scale", "nf4.quantize", "nf4.dequantize", "lora.forward"]
)
def test_what_is_right_passes_beside_what_is_not(odd_run: tuple[Ended, list[dict[str, Any]]], operation: str) -> None:
    assert {s for found in statuses(odd_run[1], operation).values() for s in found} == {"pass"}


@pytest.mark.slow
def test_stages_that_rest_on_a_missing_output_are_blocked(odd_run: tuple[Ended, list[dict[str, Any]]]) -> None:
    found = statuses(odd_run[1], "absmax.quantize")
    assert found["nested_absmax"] == found["nested_codes"] == {"blocked"}


@pytest.mark.slow
def test_what_is_not_claimed_is_listed_and_is_no_property(odd_run: tuple[Ended, list[dict[str, Any]]]) -> None:
    lines = odd_run[1]
    assert lines[-1]["unclaimed"] == [name for name in OPERATIONS if name.startswith("qlora")]
    assert not [x for x in lines if x.get("operation", "").startswith("qlora")]


@pytest.mark.slow
def test_a_run_with_faults_ends_with_exit_code_one_and_a_footer(odd_run: tuple[Ended, list[dict[str, Any]]]) -> None:
    ended, lines = odd_run
    assert ended.code == 1, str(ended)
    assert (lines[-1]["type"], lines[-1]["exit_code"]) == ("footer", 1)
    assert "Traceback" not in ended.out + ended.err, str(ended)


@pytest.mark.slow
def test_what_the_backend_prints_is_not_in_the_table(odd_run: tuple[Ended, list[dict[str, Any]]]) -> None:
    assert "launching kernel" not in odd_run[0].out + odd_run[0].err
    assert "slow path" not in odd_run[0].out + odd_run[0].err


CLAIMS = """
    from dataclasses import replace
    from qloracle_conformance import Claim
    from qloracle_conformance.adapters.reference import OPS, backend as reference
    base = reference()
    nothing = replace(base, claims=())
    absent = replace(base, ops={n: f for n, f in OPS.items() if n != "pack_4bit"})
    def wrong(x, **options):
        data, absmax = OPS["quantize_blockwise"](x, **options)
        absmax.items[:1] *= 2
        return data, absmax
    loose = replace(base, ops={**OPS, "quantize_blockwise": wrong})
"""


def test_a_backend_that_claims_nothing_does_not_pass(tmp_path: Path) -> None:
    write_module(tmp_path, "claims", CLAIMS)
    ended = qloracle(tmp_path, "check", "--backend", "claims:nothing", "--report", "report.jsonl")
    assert ended.code == 1, str(ended)
    assert "no case was generated, which is an error" in ended.out, str(ended)
    assert report_lines(tmp_path / "report.jsonl")[-1]["exit_code"] == 1


def test_a_selection_of_what_is_not_claimed_does_not_pass(tmp_path: Path) -> None:
    write_module(tmp_path, "claims", CLAIMS)
    ended = qloracle(tmp_path, "check", "--backend", "claims:nothing", "--only", "packing.*")
    assert ended.code == 1, str(ended)


def test_a_function_that_is_claimed_and_absent_is_an_error(tmp_path: Path) -> None:
    write_module(tmp_path, "claims", CLAIMS)
    ended = qloracle(tmp_path, "check", "--backend", "claims:absent", "--only", "packing.*", "--profile", "smoke")
    assert ended.code == 1, str(ended)
    assert "claimed, but the backend has no such function" in " ".join(ended.out.split()), str(ended)
    assert "packing.unpack" in ended.out, "the other operation was not judged"


def test_a_selected_stage_that_rests_on_a_failure_outside_the_selection_does_not_pass(tmp_path: Path) -> None:
    write_module(tmp_path, "claims", CLAIMS)
    arguments = ("--only", "nf4.quantize.*.normal", "--stage", "codes", "--profile", "smoke")
    ended = qloracle(tmp_path, "check", "--backend", "claims:loose", *arguments)
    assert ended.code == 1, str(ended)
    assert "blocked" in ended.out, str(ended)


SLOW = """
    import time
    from dataclasses import replace
    from qloracle_conformance.adapters.reference import OPS, backend as reference
    calls = []
    def slowly(codes, *, pad_code):
        calls.append(0)
        time.sleep(60 if len(calls) > 8 else 0)
        return OPS["pack_4bit"](codes, pad_code=pad_code)
    backend = replace(reference(), ops={**OPS, "pack_4bit": slowly})
"""


# As a program in the foreground: a shell lets what it starts in the background ignore Ctrl-C.
HEEDING = (PROGRAM[0], "-c", f"import signal; signal.signal(signal.SIGINT, signal.default_int_handler); {PROGRAM[2]}")


def test_ctrl_c_ends_the_run_and_leaves_a_report_without_a_footer(tmp_path: Path) -> None:
    name = write_module(tmp_path, "slow", SLOW)
    arguments = ("--only", "packing.*", "--profile", "smoke", "--report", "report.jsonl")
    command = [*HEEDING, "check", "--backend", name, *arguments]
    report, partial = tmp_path / "report.jsonl", tmp_path / "report.jsonl.partial"
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (partial.exists() and partial.read_text().count("\n") >= 2):
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the worker too
    out, err = process.communicate(timeout=120)
    ended = Ended(process.returncode, out, err)
    assert ended.code == 130, str(ended)
    assert "qloracle: stopped by Ctrl-C; a report lacks its footer" in ended.err, str(ended)
    assert "Traceback" not in ended.out + ended.err, str(ended)
    assert not partial.exists(), "the report was left under its provisional name"
    lines = report_lines(report)
    assert [line["type"] for line in lines[:2]] == ["header", "property"]
    assert lines[-1]["type"] == "property", "a report that was cut short has a footer"


@pytest.mark.slow
def test_exploring_draws_a_new_seed_each_time_and_says_which(tmp_path: Path) -> None:
    seeds = []
    for number in (1, 2):
        arguments = (
            "--only",
            "packing.pack.*.shapes",
            "--profile",
            "smoke",
            "--explore",
            "--report",
            f"{number}.jsonl",
        )
        ended = qloracle(tmp_path, "check", "--backend", REFERENCE, *arguments)
        assert ended.code == 0, str(ended)
        seeds.append(report_lines(tmp_path / f"{number}.jsonl")[0]["settings"]["seed"])
        assert f"seed {seeds[-1]}" in ended.out, str(ended)
    assert seeds[0] != seeds[1]


@pytest.mark.slow
def test_the_list_of_backends_says_how_to_name_one_s_own(tmp_path: Path) -> None:
    ended = qloracle(tmp_path, "backends")
    assert ended.code == 0, str(ended)
    assert "or give your own as --backend module:attribute" in ended.out, str(ended)
