"""Judging embeddings with LoRA, forward and backward."""

from dataclasses import replace
from typing import Any

from qloracle.bounds import embedding_lora_backward_bound, embedding_lora_forward_bound
from qloracle.embedding_lora import embedding_lora_backward, embedding_lora_forward
from qloracle.formats import Array
from qloracle_conformance.backend import Claim
from qloracle_conformance.generators.case import Case
from qloracle_conformance.judge import StageResult
from qloracle_conformance.operations.layers import rounds_on_the_way, same_as
from qloracle_conformance.operations.operation import Outputs, expect
from qloracle_conformance.operations.sums import bound_stage, lattice_stage


def arguments_of(case: Case) -> dict[str, Any]:
    """Return the arguments of the reference's functions."""
    names = ("dy", "weight", "lora_a", "lora_b")
    arrays = {n: a.single() for n in names if (a := case.inputs.get(n)) is not None}
    return {**arrays, "ids": case.array("ids").items, **case.options}


def judge_forward(case: Case, outputs: Outputs, claim: Claim) -> list[StageResult]:
    """Judge y; the stage is the part of the formula that the case singles out."""
    arguments = arguments_of(case)
    value = embedding_lora_forward(**arguments)
    y = expect(outputs, 0, case.term, case.array("weight").dtype, value.shape)
    if isinstance(y, StageResult):
        return [y]
    if not case.lattice or rounds_on_the_way(claim):
        interval = embedding_lora_forward_bound(**arguments, roundings=claim.roundings)
        return [bound_stage(case.term, y, value, interval)]
    result = lattice_stage(case.term, y, value)
    if result.allowed["exact"].accepts(result.got).all():
        return [result]
    rank = len(arguments["lora_a"])
    for name, alpha in (
        ("alpha is used instead of alpha/r", arguments["alpha"] * rank),
        ("the adapter is missing", 0.0),
    ):
        if same_as(embedding_lora_forward(**{**arguments, "alpha": alpha}), y.words(), y.dtype):
            return [replace(result, cause=name)]
    return [result]


def judge_backward(case: Case, outputs: Outputs, claim: Claim) -> list[StageResult]:
    """Judge the gradients of A and B."""
    arguments = arguments_of(case)
    values, intervals = vars(embedding_lora_backward(**arguments)), None
    if not case.lattice or rounds_on_the_way(claim):
        intervals = embedding_lora_backward_bound(**arguments, roundings=claim.roundings)
    results = []
    for index, (name, value) in enumerate(values.items()):
        got = expect(outputs, index, name, case.array("weight").dtype, value.shape)
        if isinstance(got, StageResult):
            results.append(got)
        elif intervals is not None:
            results.append(bound_stage(name, got, value, intervals[name]))
        else:
            results.append(lattice_stage(name, got, value))
    return results


def forward_intermediates(case: Case) -> dict[str, Array]:
    """Return what `explain` prints: the two parts of the sum."""
    arguments = arguments_of(case)
    rows, y = embedding_lora_forward(**{**arguments, "alpha": 0.0}), embedding_lora_forward(**arguments)
    return {"W[i]": rows, "s A^T[i] B^T": y - rows, "y": y}


def backward_intermediates(case: Case) -> dict[str, Array]:
    """Return what `explain` prints: the gradients."""
    return {f"gradient of {n}": v for n, v in vars(embedding_lora_backward(**arguments_of(case))).items()}
