"""Optimizers in the suite: lattices are exact, boundaries are hit, stages are judged given what came before."""

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from qloracle.formats import Array
from qloracle.optim.adamw8bit import CODEBOOKS_OF_MOMENTS
from qloracle.tracking.roundings import Roundings
from qloracle_conformance.adapters.reference import backend as reference
from qloracle_conformance.arrays import HostArray, host
from qloracle_conformance.backend import Claim
from qloracle_conformance.execution import InProcess
from qloracle_conformance.generators.adamw_lattice import CORNERS, solutions
from qloracle_conformance.generators.adamw_limits import part_of_the_way
from qloracle_conformance.generators.case import Case
from qloracle_conformance.generators.draw import CounterDraw
from qloracle_conformance.judge import StageResult
from qloracle_conformance.mutants.adamw_kernel import Kernel, adamw_with
from qloracle_conformance.mutants.mutant import backend_of
from qloracle_conformance.operations.operation import with_default_options
from qloracle_conformance.registry import OPERATIONS
from qloracle_conformance.run import judge_case
from qloracle_conformance.task import Task, call_of
from qloracle_conformance.verdicts import fresh_state

ADAMW = ("adamw.step", "adamw.nonfinite", "adamw.stochastic", "adamw.limited", "adamw8bit.step")


def claim_of(operation: str) -> Claim:
    claim = next(claim for claim in reference().claims if claim.operation == operation)
    return with_default_options(claim, OPERATIONS[operation])


def cases_of(operation: str, family: str, count: int, claim: Claim | None = None) -> list[Case]:
    claim = claim or claim_of(operation)
    make = OPERATIONS[operation].families[family]
    return [make(CounterDraw(f"{operation}.{family}", index), claim) for index in range(count)]


def judged(case: Case, change: Callable[..., tuple[HostArray, ...]] | None = None) -> dict[str, StageResult]:
    """Judge the reference's outputs, after a change to them, by stage."""
    executor, operation = InProcess(reference()), OPERATIONS[case.operation]
    outputs = executor.run(call_of(case, operation)).outputs
    outputs = outputs if change is None else change(*outputs)
    return {result.stage: result for result in operation.judge(case, outputs, claim_of(case.operation))}


def root_of(square: Fraction) -> Fraction:
    """The rational root of a rational square; an error if it has none."""
    top, bottom = (Fraction(int(n) ** 0.5) for n in (square.numerator, square.denominator))
    assert top * top == square.numerator
    assert bottom * bottom == square.denominator
    return top / bottom


@pytest.mark.parametrize("corner", CORNERS)
def test_every_corner_of_the_lattice_has_several_solutions_whose_denominator_is_a_power_of_two(corner: Any) -> None:
    found = solutions(corner)
    assert len(found) >= 4
    assert np.any(found[:, 2] > 0), "the old second moment is always 0"
    for s, g, v in found.tolist():
        weight = Fraction(corner.beta2)
        square = weight * v + (1 - weight) * g * g
        correction = 1 - weight if corner.step == 1 else 1  # later no power is left
        assert root_of(square / correction) == s
        assert (s + 1) & s == 0


