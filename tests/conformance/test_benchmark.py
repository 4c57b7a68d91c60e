"""The benchmark: what it measures, what it refuses, and what it makes of medians."""

import json
from importlib.util import find_spec
from pathlib import Path

import pytest

from qloracle_conformance.benchmark.machines import MOST_COPIES, copies_beyond, times_for
from qloracle_conformance.benchmark.works import Work, measured
from qloracle_conformance.files import FileError
from qloracle_conformance.speed_tables import backend_speed

from .commands import qloracle, refused, require_one_message

needs_torch = pytest.mark.skipif(find_spec("torch") is None, reason="NOT RUN: torch is not installed")
SMALL = ("bench", "--elements", "4096", "--repeat", "1")


def test_a_rate_is_held_against_the_limit_of_the_same_run() -> None:
    work = Work("copying", "float32", 1000, {}, bytes=4e9)
    found = measured(work, {"mine": 2.0, "theirs": 3.0}, {"copy": 8e9, "product": 1e12})
    assert (found.rate, found.limit, found.fraction, found.ratios) == (2.0, "copy", 0.25, {"theirs": 1.5})


def test_a_product_is_held_against_the_product() -> None:
    work = Work("product", "bfloat16", 1000, {}, bytes=4e9, flops=3e12)
    found = measured(work, {"mine": 2.0}, {"copy": 8e9, "product": 6e12})
    assert (found.rate, found.limit, found.fraction) == (1.5, "product", 0.25)


@pytest.mark.parametrize(
    ("cache", "needed", "copies"),
    [(50 << 20, 1 << 30, 1), (50 << 20, 34 << 20, 3), (50 << 20, 1, MOST_COPIES), (0, 5, 1)],
)
def test_the_inputs_of_calls_in_turn_exceed_the_cache(cache: int, needed: int, copies: int) -> None:
    assert copies_beyond(cache, needed) == copies


@pytest.mark.parametrize(("seconds", "times"), [(1.0, 1), (1e-3, 2), (1e-9, 200), (0.0, 200)])
def test_short_calls_are_repeated_until_the_clock_can_tell(seconds: float, times: int) -> None:
    assert times_for(seconds) == times


@needs_torch
@pytest.mark.slow
def test_a_run_writes_medians_rates_and_ratios(tmp_path: Path) -> None:
    ended = qloracle(tmp_path, *SMALL, "--only", "nf4.*quantize", "--json", "b.json")
    assert ended.code == 0, ended
    run = json.loads((tmp_path / "b.json").read_text(encoding="utf-8"))
    assert {(line["name"], line["format"]) for line in run["results"]} == {
        (f"nf4.{verb}", fmt) for verb in ("quantize", "dequantize") for fmt in ("float32", "bfloat16")
    }
    for line in run["results"]:
        assert line["elements"] == 4096
        assert line["ratios"]["reference"] == line["seconds"]["reference"] / line["seconds"]["torch"]
        assert line["fraction"] == line["rate"] * 1e9 / run["copy_bytes_per_second"]
    table = backend_speed(tmp_path / "b.json", "PyTorch on the CPU")
    assert "| nf4.quantize | bfloat16 | 4,096 |" in table
    assert run["date"] in table


@needs_torch
@pytest.mark.slow
def test_a_plot_shows_every_size(tmp_path: Path) -> None:
    if find_spec("matplotlib") is None:
        pytest.skip("NOT RUN: matplotlib is not installed")
    arguments = (
        "--elements",
        "300000",
        "--repeat",
        "1",
        "--only",
        "bfloat16.encode",
        "--plot",
        "p.svg",
        "--json",
        "b.json",
    )
    ended = qloracle(tmp_path, "bench", *arguments)
    assert ended.code == 0, ended
    run = json.loads((tmp_path / "b.json").read_text(encoding="utf-8"))
    assert [line["elements"] for line in run["results"]] == [1 << 16, 1 << 18, 300000]
    assert (tmp_path / "p.svg").read_text(encoding="utf-8").startswith("<?xml")


@needs_torch
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--only", "nothing"), "no operation is called 'nothing'; there are bfloat16.encode"),
        (("--backend", "other"), "backend must be torch or cupy, got 'other'"),
        (("--backend", "cupy"), "the backend cupy runs on cuda or cuda:N, got device 'cpu'"),
        (("--plot", "p.bmp"), "--plot must name an .svg file, got 'p.bmp'"),
        (("--device", "nowhere"), "device must be cpu, cuda or cuda:N, got 'nowhere'"),
    ],
)
def test_what_cannot_be_measured_is_one_message(tmp_path: Path, arguments: tuple[str, ...], words: str) -> None:
    require_one_message(refused(tmp_path, *SMALL, *arguments), 2, words)


def test_a_page_says_what_did_not_run(tmp_path: Path) -> None:
    assert backend_speed(tmp_path / "none.json", "CuPy on a GPU") == "CuPy on a GPU: not yet run.\n"


def test_what_is_no_report_of_the_benchmark_is_refused(tmp_path: Path) -> None:
    (tmp_path / "b.json").write_text('{"results": 3}', encoding="utf-8")
    with pytest.raises(FileError, match="is no report of the benchmark"):
        backend_speed(tmp_path / "b.json", "PyTorch on the CPU")
