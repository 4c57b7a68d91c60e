"""Real input: every matrix of a checkpoint, quantized by the backend, judged, and measured."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from qloracle.formats import Array
from qloracle_conformance.adapters.reference import backend as reference
from qloracle_conformance.arrays import HostArray
from qloracle_conformance.backend import Backend, Claim
from qloracle_conformance.engine import Session
from qloracle_conformance.execution import run_call
from qloracle_conformance.generators.case import Case
from qloracle_conformance.registry import OPERATIONS, QUANTIZERS, Property, properties
from qloracle_conformance.registry import WEIGHTS as FAMILY
from qloracle_conformance.run import judge_case
from qloracle_conformance.safetensors_file import Matrix
from qloracle_conformance.task import Task, call_of
from qloracle_conformance.verdicts import PropertyResult, TaskState, fresh_state, verdicts

BLOCK_SIZE = 64
# What is shown of each matrix: the first of these operations that the backend claims.
SHOWN = {
    "INT8": ("int8_tensor", "int8_row", "int8_block"),
    "NF4": ("nf4",),
    "NF4 double": ("nf4_double",),
}


@dataclass
class MatrixResult:
    """What was measured on one matrix."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    not_finite: int
    bits: dict[str, float] = field(default_factory=dict)  # per weight, scales included, by scheme
    sqnr: dict[str, float] = field(default_factory=dict)  # signal to quantization noise, dB, by scheme


def tasks_of(session: Session) -> dict[str, Task]:
    """Return one task for each quantization that the backend claims, and for the restoring of its results."""
    claims = {c.operation: c for c in session.executor.info.claims}
    names = [f"{q}.{verb}" for q in QUANTIZERS for verb in ("quantize", "dequantize")]
    there = [n for n in names if n in claims and OPERATIONS[n].function in session.executor.info.functions]
    asked = {p.operation.partition(".")[0] for p in selected_weights(session)}
    return {n: Task(OPERATIONS[n], FAMILY, claims[n], 0, 0, 0) for n in there if n.partition(".")[0] in asked}


def selected_weights(session: Session) -> list[Property]:
    """Return the properties on real weights that the run was asked for."""
    return [p for i, p in properties().items() if p.family == FAMILY and i in session.plan.properties]


def check_matrices(
    session: Session, matrices: list[Matrix], on_matrix: Callable[[MatrixResult], None]
) -> Iterator[tuple[Task, PropertyResult]]:
    """Quantize and restore every matrix under every claimed scheme, judge both, and yield the verdicts at the end."""
    tasks = tasks_of(session)
    states = {name: fresh_state(task) for name, task in tasks.items()}
    twin = run_by(reference())
    for matrix in matrices:
        real = matrix.values.real()
        measured = MatrixResult(matrix.name, matrix.values.shape, matrix.values.dtype, int(np.sum(~np.isfinite(real))))
        for scheme in QUANTIZERS:
            _Measurement(session, tasks, states, twin, matrix, real, measured).run(scheme)
        on_matrix(measured)
    for name, task in tasks.items():
        if states[name].failure is not None or any(t.cases for t in states[name].tallies.values()):
            found = verdicts(task, states[name], states[name].seconds)
            yield from ((task, result) for result in found if result.id in session.plan.properties)


Twin = Callable[[Task, Case], tuple[HostArray, ...]]


def run_by(backend: Backend) -> Twin:
    """Return a function that runs a task's case by a backend of this process."""
    return lambda task, case: run_call(backend, call_of(case, task.operation)).outputs


@dataclass(frozen=True)
class _Measurement:
    """One matrix against one backend."""

    session: Session
    tasks: dict[str, Task]
    states: dict[str, TaskState]
    twin: Twin
    matrix: Matrix
    real: Array
    measured: MatrixResult

    def run(self, scheme: str) -> None:
        """Quantize the matrix under one scheme, then restore it from what came out."""
        x = self.matrix.values
        quantize, dequantize = self.tasks.get(f"{scheme}.quantize"), self.tasks.get(f"{scheme}.dequantize")
        if quantize is None or not _admits(quantize.claim, x):
            return
        case = _quantize_case(scheme, quantize.claim, self.matrix)
        outputs = self._judged(quantize, case)
        if not outputs:
            self._block(dequantize)
            return
        self.measured.bits[scheme] = sum(o.items.nbytes for o in outputs) * 8 / max(1, x.items.size)
        if dequantize is None or x.dtype not in dequantize.claim.out_dtypes:
            return
        restored = self._judged(dequantize, _dequantize_case(scheme, case, x, outputs))
        if restored and restored[0].shape == x.shape and restored[0].is_float:
            self.measured.sqnr[scheme] = sqnr(self.real, restored[0].real())

    def _block(self, task: Task | None) -> None:
        """Count a restoring that had nothing to restore from: never a pass."""
        if task is None:
            return
        for stage in task.operation.stages:
            tally = self.states[task.operation.name].tallies[stage]
            tally.cases, tally.elements, tally.blocked = tally.cases + 1, tally.elements + 1, tally.blocked + 1

    def _judged(self, task: Task, case: Case) -> tuple[HostArray, ...]:
        state = self.states[task.operation.name]
        if state.failure is not None:
            return ()  # it raised, hung or crashed before: said once, not once a matrix at a time limit each
        started = time.perf_counter()
        references: list[tuple[HostArray, ...]] = []
        judged = judge_case(
            self.session.executor, task, case, state, lambda: references.append(self.twin(task, case)), references
        )
        state.seconds += time.perf_counter() - started
        return judged.outputs


def _admits(claim: Claim, x: HostArray) -> bool:
    return x.dtype in claim.dtypes and x.items.ndim in claim.ndims


def _quantize_case(scheme: str, claim: Claim, matrix: Matrix) -> Case:
    block_size = BLOCK_SIZE if BLOCK_SIZE in claim.block_sizes else claim.block_sizes[0]
    if scheme.startswith("int8"):
        granularity = scheme.removeprefix("int8_")
        options = {"granularity": granularity, "block_size": block_size if granularity == "block" else None}
    else:
        options = {"codebook": scheme.removesuffix("_double"), "block_size": block_size}
    return Case(f"{scheme}.quantize", {"x": matrix.values}, options, stored={"x": matrix.origin})


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
