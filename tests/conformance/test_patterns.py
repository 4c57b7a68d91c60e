"""Patterns: where failing elements lie, in the fewest words that fit."""

import numpy as np
import pytest
from numpy.typing import NDArray

from qloracle_conformance.patterns import describe_pattern


def failing(size: int, *where: int | slice) -> NDArray[np.bool_]:
    wrong = np.zeros(size, np.bool_)
    for place in where:
        wrong[place] = True
    return wrong


@pytest.mark.parametrize(
    ("wrong", "row_length", "block_size", "expected"),
    [
        (failing(8), 0, 0, ""),
        (failing(0), 0, 0, ""),
        (failing(8, 5), 0, 0, "element 5 alone, of 8"),
        (failing(1, 0), 0, 0, "element 0 alone, of 1"),
        (failing(8, slice(None)), 0, 0, "all 8 elements"),
        (failing(64, slice(1, None, 2)), 0, 0, "odd elements (low nibbles): 32 of 32"),
        (failing(64, slice(0, None, 2)), 0, 0, "even elements (high nibbles): 32 of 32"),
        (failing(64, slice(1, 60, 2)), 0, 0, "odd elements (low nibbles): 30 of 32"),
        (failing(100, slice(96, 100)), 0, 32, "the short last block: 4 of 4"),
        (failing(100, slice(96, 99)), 0, 32, "the short last block: 3 of 4"),
        (failing(128, slice(96, 128)), 0, 32, "block 3: 32 of 32"),
        (failing(128, slice(32, 64)), 0, 32, "block 1: 32 of 32"),
        (failing(128, slice(32, 64), slice(96, 128)), 0, 32, "blocks 1, 3: 64 of 64"),
        (failing(128, slice(31, None, 32)), 0, 32, "element 31 of each block: 4 of 4"),
        (failing(60, slice(12, 24)), 12, 0, "row 1: 12 of 12"),
        (failing(60, slice(48, 60)), 12, 0, "row 4: 12 of 12"),
        (failing(60, slice(5, None, 12)), 12, 0, "column 5: 5 of 5"),
        (failing(60, slice(12, None)), 12, 0, "rows 1, 2, 3, 4: 48 of 48"),
        (failing(72, slice(12, None)), 12, 0, "rows 1, 2, 3, 4 … (5): 60 of 60"),
        (failing(128, slice(31, None, 32)), 0, 0, "lane 31 of 32: 4 of 4"),
        (failing(128, slice(3, None, 4)), 0, 0, "lane 3 of 4: 32 of 32"),
        (failing(128, slice(7, None, 16)), 0, 0, "lane 7 of 16: 8 of 8"),
        (failing(8, 1, 5), 0, 0, "lane 1 of 4: 2 of 2"),
        (failing(100, slice(77, None)), 0, 0, "elements from 77 on: 23 of 23"),
        (failing(1000, 3, 500, 712), 0, 0, "scattered: 3 of 1000, first 3, last 712"),
    ],
)
def test_the_tightest_pattern_is_named(
    wrong: NDArray[np.bool_], row_length: int, block_size: int, expected: str
) -> None:
    assert describe_pattern(wrong, row_length, block_size) == expected


def test_the_shape_of_the_output_does_not_matter() -> None:
    wrong = failing(60, slice(12, 24))
    assert describe_pattern(wrong.reshape(5, 12), 12) == describe_pattern(wrong, 12)


def test_a_pattern_of_which_less_than_half_fails_is_not_claimed() -> None:
    wrong = failing(64, 1, 9, 21, 35)
    assert describe_pattern(wrong).startswith("scattered: 4 of 64")
