"""Which codes may be given near a boundary: the neighbour inside the window of three float32 roundings, in order."""

import numpy as np
import pytest

from qloracle_conformance.operations.codes import boundary_distance, code_limits, likely_cause

HALF = np.array([0.5])
BELOW = 2.0**-25  # spacing of float32 just below 0.5: one unit of 2^-24 of the boundary
ABOVE = 2.0**-24  # spacing just above: two units


def allowed(
    x: list[float], got: list[int], absmax: float = 1.0, group: list[int] | None = None, level: str = "tie"
) -> list[bool]:
    """Whether each code is allowed; position 0 lies below 0.5·absmax, position 1 above."""
    values = np.array(x, np.float32)
    scale = np.full(len(x), absmax, np.float32)
    exact = (values.astype(np.float64) > 0.5 * absmax).astype(np.int64)
    groups = np.array(group or [0] * len(x))
    codes = np.array(got, np.int64)
    limits = code_limits(values, scale, HALF, exact, codes, groups)
    return [bool(ok) for ok in limits[level].accepts(codes)]


def test_a_code_that_is_the_exact_one_is_allowed_at_every_level() -> None:
    for level in ("exact", "tie"):
        assert allowed([0.1, 0.9, 0.5, 0.5 + ABOVE], [0, 1, 0, 1], level=level) == [True] * 4


def test_at_level_exact_no_neighbour_is_allowed_however_near_the_boundary() -> None:
    assert allowed([0.5], [1], level="exact") == [False]


@pytest.mark.parametrize(
    ("x", "got", "verdict"),
    [
        (0.5, 1, True),
        (0.5 - 3 * BELOW, 1, True),
        (0.5 - 4 * BELOW, 1, False),
        (0.5 + 1 * ABOVE, 0, True),
        (0.5 + 2 * ABOVE, 0, False),
        (0.4, 1, False),
        (0.6, 0, False),
    ],
)
def test_at_level_tie_the_neighbour_is_allowed_up_to_three_units_from_the_boundary(
    x: float, got: int, verdict: bool
) -> None:
    assert allowed([x], [got]) == [verdict]


def test_the_window_scales_with_the_absmax() -> None:
    scale = 2.0**100
    assert allowed([(0.5 - 3 * BELOW) * scale, (0.5 - 4 * BELOW) * scale], [1, 0], scale) == [True, True]
    assert allowed([(0.5 - 4 * BELOW) * scale], [1], scale) == [False]


@pytest.mark.parametrize(
    ("absmax", "verdict"), [(2.0**-128, True), (2.0**-129, False), (2.0**126, True), (2.0**127, False)]
)
def test_there_is_no_window_where_the_reciprocal_of_the_absmax_is_not_normal(absmax: float, verdict: bool) -> None:
    assert allowed([0.5 * absmax], [1], absmax) == [verdict]


def test_codes_that_fall_while_x_rises_within_a_group_are_not_allowed() -> None:
    x = [0.5, 0.5 + ABOVE]
    assert allowed(x, [1, 0]) == [False, False]
    assert allowed(x, [1, 1]) == [True, True]
    assert allowed(x, [0, 0]) == [True, True]


def test_codes_of_different_groups_need_no_common_order() -> None:
    assert allowed([0.5, 0.5 + ABOVE], [1, 0], group=[0, 1]) == [True, True]


def test_a_code_two_positions_away_is_never_allowed() -> None:
    boundaries = np.array([0.5, 0.5 + 2.0**-26])
    x, got = np.array([0.5], np.float32), np.array([2], np.int64)
    limits = code_limits(x, np.ones(1, np.float32), boundaries, np.zeros(1, np.int64), got, np.zeros(1, np.int64))
    assert limits["tie"].accepts(got).tolist() == [False]


@pytest.mark.parametrize("absmax", [0.0, float("nan"), float("inf")])
def test_an_absmax_that_scales_nothing_opens_no_window(absmax: float) -> None:
    x, got = np.array([0.5], np.float32), np.array([1], np.int64)
    limits = code_limits(
        x, np.array([absmax], np.float32), HALF, np.zeros(1, np.int64), got, np.zeros(1, np.int64)
    )  # fmt: skip
    assert limits["tie"].accepts(got).tolist() == [False]


def test_a_nan_element_opens_no_window() -> None:
    assert allowed([float("nan")], [1]) == [False]


def test_the_lowest_position_may_be_a_negative_number() -> None:
    x, got = np.array([0.5], np.float32), np.array([-126], np.int64)
    exact = np.array([-127], np.int64)
    limits = code_limits(x, np.ones(1, np.float32), HALF, exact, got, np.zeros(1, np.int64), lowest=-127)
    assert limits["tie"].accepts(got).tolist() == [True]


def test_the_distance_is_that_to_the_nearest_boundary_in_its_own_units() -> None:
    x = np.array([0.5, 0.5 - 2 * BELOW, 0.5 + ABOVE, 1.0], np.float32)
    codes = np.zeros(4, np.int64)
    distance = boundary_distance(x, np.ones(4, np.float32), HALF, codes, codes)
    assert distance.tolist() == [0.0, 2.0, 2.0, 2.0**24]


@pytest.mark.parametrize(
    ("distances", "cause"),
    [
        ([0.0, 0.0], "exact midpoints go to the upper entry"),
        ([0.0, 2.5], "boundaries missed by up to 2.5 x 2^-24: a reciprocal, or float32 midpoints"),
        ([17.0, 1.0], "boundaries missed by up to 17 x 2^-24: an approximate division"),
        ([5000.0], ""),
    ],
)
def test_a_cause_is_named_by_how_far_from_a_boundary_codes_are_wrong(distances: list[float], cause: str) -> None:
    assert likely_cause(np.array(distances), np.ones(len(distances), np.bool_)) == cause
