"""The suite judges the CuPy backend on the emulator: its own host code, its own kernels, NumPy arrays."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from qloracle_gpu.cupy.conformance.claims import claims

from .emulator.building import has_compiler, sanitizer_library
from .emulator.launching import ORDERS

pytestmark = pytest.mark.skipif(not has_compiler(), reason="NOT RUN: the emulator needs g++")
ROOT = Path(__file__).resolve().parents[2]
CLAIMED = {claim.operation for claim in claims()}
PROMISED = ("encode", "decode", "entries", "quantize", "dequantize", "pack", "unpack", "store", "restore", "absmax")


def check(*options: str, limit: int = 600, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run `qloracle check` on the emulated backend."""
    command = [sys.executable, "-c", "from qloracle_conformance.cli import main; main()", "check"]
    return subprocess.run(
        [*command, "--backend", "tests.gpu.emulator.conformance:emulated", *options], check=False, capture_output=True,
        text=True, cwd=ROOT, timeout=limit, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path[1:])} | variables,
    )  # fmt: skip


def require_all_pass(result: subprocess.CompletedProcess[str]) -> None:
    """Every property passes, and what is promised exactly is claimed and attained exactly."""
    assert result.returncode == 0, f"exit code {result.returncode}\n{result.stdout[-4000:]}\n{result.stderr[-2000:]}"
    exact = set()
    for line in result.stdout.splitlines():
        operation, *rest = line.split()
        if "." in operation and "pass" in rest:
            name, levels = operation, rest[rest.index("pass") + 1 :][:2]
            if name.partition(".")[2] in PROMISED:
                assert levels == ["exact", "exact"], f"claimed or attained less than exact: {line}"
                exact.add(name)
    wanted = {name for name in CLAIMED if name.partition(".")[2] in PROMISED}
    assert exact == wanted, f"no line for {', '.join(sorted(wanted - exact))}"


def test_the_emulated_backend_passes_the_suite_at_its_smoke_profile() -> None:
    require_all_pass(check("--profile", "smoke", QLORACLE_EMULATOR_ORDER="shuffled"))


@pytest.mark.exhaustive
@pytest.mark.parametrize("order", ORDERS)
def test_the_emulated_backend_passes_the_suite_at_its_default_profile_in_every_order(order: str) -> None:
    require_all_pass(check("--profile", "default", "-j", "2", limit=1800, QLORACLE_EMULATOR_ORDER=order))


@pytest.mark.exhaustive
def test_the_emulated_backend_passes_the_suite_under_sanitizers() -> None:
    library = sanitizer_library()
    if library is None:
        pytest.skip("NOT RUN: there is no AddressSanitizer library")
    variables = {
        "LD_PRELOAD": library, "ASAN_OPTIONS": "detect_leaks=0", "QLORACLE_EMULATOR_SANITIZE": "1",
        "QLORACLE_EMULATOR_ORDER": "reversed",
    }  # fmt: skip
    require_all_pass(check("--profile", "smoke", limit=1800, **variables))
