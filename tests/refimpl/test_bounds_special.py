"""[bounds.lora] where no number is at stake: infinities, NaN, overflow, what is not judged, shapes, refusals."""

from collections.abc import Callable

import numpy as np
import pytest

from qloracle.bounds import Interval, Roundings, lora_backward_bound, lora_forward_bound
from qloracle.errors import ArgumentTypeError, ArgumentValueError
from qloracle.formats import Array


def ones(*shape: int) -> Array:
    return np.ones(shape, np.float32)


ONE = ones(1, 1)
INF = np.float32(np.inf)


def single(interval: Interval) -> tuple[str, str, bool]:
    """The only element: lo, hi, judged."""
    return str(float(interval.lo.item())), str(float(interval.hi.item())), bool(interval.judged.item())


@pytest.mark.parametrize(
    ("x", "weight", "expected"),
    [
        ([INF, 1], [1, 1], "inf"),
        ([-INF, 1], [2, 1], "-inf"),
        ([INF, 1], [0, 1], "nan"),
        ([INF, INF], [1, -1], "nan"),
        ([np.nan, 1], [1, 1], "nan"),
        ([1, 1], [INF, 1], "inf"),
        ([1, 1], [1, np.nan], "nan"),
        ([1e-45, 1], [INF, 1], "inf"),
    ],
)
def test_what_is_not_finite_has_exactly_one_answer(x: list[float], weight: list[float], expected: str) -> None:
    operands = (np.array([x], np.float32), np.array([weight], np.float32), ones(1, 2), ONE)
    got = single(lora_forward_bound(*operands, alpha=1))
    assert got == (expected, expected, True), f"x {x}, weight {weight}: {expected} and judged, got {got}"


def test_an_infinite_bias_has_exactly_one_answer() -> None:
    got = single(lora_forward_bound(ONE, ONE, ONE, ONE, alpha=1, bias=np.array([-INF])))
    assert got == ("-inf", "-inf", True), f"bias -inf, got {got}"


@pytest.mark.parametrize(("b", "expected"), [(INF, "inf"), (-INF, "-inf"), (np.float32(np.nan), "nan")])
def test_an_infinity_in_lora_b_is_judged_where_the_hidden_value_is_far_from_zero(b: np.float32, expected: str) -> None:
    got = single(lora_forward_bound(ONE, ONE, ONE, np.array([[b]]), alpha=1))
    assert got == (expected, expected, True), f"hidden value 1 times {b}: {expected} and judged, got {got}"


def test_an_infinity_that_meets_a_hidden_value_of_unsure_sign_is_not_judged() -> None:
    # 0.1 + 0.2 − 0.3 is 1.5e-8 exactly, and 0 or 3e-8 in float32: the product with ∞ is ∞ or NaN.
    x = np.array([[0.1, 0.2, -0.3]], np.float32)
    interval = lora_forward_bound(x, ones(2, 3), ones(1, 3), np.array([[INF], [1]], np.float32), alpha=1)
    assert interval.judged.tolist() == [[False, True]], f"only the output without ∞ is judged, got {interval.judged}"


def test_a_hidden_value_that_is_exactly_zero_makes_a_sure_nan_of_an_infinity() -> None:
    got = single(lora_forward_bound(0 * ONE, ONE, ONE, np.array([[INF]]), alpha=1))
    assert got == ("nan", "nan", True), f"0 · ∞ is NaN in every evaluation, got {got}"


UNSURE = np.array([[0.1, 0.2, -0.3]], np.float32)  # the sum of its entries


def test_input_gradients_of_an_infinite_lora_a_and_an_unsure_dy_b_are_not_judged() -> None:
    a = np.array([[INF, 1]], np.float32)
    bounds = lora_backward_bound(UNSURE, ones(1, 2), ones(3, 2), a, ones(3, 1), alpha=1)
    assert bounds["x"].judged.tolist() == [[False, True]], f"dy B is unsure, A is [∞, 1], got {bounds['x'].judged}"
    assert bounds["bias"].judged.all(), "db does not depend on the adapter and must be judged"


