"""The Triton kernels without a GPU: interpreted through the conformance suite, and compiled with a look at the PTX."""

import json
import os
import re
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
from qloracle_gpu.torch.kernels.compiled_loops import SWITCH, loops

FOLDER = Path(__file__).parent
JUDGED = "import sys; from qloracle_conformance.cli import main; sys.exit(main())"
SHARED_BYTES = {"sm_80": 163 << 10, "sm_90": 227 << 10, "gfx942": 64 << 10}  # that a program can have
needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="NOT RUN: the kernels need Triton")
needs_loops = pytest.mark.skipif(loops() is None, reason="NOT RUN: no C compiler that knows the loops")


def run(arguments: list[str], **variables: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=600, env={**kept, **variables})


# One operation for each family of kernels through the suite, for its layouts; `SCRIPTS` hold the rest to account.
OPTIMIZERS = "qloracle_gpu.torch.conformance_optimizers:backend"
JUDGED_OPERATIONS = [
    ("torch", "nf4.*quantize"), ("torch", "nf4_double.matmul"), ("torch", "int8.scale"), (OPTIMIZERS, "adamw*.step"),
    (OPTIMIZERS, "adamw.stochastic"),
]  # fmt: skip
# What compares interpreted kernels with the reference, and how many results there must be.
SCRIPTS = {
    "interpret_blocks.py": 3 * 10**5,
    "interpret_products.py": 10**5,
    "interpret_matrix_products.py": 3 * 10**5,
    "interpret_adapters.py": 10**5,
    "interpret_adamw.py": 4 * 10**5,
}


@pytest.mark.slow
@needs_triton
@pytest.mark.parametrize(("backend", "operation"), JUDGED_OPERATIONS)
def test_interpreted_kernels_obey_the_reference(backend: str, operation: str, tmp_path: Path) -> None:
    report = tmp_path / "report.jsonl"
    options = ["check", "--backend", backend, "--only", f"{operation}.*", "--profile", "smoke", "--timeout", "300",
               "--report", str(report)]  # fmt: skip
    ended = run(["-W", "ignore", "-c", JUDGED, *options], TRITON_INTERPRET="1")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    lines = [json.loads(line) for line in report.read_text(encoding="utf-8").splitlines()]
    assert lines[0]["environment"]["kernels"].startswith("triton"), "the eager code was judged instead"


@pytest.mark.slow
@needs_triton
@pytest.mark.parametrize("script", SCRIPTS)
def test_interpreted_kernels_give_the_words_of_the_reference(script: str) -> None:
    ended = run(["-W", "ignore", str(FOLDER / script)], TRITON_INTERPRET="1")
    assert ended.returncode == 0, ended.stderr
    assert int(ended.stdout) > SCRIPTS[script], ended.stdout


@needs_triton
@pytest.mark.skipif(not torch.cuda.is_available(), reason="NOT RUN: no CUDA device")
@pytest.mark.parametrize("script", ["interpret_matrix_products.py", "interpret_adapters.py"])
def test_kernels_of_products_obey_the_reference_on_a_gpu(script: str) -> None:
    ended = run(["-W", "ignore", str(FOLDER / script)])
    assert ended.returncode == 0, ended.stderr
    assert int(ended.stdout) > SCRIPTS[script], ended.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    "kernels", ["eager", pytest.param("C", marks=needs_loops), pytest.param("triton", marks=needs_triton)]
)
def test_conversions_are_exact_under_every_rule(kernels: str) -> None:
    chosen = {"TRITON_INTERPRET": str(int(kernels == "triton")), SWITCH: str(int(kernels == "C"))}
    ended = run(["-W", "ignore", str(FOLDER / "interpret_conversions.py")], **chosen)
    assert ended.returncode == 0, ended.stderr
    converted, count = ended.stdout.split()
    assert converted == kernels, "other code was judged instead"
    assert int(count) > 10**7


@cache
def compiled() -> list[tuple[Any, dict[str, Any]]]:
    """Every kernel for every target: its case, and what its code holds."""
    from .kernel_cases import all_cases

    ended = run([str(FOLDER / "compile_kernels.py")])
    assert ended.returncode == 0, ended.stderr
    cases = {case.name: case for case in all_cases()}
    return [(cases[row["name"]], row) for row in map(json.loads, ended.stdout.splitlines())]


