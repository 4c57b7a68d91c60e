"""[bounds.scale]: acc · row · column / 127² + bias in float32, in every order that multiplies what is there once."""

from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest

from qloracle.bounds import Interval, scale_int8_matmul_bound
from qloracle.errors import ArgumentTypeError, ArgumentValueError
from qloracle.formats import Array

from .evaluated_layers import require_inside
from .rationals import exact

F = np.float32
BY_127, BY_16129 = F(1 / 127), F(1 / 16129)
Order = Callable[[Array, Array, Array], Array]

# a: accumulator as float32, r: row absmax, c: column absmax
ORDERS: dict[str, Order] = {
    "a·(r·c)·k²": lambda a, r, c: a * (r * c) * BY_16129,
    "(a·k²)·r·c": lambda a, r, c: a * BY_16129 * r * c,
    "c·(r·(a·k²))": lambda a, r, c: c * (r * (a * BY_16129)),
    "((r·c)·k²)·a": lambda a, r, c: r * c * BY_16129 * a,
    "(r·k²)·(c·a)": lambda a, r, c: (r * BY_16129) * (c * a),
    "(a·r)·(c·k²)": lambda a, r, c: (a * r) * (c * BY_16129),
    "(a·r·c)/127²": lambda a, r, c: a * r * c / F(16129),
    "a·((r·c)/127²)": lambda a, r, c: a * (r * c / F(16129)),
    "(r/127)·(c/127)·a": lambda a, r, c: (r / F(127)) * (c / F(127)) * a,
    "(r/127)·a·(c/127)": lambda a, r, c: (r / F(127)) * a * (c / F(127)),
    "(a/127/127)·r·c": lambda a, r, c: a / F(127) / F(127) * r * c,
    "(a·r/127)·c/127": lambda a, r, c: a * r / F(127) * c / F(127),
    "(r·k)·(c·k)·a": lambda a, r, c: (r * BY_127) * (c * BY_127) * a,
    "(r·k)·((c·k)·a)": lambda a, r, c: (r * BY_127) * ((c * BY_127) * a),
    "a·r·k·c·k": lambda a, r, c: a * r * BY_127 * c * BY_127,
    "(r·c)·a·k·k": lambda a, r, c: r * c * a * BY_127 * BY_127,
}


def scaled(order: Order, acc: Array, row: Array, column: Array, bias: Array | None = None) -> Array:
    product = order(acc.astype(F), row[:, np.newaxis], column[np.newaxis])
    assert product.dtype == F, "the evaluation must be in float32"
    return (product if bias is None else product + bias).astype(np.float64)


def operands(seed: int, spread: float) -> tuple[Array, Array, Array, Array]:
    rng = np.random.default_rng([121, seed])
    acc = (rng.integers(-(2**31) + 1, 2**31, (40, 30)) >> rng.integers(0, 31, (40, 30))).astype(np.int32)
    row, column = rng.lognormal(0, spread, 40).astype(F), rng.lognormal(0, spread, 30).astype(F)
    return acc, row, column, rng.standard_normal(30).astype(F)


@pytest.mark.proof("bounds.scale", by="float32 evaluations")
@pytest.mark.parametrize("name", ORDERS)
@pytest.mark.parametrize("spread", [0.1, 5.0])
def test_every_order_is_inside(name: str, spread: float) -> None:
    for seed in range(6):
        acc, row, column, bias = operands(seed, spread)
        interval = scale_int8_matmul_bound(acc, row, column)
        require_inside(interval, scaled(ORDERS[name], acc, row, column), f"{name}, seed {seed}")
        interval = scale_int8_matmul_bound(acc, row, column, bias)
        require_inside(interval, scaled(ORDERS[name], acc, row, column, bias), f"{name} + bias, seed {seed}")


def test_a_bias_that_cancels_the_product_is_inside() -> None:
    acc, row, column, _ = operands(9, 0.1)
    for name, order in ORDERS.items():
        bias = -scaled(order, acc, row, column)[0].astype(F)
        interval = scale_int8_matmul_bound(acc[:1], row[:1], column, bias)
        require_inside(interval, scaled(order, acc[:1], row[:1], column, bias), f"{name} and its own negative as bias")


@pytest.mark.proof("bounds.scale", by="exact rationals")
def test_the_exact_rational_value_is_inside() -> None:
    acc, row, column, bias = operands(3, 3.0)
    interval = scale_int8_matmul_bound(acc, row, column, bias)
    for i, j in np.ndindex(10, 30):
        real = Fraction(int(acc[i, j])) * exact(row[i]) * exact(column[j]) / 127**2 + exact(bias[j])
        inside = exact(interval.lo[i, j]) <= real <= exact(interval.hi[i, j])
        assert inside, f"acc {acc[i, j]}, row {row[i]}, column {column[j]}: {float(real)} is outside"


