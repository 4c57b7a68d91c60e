"""Reducing a failing case: what is left holds the failing element, and is one block, one row or one element."""

from collections.abc import Callable

import numpy as np
import pytest

from qloracle_conformance.arrays import host
from qloracle_conformance.generators.case import Case
from qloracle_conformance.reduction import candidates, reduced
from qloracle_conformance.registry import OPERATIONS

from .claims import case_of, cases_of, each


def quantize_case(shape: tuple[int, ...], block_size: int) -> Case:
    x = np.arange(1, 1 + int(np.prod(shape)), dtype=np.float32).reshape(shape)
    return Case("nf4.quantize", {"x": host(x)}, {"codebook": "nf4", "block_size": block_size})


def holding(value: float, name: str = "x") -> Callable[[Case], bool]:
    """Fails as long as an input holds this value."""
    return lambda case: value in case.array(name).items


def test_a_quantizer_s_case_is_reduced_to_the_block_of_the_failing_element() -> None:
    smallest = reduced(quantize_case((5, 7), 4), 18, holding(19.0))  # element 18 lies in block 4
    assert smallest.array("x").items.tolist() == [17.0, 18.0, 19.0, 20.0]


def test_an_index_that_counts_blocks_leads_to_that_block() -> None:
    smallest = reduced(quantize_case((40,), 4), 7, holding(30.0))
    assert smallest.array("x").items.tolist() == [29.0, 30.0, 31.0, 32.0]


def test_an_index_that_counts_packed_bytes_leads_to_the_block_of_its_codes() -> None:
    smallest = reduced(quantize_case((64,), 16), 18, holding(37.0))  # byte 18 holds elements 36 and 37
    assert smallest.array("x").items[[0, -1]].tolist() == [33.0, 48.0]


def test_the_short_last_block_stays_short() -> None:
    smallest = reduced(quantize_case((10,), 4), 9, holding(10.0))
    assert smallest.array("x").items.tolist() == [9.0, 10.0]


def test_a_case_of_which_no_part_fails_stays_whole() -> None:
    case = quantize_case((5, 7), 4)
    assert reduced(case, 18, lambda part: part.array("x").items.size == 35) is case


def test_a_packed_tensor_is_reduced_to_one_block_with_its_own_absmax() -> None:
    data = np.arange(32, dtype=np.uint8)
    absmax = np.arange(1, 5, dtype=np.float32)
    options = {"codebook": "nf4", "block_size": 16, "shape": (4, 16), "dtype": "float32"}
    case = Case("nf4.dequantize", {"data": host(data), "absmax": host(absmax)}, options)
    smallest = reduced(case, 37, lambda part: part is not case)
    assert smallest.array("data").items.tolist() == list(range(16, 24))
    assert smallest.array("absmax").items.tolist() == [3.0]
    assert smallest.options == {**options, "shape": (16,)}


def test_plain_codes_are_reduced_to_one_block() -> None:
    codes = np.arange(40, dtype=np.uint8)
    options = {"codebook": "dynamic_signed", "block_size": 16, "shape": (40,), "dtype": "float32"}
    inputs = {"data": host(codes), "absmax": host(np.array([1, 2, 3], np.float32))}
    smallest = reduced(
        Case("dynamic_signed.dequantize", inputs, options), 39, lambda part: part.options["shape"] == (8,)
    )
    assert smallest.array("data").items.tolist() == list(range(32, 40))
    assert smallest.array("absmax").items.tolist() == [3.0]


def test_a_conversion_is_reduced_to_one_number() -> None:
    case = Case("bfloat16.encode", {"values": host(np.arange(9, dtype=np.float32))}, {"fmt": "bfloat16"})
    assert reduced(case, 5, holding(5.0, "values")).array("values").items.tolist() == [5.0]


@pytest.mark.parametrize(("granularity", "expected"), [("row", [[4.0, 5.0, 6.0]]), ("column", [[2.0], [5.0], [8.0]])])
def test_an_int8_case_is_reduced_to_the_row_or_column_of_the_failing_element(
    granularity: str, expected: list[list[float]]
) -> None:
    x = np.arange(1, 10, dtype=np.float32).reshape(3, 3)
    options = {"granularity": granularity, "block_size": None}
    smallest = reduced(Case(f"int8_{granularity}.quantize", {"x": host(x)}, options), 4, holding(5.0))
    assert smallest.array("x").items.tolist() == expected


def test_a_layer_is_reduced_to_one_row_against_one_row_of_the_weight() -> None:
    case = case_of("lora.forward", "ramps")
    columns = case.array("weight").shape[0]
    row, column = 2, 3
    smallest = reduced(case, row * columns + column, lambda part: part is not case)
    assert smallest.array("x").items.tolist() == case.array("x").items[row : row + 1].tolist()
    assert smallest.array("weight").items.tolist() == case.array("weight").items[column : column + 1].tolist()
    assert smallest.array("lora_b").items.tolist() == case.array("lora_b").items[column : column + 1].tolist()
    assert smallest.array("lora_a").shape == case.array("lora_a").shape


@pytest.mark.parametrize("layout", ["offset", "strided", "transposed"])
def test_a_case_in_another_layout_is_not_reduced_for_the_layout_may_be_the_reason(layout: str) -> None:
    case = case_of("nf4.quantize", "memory", layouts=(layout,))
    assert list(candidates(case, 3)) == []


@pytest.mark.parametrize("operation", each())
def test_every_candidate_is_a_smaller_call_of_the_same_operation(operation: str) -> None:
    def size(case: Case) -> int:
        return sum(a.items.size for a in case.inputs.values() if a is not None)

    for family in ("normal", "ramps", "small_lattice", "specials", "exponents", "ties"):
        if family not in case_families(operation):
            continue
        case = case_of(operation, family)
        for candidate in candidates(case, 5):
            assert candidate.operation == operation
            assert set(candidate.inputs) == set(case.inputs)
            assert size(candidate) <= size(case), f"{operation}.{family}: a candidate is larger than the case"


def case_families(operation: str) -> set[str]:
    from qloracle_conformance.registry import OPERATIONS

    return set(OPERATIONS[operation].families)


@pytest.mark.parametrize("operation", each())
def test_every_case_can_be_cut_down_whatever_it_lacks(operation: str) -> None:
    for family in OPERATIONS[operation].families:
        for case in cases_of(operation, family, 3):
            assert all(part.elements <= case.elements for part in candidates(case, 0))
