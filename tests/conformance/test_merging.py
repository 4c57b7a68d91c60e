"""Merges: declared roundings are allowed and others are not; a refusal is judged; failures are reduced and replayed."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qloracle.bounds import Roundings
from qloracle.lora import lora_scale
from qloracle.rounding import decode, encode
from qloracle_conformance.adapters.reference import OPS
from qloracle_conformance.adapters.reference import backend as reference
from qloracle_conformance.arrays import HostArray, host
from qloracle_conformance.backend import Backend, Level, describe
from qloracle_conformance.execution import InProcess
from qloracle_conformance.merge_reduction import merge_candidates
from qloracle_conformance.run import judge_case, run_task
from qloracle_conformance.verdicts import PropertyResult, fresh_state
from qloracle_conformance.witness import read_witness, write_witness

from .claims import case_of, cases_of, task_of

Op = Callable[..., Any]
FAMILIES = ("small_lattice", "wide_lattice", "ties", "ramps", "tiles", "exponents", "normal", "specials")


def with_op(function: str, op: Op) -> Backend:
    base = reference()
    return replace(base, ops={**base.ops, function: op})


def broken(function: str, op: Op, operation: str, family: str, count: int = 24, **claim: Any) -> list[PropertyResult]:
    results = run_task(InProcess(with_op(function, op)), task_of(operation, family, cases=count, **claim))
    return [r for r in results if r.status not in ("pass", "not-judged")]


def as_a_library_does(fmt: str) -> Op:
    """B A, then s B A, rounded to `fmt`; the sum in float32; the result in the weight's format."""

    def merge(weight: HostArray, lora_a: HostArray, lora_b: HostArray, **options: Any) -> HostArray:
        def rounded(values: Any) -> Any:
            return decode(encode(values, fmt), fmt)

        a, b = lora_a.real(), lora_b.real()
        scale = lora_scale(options["alpha"], len(a), rank_stabilized=options["rank_stabilized"])
        with np.errstate(all="ignore"):
            change = rounded(scale * rounded((b @ a).astype(np.float32)))
            total = (weight.real() + (change.T if options["fan_in_fan_out"] else change)).astype(np.float32)
        return host(np.asarray(encode(total, weight.dtype)), weight.dtype)

    return merge


