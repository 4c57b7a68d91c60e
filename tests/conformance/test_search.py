"""The search: Hypothesis drives the same generators, finds what enumeration did not, and shrinks it."""

from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from qloracle_conformance.adapters.reference import OPS
from qloracle_conformance.adapters.reference import backend as reference
from qloracle_conformance.arrays import HostArray, host
from qloracle_conformance.backend import Claim
from qloracle_conformance.execution import InProcess
from qloracle_conformance.generators.case import Case
from qloracle_conformance.registry import OPERATIONS
from qloracle_conformance.run import run_task
from qloracle_conformance.search import HypothesisDraw, search
from qloracle_conformance.task import Task
from qloracle_conformance.verdicts import PropertyResult

from .claims import CLAIMS, FAMILIES, each, same_bits, task_of


def backend_with(name: str, function: Callable[..., Any]) -> InProcess:
    return InProcess(replace(reference(), ops={**OPS, name: function}))


def found_by(executor: InProcess, task: Task) -> dict[str, PropertyResult]:
    return {r.stage: r for r in run_task(executor, task, search)}


def pack_wrong_from_three_on(codes: HostArray, *, pad_code: int) -> HostArray:
    """The right bytes, but for the last one of three codes or more."""
    packed = OPS["pack_4bit"](codes, pad_code=pad_code).items.copy()
    if codes.items.size >= 3:
        packed[-1] ^= 1
    return host(packed)


def test_a_fault_that_only_the_search_could_find_is_found() -> None:
    executor = backend_with("pack_4bit", pack_wrong_from_three_on)
    task = task_of("packing.pack", "shapes", cases=0, examples=50)
    assert found_by(executor, task)["packed"].status == "differs"


def test_the_failing_case_is_shrunk_to_the_smallest_one() -> None:
    executor = backend_with("pack_4bit", pack_wrong_from_three_on)
    case = found_by(executor, task_of("packing.pack", "shapes", cases=0, examples=50))["packed"].tally.case
    assert case is not None
    assert case.array("codes").shape == (3,)
    assert case.options["pad_code"] == 0  # the first of the options is the simplest


def test_a_search_of_a_right_backend_finds_nothing_and_counts_its_cases() -> None:
    result = found_by(InProcess(reference()), task_of("packing.pack", "shapes", cases=0, examples=20))["packed"]
    assert (result.status, result.tally.cases) == ("pass", 20)


def test_two_searches_with_one_seed_try_the_same_cases() -> None:
    def tried(seed: int) -> list[bytes]:
        seen: list[bytes] = []

        def pack(codes: HostArray, *, pad_code: int) -> HostArray:
            seen.append(codes.items.tobytes())
            result: HostArray = OPS["pack_4bit"](codes, pad_code=pad_code)
            return result

        found_by(backend_with("pack_4bit", pack), task_of("packing.pack", "shapes", cases=0, examples=20, seed=seed))
        return seen

    assert tried(1) == tried(1)
    assert tried(1) != tried(2)


def test_nothing_is_searched_where_the_enumerated_cases_failed_already() -> None:
    executor = backend_with(
        "pack_4bit", lambda codes, *, pad_code: host(np.zeros((codes.items.size + 1) // 2, np.uint8))
    )
    result = found_by(executor, task_of("packing.pack", "shapes", cases=4, examples=50))["packed"]
    assert (result.status, result.tally.cases) == ("differs", 4)


def test_a_backend_that_raises_during_the_search_is_an_error_and_is_not_asked_again() -> None:
    calls = []

    def pack(codes: HostArray, *, pad_code: int) -> HostArray:
        calls.append(0)
        raise RuntimeError("out of memory")

    executor = backend_with("pack_4bit", pack)
    result = found_by(executor, task_of("packing.pack", "shapes", cases=0, examples=50))["packed"]
    assert (result.status, result.message) == ("error", "raised: RuntimeError: out of memory")
    assert len(calls) == 1


def test_a_nondeterministic_backend_does_not_break_the_search() -> None:
    calls = []

    def pack(codes: HostArray, *, pad_code: int) -> HostArray:
        calls.append(0)
        packed = OPS["pack_4bit"](codes, pad_code=pad_code).items.copy()
        packed ^= len(calls) % 5 == 0
        return host(packed)

    executor = backend_with("pack_4bit", pack)
    assert found_by(executor, task_of("packing.pack", "shapes", cases=0, examples=50))["packed"].status == "differs"


def drawn_by_hypothesis(generate: Callable[..., Case], claim: Claim, count: int) -> list[Case]:
    drawn: list[Case] = []

    @hypothesis.seed(0)
    @hypothesis.settings(max_examples=count, database=None, deadline=None, phases=[hypothesis.Phase.generate])
    @hypothesis.given(st.data())
    def draw_one(data: st.DataObject) -> None:
        drawn.append(generate(HypothesisDraw(data.draw), claim))

    draw_one()
    return drawn


@pytest.mark.parametrize("operation", each())
def test_hypothesis_can_draw_from_every_family(operation: str) -> None:
    for family, generate in OPERATIONS[operation].families.items():
        cases = drawn_by_hypothesis(generate, CLAIMS[operation], 2)
        assert {case.operation for case in cases} == {operation}, f"{operation}.{family}"


def test_the_same_choices_give_the_same_case_under_both_drivers() -> None:
    class First:
        """The simplest choice everywhere, with the contents of key 0: what Hypothesis shrinks to."""

        def choice(self, options: Any) -> Any:
            return options[0]

        def integer(self, low: int, high: int) -> int:
            return low

        def random(self) -> np.random.Generator:
            return np.random.Generator(np.random.Philox(key=0))

    operation, family = "nf4.quantize", "shapes"
    generate = OPERATIONS[operation].families[family]

    @st.composite
    def cases(draw: st.DrawFn) -> Case:
        return generate(HypothesisDraw(draw), CLAIMS[operation])

    smallest = hypothesis.find(
        cases(),
        lambda case: True,
        settings=hypothesis.settings(database=None),
        random=Random(0),  # noqa: S311
    )
    assert same_bits(smallest, generate(First(), CLAIMS[operation]))


def test_every_family_has_a_name_that_is_a_slug() -> None:
    for _, family in FAMILIES:
        assert family.replace("_", "").isalpha()
        assert family == family.lower()
