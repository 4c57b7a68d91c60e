"""`qloracle sweep`: what it finds, how it tells it, and how it goes on after it was stopped."""

import io
import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from qloracle.formats import Array
from qloracle.rounding import encode
from qloracle_conformance.adapters.libraries import LIBRARIES
from qloracle_conformance.plan import UsageError
from qloracle_conformance.sweep import run, work
from qloracle_conformance.sweep.report import joined
from qloracle_conformance.sweep.sides import Policies, Side, policies
from qloracle_conformance.sweep.work import UnitResult, compare

from .commands import qloracle, refused, require_one_message

BFLOAT16 = Policies("bfloat16", "ties_to_even", "ieee", "payload")
TRUNCATING = """
import numpy as np
from qloracle import encode

def away(values, fmt):
    words = values.view(np.uint32)
    even = encode(values, fmt)
    tie = ((words & 0xFFFF) == 0x8000) & ((words >> 23) & 255 == 127)
    return np.where(tie, ((words >> 16) + 1).astype(np.uint16), even)
"""


def reference(values: Array) -> Array:
    return encode(values, "bfloat16")


def swept(function: Any, first: int, last: int) -> UnitResult:
    return compare(Side("reference", "", reference), Side("planted", "", function), BFLOAT16, first, last)


def wrong_on(*ranges: tuple[int, int]) -> Any:
    """A conversion that is off by one on ranges of float32 words."""

    def convert(values: Array) -> Array:
        words = values.view(np.uint32)
        wrong = np.zeros(words.shape, np.bool_)
        for low, high in ranges:
            wrong |= (words >= low) & (words <= high)
        return reference(values) ^ wrong.astype(np.uint16)

    return convert


def test_equal_sides_have_no_mismatch() -> None:
    assert swept(reference, 0x3F7F0000, 0x3F810000).mismatches == 0


def test_every_mismatch_is_counted_and_the_smallest_intervals_are_named() -> None:
    ranges = ((0x3F800005, 0x3F800009), (0x3F80000B, 0x3F80000B), (0x3F83FFFE, 0x3F840003))
    found = swept(wrong_on(*ranges), 0x3F800000, 0x3F87FFFF)
    assert found.mismatches == 5 + 1 + 6
    assert found.runs == ranges
    assert found.samples[0] == (0x3F800005, 0x3F80, 0x3F81)
    assert found.last_sample is not None
    assert found.last_sample[0] == 0x3F840003


def test_an_interval_across_units_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    convert = wrong_on((0x3F8000FE, 0x3F800205), (0x3F800300, 0x3F800300))
    units = [swept(convert, first, first + 255) for first in range(0x3F800000, 0x3F800400, 256)]
    report = joined(units, "bfloat16")
    assert report["intervals"] == 2
    assert [(i["first"], i["inputs"]) for i in report["first_intervals"]] == [("0x3f8000fe", 264), ("0x3f800300", 1)]
    assert report["mismatches"] == 265
    assert report["last"]["input"].startswith("0x3f800300")


def test_more_intervals_than_are_kept_are_still_counted() -> None:
    even = [(word, word) for word in range(0x3F800000, 0x3F800400, 2)]
    units = [swept(wrong_on(*even), first, first + 255) for first in range(0x3F800000, 0x3F800400, 256)]
    report = joined(units, "bfloat16")
    assert report["intervals"] == 512
    assert len(report["first_intervals"]) == work.MOST_RUNS
    assert report["first_intervals"][-1]["first"] == f"{0x3F800000 + 2 * (work.MOST_RUNS - 1):#010x}"


def test_nan_equals_nan_whatever_its_bits_and_nothing_else() -> None:
    def other_nan(values: Array) -> Array:
        return np.where(np.isnan(values), np.uint16(0xFFFF), reference(values))

    def infinity(values: Array) -> Array:
        return np.where(np.isnan(values), np.uint16(0x7F80), reference(values))

    assert swept(other_nan, 0x7F7FFFF0, 0x7F80FFFF).mismatches == 0
    assert swept(infinity, 0x7F7FFFF0, 0x7F80FFFF).mismatches == 0xFFFF


