"""The families that seek boundaries reach them: on the boundary, and one number either side, for every code."""

from fractions import Fraction

import numpy as np
import pytest
from numpy.typing import NDArray

from qloracle.tables import CODEBOOKS
from qloracle_conformance.adapters.reference import backend as reference
from qloracle_conformance.execution import InProcess
from qloracle_conformance.generators.case import Case
from qloracle_conformance.registry import OPERATIONS
from qloracle_conformance.run import run_task

from .claims import case_of, cases_of, task_of

SEEKING = [
    name
    for name, op in OPERATIONS.items()
    if "boundaries" in op.families and {"codes", "nested_codes"} & set(op.stages)
]
INT8 = [name for name in SEEKING if name.startswith("int8_") and name.endswith(".quantize")]
BLOCKWISE = [f"{name}.quantize" for name in CODEBOOKS]
UNIT = Fraction(1, 2**24)


def test_every_quantizer_with_boundaries_seeks_them() -> None:
    assert {name for name in OPERATIONS if name.endswith(".quantize")} <= set(SEEKING)


@pytest.mark.parametrize("operation", SEEKING)
def test_values_on_a_boundary_are_generated_and_counted(operation: str) -> None:
    stage = "codes" if "codes" in OPERATIONS[operation].stages else "nested_codes"
    results = {r.stage: r for r in run_task(InProcess(reference()), task_of(operation, "boundaries", cases=24))}
    assert results[stage].status == "pass"
    assert results[stage].tally.boundary_hits > 100, (
        f"{operation}: {results[stage].tally.boundary_hits} hits in 24 cases"
    )


@pytest.mark.parametrize("fmt", ["bfloat16", "float16"])
def test_ties_of_conversions_are_generated_and_counted(fmt: str) -> None:
    for family in ("sweep", "ties"):
        (result, *_) = run_task(InProcess(reference()), task_of(f"{fmt}.encode", family, cases=2))
        assert result.tally.boundary_hits > 1000, f"{fmt}.encode.{family}: {result.tally.boundary_hits} hits"


def groups_of(case: Case) -> list[tuple[NDArray[np.float64], float]]:
    """The groups that share an absmax, each with the absmax, by the definition of the granularity."""
    x = case.array("x").real()
    granularity = case.options.get("granularity", "block")
    if granularity == "block":
        flat, size = x.reshape(-1), case.options["block_size"]
        parts = [flat[i : i + size] for i in range(0, flat.size, size)]
    elif granularity == "tensor":
        parts = [x.reshape(-1)]
    else:
        matrix = x.reshape(-1, x.shape[-1])
        parts = list(matrix if granularity == "row" else matrix.T)
    return [(part, float(np.abs(part).max())) for part in parts]


def quotients(case: Case) -> list[Fraction]:
    """The exact x/absmax of some elements of a case."""
    found = []
    for part, absmax in groups_of(case)[:20]:
        found += [Fraction(float(v)) / Fraction(absmax) for v in part[:64] if absmax > 0]
    return found


@pytest.mark.parametrize("operation", BLOCKWISE)
def test_blockwise_cases_lie_within_a_rounding_of_most_midpoints(operation: str) -> None:
    midpoints = [Fraction(float(m)) for m in CODEBOOKS[operation.removesuffix(".quantize")].midpoints]
    near = set()
    for case in cases_of(operation, "boundaries", 12, dtypes=("float32",)):
        # float32 numbers next to a midpoint lie within two units of it unless the absmax is subnormal
        for quotient in quotients(case):
            nearest = (
                min(midpoints, key=lambda m: abs(m - quotient))
                if len(midpoints) < 20
                else bisected(midpoints, quotient)
            )
            if abs(quotient - nearest) <= 2 * UNIT * abs(nearest):
                near.add(nearest)
    assert len(near) * 10 >= len(midpoints) * 9, f"{operation}: near {len(near)} of {len(midpoints)} midpoints"


def bisected(midpoints: list[Fraction], quotient: Fraction) -> Fraction:
    """The midpoint nearest to a quotient."""
    place = int(np.searchsorted([float(m) for m in midpoints], float(quotient)))
    return min(midpoints[max(place - 1, 0) : place + 1], key=lambda m: abs(m - quotient))


@pytest.mark.parametrize("operation", INT8)
def test_int8_cases_contain_exact_halves_of_both_signs(operation: str) -> None:
    halves = [127 * q for case in cases_of(operation, "boundaries", 24) for q in quotients(case)]
    exact = [h for h in halves if (2 * h).denominator == 1 and h.denominator == 2]
    assert any(h > 0 for h in exact), f"{operation}: no positive half among {len(halves)} values"
    assert any(h < 0 for h in exact), f"{operation}: no negative half among {len(halves)} values"


@pytest.mark.parametrize(
    "operation", [n for n in SEEKING if n.endswith(".quantize") and "x" in case_of(n, "boundaries").inputs]
)
def test_boundary_cases_have_absmax_of_all_magnitudes(operation: str) -> None:
    count = 150 if "_tensor." in operation else 24  # a tensor is one group
    cases = cases_of(operation, "boundaries", count, dtypes=("float32",))
    absmax = [a for case in cases for _, a in groups_of(case) if a > 0]
    exponents = np.frexp(np.array(absmax))[1]
    assert exponents.min() < -126, f"{operation}: no subnormal absmax"
    assert exponents.max() > 100, f"{operation}: no absmax near the largest number"


@pytest.mark.parametrize("operation", ["nf4.quantize", "int8_row.quantize", "dynamic_signed.quantize"])
def test_a_boundary_case_has_values_on_both_sides_of_a_boundary(operation: str) -> None:
    name = operation.removesuffix(".quantize")
    boundaries = (
        CODEBOOKS[name].midpoints if name in CODEBOOKS else (np.arange(-127, 127) + 0.5) / 127
    )  # fmt: skip
    below = above = 0
    for case in cases_of(operation, "boundaries", 12, dtypes=("float32",)):
        ratio = np.array([float(q) for q in quotients(case)])
        nearest = boundaries[np.argmin(np.abs(ratio[:, np.newaxis] - boundaries), axis=1)]
        close = np.abs(ratio - nearest) <= 2.0**-22 * np.abs(nearest)
        below += int(np.sum(close & (ratio < nearest)))
        above += int(np.sum(close & (ratio > nearest)))
    assert min(below, above) > 50, f"{operation}: {below} values just below a boundary, {above} just above"


def test_the_trap_of_a_mean_that_is_rounded_twice_is_generated() -> None:
    trap = np.array([4, 2.0**-22, 2.0**-100, 0], np.float32)
    found = [case.array("absmax").items for case in cases_of("absmax.quantize", "offsets", 24)]
    assert any(a.size >= 4 and np.array_equal(a[:4], trap) for a in found)


@pytest.mark.parametrize("operation", ["nf4.quantize", "int8_block.quantize", "blocks.absmax"])
def test_specials_put_nan_and_infinity_at_the_first_and_the_last_place_of_a_block(operation: str) -> None:
    places: dict[str, set[str]] = {"NaN": set(), "infinity": set()}
    for case in cases_of(operation, "specials", 24):
        for part, _ in groups_of(case):
            for name, mask in (("NaN", np.isnan(part)), ("infinity", np.isinf(part))):
                if part.size > 2 and mask.sum() == 1:
                    place = int(np.flatnonzero(mask)[0])
                    places[name].add({0: "first", part.size - 1: "last"}.get(place, "middle"))
    assert places == {"NaN": {"first", "middle", "last"}, "infinity": {"first", "middle", "last"}}
