"""Reports: JSON lines of a fixed shape, the same from run to run but for times."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from qloracle_conformance.files import FileError
from qloracle_conformance.reading import read_run
from qloracle_conformance.report import Report

from .commands import Ended, qloracle, write_module

# A backend that breaks a promise, raises, and passes: every kind of line is in its report.
FAULTY = """
    from dataclasses import replace
    from qloracle_conformance.adapters.reference import OPS, backend as reference
    def quantize(x, **options):
        data, absmax = OPS["quantize_blockwise"](x, **options)
        data.items[:1] ^= 0x10
        return data, absmax
    def pack(codes, *, pad_code):
        raise RuntimeError("no kernel")
    names = ("nf4.quantize", "nf4.dequantize", "packing.pack", "packing.unpack")
    base = reference()
    claims = tuple(replace(c, basis="promised", source="a test") for c in base.claims if c.operation in names)
    backend = replace(base, name="faulty", version="7", ops={**OPS, "quantize_blockwise": quantize, "pack_4bit": pack},
                      claims=claims, environment={"driver": "1.2", "another": "x"})
"""
WEIGHTS = {"layer.weight": np.arange(-30, 30, dtype=np.float32).reshape(6, 10) / 7, "norm": np.ones(4, np.float32)}
ARGUMENTS = ("--only", "*.[sw][he][ai]*", "--seed", "3", "--weights", "w.safetensors")  # shapes and weights


@pytest.fixture(scope="module")
def two_runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Ended]]:
    """The same run twice, with reports 0.jsonl and 1.jsonl."""
    folder = tmp_path_factory.mktemp("reports")
    name = write_module(folder, "faulty", FAULTY)
    save_file(WEIGHTS, folder / "w.safetensors")
    ended = [qloracle(folder, "check", "--backend", name, *ARGUMENTS, "--report", f"{i}.jsonl") for i in (0, 1)]
    for run in ended:
        assert run.code == 1, str(run)
    return folder, ended


def without_times(line: str) -> str:
    """A line of a report without the keys "time" and "seconds", everything else as it stands."""
    kept = {key: value for key, value in json.loads(line).items() if key not in ("time", "seconds")}
    return json.dumps(kept, ensure_ascii=False)


def same_but_for_times(folder: Path) -> None:
    first, second = ((folder / f"{i}.jsonl").read_text().splitlines() for i in (0, 1))
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        assert without_times(one) == without_times(other)


def test_two_runs_give_the_same_report_but_for_times(two_runs: tuple[Path, list[Ended]]) -> None:
    same_but_for_times(two_runs[0])


@pytest.mark.slow
def test_two_runs_on_torch_give_the_same_report_but_for_times(torch_backend: str, tmp_path: Path) -> None:
    for i in (0, 1):
        arguments = ("--only", "lora.forward.*.normal", "--profile", "smoke", "--report", f"{i}.jsonl")
        ended = qloracle(tmp_path, "check", "--backend", torch_backend, *arguments)
        assert ended.code == 0, str(ended)
    same_but_for_times(tmp_path)


@pytest.fixture(scope="module")
def lines(two_runs: tuple[Path, list[Ended]]) -> list[dict[str, Any]]:
    run = read_run(two_runs[0] / "0.jsonl")  # the strict reader takes it
    return [json.loads(line) for line in run.path.read_text(encoding="utf-8").splitlines()]


def test_a_report_is_a_header_then_properties_and_matrices_then_a_footer(lines: list[dict[str, Any]]) -> None:
    kinds = [line["type"] for line in lines]
    assert (kinds[0], kinds[-1]) == ("header", "footer")
    assert set(kinds[1:-1]) == {"property", "matrix"}
    assert kinds.count("matrix") == 1


def test_the_header_says_what_was_judged_with_what_and_where(lines: list[dict[str, Any]]) -> None:
    head = lines[0]
    assert set(head) == {
        "type", "format", "specification", "backend", "environment", "settings", "suite", "claims", "time",
    }  # fmt: skip
    assert head["backend"] == {"name": "faulty", "requested": "faulty:backend", "version": "7", "device": "cpu"}
    assert head["environment"] == {"another": "x", "driver": "1.2"}
    assert list(head["environment"]) == ["another", "driver"], "the environment is not in order"
    assert head["settings"] == {
        "only": ARGUMENTS[1], "stage": None, "profile": "default", "explore": False, "seed": 3,
        "weights": "w.safetensors",
    }  # fmt: skip
    assert head["suite"]["worker_threads"] == 2
    assert head["suite"]["subnormals_kept"] is True
    assert [claim["operation"] for claim in head["claims"]] == [
        "packing.pack", "packing.unpack", "nf4.quantize", "nf4.dequantize",
    ]  # fmt: skip
    assert head["claims"][2] | {"roundings": None} == {
        "operation": "nf4.quantize", "levels": {"*": "exact"}, "basis": "promised", "source": "a test",
        "roundings": None,
    }  # fmt: skip


PROPERTY = {
    "type": str, "id": str, "operation": str, "stage": str, "family": str, "clause": str, "claimed": str,
    "attained": (str, type(None)), "basis": str, "status": str, "cases": int, "elements": int, "not_judged": int,
    "blocked": int, "failing": int, "boundary_hits": int, "bound_used": float, "window": float, "ordinal_errors": dict,
    "bound_parts": list, "steps": (dict, type(None)), "places": (dict, type(None)), "message": str,
    "finding": (dict, type(None)), "witness": str, "seconds": float,
}  # fmt: skip


def test_every_property_line_has_the_same_keys_and_types(lines: list[dict[str, Any]]) -> None:
    for line in (x for x in lines if x["type"] == "property"):
        assert list(line) == list(PROPERTY)
        wrong = {key: value for key, value in line.items() if not isinstance(value, PROPERTY[key])}
        assert not wrong, f"{line['id']}: {wrong}"
        assert line["status"] in ("pass", "fail", "differs", "error", "blocked", "not-judged", "not-claimed")
        assert line["id"] == f"{line['operation']}.{line['stage']}.{line['family']}"


def test_a_failing_line_carries_its_finding_and_the_path_of_a_witness_that_exists(
    two_runs: tuple[Path, list[Ended]], lines: list[dict[str, Any]]
) -> None:
    (line,) = [x for x in lines if x.get("id") == "nf4.quantize.codes.shapes"]
    assert (line["status"], line["attained"]) == ("fail", None)
    assert set(line["finding"]) == {"element", "pattern", "got", "allowed", "error", "cause", "context"}
    assert (two_runs[0] / line["witness"]).is_file()


def test_a_failing_line_carries_what_its_plots_are_drawn_from(lines: list[dict[str, Any]]) -> None:
    (line,) = [x for x in lines if x.get("id") == "nf4.quantize.codes.shapes"]
    assert sum(line["ordinal_errors"].values()) == line["elements"] - line["not_judged"] - line["blocked"]
    assert sum(pair[2] for pair in line["steps"]["pairs"]) == line["failing"]
    assert line["steps"]["codebook"] == "nf4"
    assert 0 < line["places"]["failing"] <= line["failing"]


def test_the_matrix_line_has_shape_bits_and_noise(lines: list[dict[str, Any]]) -> None:
    (line,) = [x for x in lines if x["type"] == "matrix"]
    assert (line["name"], line["shape"], line["dtype"]) == ("layer.weight", [6, 10], "float32")
    assert line["not_finite"] == 0
    assert set(line["bits_per_weight"]) == set(line["sqnr_db"]) == {"nf4"}
    assert line["bits_per_weight"]["nf4"] == round((30 + 4) * 8 / 60, 4)


def test_the_footer_counts_the_properties_and_names_what_is_not_claimed(lines: list[dict[str, Any]]) -> None:
    foot = lines[-1]
    assert set(foot) == {"type", "exit_code", "properties", "unclaimed", "seconds"}
    assert foot["exit_code"] == 1
    assert foot["properties"] == sum(line["type"] == "property" for line in lines)
    assert "lora.forward" in foot["unclaimed"]
    assert not {"nf4.quantize", "packing.pack"} & set(foot["unclaimed"])


def test_the_table_and_the_report_name_the_same_counts(
    two_runs: tuple[Path, list[Ended]], lines: list[dict[str, Any]]
) -> None:
    counts: dict[str, int] = {}
    for line in (x for x in lines if x["type"] == "property"):
        counts[line["status"]] = counts.get(line["status"], 0) + 1
    shown = ", ".join(f"{n} {status}" for status, n in sorted(counts.items()))
    assert f"\n{shown}, " in two_runs[1][0].out, f"{shown!r} is not in\n{two_runs[1][0].out}"


def test_a_report_has_its_name_only_when_it_is_closed(tmp_path: Path) -> None:
    report = Report(tmp_path / "deep" / "r.jsonl")
    report.line("header", {"format": 1})
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["r.jsonl.partial"]
    report.close()
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["r.jsonl"]
    assert (tmp_path / "deep" / "r.jsonl").read_text() == '{"type": "header", "format": 1}\n'


@pytest.mark.parametrize("kind", ["folder", "pipe"])
def test_what_is_no_regular_file_is_not_replaced_by_a_report(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "there"
    (os.mkfifo if kind == "pipe" else os.mkdir)(path)
    with pytest.raises(FileError, match=r"there: it exists and is no regular file$"):
        Report(path)
    assert [p.name for p in tmp_path.iterdir()] == ["there"]


def test_a_number_that_json_does_not_have_is_refused(tmp_path: Path) -> None:
    report = Report(tmp_path / "r.jsonl")
    with pytest.raises(ValueError, match="not JSON compliant"):
        report.line("matrix", {"sqnr_db": float("nan")})
    report.close()
