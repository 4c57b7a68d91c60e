"""The committed differences from other libraries: explained, rendered as they are, and still what is measured."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qloracle
from qloracle_conformance.adapters.libraries import LIBRARIES, LibraryError, library
from qloracle_conformance.differences import __main__ as program
from qloracle_conformance.differences.causes import CAUSES, UNEXPLAINED, Mismatches, cause_of
from qloracle_conformance.differences.collect import ALL, SWEPT, conversions, quick_record, to_sweep
from qloracle_conformance.differences.measure import Conversion, compared
from qloracle_conformance.differences.page import render
from qloracle_conformance.differences.special import SPECIAL

ROOT = Path(__file__).resolve().parent.parent.parent
DATA: dict[str, Any] = json.loads((ROOT / "reports" / "differences.json").read_text(encoding="utf-8"))
RECORDS = {record["id"]: record for record in DATA["conversions"]}
FAST = ("ml_dtypes", "numpy", "torch")


def test_the_page_is_what_the_data_render_to() -> None:
    assert (ROOT / "reports" / "differences.md").read_text(encoding="utf-8") == render(DATA), "run make differences"


def test_the_full_sweeps_of_an_older_specification_are_kept_and_marked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in SWEPT:
        recorded_version(name)
    (tmp_path / "reports").mkdir()
    file = tmp_path / "reports" / "differences.json"
    old = [{**each, "specification": "0.0"} for each in DATA["sweeps"]]
    file.write_text(json.dumps({**DATA, "sweeps": old}), encoding="utf-8")
    measured = {**DATA, "specification": qloracle.SPECIFICATION_VERSION}
    monkeypatch.setattr(program, "quick", lambda on_record: dict(measured))
    program.main(root=tmp_path)
    assert json.loads(file.read_text(encoding="utf-8"))["sweeps"] == old
    assert (tmp_path / "reports" / "differences.md").read_text(encoding="utf-8").count("| 0.0 (older: now") == len(old)


def test_ml_dtypes_to_float16_is_among_the_full_sweeps() -> None:
    for name in SWEPT:
        recorded_version(name)
    assert "ml_dtypes.float32.float16.ties_to_even.ieee" in {c.id for c in to_sweep()}


def test_every_difference_has_a_cause_with_an_argument_and_a_source() -> None:
    causes = {group["cause"] for record in (*DATA["conversions"], *DATA["sweeps"]) for group in record["groups"]}
    assert UNEXPLAINED not in causes
    assert causes <= set(CAUSES)
    assert all(CAUSES[name].argument and CAUSES[name].source for name in causes)


@pytest.mark.parametrize("fmt", ["float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"])
def test_ml_dtypes_was_found_to_agree_on_all_float32_inputs(fmt: str) -> None:
    name = "numpy" if fmt == "float16" else "ml_dtypes"  # which leaves float16 to NumPy
    record = next(r for r in DATA["sweeps"] if r["id"] == f"{name}.float32.{fmt}.ties_to_even.ieee")
    assert (record["domain"], record["inputs"], record["mismatches"]) == (ALL, 2**32, 0)


@pytest.mark.parametrize("name", LIBRARIES)
def test_every_conversion_of_a_library_is_recorded(name: str) -> None:
    recorded_version(name)
    assert {c.id for c in conversions(name)} == {i for i in RECORDS if i.startswith(f"{name}.")}


def recorded_version(name: str) -> None:
    """Report as not run unless the library is installed in the recorded version."""
    try:
        installed = library(name).version
    except LibraryError:
        pytest.skip(f"NOT RUN: the recorded differences of {name} need {name}, which is not installed here")
    if installed != DATA["versions"][name]:
        pytest.skip(f"NOT RUN: recorded are the differences of {name} {DATA['versions'][name]}, not of {installed}")


def is_quick(record: dict[str, Any]) -> bool:
    """Whether the measurement takes a moment: from float64 and integers, and some from float32."""
    slow = "e8m0" not in record["to"] if record["source"] == "float32" else "float16" in record["to"]
    return record["library"] in FAST and not slow


@pytest.mark.parametrize("name", [name for name, record in RECORDS.items() if is_quick(record)])
def test_a_conversion_still_differs_as_recorded(name: str) -> None:
    library_name = RECORDS[name]["library"]
    recorded_version(library_name)
    conversion = next(c for c in conversions(library_name) if c.id == name)
    assert quick_record(conversion) == RECORDS[name], "run make differences"


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", LIBRARIES)
def test_all_conversions_still_differ_as_recorded(name: str) -> None:
    recorded_version(name)
    for conversion in conversions(name):
        assert quick_record(conversion) == RECORDS[conversion.id], f"{conversion.id}: run make differences"


@pytest.mark.parametrize("topic", SPECIAL)
def test_decoding_nan_bits_and_defaults_are_still_as_recorded(topic: str) -> None:
    for name in FAST:
        recorded_version(name)
        found = library(name)
        records = [SPECIAL[topic](found, fmt) for fmt in found.formats]
        expected = [record for record in DATA[topic] if record["library"] == name]
        assert [record for record in records if record is not None] == expected, "run make differences"


def test_a_planted_difference_is_counted_under_its_cause() -> None:
    values = np.array([1.0, 1 + 2**-8, 1 + 2**-8 + 2**-40, np.nan])
    wanted = np.array([0x3F80, 0x3F80, 0x3F81, 0x7FC0], np.uint16)
    got = np.array([0x3F81, 0x3F81, 0x3F80, 0x3F80], np.uint16)
    found = cause_of(Mismatches(values, wanted, got, "bfloat16", "ties_to_even", "ieee"))
    assert [list(CAUSES)[i] for i in found] == [UNEXPLAINED, "tie", "rounded-twice", UNEXPLAINED]


def test_a_library_that_agrees_has_an_empty_tally() -> None:
    recorded_version("numpy")
    numbers = np.arange(0x3F800000, 0x3F810000, dtype=np.uint32).view(np.float32)
    tally = compared(library("numpy"), Conversion("numpy", "float32", "float16"), [numbers])
    assert (tally.inputs, tally.causes) == (0x10000, {})
