"""Faults planted in copies of the kernels are caught: by the orders of the emulator, by sanitizers, by the reference.

Every fault is one change of a kernel's text. `differing` runs a few operations on the emulator and compares them with
the reference; the unchanged kernels pass it in every order of threads.
"""

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import qloracle
import qloracle_gpu.cupy as backend
from qloracle_gpu.cupy.launcher import using
from qloracle_gpu.cupy.sources import kernel_text

from .emulator.building import has_compiler, sanitizer_library
from .emulator.launching import ORDERS, EmulatedLauncher

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not has_compiler(), reason="NOT RUN: the emulator needs g++")]
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Fault:
    """One wrong kernel: a text that stands once in a file, and what takes its place."""

    file: str
    right: str
    wrong: str

    @property
    def replaced(self) -> Mapping[str, str]:
        text = kernel_text(self.file)
        assert text.count(self.right) == 1, f"{self.file}: {self.right!r} stands there {text.count(self.right)} times"
        return {self.file: text.replace(self.right, self.wrong)}


WRITTEN = "if ((threadIdx.x & (LANES - 1)) == 0) of_warps[warp] = largest;\n            __syncthreads();"
SCRATCH_READ = "largest = max(largest, of_warps[other]);\n            __syncthreads();"
FAULTS = {
    "missing barrier before warps read each other": Fault("quantize.cu", WRITTEN, WRITTEN.partition("\n")[0]),
    "missing barrier before scratch is used again": Fault("quantize.cu", SCRATCH_READ, SCRATCH_READ.partition("\n")[0]),
    "missing barrier after the table is loaded": Fault(
        "nearest.cuh", "book.cells[k] = cells[k];\n    __syncthreads();", "book.cells[k] = cells[k];"
    ),
    "missing barrier after a tile is loaded": Fault(
        "int8_matmul.cu", "}\n            __syncthreads();\n            for (int word", "}\n            for (int word"
    ),
    "missing barrier before the next tile": Fault(
        "int8_matmul.cu", "}\n            __syncthreads();\n        }\n", "}\n        }\n"
    ),
    "wrong lane of a shuffle": Fault(
        "teams.cuh", "__shfl_xor_sync(ALL_LANES, largest, offset)", "__shfl_down_sync(ALL_LANES, largest, offset)"
    ),
    "last step of the shuffle forgotten": Fault("teams.cuh", "offset > 0;", "offset > 1;"),
    "unmasked tail": Fault(
        "vectors.cuh", "if (first + k < end) items[k] = source[first + k];", "items[k] = source[first + k];"
    ),
    "vector read across the end of a block": Fault(
        "vectors.cuh", "if (first + COUNT <= end && is_aligned<COUNT>(source + first))",
        "if (is_aligned<COUNT>(source + first))",
    ),
    "missing barrier before the sums of warps are read": Fault(
        "sums.cuh", "= value;\n    __syncthreads();\n    double total", "= value;\n    double total"
    ),
    "missing barrier before the sums of warps are written again": Fault(
        "sums.cuh", "of_warps[warp]);\n    __syncthreads();", "of_warps[warp]);"
    ),
    "wrong lane of a sum": Fault(
        "sums.cuh", "__shfl_xor_sync(0xffffffffu, value, offset)", "__shfl_up_sync(0xffffffffu, value, offset)"
    ),
    "a team that sees only half a group": Fault("observe.cu", "offset > 0; offset /= 2", "offset > 1; offset /= 2"),
    "an end of a range that is not masked": Fault(
        "observe.cu", "k < ITEMS && first + k < end; ++k", "k < ITEMS; ++k"
    ),
    "missing barrier after numbers of x are held": Fault(
        "integer_gemv.cu", "held);\n            __syncthreads();\n            i64 end", "held);\n            i64 end"
    ),
    "missing barrier before other numbers of x are held": Fault(
        "integer_gemv.cu", "}\n            __syncthreads();\n        }\n", "}\n        }\n"
    ),
    "wrong lane of a product": Fault(
        "integer_gemv.cu", "__shfl_xor_sync(0xffffffffu, sums", "__shfl_up_sync(0xffffffffu, sums"
    ),
    "wrong lane's numbers of x": Fault("integer_gemv.cu", "int quad = lane;", "int quad = lane ^ 1;"),
    "numbers of x beyond the end of a row": Fault(
        "integer_gemv.cu", "end = start + inner;", "end = rows * inner;"
    ),
    "codes beyond the end of a row": Fault(
        "integer_gemv.cu", "(column + 1) * inner, values", "columns * inner, values"
    ),
    "a scale beyond the end of its group": Fault(
        "integer_gemv.cu", "codes.column || groups.left < count", "codes.column"
    ),
    "unmasked packing": Fault(
        "nearest.cuh", "if (first + 2 * k < size) target[k] = bytes[k];", "target[k] = bytes[k];"
    ),
}  # fmt: skip
SEEN_BY_SANITIZERS = (
    "unmasked tail",
    pytest.param("vector read across the end of a block", marks=pytest.mark.exhaustive),
    pytest.param("unmasked packing", marks=pytest.mark.exhaustive),
)


