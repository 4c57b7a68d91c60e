"""The suite judges the CuPy backend on the emulator: its own host code, its own kernels, NumPy arrays."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from qloracle_gpu.cupy.conformance.claims import claims

from .emulator.building import has_compiler, sanitizer_library
from .emulator.launching import ORDERS

pytestmark = pytest.mark.skipif(not has_compiler(), reason="NOT RUN: the emulator needs g++")
ROOT = Path(__file__).resolve().parents[2]
CHECK = "from qloracle_conformance.cli import main; main()"
LEVELS = {claim.operation: claim.levels["*"] for claim in claims()}


def judged(report: Path, *options: str, limit: int = 1800, **variables: str) -> list[dict[str, Any]]:
    """Run `qloracle check` on the emulated backend; return its properties, each of which passes as it is claimed."""
    result = subprocess.run(
        [sys.executable, "-c", CHECK, "check", "--backend", "tests.gpu.emulator.conformance:emulated", *options,
         "--report", str(report)],
        check=False, capture_output=True, text=True, cwd=ROOT, timeout=limit,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path[1:])} | variables,
    )  # fmt: skip
    assert result.returncode == 0, f"exit code {result.returncode}\n{result.stdout[-4000:]}\n{result.stderr[-2000:]}"
    lines = [json.loads(line) for line in report.read_text(encoding="utf-8").splitlines()]
    found = [line for line in lines if line["type"] == "property"]
    wrong = [line["id"] for line in found if line["status"] != "pass"]
    assert not wrong, f"not passed: {', '.join(wrong)}"
    less = [line["id"] for line in exact_ones(found) if (line["claimed"], line["attained"]) != ("exact", "exact")]
    assert not less, f"claimed or attained less than exact: {', '.join(less)}"
    return found


def exact_ones(properties: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those of operations that are claimed to be exact."""
    return [line for line in properties if LEVELS.get(line["operation"]) == "exact" and line["attained"] is not None]


def require_all_pass(report: Path, *options: str, **variables: str) -> None:
    """Every operation that is claimed is judged and passes, and exact claims are attained exactly."""
    found = judged(report, *options, **variables)
    assert {line["operation"] for line in found} >= set(LEVELS), "an operation that is claimed was not judged"
    exact = {name for name, level in LEVELS.items() if level == "exact"}
    assert {line["operation"] for line in exact_ones(found)} == exact


def test_the_emulated_backend_passes_the_suite_at_its_smoke_profile(tmp_path: Path) -> None:
    require_all_pass(tmp_path / "report.jsonl", "--profile", "smoke", QLORACLE_EMULATOR_ORDER="shuffled")


@pytest.mark.exhaustive
@pytest.mark.parametrize("order", ORDERS)
def test_the_emulated_backend_passes_the_suite_at_its_default_profile_in_every_order(
    order: str, tmp_path: Path
) -> None:
    options = ("--profile", "default", "-j", "2")
    require_all_pass(tmp_path / "report.jsonl", *options, QLORACLE_EMULATOR_ORDER=order)


@pytest.mark.exhaustive
def test_the_emulated_backend_passes_the_suite_under_sanitizers(tmp_path: Path) -> None:
    library = sanitizer_library()
    if library is None:
        pytest.skip("NOT RUN: there is no AddressSanitizer library")
    variables = {
        "LD_PRELOAD": library, "ASAN_OPTIONS": "detect_leaks=0", "QLORACLE_EMULATOR_SANITIZE": "1",
        "QLORACLE_EMULATOR_ORDER": "reversed",
    }  # fmt: skip
    require_all_pass(tmp_path / "report.jsonl", "--profile", "smoke", **variables)