@pytest.mark.parametrize("operation", ["adamw.step", "adamw8bit.step"])
def test_lattices_are_exact_in_rational_numbers(operation: str) -> None:
    for case in cases_of(operation, "small_lattice", 12):
        o = case.options
        late = o["step"] > 100
        first, second = (Fraction(1) if late else 1 - Fraction(o[b]) ** o["step"] for b in ("beta1", "beta2"))
        m, v = moments_before(case)
        p, g = case.array("p").real().reshape(-1), case.array("gradient").real().reshape(-1)
        for i in range(0, p.size, max(1, p.size // 40)):
            mean = Fraction(o["beta1"]) * Fraction(m[i]) + (1 - Fraction(o["beta1"])) * Fraction(g[i])
            square = Fraction(o["beta2"]) * Fraction(v[i]) + (1 - Fraction(o["beta2"])) * Fraction(g[i]) ** 2
            below = root_of(square / second) + Fraction(o["eps"])
            update = mean / first / below
            new = Fraction(p[i]) * (1 - Fraction(o["lr"]) * Fraction(o["weight_decay"])) - Fraction(o["lr"]) * update
            for number in (mean, square, below, update, new):
                assert Fraction(float(np.float32(float(number)))) == number, f"{float(number)} is no float32"


def moments_before(case: Case) -> tuple[list[float], list[float]]:
    if "m" in case.inputs:
        return case.array("m").real().reshape(-1).tolist(), case.array("v").real().reshape(-1).tolist()
    found = []
    for name, table in CODEBOOKS_OF_MOMENTS.items():
        scale = np.repeat(case.array(f"absmax_{name}").items, case.options["block_size"])
        codes = case.array(f"codes_{name}").items
        found.append((table.entries[codes] * scale[: codes.size]).tolist())
    return found[0], found[1]


def test_random_bits_stand_on_both_sides_of_the_part_of_the_way() -> None:
    above = below = exact = 0
    for case in cases_of("adamw.stochastic", "small_lattice", 12):
        threshold = part_of_the_way(case) * 2.0**32
        bits = case.array("random_bits").items.astype(np.float64)
        below += int(np.sum((bits == threshold - 1) & (threshold > 0)))
        above += int(np.sum((bits == threshold) & (threshold > 0)))
        exact += int(np.sum((threshold == 0) & (bits == 0)))
    assert min(above, below, exact) >= 20, f"{above} above, {below} below, {exact} at numbers of the format"


def test_updates_lost_to_nearest_are_generated() -> None:
    for case in cases_of("adamw.stochastic", "small_updates", 6):
        plain = replace(case, inputs={**case.inputs, "random_bits": None})
        kept = InProcess(reference()).run(call_of(plain, OPERATIONS[case.operation])).outputs[0]
        same = kept.words() == case.array("p").words()
        assert np.mean(same) > 0.3, "most updates must be below half a unit"


def test_the_parameter_is_judged_given_the_backends_own_moments() -> None:
    case = cases_of("adamw.step", "small_lattice", 1)[0]

    def other_moments(p: HostArray, m: HostArray, v: HostArray) -> tuple[HostArray, ...]:
        return p, host(m.items + np.float32(1)), v

    stages = judged(case, other_moments)
    assert stages["m"].failing("bound").all()
    assert stages["p"].blocked is not None
    assert stages["p"].blocked.all(), "what rests on a wrong moment is blocked, not failed"


def test_codes_are_judged_given_the_backends_own_absmax_and_blocked_where_it_is_wrong() -> None:
    claim = replace(claim_of("adamw8bit.step"), block_sizes=(64,))
    case = next(c for c in cases_of("adamw8bit.step", "normal", 20, claim) if c.array("p").items.size > 100)

    def first_doubled(p: HostArray, c_m: HostArray, a_m: HostArray, c_v: HostArray, a_v: HostArray) -> Any:
        absmax = a_m.items.copy()
        absmax[0] *= 2
        return p, c_m, host(absmax), c_v, a_v

    stages = judged(case, first_doubled)
    assert np.flatnonzero(stages["absmax_m"].failing("bound")).tolist() == [0]
    blocked = stages["codes_m"].blocked
    assert blocked is not None
    assert np.flatnonzero(blocked).tolist() == list(range(64))
    assert not stages["codes_m"].failing("bound").any()
    assert stages["codes_v"].blocked is None


def test_a_bound_on_codes_allows_one_code_nearly_everywhere() -> None:
    few = total = 0
    for case in cases_of("adamw8bit.step", "normal", 6):
        for name in ("codes_m", "codes_v"):
            allowed = judged(case)[name].allowed["bound"]
            few += int(np.sum(allowed.lo == allowed.hi))
            total += allowed.lo.size
    assert few > 0.999 * total, f"only {few} of {total} codes are fixed"


def test_an_absmax_interval_is_a_few_ulp_wide() -> None:
    for case in cases_of("adamw8bit.step", "ramps", 6):
        allowed = judged(case)["absmax_v"].allowed["bound"]
        assert np.all(allowed.hi - allowed.lo <= 16)


def failing(op: Callable[..., Any], roundings: Roundings) -> list[str]:
    """The stages that a backend fails in the first cases of ordinary steps, with declared roundings."""
    backend = backend_of({"adamw_step": op}, "other")
    claim = replace(claim_of("adamw.step"), roundings=roundings)
    found, executor = [], InProcess(backend)
    for family in ("normal", "steps"):
        task = Task(OPERATIONS["adamw.step"], family, claim, 12, 0, 0)
        state = fresh_state(task)
        for case in cases_of("adamw.step", family, 12, claim):
            judge_case(executor, task, case, state)
        found += [stage for stage, tally in state.tallies.items() if tally.failing]
    return found


def test_float32_hyperparameters_are_right_only_where_they_are_declared() -> None:
    # 1 − β in float32 from the float32 β, as kernels with float arguments compute it.
    def mean(x: Any) -> Array:
        beta = float(np.float32(x.o.beta1))
        return np.asarray(beta * x.m + float(np.float32(1) - np.float32(beta)) * x.g)

    def square(x: Any) -> Array:
        beta = float(np.float32(x.o.beta2))
        return np.asarray(beta * x.v + float(np.float32(1) - np.float32(beta)) * x.g * x.g)

    op = adamw_with(Kernel(mean=mean, square=square))
    assert failing(op, Roundings(hyperparameters="float32")) == []
    assert "v" in failing(op, Roundings())


@pytest.mark.parametrize("operation", ["adamw.nonfinite", "adamw8bit.step"])
def test_only_claimed_policies_are_generated(operation: str) -> None:
    plain = replace(claim_of(operation), options={"nonfinite": ("propagate",)})
    for family in OPERATIONS[operation].families:
        assert {case.options["nonfinite"] for case in cases_of(operation, family, 6, plain)} == {"propagate"}
    family = "gradients" if operation == "adamw.nonfinite" else "nonfinite"
    every = {case.options["nonfinite"] for case in cases_of(operation, family, 12)}
    assert every == {"propagate", "skip", "reset"}


@pytest.mark.parametrize("operation", ["adamw.paged", "adamw.resume"])
def test_trajectories_of_both_kinds_of_states_are_generated(operation: str) -> None:
    cases = cases_of(operation, "normal", 12)
    assert {case.options["state_bits"] for case in cases} == {8, 32}
    if operation == "adamw.paged":
        tight = [c for c in cases if c.options["budget"] < sum(c.options["sizes"])]
        assert len(tight) >= 4, "budgets must force states to move"


def test_an_element_without_gradient_and_state_may_not_move_by_a_bit() -> None:
    case = next(c for c in cases_of("adamw.step", "still", 20) if c.array("p").items.size and c.options["lr"])

    def nudged(p: HostArray, m: HostArray, v: HostArray) -> tuple[HostArray, ...]:
        return HostArray(p.items.copy(), p.dtype), m, v

    limits = judged(case, nudged)["p"].allowed["bound"]
    still = (case.array("gradient").real() == 0) & (case.array("m").items == 0)
    assert np.all((limits.hi - limits.lo)[still] <= 1), "nothing but the sign of zero is free"