def nvidia() -> list[tuple[Any, str, dict[str, int]]]:
    return [
        (case, f"{case.name} for {row['target']}", row["operations"])
        for case, row in compiled()
        if row["target"].startswith("sm_")
    ]


@pytest.mark.slow
@needs_triton
def test_no_kernel_flushes_contracts_or_divides_inexactly() -> None:
    for case, name, operations in nvidia():
        wrong = [o for o in operations if ".ftz" in o or ".approx" in o or o.startswith("div.full")]
        assert not wrong, f"{name}: {wrong}"
        fused = sum(count for o, count in operations.items() if o.startswith("fma."))
        assert fused == case.fused, f"{name}: {fused} fused products, {case.fused} wanted"


@pytest.mark.slow
@needs_triton
def test_kernels_move_as_much_at_a_time_as_they_can() -> None:
    for case, name, operations in nvidia():
        moved = [o for o in operations if "global" in o]
        assert not case.load or f"ld.global.{case.load}" in operations, f"{name}: {moved}"
        assert not case.store or f"st.global.{case.store}" in operations, f"{name}: {moved}"


@pytest.mark.slow
@needs_triton
def test_no_kernel_spills_or_uses_local_memory() -> None:
    for case, row in compiled():
        assert row["local"] == 0, f"{case.name} for {row['target']}: {row['local']} bytes"


@pytest.mark.slow
@needs_triton
def test_bfloat16_is_rounded_by_the_instruction_that_rounds_to_nearest_even() -> None:
    for case, name, operations in nvidia():
        narrowing = [o for o in operations if re.match(r"cvt\.(\w+\.)*?bf16(x2)?\.", o)]
        assert set(narrowing) <= {"cvt.rn.bf16x2.f32", "cvt.rn.bf16.f32"}, f"{name}: {narrowing}"
        if "*bf16" in case.arguments.values():
            assert narrowing, f"{name}: nothing narrows to bfloat16"


@pytest.mark.slow
@needs_triton
def test_no_product_of_float32_loses_bits_of_its_operands() -> None:
    for case, row in compiled():
        wrong = [o for o in row["operations"] if "tf32" in o or "xf32" in o or ("mma" in o and ".f16.f16.f16" in o)]
        assert not wrong, f"{case.name} for {row['target']}: {wrong}"


@pytest.mark.slow
@needs_triton
def test_every_program_fits_into_shared_memory() -> None:
    for case, row in compiled():
        assert row["shared"] <= SHARED_BYTES[row["target"]], f"{case.name} for {row['target']}: {row['shared']} bytes"


@pytest.mark.slow
@needs_triton
def test_products_of_integers_and_of_16_bits_use_the_matrix_units() -> None:
    for case, row in compiled():
        unit = case.matrix_units.get(row["target"])
        used = unit is None or any(o.startswith(unit) for o in row["operations"])
        assert used, f"{case.name} for {row['target']} does not use {unit}"
        copied = unit is None or "cp.async.cg.shared.global" in row["operations"]
        assert copied or row["target"] == "gfx942", f"{case.name} for {row['target']} copies fewer than 16 bytes"


@pytest.mark.slow
@needs_triton
def test_kernels_compile_for_an_amd_gpu_that_keeps_subnormals_and_contracts_nothing() -> None:
    rows = [(case, row) for case, row in compiled() if row["target"] == "gfx942"]
    assert rows, "nothing was compiled for gfx942"
    for case, row in rows:
        assert row["keeps_subnormals"], f"{case.name}: subnormals are flushed"
        # A division that rounds once is made of a reciprocal and FMA; so is one of integers.
        divides = case.divides or "v_div_fixup_f32" in row["operations"]
        fused = ("v_fma", "v_mac_f32", "v_rcp_f32", "v_pk_fma_f32")
        wrong = [o for o in row["operations"] if o.startswith(fused)]
        assert divides or case.fused or not wrong, f"{case.name}: {wrong}"


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
