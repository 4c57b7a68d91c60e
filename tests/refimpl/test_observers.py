"""[observers.minmax], [observers.percentile], [observers.moving]: exact ends, one rounding of an interpolation."""

from collections.abc import Callable
from fractions import Fraction
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from qloracle import minmax_range, moving_range, percentile_range
from qloracle.errors import ArgumentTypeError, ArgumentValueError

from .rational_affine import float32_of, percentile
from .rationals import exact, random_float32

F = np.float32
SIZES = [("tensor", None), ("row", None), ("column", None), ("group", 7)]


@pytest.mark.proof("observers.minmax", by="sorted Python numbers")
@pytest.mark.proof("observers.minmax", by="PyTorch")
@pytest.mark.parametrize(("granularity", "size"), SIZES)
def test_the_ends_are_the_smallest_and_the_largest(granularity: str, size: int | None, torch: ModuleType) -> None:
    x = random_float32(np.random.default_rng(521), 15 * 11).reshape(15, 11)
    groups = {
        "tensor": [x.reshape(-1)],
        "row": list(x),
        "column": list(x.T),
        "group": [x.reshape(-1)[i : i + 7] for i in range(0, x.size, 7)],
    }[granularity]
    lo, hi = minmax_range(x, granularity=granularity, group_size=size)
    for i, group in enumerate(groups):
        ordered = sorted(group.tolist())
        theirs = [float(end) for end in torch.aminmax(torch.from_numpy(np.ascontiguousarray(group)))]
        got = [float(lo.reshape(-1)[i]), float(hi.reshape(-1)[i])]
        assert got == [ordered[0], ordered[-1]] == theirs, f"{granularity} {i}: {got}, torch {theirs}"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_not_finite_poisons_both_ends_of_its_group(value: float) -> None:
    x = np.ones((3, 4), F)
    x[1, 2] = value
    for ends in (minmax_range(x, granularity="row"), percentile_range(x, 10, 90, granularity="row")):
        assert [np.isnan(end).tolist() for end in ends] == [[False, True, False]] * 2, f"{value}: {ends}"


def test_zeros_and_empty_groups_have_ends_of_plus_zero() -> None:
    for x in (np.full((2, 3), -0.0, F), np.zeros((2, 0), F)):
        for ends in (minmax_range(x, granularity="row"), percentile_range(x, 0, 100, granularity="row")):
            assert [end.view(np.uint32).tolist() for end in ends] == [[0, 0], [0, 0]], f"{x.shape}: {ends}"


@pytest.mark.proof("observers.percentile", by="exact rationals")
@pytest.mark.parametrize("percent", [0.0, 0.1, 12.5, 33.3, 50.0, 99.9, 99.99, 100.0])
def test_percentiles_interpolate_order_statistics_exactly(percent: float) -> None:
    rng = np.random.default_rng(522)
    for count in (1, 2, 3, 10, 101, 257):
        for x in (rng.standard_normal(count).astype(F), random_float32(rng, count)):
            lo, hi = percentile_range(x, percent, percent)
            expected = float32_of(percentile(x.tolist(), percent))
            assert lo == hi == expected, f"{percent} % of {count} numbers: {lo!r}, the rule gives {expected!r}"


@pytest.mark.proof("observers.percentile", by="NumPy")
def test_percentiles_are_those_of_numpy_where_float64_is_exact() -> None:
    rng = np.random.default_rng(523)
    for count in (5, 17, 33, 65):  # n − 1 is a multiple of 4: quarters and eighths of it are exact
        x = rng.integers(-(2**12), 2**12, (9, count)).astype(F)
        for percents in ((25.0, 75.0), (12.5, 87.5), (50.0, 100.0), (0.0, 62.5)):
            got = percentile_range(x, *percents, granularity="row")
            theirs = np.percentile(x.astype(np.float64), percents, axis=1)
            assert np.array_equal(np.stack(got), theirs.astype(F)), f"{percents} of rows of {count}"


def test_the_outermost_percentiles_are_the_ends() -> None:
    x = random_float32(np.random.default_rng(524), 200).reshape(8, 25)
    for granularity, size in SIZES:
        how: Any = {"granularity": granularity, "group_size": size}
        for got, end in zip(percentile_range(x, 0, 100, **how), minmax_range(x, **how), strict=True):
            assert np.array_equal(got, end), f"percentiles 0 and 100 by {granularity} are not the ends"


@pytest.mark.proof("observers.moving", by="exact rationals")
@pytest.mark.parametrize("weight", [0.01, 0.1, 0.5, 0.9, 1.0, 0.0])
def test_a_range_moves_by_an_exact_interpolation_rounded_once(weight: float) -> None:
    rng = np.random.default_rng(525)
    ends = [random_float32(rng, 300) for _ in range(2)] + [rng.standard_normal(300).astype(F) for _ in range(2)]
    lo, hi = moving_range((ends[0], ends[2]), (ends[1], ends[3]), weight)
    for got, a, b in ((lo, ends[0], ends[1]), (hi, ends[2], ends[3])):
        for value, first, second in zip(got, a, b, strict=True):
            real = exact(first) + Fraction(weight) * (exact(second) - exact(first))
            assert value == float32_of(real), f"{first!r} towards {second!r} by {weight}: {value!r}"


@pytest.mark.proof("observers.moving", by="closed form")
def test_moving_towards_0_by_half_is_a_power_of_two() -> None:
    ends = (F([-1.0, -3.0]), F([1.0, 5.0]))
    zero = (np.zeros(2, F), np.zeros(2, F))
    for step in range(1, 140):
        ends = moving_range(ends, zero, 0.5)
        expected = [[-(2.0**-step), -3 * 2.0**-step], [2.0**-step, 5 * 2.0**-step]]
        assert [end.tolist() for end in ends] == expected, f"after {step} moves by a half: {ends}"


def test_a_poisoned_end_stays_poisoned() -> None:
    lo, hi = moving_range((F(-1), F(1)), (F("nan"), F("inf")), 0.1)
    assert np.isnan(lo), f"towards NaN is NaN, got {lo}"
    assert np.isnan(hi), f"towards infinity is NaN, got {hi}"


X = np.ones((2, 3), F)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: minmax_range(X.astype(float)), ArgumentTypeError, "^x must be .*, got float64$"),
        (
            lambda: minmax_range(X, granularity="rows"),
            ArgumentValueError,
            "^granularity must be one of .*, got 'rows'$",
        ),
        (lambda: percentile_range(X, -1, 50), ArgumentValueError, "^lower and upper must be percentiles .* -1 and 50$"),
        (lambda: percentile_range(X, 60, 50), ArgumentValueError, "^lower and upper must be .*, got 60 and 50$"),
        (lambda: percentile_range(X, "1", 50), ArgumentTypeError, "^lower must be a number, got '1'$"),
        (lambda: percentile_range(X, float("nan"), 50), ArgumentValueError, "^lower and upper .*, got nan and 50$"),
        (lambda: moving_range((F(0), F(0)), (F(0), F(0)), 1.5), ArgumentValueError, "^weight must be from 0 to 1"),
        (lambda: moving_range((F(0), F(0)), (0.0, F(0)), 0.5), ArgumentTypeError, "^lo of current must be float32"),
        (lambda: moving_range((F(0), F(0)), (X, X), 0.5), ArgumentValueError, "^lo of current must be of the shape"),
    ],
)
def test_a_rejected_argument_is_named(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
