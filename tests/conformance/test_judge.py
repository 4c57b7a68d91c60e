"""The judge: what lies inside its limits and what does not."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from qloracle.tracking.interval import Interval
from qloracle_conformance.judge import (
    NAN_ORDINAL,
    Allowed,
    StageResult,
    blocked_stage,
    either_zero,
    exactly,
    failed_stage,
    float_ordinals,
    from_interval,
    words_at,
)

PLUS_ZERO, MINUS_ZERO, ONE, NEXT_AFTER_ONE = 0x00000000, 0x80000000, 0x3F800000, 0x3F800001
INFINITY, MINUS_INFINITY, LARGEST = 0x7F800000, 0xFF800000, 0x7F7FFFFF
QUIET_NAN, SIGNALING_NAN, NEGATIVE_NAN = 0x7FC00000, 0x7F800001, 0xFFFFFFFF
SMALLEST = 0x00000001
FORMATS_OF_16_BITS = ("float16", "bfloat16")


def single(*words: int) -> NDArray[np.int64]:
    """Ordinals of float32 words."""
    return float_ordinals(np.array(words, np.uint32), "float32")


def values_of_all_words(fmt: str) -> NDArray[np.float64]:
    """The value of each of the 65536 words, without the code under test."""
    words = np.arange(1 << 16, dtype=np.uint16)
    narrow = words.view(np.float16) if fmt == "float16" else (words.astype(np.uint32) << 16).view(np.float32)
    with np.errstate(invalid="ignore"):  # a signaling NaN becomes a quiet one
        return narrow.astype(np.float64)


@pytest.mark.parametrize(
    ("expected", "got"),
    [
        (PLUS_ZERO, QUIET_NAN),
        (QUIET_NAN, PLUS_ZERO),
        (ONE, SIGNALING_NAN),
        (NEGATIVE_NAN, LARGEST),
        (INFINITY, QUIET_NAN),
        (QUIET_NAN, INFINITY),
        (QUIET_NAN, MINUS_INFINITY),
        (INFINITY, MINUS_INFINITY),
        (MINUS_INFINITY, INFINITY),
        (INFINITY, LARGEST),
        (PLUS_ZERO, MINUS_ZERO),
        (MINUS_ZERO, PLUS_ZERO),
        (ONE, NEXT_AFTER_ONE),
        (NEXT_AFTER_ONE, ONE),
        (PLUS_ZERO, SMALLEST),
        (ONE, ONE | MINUS_ZERO),
    ],
    ids=lambda word: f"{word:08x}",
)
def test_another_number_than_the_expected_one_is_wrong(expected: int, got: int) -> None:
    assert exactly(single(expected)).accepts(single(got)).tolist() == [False]


@pytest.mark.parametrize("word", [PLUS_ZERO, MINUS_ZERO, ONE, SMALLEST, LARGEST, INFINITY, MINUS_INFINITY, QUIET_NAN])
def test_the_expected_number_is_right(word: int) -> None:
    assert exactly(single(word)).accepts(single(word)).tolist() == [True]


def test_every_nan_is_right_where_nan_is_expected() -> None:
    assert exactly(single(QUIET_NAN, QUIET_NAN)).accepts(single(SIGNALING_NAN, NEGATIVE_NAN)).tolist() == [True, True]


def test_limits_from_minus_to_plus_infinity_do_not_let_nan_pass() -> None:
    limits = Allowed(single(MINUS_INFINITY), single(INFINITY))
    assert limits.accepts(single(LARGEST)).tolist() == [True]
    assert limits.accepts(single(QUIET_NAN)).tolist() == [False]


def test_both_ends_of_the_limits_are_right_and_their_neighbours_are_wrong() -> None:
    limits = Allowed(np.array([-3], np.int64), np.array([5], np.int64))
    verdicts = [bool(limits.accepts(np.array([got], np.int64))[0]) for got in (-4, -3, 0, 5, 6)]
    assert verdicts == [False, True, True, True, False]


def test_either_zero_accepts_both_signs_of_zero_and_nothing_else() -> None:
    for expected in (PLUS_ZERO, MINUS_ZERO):
        limits = either_zero(exactly(single(expected, expected, expected, expected)))
        got = single(PLUS_ZERO, MINUS_ZERO, SMALLEST, SMALLEST | MINUS_ZERO)
        assert limits.accepts(got).tolist() == [True, True, False, False]


def test_either_zero_leaves_other_limits_as_they_are() -> None:
    limits = either_zero(exactly(single(ONE, SMALLEST, QUIET_NAN, MINUS_INFINITY)))
    assert np.array_equal(limits.lo, single(ONE, SMALLEST, QUIET_NAN, MINUS_INFINITY))
    assert np.array_equal(limits.hi, limits.lo)


def test_an_empty_array_breaks_nothing() -> None:
    nothing = np.empty((0, 4), np.int64)
    result = StageResult("values", nothing, {"exact": exactly(nothing)})
    assert result.failing("exact").shape == (0, 4)
    assert result.attained() == "exact"


@pytest.mark.parametrize("shape", [(3,), (2, 1), (1, 2), ()])
def test_an_array_of_another_shape_than_the_limits_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(TypeError, match=r"^got must be int64 of shape \(2,\), got int64"):
        exactly(np.zeros(2, np.int64)).accepts(np.zeros(shape, np.int64))


@pytest.mark.parametrize("dtype", ["i4", "u8", "f8"])
def test_an_array_that_is_no_int64_is_refused(dtype: str) -> None:
    with pytest.raises(TypeError, match=r"^got must be int64 of shape"):
        exactly(np.zeros(2, np.int64)).accepts(np.zeros(2, dtype))


@pytest.mark.parametrize(
    ("lo", "hi"),
    [
        (np.zeros(2, np.int64), np.zeros(3, np.int64)),
        (np.zeros(2, np.int32), np.zeros(2, np.int64)),
        (np.zeros(2, np.int64), np.zeros(2, np.float64)),
    ],
)
def test_limits_of_two_shapes_or_of_another_dtype_are_refused(lo: NDArray[Any], hi: NDArray[Any]) -> None:
    with pytest.raises(TypeError, match=r"^lo and hi must be int64 of one shape"):
        Allowed(lo, hi)


@pytest.mark.parametrize("fmt", FORMATS_OF_16_BITS)
def test_ordinals_of_all_words_follow_their_values_without_a_gap(fmt: str) -> None:
    values = values_of_all_words(fmt)
    numbers = np.flatnonzero(~np.isnan(values))
    ordinals = float_ordinals(np.arange(1 << 16, dtype=np.uint16), fmt)[numbers]
    order = np.argsort(ordinals, kind="stable")
    sorted_values = values[numbers][order]
    assert np.array_equal(np.diff(ordinals[order]), np.ones(len(numbers) - 1, np.int64)), f"{fmt}: ordinals have gaps"
    rising = np.diff(sorted_values[np.isfinite(sorted_values)])
    assert np.count_nonzero(rising == 0) == 1, f"{fmt}: only -0 and +0 are equal"
    assert np.all(rising >= 0), f"{fmt}: a larger ordinal has a smaller value"
    assert sorted_values[[0, -1]].tolist() == [-np.inf, np.inf]


@pytest.mark.parametrize("fmt", FORMATS_OF_16_BITS)
def test_every_word_comes_back_from_its_ordinal_and_nan_comes_back_as_nan(fmt: str) -> None:
    words = np.arange(1 << 16, dtype=np.uint16)
    nan = np.isnan(values_of_all_words(fmt))
    back = words_at(float_ordinals(words, fmt), fmt)
    assert back.dtype == np.uint16
    assert np.array_equal(back[~nan], words[~nan]), f"{fmt}: a number came back as another word"
    assert np.all(nan[back[nan]]), f"{fmt}: a NaN came back as a number"


@pytest.mark.parametrize("fmt", FORMATS_OF_16_BITS)
def test_all_nan_words_share_the_ordinal_beyond_all_others(fmt: str) -> None:
    nan = np.isnan(values_of_all_words(fmt))
    ordinals = float_ordinals(np.arange(1 << 16, dtype=np.uint16), fmt)
    assert np.all(ordinals[nan] == NAN_ORDINAL), f"{fmt}: a NaN has an ordinal of its own"
    assert ordinals[~nan].max() < NAN_ORDINAL


def test_signed_zeros_and_their_neighbours_have_consecutive_ordinals() -> None:
    assert single(SMALLEST | MINUS_ZERO, MINUS_ZERO, PLUS_ZERO, SMALLEST).tolist() == [-2, -1, 0, 1]


def limits_of(lo: float, hi: float, judged: bool = True) -> Allowed:
    return from_interval(Interval(np.array([lo]), np.array([hi]), np.array([judged])), "float32")


def test_an_interval_allows_exactly_what_its_real_numbers_round_to() -> None:
    limits = limits_of(1 - 2.0**-26, 1 + 2.0**-24)  # both ends round to 1, the upper one as a tie
    assert words_at(np.concatenate([limits.lo, limits.hi]), "float32").tolist() == [ONE, ONE]
    limits = limits_of(1 - 2.0**-24, 1 + 2.0**-24 + 2.0**-40)
    assert words_at(np.concatenate([limits.lo, limits.hi]), "float32").tolist() == [0x3F7FFFFF, NEXT_AFTER_ONE]


def test_an_interval_around_zero_allows_both_signs_of_zero() -> None:
    limits = limits_of(0.0, 2.0**-160)
    assert words_at(np.concatenate([limits.lo, limits.hi]), "float32").tolist() == [MINUS_ZERO, PLUS_ZERO]


def test_an_interval_beyond_the_largest_number_allows_infinity_but_not_nan() -> None:
    limits = limits_of(-1e300, 1e300)
    assert limits.accepts(single(INFINITY)).tolist() == [True]
    assert limits.accepts(single(MINUS_INFINITY)).tolist() == [True]
    assert limits.accepts(single(QUIET_NAN)).tolist() == [False]


def test_an_unjudged_element_accepts_everything_and_says_that_it_was_not_judged() -> None:
    limits = limits_of(1.0, 1.0, judged=False)
    assert limits.judged.tolist() == [False]
    for word in (ONE, PLUS_ZERO, MINUS_INFINITY, QUIET_NAN):
        assert limits.accepts(single(word)).tolist() == [True]


def test_limits_up_to_nan_that_start_at_a_number_are_judged() -> None:
    assert Allowed(single(ONE), single(QUIET_NAN)).judged.tolist() == [True]


def leveled(*levels: str) -> StageResult:
    """A stage that allows 0 exactly, ±1 at a tie and ±2 inside a bound, with outputs 0, 1, 2 and 3."""
    got = np.array([0, 1, 2, 3], np.int64)
    width = {"exact": 0, "tie": 1, "bound": 2}
    allowed = {name: Allowed(np.full(4, -width[name]), np.full(4, width[name])) for name in levels}
    return StageResult("values", got, allowed)


@pytest.mark.parametrize(
    ("levels", "claimed", "widest"),
    [
        (("exact", "tie", "bound"), "exact", 0),
        (("exact", "tie", "bound"), "tie", 1),
        (("exact", "tie", "bound"), "bound", 2),
        (("exact",), "tie", 0),
        (("exact",), "bound", 0),
        (("exact", "bound"), "tie", 0),
        (("exact", "tie"), "bound", 1),
        (("bound",), "bound", 2),
    ],
)
def test_a_claim_is_judged_by_the_loosest_limits_that_are_no_looser(
    levels: tuple[str, ...], claimed: str, widest: int
) -> None:
    assert leveled(*levels).required(claimed).hi.tolist() == [widest] * 4


@pytest.mark.parametrize("claimed", ["exact", "tie"])
def test_a_stage_without_limits_at_the_claimed_level_gives_no_verdict(claimed: str) -> None:
    with pytest.raises(ValueError, match=f"^stage values has no limits at level {claimed}, only \\['bound'\\]$"):
        leveled("bound").required(claimed)


@pytest.mark.parametrize(
    ("claimed", "failing"),
    [("exact", [False, True, True, True]), ("tie", [False, False, True, True]), ("bound", [False, False, False, True])],
)
def test_everything_outside_the_limits_of_the_claimed_level_fails(claimed: str, failing: list[bool]) -> None:
    assert leveled("exact", "tie", "bound").failing(claimed).tolist() == failing


def test_a_blocked_element_does_not_fail() -> None:
    result = leveled("exact")
    blocked = StageResult("values", result.got, result.allowed, blocked=np.array([False, True, False, True]))
    assert blocked.failing("exact").tolist() == [False, False, True, False]


@pytest.mark.parametrize(("upto", "level"), [(1, "exact"), (2, "tie"), (3, "bound"), (4, None)])
def test_the_attained_level_is_the_strictest_that_all_elements_keep(upto: int, level: str | None) -> None:
    whole = leveled("exact", "tie", "bound")
    limits = {name: Allowed(a.lo[:upto], a.hi[:upto]) for name, a in whole.allowed.items()}
    assert StageResult("values", whole.got[:upto], limits).attained() == level


def test_a_stage_whose_output_cannot_be_compared_carries_the_problem() -> None:
    assert failed_stage("absmax", "output 1 is missing").problem == "output 1 is missing"


def test_a_blocked_stage_has_no_element_that_was_judged() -> None:
    result = blocked_stage("codes")
    assert result.blocked is not None
    assert result.blocked.tolist() == [True]
    assert result.failing("exact").tolist() == [False]