def test_gradients_of_lora_a_from_an_infinite_x_and_an_unsure_dy_b_are_not_judged() -> None:
    x = np.array([[INF, 1]], np.float32)
    got = lora_backward_bound(UNSURE, x, ones(3, 2), ones(1, 2), ones(3, 1), alpha=1)["lora_a"].judged.tolist()
    assert got == [[False, True]], f"dy B is unsure, x is [∞, 1], got {got}"


def test_gradients_of_lora_b_from_an_infinite_dy_and_an_unsure_hidden_value_are_not_judged() -> None:
    dy = np.array([[INF, 1]], np.float32)
    got = lora_backward_bound(dy, UNSURE, ones(2, 3), ones(1, 3), ones(2, 1), alpha=1)["lora_b"].judged.tolist()
    assert got == [[False], [True]], f"dy is [∞, 1], the hidden value is unsure, got {got}"


def test_a_dropped_infinity_is_not_judged() -> None:
    # One implementation multiplies by the mask and gets NaN, another selects and gets the base.
    x, mask = np.array([[INF, 1], [1, 1]], np.float32), np.array([[False, True], [True, True]])
    interval = lora_forward_bound(x, ones(1, 2), ones(1, 2), ONE, alpha=1, mask=mask, dropout=0.5)
    assert interval.judged.tolist() == [[False], [True]], f"row 0 drops an infinity, got {interval.judged}"


def test_an_infinity_that_is_dropped_with_everything_is_judged() -> None:
    # For p = 1 x_d is 0, whatever x is: the layer is the base.
    x, mask = np.array([[INF, 1]], np.float32), np.array([[False, True]])
    interval = lora_forward_bound(x, ones(1, 2), ones(1, 2), ONE, alpha=1, mask=mask, dropout=1.0)
    assert (interval.judged.tolist(), interval.lo.tolist(), interval.hi.tolist()) == ([[True]], [[INF]], [[INF]])
    found = lora_backward_bound(ONE, x, ones(1, 2), ones(1, 2), ONE, alpha=1, mask=mask, dropout=1.0)["lora_b"]
    assert (found.judged.tolist(), found.lo.tolist(), found.hi.tolist()) == ([[True]], [[0]], [[0]])


@pytest.mark.parametrize(
    ("what", "operands", "options"),
    [
        ("the sum of magnitudes overflows", (1e30 * ONE, 1e30 * ONE, 0 * ONE, 0 * ONE), {}),
        ("partial sums overflow, the sum does not", (ones(1, 2), np.array([[3e38, -3e38]]), ones(1, 2), ONE), {}),
        ("the hidden value overflows", (1e30 * ONE, ONE, 1e30 * ONE, 1e-30 * ONE), {}),
        ("x/(1 - p) overflows", (3e38 * ONE, 1e-10 * ONE, 1e-5 * ONE, ONE), {"mask": ONE > 0, "dropout": 0.5}),
        ("s·B overflows", (1e-10 * ONE, ONE, 1e-10 * ONE, 1e38 * ONE), {"alpha": 16.0}),
        ("s·A overflows", (1e-10 * ONE, ONE, 1e38 * ONE, 1e-10 * ONE), {"alpha": 16.0}),
        (
            "the hidden value overflows float16",
            (300 * ONE, ONE, 300 * ONE, ONE),
            {"roundings": Roundings(intermediate="float16")},
        ),
        (
            "the accumulation overflows float16",
            (300 * ONE, 300 * ONE, 0 * ONE, ONE),
            {"roundings": Roundings(accumulate="float16", intermediate="float16")},
        ),
        ("∞ meets a finite part that overflows", (np.array([[INF, 3e38, 3e38]]), ones(1, 3), ones(1, 3), ONE), {}),
    ],
)
def test_where_an_accumulator_could_overflow_there_is_no_verdict(
    what: str, operands: tuple[Array, ...], options: dict[str, object]
) -> None:
    x, weight, a, b = (operand.astype(np.float32) for operand in operands)
    interval = lora_forward_bound(x, weight, a, b, **{"alpha": 1.0, **options})  # type: ignore[arg-type]
    assert not interval.judged.any(), f"{what}: must not be judged, got {interval}"


