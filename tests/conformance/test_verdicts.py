"""Verdicts: which status a property gets from what its cases showed."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from qloracle_conformance.adapters.reference import backend as reference
from qloracle_conformance.arrays import HostArray, host
from qloracle_conformance.backend import BackendInfo, Claim, describe
from qloracle_conformance.execution import Call, Outcome
from qloracle_conformance.generators.case import Case
from qloracle_conformance.judge import Allowed, StageResult, blocked_stage, exactly, failed_stage
from qloracle_conformance.operations.operation import Operation
from qloracle_conformance.run import run_task
from qloracle_conformance.tally import looser
from qloracle_conformance.task import Task
from qloracle_conformance.verdicts import PropertyResult

OUTPUT = host(np.zeros(2, np.float32))


class Answers:
    """An executor that gives prepared outcomes, the last one again and again."""

    info: BackendInfo = describe(reference())

    def __init__(self, *outcomes: Outcome) -> None:
        self.outcomes = list(outcomes)
        self.calls: list[Call] = []

    def run(self, call: Call, meanwhile: Callable[[], None] | None = None) -> Outcome:
        self.calls.append(call)
        if meanwhile is not None:
            meanwhile()
        return self.outcomes[min(len(self.calls), len(self.outcomes)) - 1]

    def close(self) -> None:
        """Nothing was opened."""


RIGHT = Outcome(outputs=(OUTPUT,))


def stage(got: Sequence[int], *, name: str = "values", blocked: Sequence[bool] | None = None) -> StageResult:
    """A stage that allows 0 exactly and ±1 at a tie."""
    ordinals = np.array(got, np.int64)
    zeros = np.zeros(len(got), np.int64)
    limits = {"exact": exactly(zeros), "tie": Allowed(zeros - 1, zeros + 1)}
    return StageResult(name, ordinals, limits, blocked=None if blocked is None else np.array(blocked))


def verdict_of(
    *judged: StageResult, outcomes: Sequence[Outcome] = (RIGHT,), cases: int = 1, family: str = "normal",
    stages: Sequence[str] = ("values",), **claim: Any,
) -> dict[str, PropertyResult]:  # fmt: skip
    """Run one family of a made-up operation whose judge gives `judged`; return the verdicts by stage."""

    def judge(case: Case, outputs: tuple[HostArray, ...], claim: Claim) -> list[StageResult]:
        return list(judged)

    def generate(draw: Any, claim: Claim) -> Case:
        return Case("made.up", {"x": OUTPUT}, {}, repeat=family == "memory")

    operation = Operation(
        "made.up", "function", 1, dict.fromkeys(stages, "made.clause"), judge, {family: generate}, lambda case: {}
    )
    levels = {"*": claim.pop("level", "exact")}
    task = Task(operation, family, Claim("made.up", levels, **claim), cases, 0, 0)
    return {result.stage: result for result in run_task(Answers(*outcomes), task)}


def test_a_property_whose_every_element_keeps_the_claim_passes() -> None:
    result = verdict_of(stage([0, 0]))["values"]
    assert (result.status, result.tally.attained, result.tally.elements) == ("pass", "exact", 2)
    assert result.id == "made.up.values.normal"


@pytest.mark.parametrize(("basis", "status"), [("promised", "fail"), ("assumed", "differs")])
def test_a_broken_promise_fails_and_a_broken_assumption_differs(basis: str, status: str) -> None:
    result = verdict_of(stage([0, 5]), basis=basis, source="its manual")["values"]
    assert (result.status, result.tally.failing) == (status, 1)
    assert result.message == "element 1 alone, of 2; off by up to 5 units"


def test_a_claim_at_a_tie_passes_where_one_at_exact_fails_and_the_attained_level_is_the_same() -> None:
    exact, tie = verdict_of(stage([0, 1]))["values"], verdict_of(stage([0, 1]), level="tie")["values"]
    assert (exact.status, exact.tally.attained) == ("differs", "tie")
    assert (tie.status, tie.tally.attained) == ("pass", "tie")


@pytest.mark.parametrize("blocked", [[True, True], [True, False]])
def test_a_property_with_blocked_elements_does_not_pass(blocked: list[bool]) -> None:
    result = verdict_of(stage([9, 0], blocked=blocked))["values"]
    assert (result.status, result.tally.failing) == ("blocked", 0)
    assert result.message == f"{sum(blocked)} elements rest on an earlier stage that failed"


def test_a_stage_that_was_given_nothing_does_not_pass() -> None:
    assert verdict_of(blocked_stage("values"))["values"].status == "blocked"


def test_an_element_that_is_wrong_beside_a_blocked_one_fails() -> None:
    assert verdict_of(stage([9, 9], blocked=[True, False]))["values"].status == "differs"


def test_a_property_without_a_case_is_an_error() -> None:
    result = verdict_of(stage([0]), cases=0)["values"]
    assert (result.status, result.message) == ("error", "no case was generated")


def test_a_short_run_goes_on_until_every_claimed_stage_was_met() -> None:
    reached = iter(range(100))

    def judge(case: Case, outputs: tuple[HostArray, ...], claim: Claim) -> list[StageResult]:
        return [stage([0]), stage([0], name="rare")] if next(reached) == 6 else [stage([0])]

    def generate(draw: Any, claim: Claim) -> Case:
        return Case("made.up", {"x": OUTPUT}, {})

    stages = {"values": "made.clause", "rare": "made.clause"}
    operation = Operation("made.up", "function", 1, stages, judge, {"normal": generate}, lambda case: {})
    results = run_task(Answers(RIGHT), Task(operation, "normal", Claim("made.up", {"*": "exact"}), 3, 0, 0))
    assert {r.stage: (r.status, r.tally.cases) for r in results if r.stage in stages} == {
        "values": ("pass", 7),
        "rare": ("pass", 1),
    }


def test_a_stage_that_no_case_reaches_is_an_error() -> None:
    results = verdict_of(stage([0]), stages=("values", "codes"))
    assert (results["values"].status, results["codes"].status) == ("pass", "error")


@pytest.mark.parametrize("feature", ["bias", "dropout"])
def test_a_stage_of_a_feature_that_is_not_claimed_is_not_claimed_rather_than_passed(feature: str) -> None:
    claimed = verdict_of(stage([0]), stages=("values", feature), features=(feature,))[feature]
    unclaimed = verdict_of(stage([0]), stages=("values", feature), features=())[feature]
    assert (claimed.status, unclaimed.status) == ("error", "not-claimed")
    assert unclaimed.message == f"the claim does not list the feature {feature}"


def test_a_property_of_which_no_element_could_be_judged_is_not_judged() -> None:
    info = np.iinfo(np.int64)
    limits = Allowed(np.full(2, info.min), np.full(2, info.max))
    unjudged = StageResult("values", np.array([3, 4]), {"bound": limits})
    result = verdict_of(unjudged, level="bound")["values"]
    assert (result.status, result.tally.unjudged) == ("not-judged", 2)


def test_a_property_of_which_some_elements_could_not_be_judged_passes_and_counts_them() -> None:
    info = np.iinfo(np.int64)
    partly = StageResult(
        "values", np.array([3, 0]), {"bound": Allowed(np.array([info.min, 0]), np.array([info.max, 0]))}
    )
    result = verdict_of(partly, level="bound")["values"]
    assert (result.status, result.tally.unjudged) == ("pass", 1)


@pytest.mark.parametrize("failure", ["raised", "crashed", "timeout", "output"])
def test_a_call_that_fails_is_an_error_of_every_property_of_its_family(failure: Any) -> None:
    results = verdict_of(outcomes=[Outcome(failure=failure, message="the reason")], stages=("values", "codes"))
    assert {r.status for r in results.values()} == {"error"}
    assert {r.message for r in results.values()} == {f"{failure}: the reason"}


def test_a_call_that_fails_ends_its_family_and_keeps_the_case() -> None:
    executor = Answers(Outcome(failure="raised", message="the reason"))
    operation = Operation(
        "made.up", "function", 1, {}, lambda *_: [], {"normal": lambda d, c: Case("made.up", {}, {})}, lambda case: {}
    )
    results = run_task(executor, Task(operation, "normal", Claim("made.up", {}), 5, 0, 0))
    assert len(executor.calls) == 1
    assert results[0].tally.case == Case("made.up", {}, {})


def test_a_failure_seen_before_a_crash_is_not_lost() -> None:
    outcomes = [RIGHT, Outcome(failure="crashed", message="the reason")]
    result = verdict_of(stage([7]), outcomes=outcomes, cases=2)["values"]
    assert (result.status, result.tally.failing) == ("differs", 1)


def test_more_outputs_than_are_specified_are_an_error() -> None:
    results = verdict_of(stage([0]), outcomes=[Outcome(outputs=(OUTPUT, OUTPUT))])
    assert {(r.status, r.message) for r in results.values()} == {
        ("error", "output: 2 arrays were returned, 1 are specified")
    }


def test_an_output_of_a_wrong_shape_fails_as_a_whole() -> None:
    result = verdict_of(failed_stage("values", "output 0 must have shape (2,), got (3,)"))["values"]
    assert (result.status, result.tally.attained) == ("differs", None)
    assert result.message == "the whole output; output 0 must have shape (2,), got (3,)"


def test_a_changed_input_fails_at_the_stage_inputs_alone() -> None:
    results = verdict_of(stage([0]), outcomes=[replace(RIGHT, changed_inputs=("x",))])
    assert {name: r.status for name, r in results.items()} == {"values": "pass", "inputs": "differs"}
    assert "the call changed its input x" in results["inputs"].message


def test_an_unstable_output_fails_at_the_stage_repeat_of_the_family_memory() -> None:
    results = verdict_of(stage([0]), outcomes=[replace(RIGHT, unstable=True)], family="memory")
    assert {name: r.status for name, r in results.items()} == {"values": "pass", "inputs": "pass", "repeat": "differs"}
    assert "a second, identical call gave other bits" in results["repeat"].message


def test_a_claim_at_a_bound_promises_unchanged_inputs_all_the_same() -> None:
    results = verdict_of(stage([0]), outcomes=[replace(RIGHT, changed_inputs=("x",))], level="bound")
    assert (results["inputs"].claimed, results["inputs"].status) == ("exact", "differs")


@pytest.mark.parametrize("broken", [stage([7]), failed_stage("values", "output 0 must have shape (2,), got (1, 2)")])
def test_the_smallest_failing_case_is_the_one_that_is_kept(broken: StageResult) -> None:
    sizes = iter([5, 2, 4])

    def generate(draw: Any, claim: Claim) -> Case:
        return Case("made.up", {"x": host(np.zeros(next(sizes), np.float32))}, {})

    judge: Callable[..., list[StageResult]] = lambda case, outputs, claim: [broken]  # noqa: E731
    operation = Operation("made.up", "function", 1, {"values": "c"}, judge, {"normal": generate}, lambda case: {})
    results = run_task(Answers(RIGHT), Task(operation, "normal", Claim("made.up", {}), 3, 0, 0))
    case = results[0].tally.case
    assert case is not None
    assert case.array("x").shape == (2,)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [("exact", "tie", "tie"), ("bound", "exact", "bound"), (None, "exact", None), ("exact", None, None)],
)
def test_the_attained_level_of_several_cases_is_the_loosest(
    first: str | None, second: str | None, expected: str | None
) -> None:
    assert looser(first, second) == expected


def test_boundary_hits_and_the_window_of_codes_are_counted() -> None:
    measured = replace(stage([0, 1, 0]), distance=np.array([0.5, 2.5, 1.0]))
    tally = verdict_of(measured, level="tie")["values"].tally
    assert (tally.boundary_hits, tally.window) == (2, 2.5)


def test_the_window_leaves_blocked_codes_out() -> None:
    measured = replace(stage([0, 1], blocked=[False, True]), distance=np.array([0.5, 900.0]))
    assert verdict_of(measured, level="tie")["values"].tally.window == 0.0
