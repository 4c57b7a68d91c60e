"""Judging products with a weight that is stored quantized."""

from typing import Any

from qloracle.bounds import quantized_matmul_bound
from qloracle.formats import Array
from qloracle.qlora import qlora_weight
from qloracle.quantized_product import quantized_matmul
from qloracle_conformance.backend import Claim
from qloracle_conformance.generators.case import Case
from qloracle_conformance.judge import StageResult
from qloracle_conformance.operations.layers import rounds_on_the_way
from qloracle_conformance.operations.operation import Outputs, expect
from qloracle_conformance.operations.stored import record_of
from qloracle_conformance.operations.sums import bound_stage, lattice_stage


def arguments_of(case: Case) -> dict[str, Any]:
    """Return the arguments of the reference's function."""
    bias = case.inputs["bias"]
    record = record_of({n: a for n, a in case.inputs.items() if a is not None}, case.options)
    return {"x": case.array("x").single(), "weight": record, "bias": None if bias is None else bias.single()}


def judge_matmul(case: Case, outputs: Outputs, claim: Claim) -> list[StageResult]:
    """Judge y."""
    arguments = arguments_of(case)
    value = quantized_matmul(**arguments, weight_rounding=claim.roundings.weight)
    y = expect(outputs, 0, "y", case.array("x").dtype, value.shape)
    if isinstance(y, StageResult):
        return [y]
    if case.lattice and not rounds_on_the_way(claim):
        return [lattice_stage("y", y, value)]
    return [bound_stage("y", y, value, quantized_matmul_bound(**arguments, roundings=claim.roundings))]


def matmul_intermediates(case: Case) -> dict[str, Array]:
    """Return what `explain` prints: the dequantized weight and the product."""
    arguments = arguments_of(case)
    return {"W": qlora_weight(arguments["weight"]), "x W^T + b": quantized_matmul(**arguments)}