def test_the_sign_of_zero_counts() -> None:
    assert swept(lambda values: reference(values) & 0x7FFF, 0x80000000, 0x80000000).mismatches == 1


def test_inputs_that_the_reference_refuses_are_left_out_and_counted() -> None:
    chosen = Policies("float4_e2m1fn", "ties_to_even", "saturate", "reject")
    side = Side("same", "", lambda values: encode(values, "float4_e2m1fn"))
    found = compare(side, side, chosen, 0x7F7FFFFF, 0x7F800010)
    assert (found.refused, found.mismatches) == (16, 0)


@pytest.mark.parametrize("name", LIBRARIES)
def test_every_library_agrees_on_ordinary_numbers(name: str) -> None:
    pytest.importorskip(name, reason=f"NOT RUN: the second opinion of {name} needs it")
    chosen = policies("float16", name, "ties_to_even", None, None)
    unit = work.sweep_unit(name, chosen, 0x3F800000, 0x3F807FFF)
    assert unit.mismatches == 0


def settings(folder: Path, **changes: Any) -> run.Settings:
    plain = {"to": "bfloat16", "against": "reference", "rounding": "ties_to_even", "overflow": None, "nan": None,
             "words": "0x3f800000:0x3f8003ff", "processes": 1, "resume": None, "state": folder / "state.json",
             "report": folder / "report.json"}  # fmt: skip
    return run.Settings(**{**plain, **changes})


def quietly(chosen: run.Settings) -> int:
    with Path("/dev/null").open("w") as nowhere:
        console = Console(file=nowhere)
        return run.sweep(chosen, console, console)


def test_a_stopped_sweep_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "UNIT", 256)
    right, asked = run.sweep_unit, []

    def stopping(against: str, chosen: Policies, first: int, last: int) -> UnitResult:
        asked.append(first)
        if len(asked) == 3:
            raise KeyboardInterrupt
        return right(against, chosen, first, last)

    monkeypatch.setattr(run, "sweep_unit", stopping)
    kept = f"stopped; 2 of 4 units kept in {tmp_path / 'state.json'}; the same command goes on"
    with pytest.raises(KeyboardInterrupt, match=re.escape(kept)):
        quietly(settings(tmp_path))
    assert (tmp_path / "state.json").exists()
    assert quietly(settings(tmp_path, resume=True)) == 0
    assert [first - 0x3F800000 for first in asked] == [0, 256, 512, 512, 768]
    report = json.loads((tmp_path / "report.json").read_text())
    assert (report["inputs"], report["mismatches"], report["units_of_earlier_runs"]) == (1024, 0, 2)
    assert not (tmp_path / "state.json").exists()


def test_a_state_of_another_sweep_is_refused_and_fresh_replaces_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    identity = {"to": "float16"}
    (tmp_path / "state.json").write_text(
        json.dumps({"kind": "qloracle sweep state 1", "identity": identity, "units": []})
    )
    with pytest.raises(
        UsageError,
        match=r"another sweep \(to: bfloat16 asked, float16 in the file; .*unit: 4194304 asked, None in the file",
    ):
        quietly(settings(tmp_path))
    assert quietly(settings(tmp_path, resume=False)) == 0


def test_units_survive_the_state_file(tmp_path: Path) -> None:
    from qloracle_conformance.sweep.state import load, save

    unit = swept(wrong_on((0x3F800001, 0x3F800002)), 0x3F800000, 0x3F800010)
    save(tmp_path / "state.json", {"a": 1}, {unit.first: unit})
    assert asdict(load(tmp_path / "state.json", {"a": 1}, resume=True)[unit.first]) == asdict(unit)


