"""Options of conversions: what a claim lists is generated and passed, and nothing else is."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from qloracle.formats import FORMATS, format_named
from qloracle_conformance.adapters.reference import OPS
from qloracle_conformance.adapters.reference import backend as reference
from qloracle_conformance.arrays import HostArray
from qloracle_conformance.backend import Backend, Claim
from qloracle_conformance.execution import InProcess
from qloracle_conformance.finding import show
from qloracle_conformance.judge import NAN_ORDINAL, NO_WORD_ORDINAL, float_ordinals, words_at
from qloracle_conformance.plan import make_plan
from qloracle_conformance.registry import OPERATIONS
from qloracle_conformance.run import run_task

from .claims import CLAIMS, cases_of

ENCODES = [f"{fmt}.encode" for fmt in FORMATS]


def encode_of_two_arguments(values: HostArray, *, fmt: str) -> HostArray:
    """A conversion that knows no option."""
    result: HostArray = OPS["encode"](values, fmt=fmt)
    return result


def backend_with(options: Mapping[str, tuple[object, ...]]) -> Backend:
    """A backend that claims conversions with some options, and takes none."""
    base = reference()
    claims = tuple(Claim(name, {"*": "exact"}, options=options) for name in ENCODES)
    return replace(base, ops={"encode": encode_of_two_arguments}, claims=claims)


def statuses(backend: Backend, only: str) -> dict[str, str]:
    """The status of every property of some operations."""
    executor = InProcess(backend)
    plan = make_plan(executor.info, "smoke", 0, only)
    return {result.id: result.status for task in plan.tasks for result in run_task(executor, task)}


@pytest.mark.parametrize("fmt", ["bfloat16", "float8_e4m3fn", "float4_e2m1fn", "float32", "float64"])
def test_a_backend_that_claims_no_option_passes_without_knowing_any(fmt: str) -> None:
    found = statuses(backend_with({}), f"{fmt}.encode")
    unclaimed = {name.removeprefix(f"{fmt}.encode.") for name, status in found.items() if status == "not-claimed"}
    expected = {"stochastic.stochastic"} | ({"nan.nans"} if not format_named(fmt).has_nan else set())
    assert unclaimed == expected, f"{fmt}: not claimed are {unclaimed}"
    assert set(found.values()) <= {"pass", "not-claimed"}, f"{fmt}: {found}"


def test_a_claimed_option_is_passed() -> None:
    found = statuses(backend_with({"rounding": ("ties_to_even", "toward_zero")}), "bfloat16.encode.*.directions")
    assert "error" in found.values(), f"toward_zero was claimed and never asked for: {found}"


@pytest.mark.parametrize("operation", ENCODES)
def test_every_claimed_value_of_every_option_is_generated(operation: str) -> None:
    fmt, claim = operation.removesuffix(".encode"), CLAIMS[operation]
    used: dict[str, set[Any]] = {name: set() for name in claim.options}
    families = ("integers", "directions", "overflow", "stochastic", "nans", "subnormals", "doubles")
    for family in families:
        if family not in OPERATIONS[operation].families:
            continue
        for case in cases_of(operation, family, 20):
            used["source"].add(case.array("values").dtype)
            for name in ("rounding", "overflow", "nan"):
                used[name].add(case.options.get(name, claim.options[name][0]))
    for name, values in claim.options.items():
        assert used[name] >= set(values), f"{fmt}: {name} never took {set(values) - used[name]}"


@pytest.mark.parametrize("fmt", FORMATS)
def test_ordinals_count_the_values_of_a_format_in_order(fmt: str) -> None:
    named = format_named(fmt)
    magnitudes = np.unique(np.linspace(0, named.finite_magnitude, 500).astype(np.int64))
    negative = -magnitudes[::-1] - 1 if named.signed else np.empty(0, np.int64)
    negative = negative[negative < -1] if not named.negative_zero else negative
    ordinals = np.concatenate([negative, magnitudes])
    words = words_at(ordinals, fmt)
    assert float_ordinals(words, fmt).tolist() == ordinals.tolist()
    if named.has_nan:
        assert float_ordinals(words_at(np.array([NAN_ORDINAL]), fmt), fmt).tolist() == [NAN_ORDINAL]


@pytest.mark.parametrize(("fmt", "word"), [("float4_e2m1fn", 0x81), ("float6_e3m2fn", 0x40), ("tfloat32", 0x3F800001)])
def test_a_word_that_the_format_does_not_have_is_no_value(fmt: str, word: int) -> None:
    ordinal = float_ordinals(np.array([word], format_named(fmt).word), fmt)
    assert ordinal.tolist() == [NO_WORD_ORDINAL]
    assert show(int(ordinal[0]), fmt) == f"no word of {fmt}"
