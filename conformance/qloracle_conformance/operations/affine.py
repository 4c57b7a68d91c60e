"""Judging affine quantization: scale, zero point given the scale, codes given both, and values."""

from dataclasses import replace

import numpy as np

from qloracle.affine import GRANULARITIES, dequantize_affine_codes, quantize_affine_codes
from qloracle.affine_scale import affine_parameters, zero_point_of
from qloracle.formats import FLOAT32, Array, to_bits
from qloracle.groups import group_shape, spread_groups, spread_parameters
from qloracle.observers import minmax_range
from qloracle.symmetric import symmetric_scale
from qloracle.tracking.interval import exact_input, interval, scaled
from qloracle_conformance.arrays import HostArray
from qloracle_conformance.backend import Claim
from qloracle_conformance.generators.case import Case
from qloracle_conformance.judge import Allowed, StageResult, blocked_stage, from_interval
from qloracle_conformance.operations.codes import code_stage
from qloracle_conformance.operations.operation import Outputs, broken, expect, float_stage, integer_stage

FARTHEST = 1024  # no code is so far from its zero point
HALVES = np.arange(-FARTHEST, FARTHEST) + 0.5  # where x/scale changes its integer
SCALE_ROUNDINGS = 3  # of a scale at level bound: the width, the reciprocal of the steps, their product


def judge_quantize(case: Case, outputs: Outputs, claim: Claim) -> list[StageResult]:
    """Judge (codes, scale, zero point)."""
    x = case.array("x").single()
    lo, hi = minmax_range(x, granularity=case.options["granularity"], group_size=case.options["group_size"])
    return [
        *(parameters := _parameters_stages(case, outputs[1:], claim, lo, hi)),
        codes_stage(case, outputs, outputs[1:3], parameters, claim),
    ]


def judge_parameters(case: Case, outputs: Outputs, claim: Claim) -> list[StageResult]:
    """Judge (scale, zero point) of given ranges."""
    return _parameters_stages(case, outputs, claim, case.array("lo").items, case.array("hi").items)


def _parameters_stages(case: Case, outputs: Outputs, claim: Claim, lo: Array, hi: Array) -> list[StageResult]:
    qmin, qmax = case.options["qmin"], case.options["qmax"]
    exact, _ = affine_parameters(lo, hi, qmin=qmin, qmax=qmax)
    scale = expect(outputs, 0, "scale", "float32", lo.shape)
    if isinstance(scale, StageResult):
        return [scale, blocked_stage("zero_point")]
    first = scale_stage(scale, exact, _width(lo, hi) / (qmax - qmin))
    zero_point = expect(outputs, 1, "zero_point", "int32", lo.shape)
    if isinstance(zero_point, StageResult):
        return [first, zero_point]
    expected = zero_point_of(lo, hi, scale.items, qmin, qmax)
    second = integer_stage("zero_point", zero_point, expected)
    return [first, replace(second, blocked=broken(first, claim, "scale"))]


def _width(lo: Array, hi: Array) -> Array:
    with np.errstate(invalid="ignore"):
        width: Array = np.maximum(hi, 0).astype(np.float64) - np.minimum(lo, 0).astype(np.float64)
    return width


def scale_stage(scale: HostArray, exact: Array, value: Array) -> StageResult:
    """Judge a scale: one rounding of a real quotient, or at level bound three."""
    result = float_stage("scale", scale, exact.view(np.uint32), "float32")
    with np.errstate(invalid="ignore"):
        around = interval(FLOAT32, (scaled(exact_input(value), 1.0, SCALE_ROUNDINGS, FLOAT32), 1))
    limits, one = from_interval(around, "float32"), result.allowed["exact"]
    free = around.judged & np.isfinite(exact) & (value > 2.0**-150)
    bound = Allowed(
        np.where(free, np.minimum(limits.lo, one.lo), one.lo), np.where(free, np.maximum(limits.hi, one.hi), one.hi)
    )
    return replace(result, allowed={**result.allowed, "bound": bound})


def codes_stage(case: Case, outputs: Outputs, given: Outputs, before: list[StageResult], claim: Claim) -> StageResult:
    """Judge codes, given the scale and the zero point that the backend returned (zero points of 0 if it has none)."""
    x, (qmin, qmax) = case.array("x").single(), (case.options["qmin"], case.options["qmax"])
    codes = expect(outputs, 0, "codes", "int8" if qmin < 0 else "uint8", x.shape)
    if isinstance(codes, StageResult):
        return codes
    if any(stage.problem for stage in before) or any(stage.got.size != before[0].got.size for stage in before):
        return blocked_stage("codes")
    scale = given[0].items
    zero_point = given[1].items if len(given) > 1 else np.zeros(scale.shape, np.int32)
    scale, zero_point, group = (per_element(a, case, x.shape) for a in (scale, zero_point, _numbers(scale.shape)))
    blocked = per_element(np.any([broken(s, claim, s.stage) for s in before], axis=0), case, x.shape)
    shift = zero_point.astype(np.int64)
    exact = quantize_affine_codes(x.reshape(-1), scale, zero_point, qmin, qmax).astype(np.int64)
    got = codes.items.reshape(-1).astype(np.int64)
    # Judged as whole steps from the zero point, whose boundaries are the same for all.
    steps = code_stage(
        "codes", x.reshape(-1), scale, HALVES, exact - shift, got - shift, group, blocked, -FARTHEST, "affine"
    )
    allowed = {
        level: Allowed(np.clip(limits.lo + shift, qmin, qmax), np.clip(limits.hi + shift, qmin, qmax))
        for level, limits in steps.allowed.items()
    }
    row_length = x.shape[-1] if x.shape else 0
    return replace(
        steps, got=got, allowed=allowed, words=codes.words().reshape(-1), dtype=codes.dtype, row_length=row_length
    )


