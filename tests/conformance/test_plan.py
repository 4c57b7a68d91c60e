"""The plan of a run: what is claimed and selected, and how large it is."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from qloracle_conformance.adapters.reference import backend as reference
from qloracle_conformance.backend import BackendInfo, Claim, describe
from qloracle_conformance.plan import LISTED, PROFILES, Plan, UsageError, make_plan
from qloracle_conformance.registry import OPERATIONS, SEQUENCES, properties

REFERENCE = describe(reference())


def plan_of(*claims: Claim, functions: Sequence[str] = REFERENCE.functions, **options: Any) -> Plan:
    info = BackendInfo("made up", "1", tuple(functions), claims or REFERENCE.claims, {})
    return make_plan(info, options.pop("profile", "smoke"), options.pop("seed", 0), **options)


def names(plan: Plan) -> list[str]:
    return [f"{task.operation.name}.{task.family}" for task in plan.tasks]


def test_everything_that_is_claimed_is_planned_once() -> None:
    plan = plan_of()
    expected = [f"{name}.{family}" for name, op in OPERATIONS.items() for family in op.families]
    assert names(plan) == [*expected, *(f"{name}.walk" for name in SEQUENCES)]
    assert plan.properties == frozenset(properties())
    assert (list(plan.unclaimed), list(plan.absent)) == ([], [])


def test_nothing_is_planned_that_is_not_claimed() -> None:
    plan = plan_of(Claim("packing.pack", {}))
    assert names(plan) == [f"packing.pack.{family}" for family in OPERATIONS["packing.pack"].families]
    assert list(plan.unclaimed) == [name for name in OPERATIONS if name != "packing.pack"]


def test_what_is_claimed_without_a_function_is_absent_and_not_planned() -> None:
    plan = plan_of(Claim("packing.pack", {}), functions=())
    assert (names(plan), list(plan.absent)) == ([], ["packing.pack"])


def test_a_selection_names_only_its_own_operations_as_not_claimed() -> None:
    plan = plan_of(Claim("packing.pack", {}), only="packing.*")
    others = [n for n in OPERATIONS if n.startswith("packing.") and n != "packing.pack"]
    assert list(plan.unclaimed) == others


def test_a_selected_stage_is_reported_and_its_whole_family_is_run() -> None:
    plan = plan_of(only="nf4.quantize.*.boundaries", stage="codes")
    assert names(plan) == ["nf4.quantize.boundaries"]
    assert plan.properties == {"nf4.quantize.codes.boundaries"}


def test_profiles_change_sizes_and_nothing_else() -> None:
    for name, profile in PROFILES.items():
        plan = plan_of(profile=name)
        assert plan.properties == frozenset(properties())
        assert names(plan) == names(plan_of())
        sizes = {task.cases for task in plan.tasks if task.family not in ("sweep", "walk")}
        assert sizes == {profile.cases}
        assert {task.cases for task in plan.tasks if task.family == "walk"} == {profile.walks}
        assert {task.examples for task in plan.tasks if task.family not in LISTED} == {profile.examples}
        assert {task.examples for task in plan.tasks if task.family in LISTED} == {0}


def test_the_smallest_profile_leaves_the_search_out_and_the_others_search() -> None:
    assert PROFILES["smoke"].examples == 0
    assert 0 < PROFILES["default"].examples < PROFILES["thorough"].examples


def test_a_whole_sweep_is_run_by_the_profiles_from_default_on() -> None:
    for profile in ("default", "thorough"):
        plan = plan_of(profile=profile, only="bfloat16.encode.bits.sweep")
        assert [task.cases for task in plan.tasks] == [16]


def test_exploring_searches_in_every_profile() -> None:
    for profile in PROFILES:
        assert all(task.examples >= 100 for task in plan_of(profile=profile, explore=True).tasks)


def test_the_seed_reaches_every_task() -> None:
    assert {task.seed for task in plan_of(seed=17).tasks} == {17}


@pytest.mark.parametrize(
    ("claims", "options", "message"),
    [
        ((), {"profile": "huge"}, "profile must be one of smoke, default, thorough, got 'huge'"),
        ((), {"only": "nf5.*"}, "no property matches --only nf5.* --stage *"),
        ((), {"stage": "cods"}, "no property matches --only * --stage cods"),
        ((), {"only": "packing.*", "stage": "absmax"}, "no property matches --only packing.* --stage absmax"),
        ((Claim("nf5.quantize", {}),), {}, "claims unknown operation 'nf5.quantize'; known: bfloat16.encode"),
        ((Claim("nf4.quantize", {"cods": "exact"}),), {}, "claims unknown stages of 'nf4.quantize': cods"),
        ((Claim("packing.pack", {}), Claim("packing.pack", {})), {}, "claims 'packing.pack' twice"),
        (
            (Claim("lora.forward", {"*": "exact"}),),
            {},
            "claims lora.forward.base at level exact; the strictest",
        ),
        (
            (Claim("int8.scale", {}),),
            {},
            "int8.scale.y at level exact; the strictest that can be judged is bound",
        ),
        ((Claim("lora.forward", {"*": "bound", "scale": "tie"}),), {}, "claims lora.forward.scale at level tie"),
        ((Claim("packing.pack", {}, ndims=(0,)),), {}, "for ndims (0,), none of which is 1 to 4"),
        (
            (Claim("adamw.stochastic", {"*": "bound"}, dtypes=("float32",)),),
            {},
            "claims 'adamw.stochastic' for dtypes ('float32',); it is defined for float16, bfloat16",
        ),
    ],
)
def test_what_makes_no_run_is_refused_with_its_reason(
    claims: tuple[Claim, ...], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError) as caught:
        plan_of(*claims, **options)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"levels": {"codes": "nearly"}},
            r"levels\['codes'\] of nf4.quantize must be one of exact, tie, bound, got 'nearly'",
        ),
        ({"layouts": ("tiled",)}, "layouts of nf4.quantize must be among contiguous, .*, got 'tiled'"),
        ({"basis": "promised"}, "source of nf4.quantize must be given for a promised claim, got ''"),
    ],
)
def test_a_claim_that_says_nothing_sensible_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(Claim("nf4.quantize", {}), **fields)