def differing(launcher: EmulatedLauncher, block_sizes: tuple[int, ...] = (64, 512, 4096, 100)) -> list[str]:
    """Which of a few operations differ from the reference on a launcher."""
    rng = np.random.default_rng(6)
    x = rng.standard_normal(3 * max(block_sizes) + 701).astype(np.float32)
    a, b = (rng.integers(-127, 128, shape, dtype=np.int8) for shape in ((70, 129), (67, 129)))
    found = []
    with using(launcher):
        for block_size in block_sizes:
            mine, wanted = (q.quantize_blockwise(x, block_size=block_size) for q in (backend, qloracle))
            found += [
                f"quantize {block_size} {part}"
                for part in ("absmax", "data")
                if getattr(mine, part).tobytes() != getattr(wanted, part).tobytes()
            ]
        if not np.array_equal(backend.block_absmax(x, 1000), qloracle.block_absmax(x, 1000)):
            found.append("absmax")
        if not np.array_equal(backend.int8_matmul(a, b), qloracle.int8_matmul(a, b)):
            found.append("matmul")
        ranges = [
            q.minmax_range(x[:603] + np.float32(9), granularity="group", group_size=200) for q in (backend, qloracle)
        ]
        if not np.array_equal(*ranges):
            found.append("range")
        found += wrong_few_rows()
        whole = np.float32(1 << np.arange(3 * 8192) % 3)  # the sum of squares is the integer 21·2^13 in any order
        if {float(tensor[0]) for tensor in backend.clip_by_norm([whole], float(np.sqrt(21.0 * 8192)) / 2)} != {0.5}:
            found.append("norm")
    return found


def wrong_few_rows() -> list[str]:
    """Which products of 13 rows differ, in whose values no partial sum is rounded; some are not finite."""
    rng = np.random.default_rng(7)
    x = rng.integers(-2, 3, (13, 1100)).astype(np.float32)
    x[5, 0] = np.inf
    codes = rng.integers(-127, 128, (9, 1100), dtype=np.int8)
    scale = np.float32(2) ** rng.integers(-1, 2, 198).astype(np.float32)
    scale[5 * 22] = np.nan  # of the group with which row 5 begins
    made = []
    for q in (backend, qloracle):
        int8 = q.QuantizedInt8(codes, np.float32(127) * scale, "block", 50, "float32")
        zero_point = np.full(198, 3, np.int32)
        affine = q.QuantizedAffine(codes, scale, zero_point, -128, 127, "group", 50, "float32")
        with np.errstate(invalid="ignore"):
            made.append([q.weight_only_forward(x, weight) for weight in (int8, affine)])
    kinds = zip(("int8", "affine"), *made, strict=True)
    return [f"few rows, {kind}" for kind, got, wanted in kinds if not np.array_equal(got, wanted, equal_nan=True)]


@pytest.mark.parametrize("order", ORDERS)
def test_the_kernels_as_they_are_agree_with_the_reference_in_every_order(order: str) -> None:
    assert differing(EmulatedLauncher(order)) == []
    assert differing(EmulatedLauncher(order, most_ctas=1)) == [], "when one CTA strides over all"


@pytest.mark.parametrize("name", [name for name in FAULTS if name != "unmasked packing"])
def test_a_planted_fault_changes_results_in_some_order(name: str) -> None:
    launchers = [EmulatedLauncher(order, replaced=FAULTS[name].replaced, most_ctas=1) for order in ORDERS]
    caught = {order: differing(launcher) for order, launcher in zip(ORDERS, launchers, strict=True)}
    assert any(caught.values()), f"{name}: every order gives what the reference gives"


def run_sanitized(name: str) -> subprocess.CompletedProcess[str]:
    """Run `differing` on sanitized kernels in a process of its own, with a fault or none."""
    library = sanitizer_library()
    if library is None:
        pytest.skip("NOT RUN: there is no AddressSanitizer library")
    program = (
        "from tests.gpu.test_cupy_faults import FAULTS, differing\n"
        "from tests.gpu.emulator.launching import EmulatedLauncher\n"
        f"replaced = FAULTS[{name!r}].replaced if {name!r} else None\n"
        "print(differing(EmulatedLauncher(sanitize=True, replaced=replaced), (64, 512, 100)))\n"
    )
    variables = {"LD_PRELOAD": library, "ASAN_OPTIONS": "detect_leaks=0", "PYTHONPATH": os.pathsep.join(sys.path[1:])}
    return subprocess.run(
        [sys.executable, "-c", program], check=False, capture_output=True, text=True, timeout=300, cwd=ROOT,
        env=os.environ | variables,
    )  # fmt: skip


def test_the_kernels_as_they_are_pass_the_sanitizers() -> None:
    result = run_sanitized("")
    assert result.returncode == 0, result.stderr[-3000:]
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize("name", SEEN_BY_SANITIZERS)
def test_an_access_out_of_bounds_ends_the_process_and_names_the_line(name: str) -> None:
    result = run_sanitized(name)
    assert result.returncode != 0, f"{name}: nothing was reported"
    assert "heap-buffer-overflow" in result.stderr, result.stderr[-3000:]
    assert FAULTS[name].file in result.stderr, "the report names no line of the kernel"