@pytest.mark.parametrize("fmt", ["bfloat16", "float16"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_declared_rounding_of_the_change_is_never_accused(family: str, fmt: str) -> None:
    # float16 holds no large exponents: a library that declares it is claimed for float16 weights.
    dtypes = ("float32", "bfloat16", "float16") if fmt == "bfloat16" else ("float16",)
    found = broken("lora_merge", as_a_library_does(fmt), "lora.merge", family, dtypes=dtypes,
                   roundings=Roundings(adapter=fmt))  # fmt: skip
    assert not found, f"{found[0].id}: {found[0].message}"


def test_an_undeclared_rounding_of_the_change_is_caught_on_a_lattice_in_every_format() -> None:
    for dtype in ("float32", "bfloat16"):
        found = broken("lora_merge", as_a_library_does("bfloat16"), "lora.merge", "small_lattice", dtypes=(dtype,))
        assert [r.stage for r in found] == ["weight"], f"{dtype}: {found}"


def test_a_refusal_counts_only_with_the_old_weight_and_only_where_it_is_due() -> None:
    def refuses(weight: HostArray, **rest: Any) -> tuple[HostArray, HostArray]:
        return weight, host(np.array(False))

    def forgets(weight: HostArray, **rest: Any) -> tuple[HostArray, HostArray]:
        merged, accepted = OPS["lora_merge_safe"](weight, **rest)
        return (merged if accepted.items else HostArray(np.zeros_like(merged.items), merged.dtype)), accepted

    stages = [r.stage for r in broken("lora_merge_safe", refuses, "lora.merge_safe", "small_lattice")]
    assert stages == ["accepted"]
    assert not broken("lora_merge_safe", refuses, "lora.merge_safe", "specials"), "there every merge is refused"
    stages = [r.stage for r in broken("lora_merge_safe", forgets, "lora.merge_safe", "specials")]
    assert stages == ["weight"], "zeros are not the weight as it was"


def test_cases_of_safe_merges_are_accepted_and_refused() -> None:
    counts = {True: 0, False: 0}
    for family in ("exponents", "normal", "specials"):
        for case in cases_of("lora.merge_safe", family, 24):
            arguments = {**case.inputs, **case.options}
            _, accepted = OPS["lora_merge_safe"](**arguments)
            counts[bool(accepted.items)] += 1
    assert min(counts.values()) >= 10, f"accepted and refused: {counts}"


def test_a_named_mistake_explains_a_wrong_scale() -> None:
    def unscaled(alpha: float, lora_a: HostArray, rank_stabilized: bool, **rest: Any) -> HostArray:
        rank = lora_a.shape[0]
        unit = rank**0.5 if rank_stabilized else rank
        made: HostArray = OPS["lora_merge"](alpha=alpha * unit, lora_a=lora_a, rank_stabilized=rank_stabilized, **rest)
        return made

    found = broken("lora_merge", unscaled, "lora.merge", "small_lattice")
    finding = found[0].tally.finding
    assert finding is not None
    assert finding.cause == "alpha is used instead of alpha/r"


@pytest.mark.parametrize("operation", ["lora.merge", "lora.unmerge", "dora.merge"])
def test_a_failing_merge_is_reduced_to_a_row_or_an_element(operation: str) -> None:
    function = operation.replace(".", "_")

    def wrong(**arguments: Any) -> Any:
        return OPS[function](**{**arguments, "alpha": 2 * arguments["alpha"]})

    executor, task = InProcess(with_op(function, wrong)), task_of(operation, "small_lattice")
    for fan in (False, True):
        case = case_of(operation, "small_lattice", 3, options={"fan_in_fan_out": (fan,)})
        element = case.array("weight").items.size - 1
        smaller = next(merge_candidates(case, element))
        size = smaller.array("weight").items.size
        assert size == (1 if operation != "dora.merge" else smaller.array("lora_a").shape[1]), f"{size} elements remain"
        state = fresh_state(task)
        judge_case(executor, task, smaller, state)
        assert state.failure is None, state.failure


def test_names_patterns_and_their_order_come_back_from_a_witness(tmp_path: Path) -> None:
    for operation, stage in (("adapters.patterns", "rank"), ("adapters.targets", "selected"), ("int8.merge", "codes")):
        family = {"adapters.patterns": "patterns", "adapters.targets": "excluded"}.get(operation, "small_lattice")
        results = run_task(InProcess(reference()), task_of(operation, family))
        result = next(each for each in results if each.stage == stage)
        for index in range(4):
            case = case_of(operation, family, index)
            path = write_witness(tmp_path, "m:b", "cpu", describe(reference()), task_of(operation, family),
                                 result, case)  # fmt: skip
            back = read_witness(path).case
            assert dict(back.options) == dict(case.options)
            if operation == "adapters.patterns":
                assert list(back.options["rank_pattern"]) == list(case.options["rank_pattern"]), "the first one wins"


def test_a_claim_at_level_bound_admits_a_start_in_float32_and_one_at_level_exact_does_not() -> None:
    def in_float32(draws: HostArray, **options: Any) -> tuple[HostArray, HostArray]:
        right = OPS["lora_init"](draws, **options)
        if options["initialization"] != "kaiming":
            return right  # type: ignore[no-any-return]
        bound = np.float32(1) / np.sqrt(np.float32(draws.shape[1]))
        values = draws.items * (bound + bound) - bound
        return host(np.asarray(encode(values, options["dtype"])), options["dtype"]), right[1]

    levels: dict[str, Level] = {"*": "exact"}
    assert broken("lora_init", in_float32, "lora.init", "normal", levels=levels)
    assert not broken("lora_init", in_float32, "lora.init", "normal", levels={"*": "exact", "lora_a": "bound"})
