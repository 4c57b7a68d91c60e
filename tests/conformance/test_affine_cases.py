"""What the generators of integer quantizers and their layers reach, and what their judges refuse."""

from dataclasses import replace
from math import prod

import numpy as np
import pytest

from qloracle.affine_scale import affine_parameters
from qloracle_conformance.adapters.reference import OPS, backend
from qloracle_conformance.arrays import HostArray, host
from qloracle_conformance.backend import Claim
from qloracle_conformance.execution import InProcess
from qloracle_conformance.generators.case import Case
from qloracle_conformance.generators.draw import CounterDraw
from qloracle_conformance.group_reduction import group_candidates, layer_candidates
from qloracle_conformance.judge import StageResult
from qloracle_conformance.operations.operation import with_default_options
from qloracle_conformance.registry import OPERATIONS

CLAIMS = {claim.operation: claim for claim in InProcess(backend()).info.claims}


def case_at(operation: str, family: str, index: int) -> Case:
    return OPERATIONS[operation].families[family](CounterDraw(f"{operation}.{family}", index), CLAIMS[operation])


def outputs_of(case: Case) -> tuple[HostArray, ...]:
    found = OPS[OPERATIONS[case.operation].function](**case.inputs, **case.options)
    return found if isinstance(found, tuple) else (found,)


def judged(case: Case, outputs: tuple[HostArray, ...], claim: Claim) -> dict[str, StageResult]:
    return {result.stage: result for result in OPERATIONS[case.operation].judge(case, outputs, claim)}


def test_the_ramps_of_the_integer_product_differ_from_case_to_case() -> None:
    cases = [case_at("int8.matmul", "ramps", index) for index in range(6)]
    assert len({case.array("a").items.tobytes() for case in cases}) == 6, "cases of one family must not repeat"
    assert len({case.array("b").shape for case in cases}) > 1, "nor have one shape"


@pytest.mark.parametrize("index", range(6))
def test_ranges_reach_widths_that_float64_cannot_hold(index: int) -> None:
    case = case_at("affine.parameters", "ranges", index)
    lo, hi, steps = case.array("lo").items, case.array("hi").items, case.options["qmax"] - case.options["qmin"]
    if steps < 200:
        return  # a product by 15 takes 29 bits at most: float64 holds every width near it
    width = np.maximum(hi, 0).astype(np.float64) - np.minimum(lo, 0)
    rounded_twice = (width / steps).astype(np.float32)
    scale, _ = affine_parameters(lo, hi, qmin=case.options["qmin"], qmax=case.options["qmax"])
    assert np.any(rounded_twice != scale), "no width of the case tells one rounding from two"


def test_every_code_range_and_granularity_is_drawn() -> None:
    seen = {case_at("symmetric.quantize", "boundaries", index).options["qmin"] for index in range(6)}
    assert seen == {-128, 0, -8, -127, -7}, f"smallest codes {sorted(seen)}"
    kinds = {case_at("minmax.observe", "normal", index).options["granularity"] for index in range(4)}
    assert kinds == {"tensor", "row", "column", "group"}, f"granularities {sorted(kinds)}"


def test_a_claim_of_one_code_range_gets_no_other() -> None:
    operation = OPERATIONS["affine_row.quantize"]
    claim = with_default_options(Claim(operation.name, {}, options={"code_range": ("0..15",)}), operation)
    for family, generate in operation.families.items():
        options = generate(CounterDraw(family, 3), claim).options
        assert (options["qmin"], options["qmax"]) == (0, 15), f"family {family} draws codes {options}"


@pytest.mark.parametrize("level", ["exact", "tie"])
def test_a_code_outside_its_range_is_never_accepted(level: str) -> None:
    case = case_at("affine_row.quantize", "boundaries", 0)
    codes, scale, zero_point = outputs_of(case)
    beyond = codes.items.astype(np.int16) + (codes.items == case.options["qmax"])
    if beyond.max() > np.iinfo(codes.items.dtype).max:
        beyond = codes.items.astype(np.int16) - (codes.items == case.options["qmin"])
    claim = replace(CLAIMS[case.operation], levels={"*": "exact", "codes": level})
    wrong = host(np.clip(beyond, *_limits(codes)).astype(codes.items.dtype))
    moved = wrong.items != codes.items
    result = judged(case, (wrong, scale, zero_point), claim)["codes"]
    assert np.array_equal(result.failing(level).reshape(moved.shape) & moved, moved), "a code beyond the range passed"


def _limits(codes: HostArray) -> tuple[int, int]:
    info = np.iinfo(codes.items.dtype)
    return int(info.min), int(info.max)


def test_codes_are_judged_given_the_scale_that_was_returned() -> None:
    case = case_at("affine_tensor.quantize", "normal", 0)
    codes, scale, zero_point = outputs_of(case)
    doubled = host(np.asarray(scale.items * np.float32(2)))
    results = judged(case, (codes, doubled, zero_point), CLAIMS[case.operation])
    assert results["scale"].failing("exact").all(), "twice the scale is a wrong scale"
    assert results["codes"].blocked is not None
    assert results["codes"].blocked.all(), "codes that rest on it are blocked"


def test_a_wrong_outlier_column_blocks_what_rests_on_it() -> None:
    case = case_at("llm_int8.forward", "thresholds", 1)
    outliers, codes, absmax, y = outputs_of(case)
    results = judged(case, (host(~outliers.items), codes, absmax, y), CLAIMS[case.operation])
    assert results["outliers"].failing("exact").all()
    for stage in ("absmax", "codes", "y"):
        assert not results[stage].failing("bound" if stage == "y" else "exact").any(), f"{stage} must be blocked"


@pytest.mark.parametrize("operation", ["affine_row.quantize", "affine_group.dequantize", "symmetric.quantize",
                                       "fake_quantize.backward", "affine_column.dequantize"])  # fmt: skip
def test_a_group_alone_is_a_case_of_its_own(operation: str) -> None:
    case = next(c for i in range(9) if (c := case_at(operation, "ramps", i)).options["granularity"] != "tensor")
    for candidate in group_candidates(case, 5):
        assert all(
            r.attained() == "exact" for r in judged(candidate, outputs_of(candidate), CLAIMS[operation]).values()
        )
        assert _size(candidate) <= _size(case), f"{operation}: a candidate is larger"


@pytest.mark.parametrize("operation", ["int8_weight.forward", "affine_weight.backward", "llm_int8.forward"])
def test_a_row_of_a_layer_is_a_case_of_its_own(operation: str) -> None:
    for candidate in layer_candidates(case_at(operation, "normal", 0), 3):
        results = judged(candidate, outputs_of(candidate), CLAIMS[operation])
        assert not any(r.failing("bound").any() for r in results.values()), f"{operation}: {candidate.options}"


def _size(case: Case) -> int:
    return sum(prod(a.shape) for a in case.inputs.values() if a is not None)
