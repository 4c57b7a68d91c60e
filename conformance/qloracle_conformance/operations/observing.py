"""Judging observers and fake quantization: float outputs whose bits the rules fix."""

from typing import Any

import numpy as np

from qloracle.affine import quantize_affine_codes
from qloracle.fake_quant import fake_quantize, fake_quantize_backward
from qloracle.formats import Array, to_bits
from qloracle.groups import spread_parameters
from qloracle.observers import minmax_range, moving_range, percentile_range
from qloracle_conformance.backend import Claim
from qloracle_conformance.generators.case import Case
from qloracle_conformance.judge import StageResult
from qloracle_conformance.operations.operation import Outputs, expect, float_stage

ENDS = ("previous_lo", "previous_hi", "current_lo", "current_hi")


def judge_range(case: Case, outputs: Outputs, claim: Claim) -> list[StageResult]:
    """Judge (lo, hi)."""
    results = []
    for index, (stage, expected) in enumerate(zip(("lo", "hi"), range_of(case), strict=True)):
        got = expect(outputs, index, stage, "float32", expected.shape)
        judged = got if isinstance(got, StageResult) else float_stage(stage, got, expected.view(np.uint32), "float32")
        results.append(judged)
    return results


def range_of(case: Case) -> tuple[Array, Array]:
    """Return the range that the rule gives."""
    options: dict[str, Any] = dict(case.options)
    if "weight" in options:
        ends = [case.array(name).items for name in ENDS]
        lo, hi = moving_range((ends[0], ends[1]), (ends[2], ends[3]), options["weight"])
        return lo, hi
    x = case.array("x").single()
    return percentile_range(x, **options) if "lower" in options else minmax_range(x, **options)


def judge_fake(case: Case, outputs: Outputs, claim: Claim) -> list[StageResult]:
    """Judge the values."""
    return _judged("values", fake_of(case), case, outputs)


def judge_fake_backward(case: Case, outputs: Outputs, claim: Claim) -> list[StageResult]:
    """Judge the gradient of x."""
    return _judged("x", gradient_of(case), case, outputs)


def _judged(stage: str, expected: Array, case: Case, outputs: Outputs) -> list[StageResult]:
    x = case.array("x")
    got = expect(outputs, 0, stage, x.dtype, x.shape)
    return [got if isinstance(got, StageResult) else float_stage(stage, got, to_bits(expected, x.dtype), x.dtype)]


def fake_of(case: Case) -> Array:
    """Return the values that the rule gives."""
    x, scale, zero_point = (case.array(name) for name in ("x", "scale", "zero_point"))
    return fake_quantize(x.items, scale.items, zero_point.items, fmt=x.dtype, **case.options)


def gradient_of(case: Case) -> Array:
    """Return the gradient that the rule gives."""
    dy, x, scale, zero_point = (case.array(name) for name in ("dy", "x", "scale", "zero_point"))
    return fake_quantize_backward(dy.items, x.items, scale.items, zero_point.items, fmt=x.dtype, **case.options)


def range_intermediates(case: Case) -> dict[str, Array]:
    """Return what `explain` prints: the range."""
    lo, hi = range_of(case)
    return {"lo": lo, "hi": hi}


def fake_intermediates(case: Case) -> dict[str, Array]:
    """Return what `explain` prints: x, its scale and zero point, the quotient, the code and the value."""
    x, options = case.array("x").single(), case.options
    how = (x.shape, options["granularity"], options["group_size"])
    scale, zero_point = spread_parameters(case.array("scale").items, case.array("zero_point").items, *how)
    with np.errstate(all="ignore"):
        quotient = x.astype(np.float64) / scale.astype(np.float64)
    return {
        "x": x,
        "scale": np.broadcast_to(scale, x.shape),
        "zero point": np.broadcast_to(zero_point, x.shape),
        "x/scale": quotient,
        "code": quantize_affine_codes(x, scale, zero_point, options["qmin"], options["qmax"]),
        "value": fake_of(case),
    }


def gradient_intermediates(case: Case) -> dict[str, Array]:
    """Return what `explain` prints: x, the gradients of the output and of x."""
    return {
        "x": case.array("x").single(),
        "gradient of the output": case.array("dy").single(),
        "of x": gradient_of(case),
    }