def _numbers(shape: tuple[int, ...]) -> Array:
    return np.arange(int(np.prod(shape, dtype=np.int64))).reshape(shape)


def per_element(per_group: Array, case: Case, shape: tuple[int, ...]) -> Array:
    """Return the number of each element's group, flat."""
    spread = spread_groups(per_group, shape, case.options["granularity"], case.options["group_size"])
    return np.broadcast_to(spread, shape).reshape(-1)


def judge_symmetric(case: Case, outputs: Outputs, claim: Claim) -> list[StageResult]:
    """Judge (codes, scale) of a clipping range."""
    clip = case.array("clip").items
    exact = symmetric_scale(clip, qmax=case.options["qmax"])
    scale = expect(outputs, 1, "scale", "float32", clip.shape)
    if isinstance(scale, StageResult):
        return [scale, blocked_stage("codes")]
    first = scale_stage(scale, exact, clip.astype(np.float64) / case.options["qmax"])
    return [first, codes_stage(case, outputs, (scale,), [first], claim)]


def judge_dequantize(case: Case, outputs: Outputs, claim: Claim) -> list[StageResult]:
    """Judge the values."""
    codes, dtype = case.array("codes").items, case.options["dtype"]
    values = expect(outputs, 0, "values", dtype, codes.shape)
    if isinstance(values, StageResult):
        return [values]
    return [float_stage("values", values, to_bits(values_of(case, dtype), dtype), dtype)]


def values_of(case: Case, dtype: str) -> Array:
    """Return the values of the codes of a case."""
    codes, group_size = case.array("codes").items, case.options["group_size"]
    shape, granularity = codes.shape, case.options["granularity"]
    group_shape(shape, granularity, group_size, GRANULARITIES)
    scale, zero_point = (case.array(name).items for name in ("scale", "zero_point"))
    spread = spread_parameters(scale, zero_point, shape, granularity, group_size)
    return dequantize_affine_codes(codes, *spread, dtype)


def quantize_intermediates(case: Case) -> dict[str, Array]:
    """Return what `explain` prints: the range, scale, zero point, x/scale, code."""
    x, qmin, qmax = case.array("x").single(), case.options["qmin"], case.options["qmax"]
    lo, hi = minmax_range(x, granularity=case.options["granularity"], group_size=case.options["group_size"])
    scale, zero_point = affine_parameters(lo, hi, qmin=qmin, qmax=qmax)
    spread = [per_element(a, case, x.shape).reshape(x.shape) for a in (lo, hi, scale, zero_point)]
    with np.errstate(invalid="ignore"):
        quotient = x.astype(np.float64) / spread[2]
    return {
        "x": x,
        **dict(zip(("smallest of its group", "largest", "scale", "zero point"), spread, strict=True)),
        "x/scale": quotient,
        "code": quantize_affine_codes(x, spread[2], spread[3], qmin, qmax),
    }


def parameters_intermediates(case: Case) -> dict[str, Array]:
    """Return what `explain` prints: the range, scale, −lo/scale, zero point."""
    lo, hi = case.array("lo").items, case.array("hi").items
    scale, zero_point = affine_parameters(lo, hi, qmin=case.options["qmin"], qmax=case.options["qmax"])
    with np.errstate(invalid="ignore"):
        quotient = -np.minimum(lo, 0).astype(np.float64) / scale
    return {"lo": lo, "hi": hi, "scale": scale, "-lo/scale": quotient, "zero point": zero_point}


def symmetric_intermediates(case: Case) -> dict[str, Array]:
    """Return what `explain` prints: the clipping range, scale, x/scale, code."""
    x, qmin, qmax = case.array("x").single(), case.options["qmin"], case.options["qmax"]
    clip = case.array("clip").items
    spread = [per_element(a, case, x.shape).reshape(x.shape) for a in (clip, symmetric_scale(clip, qmax=qmax))]
    with np.errstate(invalid="ignore"):
        quotient = x.astype(np.float64) / spread[1]
    codes = quantize_affine_codes(x, spread[1], np.zeros(x.shape, np.int32), qmin, qmax)
    return {"x": x, "clipping range": spread[0], "scale": spread[1], "x/scale": quotient, "code": codes}


def dequantize_intermediates(case: Case) -> dict[str, Array]:
    """Return what `explain` prints: code, scale, zero point, float32 product, result."""
    codes, dtype = case.array("codes").items, case.options["dtype"]
    scale, zero_point = (
        per_element(case.array(n).items, case, codes.shape).reshape(codes.shape) for n in ("scale", "zero_point")
    )
    return {
        "code": codes,
        "scale of its group": scale,
        "zero point": zero_point,
        "float32 product": values_of(case, "float32"),
        f"as {dtype}": values_of(case, dtype),
    }
