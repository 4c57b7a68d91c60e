"""Lattices: every order of summation gives the exact result, and every narrower operand or lost element another."""

from collections.abc import Iterator
from functools import cache
from itertools import product

import numpy as np
import pytest
from numpy.typing import NDArray

from qloracle.bounds import Roundings
from qloracle.int8_linear import weight_values
from qloracle.rounding import decode, encode
from qloracle_conformance.generators.case import Case
from qloracle_conformance.generators.linear import WIDE_LENGTHS
from qloracle_conformance.generators.quantized_linear import LATTICES as WEIGHT_LATTICES
from qloracle_conformance.operations.int8_linear import weight_of
from qloracle_conformance.registry import OPERATIONS

from .claims import case_of, cases_of
from .sums import ORDERS, evaluated, exact_product, exact_sum, float32_product, float32_sum, operands

LAYERS = ("lora.forward", "lora.backward", "qlora.forward", "qlora.backward")
ORDINARY = {"normal", "specials", "poison", "few"}  # families that are judged by the bound
LATTICES = [(name, family) for name in LAYERS for family in OPERATIONS[name].families if family not in ORDINARY]


def lattice_cases(operation: str, family: str, intermediate: str) -> Iterator[Case]:
    count = {"small_lattice": 18, "shapes": 9}.get(family, 3)
    return cases_of(operation, family, count, roundings=Roundings(intermediate=intermediate))


def in_float32(case: Case, order: str, intermediate: str) -> dict[str, NDArray[np.float32]]:
    """Every output in float32, in one order of summation, with the declared intermediate rounding."""

    def rounded(values: NDArray[np.float32]) -> NDArray[np.float32]:
        if intermediate == "float32":
            return values
        return decode(encode(values, intermediate), intermediate).astype(np.float32)

    return evaluated(case, float32_product(order), float32_sum, rounded)


