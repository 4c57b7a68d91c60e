"""Judging counts of bytes: integers, each the one that the rule gives."""

from collections.abc import Callable
from typing import Any

import numpy as np

from qloracle.formats import Array
from qloracle_conformance import counted
from qloracle_conformance.backend import Claim
from qloracle_conformance.generators.case import Case
from qloracle_conformance.judge import StageResult
from qloracle_conformance.operations.operation import Judge, Outputs, expect, integer_stage

Expected = Callable[[Case], dict[str, Array]]  # stage → what it must be, in the order of outputs


def _arrays(case: Case) -> dict[str, Any]:
    return {name: case.array(name).items for name in case.inputs}


def tensor(case: Case) -> dict[str, Array]:
    """Return the bytes of each part of each tensor."""
    parts = counted.tensor_parts(**_arrays(case), **case.options)
    return dict(zip(("codes", "scales", "offsets"), parts, strict=True))


def bits(case: Case) -> dict[str, Array]:
    """Return the bits a weight."""
    return {"bits": counted.bits(**case.options)}


def tables(case: Case) -> dict[str, Array]:
    """Return the bytes of the tables."""
    options: dict[str, Any] = dict(case.options)
    return {"tables": counted.tables(case.array("quantized").items, options["scheme"], options["tables"])}


def tensors(case: Case) -> dict[str, Array]:
    """Return the kinds of the tensors."""
    return {"kinds": counted.kinds(**_arrays(case), **case.options)}


def selection(case: Case) -> dict[str, Array]:
    """Return which tensors are quantized."""
    return {"selection": counted.selection(**_arrays(case), **case.options)}


def model(case: Case) -> dict[str, Array]:
    """Return the total and the printed number."""
    found = counted.model(**_arrays(case), **case.options)
    return {"total": np.array(found.total, np.int64), "printed": np.array(found.printed, np.int64)}


def config(case: Case) -> dict[str, Array]:
    """Return the elements of each kind of tensor."""
    return {"elements": counted.config(case.options["config"])}


def adapters(case: Case) -> dict[str, Array]:
    """Return the shapes of the adapters."""
    return {"shapes": counted.adapters(**_arrays(case), **case.options)}


def states(case: Case) -> dict[str, Array]:
    """Return the bytes of the states."""
    return {"states": counted.states(**_arrays(case), **case.options)}


def training(case: Case) -> dict[str, Array]:
    """Return the parts of training memory."""
    return {"parts": counted.training(**_arrays(case), **case.options)}


def judge_by(expected: Expected) -> Judge:
    """Return a judge that wants exactly what `expected` returns."""

    def judge(case: Case, outputs: Outputs, claim: Claim) -> list[StageResult]:
        results: list[StageResult] = []
        for index, (stage, exact) in enumerate(expected(case).items()):
            got = expect(outputs, index, stage, exact.dtype.name, exact.shape)
            results.append(got if isinstance(got, StageResult) else integer_stage(stage, got, exact))
        return results

    return judge
