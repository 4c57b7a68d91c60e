"""What is counted for a report's plots: ordinal errors, used parts, wrong codes on their steps, failing places."""

import numpy as np
import pytest

from qloracle_conformance.distribution import Distribution
from qloracle_conformance.judge import (
    NAN_ORDINAL,
    NO_WORD_ORDINAL,
    Allowed,
    CodeSteps,
    StageResult,
    exactly,
    float_ordinals,
)
from qloracle_conformance.places import WINDOW, places_of


def ordinals(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def counted(result: StageResult, claimed: str = "exact") -> dict[str, object]:
    made = Distribution()
    made.add(result, result.failing(claimed))
    return made.as_json()


def test_ordinal_errors_are_counted_by_signed_powers_of_two() -> None:
    result = StageResult("s", ordinals(0, 1, 2, 3, 4, -1, -7, -8), {"exact": exactly(np.zeros(8, np.int64))})
    assert counted(result)["ordinal_errors"] == {"-8": 1, "-4": 1, "-1": 1, "0": 1, "1": 1, "2": 2, "4": 1}


def test_a_nan_against_a_number_is_no_distance_and_two_nans_are_none() -> None:
    right, got = ordinals(5, NAN_ORDINAL, NAN_ORDINAL, 5), ordinals(NAN_ORDINAL, 5, NAN_ORDINAL, NO_WORD_ORDINAL)
    assert counted(StageResult("s", got, {"exact": exactly(right)}))["ordinal_errors"] == {"0": 1, "nan": 3}


def test_a_large_distance_between_float64_numbers_or_integers_is_no_nan() -> None:
    result = StageResult("s", ordinals(1 << 61), {"exact": exactly(ordinals(-(1 << 61)))})
    assert counted(result)["ordinal_errors"] == {str(1 << 62): 1}


def test_blocked_and_unjudged_elements_are_not_counted() -> None:
    info = np.iinfo(np.int64)
    limits = Allowed(ordinals(info.min, 0, 0), ordinals(info.max, 0, 0))
    result = StageResult("s", ordinals(9, 9, 0), {"exact": limits}, blocked=np.array([False, True, False]))
    assert counted(result)["ordinal_errors"] == {"0": 1}


def test_a_sum_is_compared_with_the_exact_sum_rounded_once_and_both_zeros_are_one() -> None:
    minus_zero, least = float_ordinals(np.array([0x80000000, 0x80000001], np.uint32), "float32").tolist()
    result = StageResult(
        "s", ordinals(minus_zero, 3, least), {"bound": Allowed(np.full(3, -9), np.full(3, 9))},
        middle=ordinals(0, 1, 1),
    )  # fmt: skip
    # From 1 to the least negative number there are two steps: over zero, which is one number.
    assert counted(result, "bound")["ordinal_errors"] == {"-2": 1, "0": 1, "2": 1}


def test_used_parts_are_counted_in_tenths_and_the_edge_is_inside() -> None:
    used = np.array([0.0, 0.05, 0.1, 0.99, 1.0, 1.0000001, 7.0, np.nan])
    zeros = np.zeros(8, np.int64)
    result = StageResult("s", zeros, {"bound": exactly(zeros)}, used=used)
    assert counted(result, "bound")["bound_parts"] == [2, 1, 0, 0, 0, 0, 0, 0, 0, 2, 2]
    nothing = StageResult("s", zeros, {"bound": exactly(zeros)}, used=np.full(8, np.nan))
    assert counted(nothing, "bound")["bound_parts"] == []


def test_wrong_codes_are_counted_by_pair_with_the_range_in_which_they_lie() -> None:
    steps = CodeSteps("nf4", ordinals(0, 2, 3), np.array([0.25, 0.5, 0.75]), ordinals(4, 4, 5), ordinals(3, 3, 6))
    result = StageResult("s", ordinals(3, 1, 3, 6), {"exact": exactly(ordinals(4, 1, 4, 5))}, steps=steps)
    assert counted(result)["steps"] == {"codebook": "nf4", "pairs": [[4, 3, 2, 0.25, 0.5], [5, 6, 1, 0.75, 0.75]]}


def test_wrong_codes_that_a_claim_allows_are_on_no_step() -> None:
    steps = CodeSteps("nf4", ordinals(0), np.array([0.25]), ordinals(4), ordinals(3))
    limits = {"exact": exactly(ordinals(4)), "tie": Allowed(ordinals(3), ordinals(4))}
    found = counted(StageResult("s", ordinals(3), limits, steps=steps), "tie")
    assert (found["steps"], found["ordinal_errors"]) == (None, {"-1": 1})


def test_the_places_are_those_of_the_case_with_most_failing_elements() -> None:
    made = Distribution()
    for size, failing in ((10, 3), (20, 7), (30, 7), (40, 1)):
        got = np.zeros(size, np.int64)
        got[:failing] = 1
        result = StageResult("s", got, {"exact": exactly(np.zeros(size, np.int64))})
        made.add(result, result.failing("exact"))
    assert made.places is not None
    assert (made.places["size"], made.places["failing"]) == (20, 7)


@pytest.mark.parametrize("shape", [(1,), (33,), (7, 5), (70, 130), (3, 2049)])
@pytest.mark.parametrize("block_size", [0, 4, 100])
def test_places_count_every_failing_element_once_in_every_division(shape: tuple[int, ...], block_size: int) -> None:
    wrong = np.random.Generator(np.random.Philox(7)).random(shape) < 0.3
    wrong.reshape(-1)[-1] = True
    places = places_of(wrong, shape[-1] if len(shape) > 1 else 0, block_size)
    total = int(wrong.sum())
    for division in ("lanes", "nibbles", "rows", "columns", "blocks"):
        assert not places[division] or sum(places[division]) == total, division
    assert bool(places["rows"]) == (len(shape) > 1)
    assert bool(places["blocks"]) == (0 < block_size < wrong.size)
    assert places["lanes"][31 % 32] == int(wrong.reshape(-1)[31::32].sum())
    for width, failing in places["tails"]:
        rest = wrong.size % width
        assert failing == (int(wrong.reshape(-1)[wrong.size - rest :].sum()) if rest else 0)


def test_the_window_holds_the_elements_one_by_one_from_the_start_of_a_row() -> None:
    wrong = np.zeros((40, 100), np.bool_)
    wrong[25, 3] = wrong[26, 99] = True
    places = places_of(wrong, 100, 0)
    assert places["start"] == 2500
    bits = np.unpackbits(np.frombuffer(bytes.fromhex(places["window"]), np.uint8))[: 4000 - 2500]
    assert np.flatnonzero(bits).tolist() == [3, 199]
    assert len(places["window"]) * 4 <= WINDOW
