"""Judging layers with quantized weights: sums by their bound or on lattices, the rest given what came before."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from qloracle.affine import QuantizedAffine
from qloracle.bounds.int8_linear import weight_only_backward_bound, weight_only_forward_bound
from qloracle.bounds.llm_int8 import llm_int8_forward_bound
from qloracle.decomposition import Decomposed, decompose, outlier_columns
from qloracle.formats import Array
from qloracle.int8 import QuantizedInt8
from qloracle.int8_linear import weight_only_backward, weight_only_forward
from qloracle.llm_int8 import linear_parts, llm_int8_forward
from qloracle.tracking.interval import Interval
from qloracle_conformance.arrays import HostArray
from qloracle_conformance.backend import Claim
from qloracle_conformance.generators.case import Case
from qloracle_conformance.judge import StageResult, blocked_stage
from qloracle_conformance.operations.codes import code_stage
from qloracle_conformance.operations.int8 import BOUNDARIES
from qloracle_conformance.operations.operation import Outputs, broken, expect, float_stage, integer_stage
from qloracle_conformance.operations.sums import bound_stage, lattice_stage

Weight = QuantizedInt8 | QuantizedAffine


def weight_of(case: Case) -> Weight:
    """Return the quantized weight of a case."""
    codes = case.array("codes").items
    if "scale" in case.inputs:
        how: Mapping[str, Any] = {n: case.options[n] for n in ("qmin", "qmax", "granularity", "group_size")}
        scale, zero_point = case.array("scale").items, case.array("zero_point").items
        return QuantizedAffine(codes, scale, zero_point, **how, dtype="float32")
    granularity, block_size = case.options.get("granularity", "row"), case.options.get("block_size")
    return QuantizedInt8(codes, case.array("absmax").items, granularity, block_size, "float32")


def _single(case: Case, name: str) -> Array | None:
    array = case.inputs.get(name)
    return None if array is None else array.single()


def judge_weight_only(case: Case, outputs: Outputs, claim: Claim) -> list[StageResult]:
    """Judge y."""
    x, weight, bias = case.array("x"), weight_of(case), _single(case, "bias")
    value = weight_only_forward(x.single(), weight, bias=bias, weight_rounding=claim.roundings.weight)
    y = expect(outputs, 0, "y", x.dtype, value.shape)
    if isinstance(y, StageResult):
        return [y]
    if case.lattice:
        return [lattice_stage("y", y, value)]
    return [
        bound_stage("y", y, value, weight_only_forward_bound(x.single(), weight, bias=bias, roundings=claim.roundings))
    ]


def judge_backward(case: Case, outputs: Outputs, claim: Claim) -> list[StageResult]:
    """Judge the gradients of x and of the bias."""
    dy, weight = case.array("dy"), weight_of(case)
    values = weight_only_backward(dy.single(), weight, weight_rounding=claim.roundings.weight)
    bounds = {} if case.lattice else weight_only_backward_bound(dy.single(), weight, roundings=claim.roundings)
    results = []
    for index, (stage, value) in enumerate(vars(values).items()):
        got = expect(outputs, index, stage, dy.dtype, value.shape)
        if isinstance(got, StageResult):
            results.append(got)
        else:
            judged = lattice_stage(stage, got, value) if case.lattice else bound_stage(stage, got, value, bounds[stage])
            results.append(judged)
    return results


def judge_rows(case: Case, outputs: Outputs, claim: Claim) -> list[StageResult]:
    """Judge (codes of x, absmax, y) of a layer that quantizes its activations row by row."""
    nothing = np.zeros(case.array("x").shape[-1], np.bool_)
    return _from_absmax(case, outputs, claim, nothing, None)


def judge_llm_int8(case: Case, outputs: Outputs, claim: Claim) -> list[StageResult]:
    """Judge (outlier columns, codes of x, absmax, y), each given what the backend returned before it."""
    x = case.array("x").single()
    expected = outlier_columns(x, case.options["threshold"])
    outliers = expect(outputs, 0, "outliers", "bool", expected.shape)
    if isinstance(outliers, StageResult):
        return [outliers, *(blocked_stage(stage) for stage in ("absmax", "codes", "y"))]
    first = integer_stage("outliers", outliers, expected)
    return [first, *_from_absmax(case, outputs[1:], claim, outliers.items, broken(first, claim, "outliers"))]


def _from_absmax(case: Case, outputs: Outputs, claim: Claim, outliers: Array, wrong: Array | None) -> list[StageResult]:
    """Judge absmax given the outliers, codes given both, y given all three."""
    x = case.array("x").single()
    how: Mapping[str, Any] = {"exclusion": case.options.get("exclusion", "columns"), "outliers": outliers}
    threshold = case.options.get("threshold", 0.0)
    exact = decompose(x, threshold, **how)
    absmax = expect(outputs, 1, "absmax", "float32", exact.absmax.shape)
    if isinstance(absmax, StageResult):
        return [absmax, blocked_stage("codes"), blocked_stage("y")]
    all_wrong = wrong is not None and bool(np.any(wrong))
    first = float_stage(
        "absmax", absmax, np.ascontiguousarray(exact.absmax).view(np.uint32).reshape(exact.absmax.shape), "float32",
        blocked=np.full(exact.absmax.shape, all_wrong),
    )  # fmt: skip
    codes = expect(outputs, 0, "codes", "int8", x.shape)
    if isinstance(codes, StageResult):
        return [first, codes, blocked_stage("y")]
    parts = decompose(x, threshold, **how, absmax=np.asarray(absmax.items))
    blocked_rows = broken(first, claim, "absmax") | all_wrong
    second = _codes_stage(x, parts, codes, blocked_rows)
    given = Decomposed(outliers, codes.items, np.asarray(absmax.items))
    wrong_codes = broken(second, claim, "codes").reshape(x.shape).any(axis=-1)
    return [first, second, _judged_sum(case, outputs, claim, given, blocked_rows | wrong_codes)]


def _codes_stage(x: Array, parts: Decomposed, codes: HostArray, blocked_rows: Array) -> StageResult:
    rows = (int(np.prod(x.shape[:-1], dtype=np.int64)), x.shape[-1])

    def spread(per_row: Array) -> Array:
        return np.broadcast_to(per_row.reshape(-1, 1), rows).reshape(-1)

    kept = np.where(parts.outliers, np.float32(0), x).reshape(-1)
    exact, got = (a.reshape(-1).astype(np.int64) for a in (parts.codes, codes.items))
    group = spread(np.arange(rows[0]))
    judged = code_stage(
        "codes", kept, spread(parts.absmax), BOUNDARIES, exact, got, group, spread(blocked_rows), -127, "int8"
    )
    return replace(judged, words=codes.words().reshape(-1), dtype="int8", row_length=rows[1])


def _judged_sum(case: Case, outputs: Outputs, claim: Claim, parts: Decomposed, blocked_rows: Array) -> StageResult:
    value, interval = _value_and_interval(case, claim, parts)
    y = expect(outputs, 2, "y", case.array("x").dtype, value.shape)
    if isinstance(y, StageResult):
        return y
    judged = lattice_stage("y", y, value) if case.lattice else bound_stage("y", y, value, interval)
    return replace(judged, blocked=np.broadcast_to(blocked_rows[..., np.newaxis], value.shape))


def _value_and_interval(case: Case, claim: Claim, parts: Decomposed) -> tuple[Array, Interval]:
    x, weight = case.array("x").single(), weight_of(case)
    arguments = {"outlier_weight": case.options.get("outlier_weight", "dequantized"), "bias": _single(case, "bias")}
    original, rounding = _single(case, "weight"), claim.roundings.weight
    value = llm_int8_forward(x, weight, original, parts=parts, weight_rounding=rounding, **arguments)  # type: ignore[arg-type]
    interval = llm_int8_forward_bound(x, weight, parts, original, roundings=claim.roundings, **arguments)  # type: ignore[arg-type]
    return value, interval


def weight_only_intermediates(case: Case) -> dict[str, Array]:
    """Return what `explain` prints: y and the ends of its interval."""
    x, bias = case.array("x").single(), _single(case, "bias")
    limits = weight_only_forward_bound(x, weight_of(case), bias=bias)
    return {"real value": weight_only_forward(x, weight_of(case), bias=bias), "lowest": limits.lo, "highest": limits.hi}


def backward_intermediates(case: Case) -> dict[str, Array]:
    """Return what `explain` prints: the gradients."""
    gradients = weight_only_backward(case.array("dy").single(), weight_of(case))
    return {f"gradient of {name}": value for name, value in vars(gradients).items()}


def decomposed_intermediates(case: Case) -> dict[str, Array]:
    """Return what `explain` prints: the decomposition of x, both parts of the sum, and the sum."""
    x, weight = case.array("x").single(), weight_of(case)
    parts = decompose(x, case.options.get("threshold", 0.0), exclusion=case.options.get("exclusion", "columns"))
    how = case.options.get("outlier_weight", "dequantized")
    integer, rows, dense = linear_parts(x, weight, _single(case, "weight"), parts, how, "float32")  # type: ignore[arg-type]
    value, interval = _value_and_interval(case, Claim(case.operation, {}), parts)
    with np.errstate(invalid="ignore"):
        outliers = rows @ dense.T
    return {
        "outlier columns": parts.outliers,
        "absmax of rows": parts.absmax,
        "codes": parts.codes,
        "INT8 part": integer,
        "part of the outliers": outliers,
        "real value": value,
        "lowest": interval.lo,
        "highest": interval.hi,
    }
