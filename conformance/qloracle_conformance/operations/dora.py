"""Judging DoRA layers, forward and backward."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from qloracle.bounds import dora_backward_bound, dora_forward_bound
from qloracle.dora import dora_backward, dora_forward, dora_norm
from qloracle.formats import Array
from qloracle_conformance.backend import Claim
from qloracle_conformance.generators.case import Case
from qloracle_conformance.judge import StageResult
from qloracle_conformance.operations.layers import (
    Arguments,
    arguments_of,
    given_weight,
    mistakes,
    rounds_on_the_way,
    same_as,
)
from qloracle_conformance.operations.operation import Outputs, expect
from qloracle_conformance.operations.sums import bound_stage, lattice_stage


def judge_forward(case: Case, outputs: Outputs, claim: Claim) -> list[StageResult]:
    """Judge y; the stage is the part of the formula that the case singles out."""
    arguments = arguments_of(case, claim)
    value = dora_forward(**arguments)
    y = expect(outputs, 0, case.term, case.array("x").dtype, value.shape)
    if isinstance(y, StageResult):
        return [y]
    if not case.lattice or rounds_on_the_way(claim):
        interval = dora_forward_bound(**arguments, **given_weight(case), roundings=claim.roundings)
        return [bound_stage(case.term, y, value, interval)]
    result = lattice_stage(case.term, y, value)
    if result.allowed["exact"].accepts(result.got).all():
        return [result]
    return [replace(result, cause=named_mistake(arguments, lambda a: dora_forward(**a), y.words(), y.dtype))]


def judge_backward(case: Case, outputs: Outputs, claim: Claim) -> list[StageResult]:
    """Judge the gradients of x, A, B, the magnitude and the bias."""
    arguments = arguments_of(case, claim)
    values, inexact = vars(dora_backward(**arguments)), not case.lattice or rounds_on_the_way(claim)
    how = {**given_weight(case), "roundings": claim.roundings}
    intervals = dora_backward_bound(**arguments, **how) if inexact else None
    results = []
    for index, (name, value) in enumerate(values.items()):
        got = expect(outputs, index, name, case.array("x").dtype, value.shape)
        if isinstance(got, StageResult):
            results.append(got)
        elif intervals is not None:
            results.append(bound_stage(name, got, value, intervals[name]))
        else:
            result = lattice_stage(name, got, value)
            if not result.allowed["exact"].accepts(result.got).all():
                cause = named_mistake(arguments, partial(_gradient, name), got.words(), got.dtype)
                result = replace(result, cause=cause)
            results.append(result)
    return results


def _gradient(name: str, arguments: Arguments) -> Array:
    gradient: Array = vars(dora_backward(**arguments))[name]
    return gradient


def named_mistake(arguments: Arguments, evaluate: Callable[[Arguments], Array], words: Array, dtype: str) -> str:
    """Return the known mistake under which the formula gives exactly what the backend returned, if there is one."""
    with np.errstate(all="ignore"):
        for name, changed in dora_mistakes(arguments).items():
            if same_as(evaluate(changed), words, dtype):
                return name
    return ""


def dora_mistakes(arguments: Arguments) -> dict[str, Arguments]:
    """Return arguments that turn the right formula into well-known wrong ones."""
    norms = _norms(arguments)
    base = _norms({**arguments, "lora_b": arguments["lora_b"] * np.float32(0)})
    with np.errstate(all="ignore"):
        of_base = np.nan_to_num(arguments["magnitude"] * (norms / base), nan=0.0, posinf=0.0, neginf=0.0)
    return {
        "the norm is that of W, without the adapter": {**arguments, "magnitude": of_base.astype(np.float32)},
        "the magnitude is not divided by the norm": {
            **arguments, "magnitude": (arguments["magnitude"] * norms).astype(np.float32)
        },
        "the magnitude is ignored": {**arguments, "magnitude": norms.astype(np.float32)},
        **mistakes(arguments),
    }  # fmt: skip


def _norms(arguments: Arguments) -> Array:
    names = ("weight", "lora_a", "lora_b", "alpha", "rank_stabilized", "fan_in_fan_out")
    return dora_norm(**{name: arguments[name] for name in names if name in arguments})


def forward_intermediates(case: Case) -> dict[str, Array]:
    """Return what `explain` prints: the norms, g, and the parts of the sum."""
    arguments = arguments_of(case)
    norms = _norms(arguments)
    with np.errstate(all="ignore"):
        gain = np.where(norms == 0, 0.0, arguments["magnitude"] / norms)
    none = {**arguments, "lora_b": arguments["lora_b"] * np.float32(0), "magnitude": _base_norms(arguments)}
    return {"n": norms, "g": gain, "x W^T + b": dora_forward(**none), "y": dora_forward(**arguments)}


def _base_norms(arguments: Arguments) -> Array:
    return _norms({**arguments, "lora_b": arguments["lora_b"] * np.float32(0)}).astype(np.float32)


def backward_intermediates(case: Case) -> dict[str, Any]:
    """Return what `explain` prints: the gradients."""
    return {f"gradient of {n}": v for n, v in vars(dora_backward(**arguments_of(case))).items()}