def test_a_row_that_overflows_leaves_the_others_judged() -> None:
    x = np.array([[1e38], [1]], np.float32)
    interval = lora_forward_bound(x, ONE, 100 * ONE, 0.01 * ONE, alpha=1)
    assert interval.judged.tolist() == [[False], [True]], f"only row 0 overflows, got {interval.judged}"


def test_numbers_just_below_overflow_are_judged() -> None:
    interval = lora_forward_bound(np.array([[1.5e38]], np.float32), 2 * ONE, 0 * ONE, 0 * ONE, alpha=1)
    assert interval.judged.all(), f"3e38 is below the largest float32, got {interval}"


@pytest.mark.parametrize("leading", [(), (1,), (0,), (2, 3), (2, 0)])
def test_intervals_have_the_shapes_of_the_results(leading: tuple[int, ...]) -> None:
    x, weight, a, b, dy = ones(*leading, 5), ones(4, 5), ones(2, 5), ones(4, 2), ones(*leading, 4)
    shapes = {"y": lora_forward_bound(x, weight, a, b, alpha=1).lo.shape}
    shapes |= {name: i.judged.shape for name, i in lora_backward_bound(dy, x, weight, a, b, alpha=1).items()}
    expected = {
        "y": (*leading, 4),
        "x": (*leading, 5),
        "lora_a": (2, 5),
        "lora_b": (4, 2),
        "bias": (4,),
        "lora_bias": (4,),
    }
    assert shapes == expected, f"x of shape {(*leading, 5)}: {expected}, got {shapes}"


@pytest.mark.parametrize(("batch", "d_in", "d_out"), [(0, 2, 3), (2, 0, 3), (2, 3, 0)])
def test_empty_dimensions_leave_exact_zeros(batch: int, d_in: int, d_out: int) -> None:
    x, weight, a, b = ones(batch, d_in), ones(d_out, d_in), ones(1, d_in), ones(d_out, 1)
    for name, i in lora_backward_bound(ones(batch, d_out), x, weight, a, b, alpha=1).items():
        empty = batch == 0 or (name != "bias" and (d_out == 0 or (d_in == 0 and name == "lora_b")))
        if empty:
            assert not i.lo.any(), f"{name} of an empty sum must be exactly 0, got {i}"
            assert not i.hi.any(), f"{name} of an empty sum must be exactly 0, got {i}"


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda r: lora_forward_bound(ONE, ONE, ONE, ONE, alpha=1, roundings=r(accumulate="float64")),
            None,
            "^accumulate",
        ),
        (
            lambda r: lora_forward_bound(ONE, ONE, ONE, ONE, alpha=1, roundings=r(accumulate="int8")),
            None,
            "^accumulate",
        ),
        (
            lambda r: lora_forward_bound(ONE, ONE, ONE, ONE, alpha=1, roundings=r(intermediate="int8")),
            None,
            "^intermediate",
        ),
        (lambda r: lora_forward_bound(ONE, ONE, ONE, ONE, alpha=1, bias=ones(2)), None, "^bias must be of shape"),
        (lambda r: lora_backward_bound(ones(2, 1), ONE, ONE, ONE, ONE, alpha=1), None, "^dy must be of shape"),
        (lambda r: lora_backward_bound(np.ones((1, 1)), ONE, ONE, ONE, ONE, alpha=1), ArgumentTypeError, "^dy must be"),
    ],
)
def test_a_rejected_argument_is_named(
    call: Callable[[type[Roundings]], object], error: type[Exception] | None, message: str
) -> None:
    with pytest.raises(error or ArgumentValueError, match=message):
        call(Roundings)
