"""The record of an operation, and the checks that every judge of outputs begins with."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from qloracle.formats import TENSOR_FORMATS, Array
from qloracle_conformance.arrays import HostArray
from qloracle_conformance.backend import Claim, Level
from qloracle_conformance.generators.case import Case, Generator
from qloracle_conformance.judge import Allowed, StageResult, exactly, failed_stage, float_ordinals

Outputs = tuple[HostArray, ...]
Judge = Callable[[Case, Outputs, Claim], list[StageResult]]
# Stages of every operation: inputs unchanged; the same bits the second time; a given output written whole, no more.
INPUTS, REPEAT, OUT = CONDUCT = "inputs", "repeat", "out"


@dataclass(frozen=True)
class Operation:
    """One judged operation: a function of the backend with some options fixed."""

    name: str  # "nf4.quantize"
    function: str  # name in Backend.ops
    outputs: int  # number of arrays that it returns
    stages: Mapping[str, str]  # stage → the clause of the reference that it is judged by, in pipeline order
    judge: Judge
    families: Mapping[str, Generator]  # family → generator of cases
    intermediates: Callable[[Case], dict[str, Array]]  # what `explain` prints
    reached: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # family → the only stages that it reaches
    strictest: Level = "exact"  # the strictest level that can be claimed: no order of summation is the right one
    bound: str = ""  # of a sum: the clause that cases are judged by which are no lattice, besides the stage's own
    given: str = ""  # another operation that this one's weight goes through: it is judged only if that one passed
    options: Mapping[str, tuple[object, ...]] = field(default_factory=dict)  # plain options and all values that exist
    optional: Mapping[str, tuple[str, tuple[object, ...]]] = field(default_factory=dict)  # stage → option, any of these
    own_levels: Mapping[str, Level] = field(default_factory=dict)  # stages whose strictest level is another one
    dtypes: tuple[str, ...] = TENSOR_FORMATS  # formats of floating-point inputs that it is defined for
    sums: tuple[str, ...] = ()  # stages that are one sum and nothing else: [bounds.sum] itself bounds them

    def stages_of(self, family: str) -> tuple[str, ...]:
        """Return the stages that cases of a family are judged at, those of every operation included."""
        own = self.reached.get(family, tuple(self.stages))
        return (*own, *CONDUCT) if family == "memory" else (*own, INPUTS)

    def bound_of(self, stage: str) -> str:
        """Return the clause of the error bound that a stage is judged by on cases that are no lattice, or ""."""
        return "bounds.sum" if stage in self.sums else self.bound

    def strictest_of(self, stage: str) -> Level:
        """Return the strictest level that can be claimed for a stage."""
        return self.own_levels.get(stage, self.strictest)


def with_default_options(claim: Claim, operation: Operation) -> Claim:
    """Return a claim that names values for every option: the first one that exists where its author named none."""
    return replace(claim, options={**{name: values[:1] for name, values in operation.options.items()}, **claim.options})


def expect(outputs: Outputs, index: int, stage: str, dtype: str, shape: tuple[int, ...]) -> HostArray | StageResult:
    """Return output `index` if it has the expected type and shape, else the failed stage."""
    if index >= len(outputs):
        return failed_stage(stage, f"output {index} is missing: {len(outputs)} returned")
    output = outputs[index]
    if output.dtype != dtype:
        return failed_stage(stage, f"output {index} must be {dtype}, got {output.dtype}")
    if output.shape != shape:
        return failed_stage(stage, f"output {index} must have shape {shape}, got {output.shape}")
    return output


def float_stage(stage: str, got: HostArray, expected: Array, fmt: str, *, blocked: Array | None = None) -> StageResult:
    """Judge a float output whose bits the rule fixes: NaN by class, zeros by sign."""
    return StageResult(
        stage=stage,
        got=float_ordinals(got.words(), fmt),
        allowed={"exact": exactly(float_ordinals(expected, fmt))},
        blocked=blocked,
        words=got.words(),
        dtype=fmt,
        row_length=got.shape[-1] if got.shape else 0,
    )


def integer_stage(stage: str, got: HostArray, expected: Array) -> StageResult:
    """Judge integers that the rule fixes."""
    return StageResult(
        stage=stage,
        got=got.items.astype(np.int64),
        allowed={"exact": exactly(expected.astype(np.int64))},
        words=got.words(),
        dtype=got.dtype,
        row_length=got.shape[-1] if got.shape else 0,
    )


def broken(result: StageResult, claim: Claim, stage: str) -> Array:
    """Return where a stage failed at its claimed level: what was given to the next one there is not to be trusted."""
    if result.problem:
        return np.ones(result.got.shape, np.bool_)
    return ~result.required(level_of(claim, stage)).accepts(result.got)


def level_of(claim: Claim, stage: str) -> str:
    """Return the level that a claim states for a stage; "*" stands for all stages not named."""
    return claim.levels.get(stage, claim.levels.get("*", "exact"))


def anywhere(shape: tuple[int, ...]) -> Allowed:
    """Return limits that accept everything: no verdict."""
    info = np.iinfo(np.int64)
    return Allowed(np.full(shape, info.min), np.full(shape, info.max))