def test_the_bound_is_used_almost_up() -> None:
    # Found by search: four products, the constant 1/127 twice and the conversion, nearly all rounded the same way.
    acc = np.array([[17458185]], np.int32)
    row, column = np.array([1065356835], np.uint32).view(F), np.array([1065589499], np.uint32).view(F)
    interval = scale_int8_matmul_bound(acc, row, column)
    got = exact(scaled(ORDERS["(r·k)·(c·k)·a"], acc, row, column)[0, 0])
    real = 17458185 * exact(row[0]) * exact(column[0]) / 127**2
    part = abs(got - real) / (exact(interval.hi[0, 0]) - exact(interval.lo[0, 0])) * 2
    assert Fraction(94, 100) < part <= 1, f"this evaluation must use 94 % or more of the bound, got {float(part):.4f}"


@pytest.mark.parametrize("bias", [np.pi, -0.1, 1e-45, 3e38])
def test_a_zero_accumulator_leaves_the_bias_within_its_one_addition(bias: float) -> None:
    shift = np.array([bias], F)
    interval = scale_int8_matmul_bound(np.zeros((1, 1), np.int32), np.ones(1, F), np.ones(1, F), shift)
    room = abs(exact(shift[0])) * Fraction(1001, 1000) / 2**24
    width = (exact(interval.hi[0, 0]) - exact(interval.lo[0, 0])) / 2
    assert width <= room, f"bias {bias}: half width {float(width)} is more than one rounding, {float(room)}"


def test_a_zero_accumulator_without_bias_is_exactly_zero() -> None:
    interval = scale_int8_matmul_bound(np.zeros((1, 1), np.int32), np.ones(1, F), np.ones(1, F))
    assert (interval.lo.item(), interval.hi.item()) == (0, 0), f"0 · 1 · 1 is exactly 0, got {interval}"


def test_a_product_that_underflows_in_its_last_two_steps_is_inside() -> None:
    rng = np.random.default_rng(122)
    acc = rng.integers(1, 2**24, (50, 1)).astype(np.int32)
    row, column = (rng.random(50) * 2.0**-139).astype(F), np.ones(1, F)
    interval = scale_int8_matmul_bound(acc, row, column)
    # The row comes last but for a quotient by 127², both below the normal range.
    got = (acc.astype(F) * column * BY_127) * row[:, np.newaxis] / F(127)
    require_inside(interval, got.astype(np.float64), "acc · column · k · row / 127 of subnormal rows")


def finite(interval: Interval) -> tuple[float, float, bool]:
    return float(interval.lo.item()), float(interval.hi.item()), bool(interval.judged.item())


@pytest.mark.parametrize(("row", "acc"), [(np.nan, 1), (np.nan, 0), (np.inf, 0)])
def test_a_poisoned_row_is_exactly_nan(row: float, acc: int) -> None:
    lo, hi, judged = finite(scale_int8_matmul_bound(np.array([[acc]], np.int32), np.array([row], F), np.ones(1, F)))
    assert np.isnan(lo), f"row absmax {row}, acc {acc}: lo is NaN, got {lo}"
    assert np.isnan(hi), f"row absmax {row}, acc {acc}: hi is NaN, got {hi}"
    assert judged, "a poisoned row must be judged"


@pytest.mark.parametrize(("acc", "row"), [(2**31 - 1, 3e38), (16129 * 2, 3e38)])
def test_a_product_that_overflows_is_not_judged(acc: int, row: float) -> None:
    lo, hi, judged = finite(scale_int8_matmul_bound(np.array([[acc]], np.int32), np.array([row], F), np.ones(1, F)))
    assert not judged, f"acc {acc} with row absmax {row} overflows float32, got [{lo}, {hi}]"


@pytest.mark.parametrize(
    ("bias", "error", "message"),
    [
        (np.ones(1), ArgumentTypeError, "^bias must be float32, got float64$"),
        (np.ones(2, F), ArgumentValueError, r"^bias must be of shape \(1,\), got \(2,\)$"),
    ],
)
def test_a_wrong_bias_is_named(bias: Array, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        scale_int8_matmul_bound(np.zeros((1, 1), np.int32), np.ones(1, F), np.ones(1, F), bias)


@pytest.mark.parametrize(("acc", "row", "column"), [(2**25, -70, -70), (1, -149, 14), (3 * 2**20, -146, -3)])
def test_below_the_normal_range_any_step_may_underflow(acc: int, row: int, column: int) -> None:
    case = (np.array([[acc]], np.int32), F([1.37 * 2.0**row]), F([1.37 * 2.0**column]))
    interval = scale_int8_matmul_bound(*case)
    for name, order in ORDERS.items():
        require_inside(interval, scaled(order, *case), f"{name} of {acc}, 2^{row}, 2^{column}")
