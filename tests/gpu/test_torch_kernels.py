"""The Triton kernels without a GPU: interpreted through the conformance suite, and compiled with a look at the PTX."""

import json
import os
import subprocess
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from qloracle.codebooks import Codebook
from qloracle.tables import CODEBOOKS
from qloracle_gpu.torch.kernels.cells import MARGIN, cell_table

COMPILER = Path(__file__).with_name("compile_kernels.py")
JUDGED = "import sys; from qloracle_conformance.cli import main; sys.exit(main())"
needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="NOT RUN: the kernels need Triton")


def run(arguments: list[str], **variables: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=600, env={**kept, **variables})


@pytest.mark.slow
@needs_triton
@pytest.mark.parametrize("operation", ["nf4.quantize", "nf4.dequantize", "dynamic_signed.quantize"])
def test_interpreted_kernels_are_exact(operation: str, tmp_path: Path) -> None:
    report = tmp_path / "report.jsonl"
    options = ["check", "--backend", "torch", "--only", f"{operation}.*", "--profile", "smoke", "--timeout", "300",
               "--report", str(report)]  # fmt: skip
    ended = run(["-W", "ignore", "-c", JUDGED, *options], TRITON_INTERPRET="1")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    lines = [json.loads(line) for line in report.read_text(encoding="utf-8").splitlines()]
    assert lines[0]["environment"]["kernels"].startswith("triton"), "the eager code was judged instead"


@cache
def ptx() -> list[dict[str, Any]]:
    ended = run([str(COMPILER)])
    assert ended.returncode == 0, ended.stderr
    found: list[dict[str, Any]] = json.loads(ended.stdout)
    return found


@needs_triton
def test_no_kernel_flushes_contracts_or_divides_inexactly() -> None:
    for row in ptx():
        wrong = [o for o in row["operations"] if ".ftz" in o or ".approx" in o or o.startswith(("fma.", "div.full"))]
        assert not wrong, f"{row['name']} for sm_{row['target']}: {wrong}"


@needs_triton
def test_kernels_move_sixteen_bytes_at_a_time() -> None:
    for row in ptx():
        known = row["operations"]
        wide = "ld.global.v4.b32" in known and "st.global.v4.b32" in known
        assert wide, f"{row['name']} for sm_{row['target']}: {[o for o in known if 'global' in o]}"


@pytest.mark.parametrize("name", list(CODEBOOKS))
def test_every_cell_knows_the_midpoints_that_it_meets(name: str) -> None:
    codebook: Codebook = CODEBOOKS[name]
    table = cell_table(codebook, torch.device("cpu"))
    cells = table.cells.numpy()
    midpoints = (cells & 0xFFFFFFFF).astype(np.uint32).view(np.float32)
    below = (cells >> 32).astype(np.int64)
    edges = ((np.arange(table.count + 1) + table.first) << table.shift).astype(np.int32).view(np.float32)
    edges = edges.astype(np.float64)
    edges[0] = 0.0
    for sign, part in ((1.0, slice(0, table.count)), (-1.0, slice(table.count, None))):
        ends = np.sort(np.stack([sign * edges[:-1] * (1 - MARGIN), sign * edges[1:] * (1 + MARGIN)]), axis=0)
        for low, high, boundary, count in zip(*ends, midpoints[part], below[part], strict=True):
            met = [m for m in codebook.midpoints if low <= m <= high]
            assert len(met) <= 1
            assert count == sum(m < low for m in codebook.midpoints)
            assert boundary == (np.float32(met[0]) if met else 2.0)