@pytest.mark.slow
def test_several_processes_find_what_one_finds(tmp_path: Path) -> None:
    (tmp_path / "other.py").write_text(TRUNCATING, encoding="utf-8")
    arguments = ("sweep", "--to", "bfloat16", "--against", "other:away", "--words", "0x3e000000:0x40ffffff")
    reports = []
    for processes in ("1", "2"):
        ended = qloracle(tmp_path, *arguments, "-j", processes, "--report", "r.json")
        assert ended.code == 1, str(ended)
        found = json.loads((tmp_path / "r.json").read_text())
        assert found.pop("processes") == int(processes)
        assert found.pop("seconds") > 0
        assert 10 * 2**20 < found.pop("peak_process_bytes") < 4 * 2**30, "as Linux and macOS count it"
        reports.append(found)
    assert reports[0] == reports[1]
    assert reports[0]["mismatches"] == 64
    assert reports[0]["first_intervals"][0] == {"first": "0x3f808000", "last": "0x3f808000", "inputs": 1}
    assert "64 mismatches in 64 intervals" in ended.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--to", "bfloat17", "--against", "reference"), "to must be one of float32, float16, bfloat16"),
        (("--to", "bfloat16", "--against", "nobody"), "--against must be one of ml_dtypes, numpy, torch, gfloat"),
        (("--to", "bfloat16", "--against", "numpy"), "has no bfloat16; its formats: float16"),
        (("--to", "float16", "--against", "numpy", "--rounding", "up"), "rounding must be one of ties_to_even"),
        (("--to", "float16", "--against", "numpy", "--rounding", "toward_zero"), "numpy"),
        (
            ("--to", "float16", "--against", "numpy", "--overflow", "saturate"),
            "overflows to float16 as ieee, not saturate",
        ),
        (("--to", "float16", "--against", "numpy", "--words", "7"), "--words must be FIRST:LAST"),
        (("--to", "float16", "--against", "numpy", "--resume"), "--resume: there is no state"),
        (("--to", "float16", "--against", "numpy", "--state", "broken.json"), "is no state of a sweep"),
        (("--to", "float16", "--against", "nomodule:f"), "needs the module 'nomodule'"),
        (("--to", "float16", "--against", "nothing"), "torch is the library, --against qloracle_gpu"),
        (("--to", "float16", "--against", "numpy", "--state", "no/x"), "--state no/x: there is no folder no"),
        (("--to", "float16", "--against", "numpy", "--report", "no/x"), "--report no/x: there is no folder no"),
        (
            ("--to", "float16", "--against", "numpy", "--state", "unitless.json"),
            "it lacks the sweep that it belongs to",
        ),
    ],
)
def test_a_sweep_that_makes_no_sense_is_refused_in_one_line(
    tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    (tmp_path / "broken.json").write_text("[]", encoding="utf-8")
    (tmp_path / "unitless.json").write_text('{"kind": "qloracle sweep state 1", "identity": {}}', encoding="utf-8")
    require_one_message(refused(tmp_path, "sweep", *arguments), 2, message)


def test_a_run_that_goes_on_says_so_and_ends_with_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "UNIT", 256)
    unit = swept(reference, 0x3F800000, 0x3F8000FF)
    monkeypatch.setattr(run, "load", lambda path, identity, resume: {unit.first: unit})
    console = Console(file=io.StringIO(), width=500)
    assert run.sweep(settings(tmp_path), console, console) == 0
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "goes on: 1 of 4 units were kept in" in text
    assert re.search(r"this run, which went on after 1 units, took [0-9.]+ s", text)


def test_the_help_lists_the_roundings_and_overflows(tmp_path: Path) -> None:
    text = " ".join(qloracle(tmp_path, "sweep", "--help").out.replace("│", " ").split())
    for name in ("ties_to_even", "toward_zero", "ieee", "saturate"):
        assert name in text


@pytest.mark.exhaustive
@pytest.mark.parametrize("fmt", ["float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"])
def test_the_reference_agrees_with_ml_dtypes_on_every_float32_number(tmp_path: Path, fmt: str) -> None:
    assert quietly(settings(tmp_path, to=fmt, against="ml_dtypes", words=None, processes=2)) == 0