@pytest.mark.parametrize("intermediate", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize(("operation", "family"), LATTICES)
def test_every_order_of_summation_gives_the_exact_result(operation: str, family: str, intermediate: str) -> None:
    for index, case in enumerate(lattice_cases(operation, family, intermediate)):
        assert case.lattice
        expected = evaluated(case, exact_product, exact_sum, lambda values: values)
        for order in ORDERS if intermediate == "float32" else ("matmul",):
            for name, got in in_float32(case, order, intermediate).items():
                right = got == expected[name]
                assert np.all(right), (
                    f"{operation}.{family}, case {index}, {name}: {np.sum(~right)} of {right.size} sums are not exact"
                    f" in {order} order with an intermediate of {intermediate}"
                )


@pytest.mark.parametrize("operation", LAYERS)
def test_families_of_ordinary_numbers_are_no_lattices(operation: str) -> None:
    for family in ORDINARY & set(OPERATIONS[operation].families):
        assert not any(case.lattice for case in cases_of(operation, family, 6)), f"{operation}.{family}"


@cache
def wide_family(operation: str) -> list[Case]:
    return list(cases_of(operation, "wide_lattice", 36))


def wide_cases(operation: str, length: int) -> list[Case]:
    """Those among the first cases of the wide lattice that have this inner dimension."""

    def inner(case: Case) -> int:
        return max(size for name in ("x", "dy") if (a := case.inputs.get(name)) for size in a.shape)

    return [case for case in wide_family(operation) if inner(case) == length]


@pytest.mark.parametrize("length", WIDE_LENGTHS)
@pytest.mark.parametrize("operation", ["lora.forward", "qlora.forward"])
def test_wide_lattices_have_one_element_a_row_and_reach_the_last_one(operation: str, length: int) -> None:
    cases = wide_cases(operation, length)
    assert len(cases) >= 6, f"{operation}: only {len(cases)} of 36 cases have an inner dimension of {length}"
    for case in cases:
        x = case.array("x").single()
        assert np.array_equal(np.count_nonzero(x, axis=1), np.ones(len(x))), "a row has no or several elements"
        assert {0, length - 1} <= set(np.flatnonzero(x.any(axis=0)).tolist()), "the first or last element is never used"
        mantissa, _ = np.frexp(np.abs(x[x != 0]))
        assert np.all(mantissa == 0.5), "an element is no power of two"


def test_the_inner_dimensions_of_wide_lattices_are_those_of_a_block_a_layer_and_a_feed_forward_layer() -> None:
    assert WIDE_LENGTHS == (64, 1024, 11008)


@pytest.mark.parametrize("length", WIDE_LENGTHS)
@pytest.mark.parametrize("operation", ["lora.backward", "qlora.backward"])
def test_wide_gradients_reach_the_last_element_of_the_long_sum(operation: str, length: int) -> None:
    cases = wide_cases(operation, length)
    assert len(cases) >= 6, f"{operation}: only {len(cases)} of 36 cases have a sum of {length}"
    for case in cases:
        dy, x = case.array("dy").single(), case.array("x").single()
        longest = dy if dy.shape[1] == length else dy.T if np.any(dy.T[:, -1]) else x.T
        assert longest.shape[1] == length
        assert np.any(longest[:, -1]), "the last element of the sum is never used"
        assert np.all(np.count_nonzero(longest, axis=1) <= 1), "a sum has several elements"


def narrowed(values: NDArray[np.float32], mantissa_bits: int) -> NDArray[np.float32]:
    """Values rounded to fewer mantissa bits, ties to even, without the code under test."""
    mantissa, exponent = np.frexp(values.astype(np.float64))
    return np.ldexp(np.rint(np.ldexp(mantissa, mantissa_bits + 1)), exponent - mantissa_bits - 1).astype(np.float32)


@pytest.mark.parametrize(("name", "mantissa_bits"), [("bfloat16", 7), ("TF32 or float16", 10)])
@pytest.mark.parametrize("length", WIDE_LENGTHS)
def test_a_narrower_operand_changes_most_results_of_a_wide_lattice(length: int, name: str, mantissa_bits: int) -> None:
    for case in wide_cases("lora.forward", length):
        if case.array("x").dtype != "float32" or case.term != "base":
            continue
        o = operands(case)
        right, wrong = o["x"] @ o["weight"].T, o["x"] @ narrowed(o["weight"], mantissa_bits).T
        changed = np.count_nonzero(right != wrong)
        assert changed * 10 > right.size * 9, f"K = {length}: {name} operands change {changed} of {right.size} results"
        return
    raise AssertionError(f"no float32 case of the base term at K = {length} among 36")


def test_wide_lattices_of_float32_set_the_last_bit_of_every_word() -> None:
    cases = [c for c in wide_cases("lora.forward", 64) if c.array("x").dtype == "float32" and c.term == "base"]
    assert cases
    for case in cases:
        words = case.array("weight").words()
        assert np.all(words & 1), "a word has no last significand bit"


def test_small_lattices_single_out_every_part_of_the_formula() -> None:
    terms = {case.term for case in cases_of("lora.forward", "small_lattice", 6)}
    assert terms == {"base", "bias", "adapter", "scale", "dropout", "whole"}


def test_a_scale_other_than_one_is_met_where_the_scale_is_singled_out_and_the_whole_is_judged() -> None:
    for term in ("scale", "whole"):
        cases = [c for c in cases_of("lora.forward", "small_lattice", 36) if c.term == term]
        scales = {c.options["alpha"] / c.array("lora_a").shape[0] for c in cases if not c.options["rank_stabilized"]}
        assert scales - {1.0}, f"{term}: the scale alpha/r is always 1"
        assert any(c.array("lora_a").shape[0] > 1 for c in cases), f"{term}: the rank is always 1"
        assert all(np.any(c.array("lora_b").items) for c in cases), f"{term}: B is zero"


@pytest.mark.parametrize("operation", [f"{k}_weight.{d}" for k in ("int8", "affine") for d in ("forward", "backward")])
def test_no_order_of_the_products_with_a_quantized_weight_overflows(operation: str) -> None:
    for family, seed in (*product(WEIGHT_LATTICES, (0,)), *product(("exponents",), range(1, 4))):
        for index in range((12 if family == "exponents" else 3) if family in OPERATIONS[operation].families else 0):
            case = case_of(operation, family, index, seed)
            rows = case.array("dy" if "dy" in case.inputs else "x").real()
            weight = np.abs(weight_values(weight_of(case))).astype(np.float64)
            sums = np.abs(rows.reshape(-1, rows.shape[-1])) @ (weight if "dy" in case.inputs else weight.T)
            assert sums.size == 0 or sums.max() < np.finfo(np.float32).max, (family, seed, index, sums.max())
