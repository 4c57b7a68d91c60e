"""Judging double quantization: the offset, the nested absmax given the offset, the codes given both."""

from dataclasses import replace

import numpy as np

from qloracle.blocks import block_absmax, block_count, spread
from qloracle.codebooks import Codebook
from qloracle.formats import FLOAT32, Array
from qloracle.mean_offset import exact_sum, mean_offset
from qloracle.nearest import quantize_codes
from qloracle.nested_absmax import NESTED_BLOCK_SIZE, NESTED_CODEBOOK, residuals
from qloracle.tables import codebook_named
from qloracle.tracking.interval import Interval
from qloracle_conformance.backend import Claim
from qloracle_conformance.generators.case import Case
from qloracle_conformance.judge import (
    Allowed,
    StageResult,
    blocked_stage,
    exactly,
    failed_stage,
    float_ordinals,
    from_interval,
)
from qloracle_conformance.operations.codes import code_stage
from qloracle_conformance.operations.operation import Outputs, broken, expect, float_stage
from qloracle_conformance.operations.quantize import judge_codes

NESTED_STAGES = ("offset", "nested_absmax", "nested_codes")


def judge_quantize_absmax(case: Case, outputs: Outputs, claim: Claim) -> list[StageResult]:
    """Judge (codes, nested absmax, offset) of given absmax."""
    return judge_nested(case.array("absmax").items, inner_codebook(case, "codebook"), outputs, claim)


def judge_quantize_double(case: Case, outputs: Outputs, claim: Claim) -> list[StageResult]:
    """Judge (data, codes of the absmax, nested absmax, offset); the codes of x come from the exact absmax."""
    x, block_size = case.array("x").single().reshape(-1), case.options["block_size"]
    table = codebook_named(case.options["codebook"])
    absmax = block_absmax(x, block_size)
    return [
        *judge_codes(x, absmax, table, block_size, outputs, None),
        *judge_nested(absmax, inner_codebook(case, "nested_codebook"), outputs, claim, first_output=1),
    ]


def inner_codebook(case: Case, option: str) -> Codebook:
    """Return the codebook of the nested absmax of a case."""
    return codebook_named(case.options.get(option, NESTED_CODEBOOK))


def judge_nested(
    absmax: Array, table: Codebook, outputs: Outputs, claim: Claim, first_output: int = 0
) -> list[StageResult]:
    """Judge (codes, nested absmax, offset), from output `first_output` on, given the absmax that they quantize."""
    groups = block_count(absmax.size, NESTED_BLOCK_SIZE)
    offset = expect(outputs, first_output + 2, "offset", "float32", ())
    nested = expect(outputs, first_output + 1, "nested_absmax", "float32", (groups,))
    codes = expect(outputs, first_output, "nested_codes", "uint8", (absmax.size,))
    if isinstance(offset, StageResult):
        return [offset, blocked_stage("nested_absmax"), blocked_stage("nested_codes")]
    first = StageResult(
        "offset",
        float_ordinals(offset.words(), "float32"),
        offset_limits(absmax),
        words=offset.words(),
        dtype="float32",
    )
    if isinstance(nested, StageResult):
        return [first, nested, blocked_stage("nested_codes")]
    untrusted = bool(np.any(broken(first, claim, "offset")))
    residual = residuals(absmax, np.float32(offset.items))
    exact = block_absmax(residual, NESTED_BLOCK_SIZE).view(np.uint32)
    second = float_stage("nested_absmax", nested, exact, "float32", blocked=np.full(groups, untrusted))
    if isinstance(codes, StageResult):
        return [first, second, codes]
    doubtful = broken(second, claim, "nested_absmax") | untrusted
    return [first, second, _nested_codes(residual, nested.items, codes.items, table, doubtful)]


def _nested_codes(residual: Array, nested: Array, codes: Array, table: Codebook, doubtful: Array) -> StageResult:
    size = residual.size
    if codes.size and codes.max() >= table.entries.size:
        return failed_stage("nested_codes", f"codes must be 0 to {table.entries.size - 1}, got {codes.max()}")
    absmax, group = spread(nested, size, NESTED_BLOCK_SIZE), np.arange(size) // NESTED_BLOCK_SIZE
    blocked = spread(doubtful, size, NESTED_BLOCK_SIZE)
    exact = table.position[quantize_codes(residual, nested, table, NESTED_BLOCK_SIZE)]
    got = table.position[codes]
    judged = code_stage(
        "nested_codes", residual, absmax, table.midpoints, exact, got, group, blocked, codebook=table.name
    )
    return replace(judged, words=codes, block_size=NESTED_BLOCK_SIZE)


def offset_limits(absmax: Array) -> dict[str, Allowed]:
    """Return the limits of the offset: the mean rounded once; its two neighbours; any float32 summation of it."""
    offset = mean_offset(absmax)
    exact = float_ordinals(np.asarray(offset).view(np.uint32), "float32")
    finite = absmax[np.isfinite(absmax)]
    if not finite.size:
        return {"exact": exactly(exact)}
    # The other neighbour lies on the side of the exact mean; the difference is decided in integers of 2^−149.
    rounded = exact_sum(np.atleast_1d(offset))
    side = int(np.sign(exact_sum(finite) - rounded * finite.size))
    neighbour = exact + side
    magnitude = float(np.sum(np.abs(finite), dtype=np.float64)) / finite.size
    mean = float(np.sum(finite, dtype=np.float64)) / finite.size
    # n − 1 additions and the quotient; the factor covers the float64 sums above, as in `bounds.interval`.
    radius = (
        np.expm1(finite.size * FLOAT32.unit_roundoff) * magnitude * (1 + 2.0**-20) + FLOAT32.half_smallest_subnormal
    )
    fits = magnitude * finite.size * (1 + 2.0**-20) < FLOAT32.largest_finite  # the sum before the division
    interval = Interval(np.asarray(mean - radius), np.asarray(mean + radius), np.asarray(fits))
    tie = Allowed(np.minimum(exact, neighbour), np.maximum(exact, neighbour))
    return {"exact": exactly(exact), "tie": tie, "bound": from_interval(interval, "float32")}


def nested_intermediates(case: Case) -> dict[str, Array]:
    """Return what `explain` prints: absmax, offset, residual, nested absmax, quotient, code."""
    alone = "absmax" in case.inputs
    table = inner_codebook(case, "codebook" if alone else "nested_codebook")
    x = case.array("absmax" if alone else "x")
    absmax = x.items if alone else block_absmax(x.single(), case.options["block_size"])
    offset = mean_offset(absmax)
    residual = residuals(absmax, offset)
    nested = block_absmax(residual, NESTED_BLOCK_SIZE)
    spread_nested = spread(nested, residual.size, NESTED_BLOCK_SIZE)
    with np.errstate(invalid="ignore", divide="ignore"):
        quotient = residual.astype(np.float64) / spread_nested
    return {
        "absmax": absmax,
        "offset": np.full_like(absmax, offset),
        "residual": residual,
        "nested absmax of its group": spread_nested,
        "residual/nested absmax": quotient,
        "code": quantize_codes(residual, nested, table, NESTED_BLOCK_SIZE),
    }
