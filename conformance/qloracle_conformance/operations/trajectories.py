"""Judging several steps: a trajectory with paged or reloaded states against the same backend's plain one."""

import numpy as np

from qloracle.formats import Array
from qloracle.optim.paging import page_in, page_plan
from qloracle_conformance.backend import Claim
from qloracle_conformance.generators.case import Case
from qloracle_conformance.judge import StageResult, exactly, float_ordinals
from qloracle_conformance.operations.operation import Outputs, expect, integer_stage

PARTS = ("p", "m", "v")


def judge_twice(case: Case, outputs: Outputs, claim: Claim) -> list[StageResult]:
    """Judge (p, m, v) of a trajectory by (p, m, v) of the same one done plainly: the same bits."""
    p = case.array("p")
    dtypes = zip(PARTS, (p.dtype, "float32", "float32"), strict=True)
    return [_same(name, dtype, p.shape, outputs, index) for index, (name, dtype) in enumerate(dtypes)]


def _same(name: str, dtype: str, shape: tuple[int, ...], outputs: Outputs, index: int) -> StageResult:
    got, plain = expect(outputs, index, name, dtype, shape), expect(outputs, index + len(PARTS), name, dtype, shape)
    if isinstance(got, StageResult):
        return got
    if isinstance(plain, StageResult):
        return plain
    exact = exactly(float_ordinals(plain.words(), dtype))
    return StageResult(name, float_ordinals(got.words(), dtype), {"exact": exact}, words=got.words(), dtype=dtype)


def judge_page_in(case: Case, outputs: Outputs, claim: Claim) -> list[StageResult]:
    """Judge which states are on the device after each access."""
    exact = resident_after(case)
    got = expect(outputs, 0, "resident", "bool", exact.shape)
    return [got] if isinstance(got, StageResult) else [integer_stage("resident", got, exact)]


def resident_after(case: Case) -> Array:
    """Return which states are on the device after each access, bool."""
    sizes, accesses = case.array("sizes").items, case.array("accesses").items
    plan = page_plan({str(i): int(size) for i, size in enumerate(sizes)}, case.options["budget"])
    resident = np.zeros((accesses.size, sizes.size), np.bool_)
    for row, access in zip(resident, accesses, strict=True):
        plan, _ = page_in(plan, str(access))
        row[[int(name) for name in plan.resident]] = True
    return resident


def plan_intermediates(case: Case) -> dict[str, Array]:
    """Return what `explain` prints: what is on the device, and the bytes used."""
    resident = resident_after(case)
    return {"resident": resident, "bytes used": resident @ case.array("sizes").items}


def trajectory_intermediates(case: Case) -> dict[str, Array]:
    """Return what `explain` prints: the parameters before the first step."""
    return {"p": case.array("p").real()}
