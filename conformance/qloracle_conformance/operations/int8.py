"""Judging INT8: absmax, codes given the absmax, values, the int32 accumulation and its scaling."""

from dataclasses import replace

import numpy as np

from qloracle.bounds import scale_int8_matmul_bound
from qloracle.formats import FLOAT32, Array, to_bits
from qloracle.groups import spread_groups
from qloracle.int8 import (
    LARGEST_CODE,
    dequantize_int8_codes,
    int8_absmax,
    quantize_int8_codes,
)
from qloracle.int8_product import int8_matmul, scale_int8_matmul
from qloracle.tracking.interval import Interval, exact_input, interval, scaled
from qloracle_conformance.backend import Claim
from qloracle_conformance.generators.case import Case
from qloracle_conformance.judge import StageResult, blocked_stage, from_interval
from qloracle_conformance.operations.codes import code_stage
from qloracle_conformance.operations.operation import Outputs, broken, expect, float_stage, integer_stage
from qloracle_conformance.operations.sums import bound_stage

BOUNDARIES = (np.arange(-LARGEST_CODE, LARGEST_CODE) + 0.5) / LARGEST_CODE  # rounded; only distances use them


def judge_quantize_int8(case: Case, outputs: Outputs, claim: Claim) -> list[StageResult]:
    """Judge (codes, absmax)."""
    x, granularity, block_size = case.array("x").single(), case.options["granularity"], case.options["block_size"]
    exact_absmax = int8_absmax(x, granularity, block_size)
    absmax = expect(outputs, 1, "absmax", "float32", exact_absmax.shape)
    codes = expect(outputs, 0, "codes", "int8", x.shape)
    if isinstance(absmax, StageResult):
        return [absmax, blocked_stage("codes")]
    first = float_stage("absmax", absmax, exact_absmax.view(np.uint32), "float32")
    if isinstance(codes, StageResult):
        return [first, codes]

    def per_element(per_group: Array) -> Array:
        return np.broadcast_to(spread_groups(per_group, x.shape, granularity, block_size), x.shape).reshape(-1)

    blocked = per_element(broken(first, claim, "absmax"))
    element_absmax = per_element(absmax.items)
    group = per_element(np.arange(absmax.items.size).reshape(absmax.shape))
    exact = quantize_int8_codes(x.reshape(-1), element_absmax).astype(np.int64)
    got = codes.items.reshape(-1).astype(np.int64)
    return [first, _codes_stage(x.reshape(-1), element_absmax, exact, got, group, blocked, codes.words(), x.shape)]


def _codes_stage(
    x: Array,
    absmax: Array,
    exact: Array,
    got: Array,
    group: Array,
    blocked: Array,
    words: Array,
    shape: tuple[int, ...],
) -> StageResult:
    judged = code_stage(
        "codes", x, absmax, BOUNDARIES, exact, got, group, blocked, lowest=-LARGEST_CODE, codebook="int8"
    )
    row_length = shape[-1] if shape else 0
    return replace(judged, words=words.reshape(-1), dtype="int8", row_length=row_length)


def judge_dequantize_int8(case: Case, outputs: Outputs, claim: Claim) -> list[StageResult]:
    """Judge the values."""
    codes, dtype = case.array("codes").items, case.options["dtype"]
    values = expect(outputs, 0, "values", dtype, codes.shape)
    if isinstance(values, StageResult):
        return [values]
    result = float_stage("values", values, to_bits(_values(case, dtype), dtype), dtype)
    return [replace(result, allowed={**result.allowed, "bound": from_interval(_quotient_bound(case), dtype)})]


def _quotient_bound(case: Case) -> Interval:
    """Return the interval of q·absmax/127 in three float32 roundings: two products and a constant, in any order."""
    codes, absmax = case.array("codes").items, case.array("absmax").items.astype(np.float64)
    spread = spread_groups(absmax, codes.shape, case.options["granularity"], case.options["block_size"])
    value = exact_input(codes * spread / LARGEST_CODE)
    return interval(FLOAT32, (scaled(value, 1.0, 3, FLOAT32), 1))


def _values(case: Case, dtype: str) -> Array:
    codes, absmax = case.array("codes").items, case.array("absmax").items
    spread = spread_groups(absmax, codes.shape, case.options["granularity"], case.options["block_size"])
    return dequantize_int8_codes(codes, spread, dtype)


def judge_int8_matmul(case: Case, outputs: Outputs, claim: Claim) -> list[StageResult]:
    """Judge the int32 accumulator: exact in any order."""
    exact = int8_matmul(case.array("a").items, case.array("b").items)
    acc = expect(outputs, 0, "acc", "int32", exact.shape)
    return [acc] if isinstance(acc, StageResult) else [integer_stage("acc", acc, exact)]


def judge_scale(case: Case, outputs: Outputs, claim: Claim) -> list[StageResult]:
    """Judge the scaled accumulator."""
    arguments = _scale_arguments(case)
    value = scale_int8_matmul(*arguments)
    y = expect(outputs, 0, "y", case.options["dtype"], value.shape)
    if isinstance(y, StageResult):
        return [y]
    return [bound_stage("y", y, value, scale_int8_matmul_bound(*arguments))]


def _scale_arguments(case: Case) -> tuple[Array, Array, Array, Array | None]:
    bias = case.inputs["bias"]
    acc, row, column = (case.array(name).items for name in ("acc", "row_absmax", "column_absmax"))
    return acc, row, column, None if bias is None else bias.single()


def quantize_int8_intermediates(case: Case) -> dict[str, Array]:
    """Return what `explain` prints: absmax, 127·x/absmax, code."""
    x, granularity, block_size = case.array("x").single(), case.options["granularity"], case.options["block_size"]
    absmax = spread_groups(int8_absmax(x, granularity, block_size), x.shape, granularity, block_size)
    with np.errstate(invalid="ignore", divide="ignore"):
        quotient = LARGEST_CODE * x.astype(np.float64) / absmax
    return {
        "x": x,
        "absmax of its group": np.broadcast_to(absmax, x.shape),
        "127·x/absmax": quotient,
        "code": quantize_int8_codes(x, absmax),
    }


def dequantize_int8_intermediates(case: Case) -> dict[str, Array]:
    """Return what `explain` prints: code, absmax, float32 quotient, result."""
    codes, absmax = case.array("codes").items, case.array("absmax").items
    spread = spread_groups(absmax, codes.shape, case.options["granularity"], case.options["block_size"])
    return {
        "code": codes,
        "absmax of its group": np.broadcast_to(spread, codes.shape),
        "float32 quotient": _values(case, "float32"),
        f"as {case.options['dtype']}": _values(case, case.options["dtype"]),
    }


def matmul_intermediates(case: Case) -> dict[str, Array]:
    """Return what `explain` prints: the accumulator."""
    return {"acc": int8_matmul(case.array("a").items, case.array("b").items)}


def scale_intermediates(case: Case) -> dict[str, Array]:
    """Return what `explain` prints: accumulator, real value, and the bound's ends."""
    arguments = _scale_arguments(case)
    limits = scale_int8_matmul_bound(*arguments)
    return {"acc": arguments[0], "real value": scale_int8_matmul(*arguments), "lowest": limits.lo, "highest": limits.hi}
