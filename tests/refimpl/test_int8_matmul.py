"""[int8.matmul], [int8.scale]: int32 accumulation is exact, and refused where it could overflow."""

from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest

from qloracle import int8_matmul, scale_int8_matmul
from qloracle.errors import ArgumentTypeError, ArgumentValueError
from qloracle.int8_product import LARGEST_INNER, LARGEST_INNER_WITH_MINUS_128

from .rationals import exact


def full(value: int, *shape: int) -> np.ndarray:
    return np.full(shape, value, np.int8)


@pytest.mark.proof("int8.matmul", by="closed form")
@pytest.mark.parametrize("k", [1040, 1041, 2048, 11008, 133144])
@pytest.mark.parametrize(("left", "right"), [(127, 127), (-127, 127), (127, -127)])
def test_extreme_codes_accumulate_exactly(k: int, left: int, right: int) -> None:
    got = int(int8_matmul(full(left, 1, k), full(right, 1, k))[0, 0])
    assert got == left * right * k, f"{k} products {left}·{right} sum to {left * right * k}, got {got}"


def test_minus_128_accumulates_exactly_up_to_its_limit() -> None:
    got = int(int8_matmul(full(-128, 1, 131071), full(-128, 1, 131071))[0, 0])
    assert got == 2**31 - 2**14, f"131071 products (-128)² sum to 2^31 - 2^14, got {got}"


@pytest.mark.proof("int8.matmul", by="Python integers")
def test_random_codes_accumulate_like_int64() -> None:
    rng = np.random.default_rng(41)
    a, b = rng.integers(-128, 128, (5, 1000), dtype=np.int8), rng.integers(-128, 128, (7, 1000), dtype=np.int8)
    expected = [[sum(x * y for x, y in zip(r, c, strict=True)) for c in b.tolist()] for r in a.tolist()]
    got = int8_matmul(a, b)
    assert (got.dtype, got.tolist()) == (np.int32, expected), (
        "random (5, 1000) by (7, 1000) differs from Python integers"
    )


@pytest.mark.parametrize("shape", [(3,), (0, 3), (2, 3), (2, 4, 3)])
def test_leading_axes_are_kept(shape: tuple[int, ...]) -> None:
    got = int8_matmul(np.ones(shape, np.int8), full(2, 5, 3))
    assert got.shape == (*shape[:-1], 5), f"{shape} by (5, 3) has shape {(*shape[:-1], 5)}, got {got.shape}"
    assert np.all(got == 6), f"ones by twos with K = 3 are 6, got {got}"


def test_an_empty_inner_dimension_gives_zeros() -> None:
    assert int8_matmul(full(1, 2, 0), full(1, 3, 0)).tolist() == [[0, 0, 0], [0, 0, 0]]


def test_the_limits_are_those_of_int32() -> None:
    assert LARGEST_INNER == 133144, f"⌊(2^31 - 1)/127²⌋ is 133144, got {LARGEST_INNER}"
    assert LARGEST_INNER_WITH_MINUS_128 == 131071, f"with -128 it is 131071, got {LARGEST_INNER_WITH_MINUS_128}"


@pytest.mark.proof("int8.scale", by="worked by hand")
def test_rows_and_columns_are_scaled_by_their_own_absmax() -> None:
    acc = np.full((2, 3), 127 * 127, np.int32)
    got = scale_int8_matmul(acc, np.array([2, 3], np.float32), np.array([5, 7, 11], np.float32)).tolist()
    assert got == [[10, 14, 22], [15, 21, 33]], f"row absmax 2, 3 and column absmax 5, 7, 11, got {got}"


@pytest.mark.parametrize("rows", [1, 2])
def test_a_bias_is_added_once_after_the_scaling(rows: int) -> None:
    acc, bias = np.zeros((rows, 2), np.int32), np.array([3.25, -1], np.float32)
    got = scale_int8_matmul(acc, np.ones(rows, np.float32), np.ones(2, np.float32), bias).tolist()
    assert got == [[3.25, -1]] * rows, f"acc = 0 leaves the bias [3.25, -1] in each of {rows} rows, got {got}"


@pytest.mark.proof("int8.scale", by="exact rationals")
def test_the_real_value_is_within_three_float64_roundings() -> None:
    rng = np.random.default_rng(42)
    acc = rng.integers(-(2**31) + 1, 2**31, (20, 20)).astype(np.int32)
    row, column = np.exp(rng.standard_normal((2, 20))).astype(np.float32)
    got = scale_int8_matmul(acc, row, column)
    for i, j in np.ndindex(20, 20):
        real = Fraction(int(acc[i, j])) * exact(row[i]) * exact(column[j]) / 127**2
        error = abs(exact(got[i, j]) - real)
        assert error <= abs(real) * 3 * Fraction(1, 2**53), f"acc {acc[i, j]}: {got[i, j]} is not {float(real)}"


@pytest.mark.parametrize(
    ("acc", "row", "expected"), [(1, np.nan, "nan"), (1, np.inf, "inf"), (-1, np.inf, "-inf"), (0, np.inf, "nan")]
)
def test_an_absmax_that_is_not_finite_gives_what_ieee_arithmetic_gives(acc: int, row: float, expected: str) -> None:
    got = scale_int8_matmul(np.array([[acc]], np.int32), np.array([row], np.float32), np.ones(1, np.float32))
    assert str(float(got[0, 0])) == expected, f"{acc} · {row} is {expected}, got {got[0, 0]}"


ONE, ACC = np.ones(1, np.float32), np.zeros((1, 1), np.int32)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: int8_matmul(full(1, 1, 133145), full(1, 1, 133145)),
            ArgumentValueError,
            "^K .*133144 .*, got 133145$",
        ),
        (lambda: int8_matmul(full(1, 1, 131072), full(-128, 1, 131072)), ArgumentValueError, "^K .*, got 131072$"),
        (lambda: int8_matmul(full(1, 2, 3), full(1, 2, 4)), ArgumentValueError, r"^b must be .*, got \(2, 4\)$"),
        (lambda: int8_matmul(full(1, 2, 3), full(1, 3)), ArgumentValueError, r"^b must be .*, got \(3,\)$"),
        (lambda: int8_matmul(ACC, full(1, 1, 1)), ArgumentTypeError, "^a must be int8, got int32$"),
        (lambda: int8_matmul(full(1, 1, 1), [[1]]), ArgumentTypeError, "^b must be int8, got list$"),  # type: ignore[arg-type]
        (
            lambda: scale_int8_matmul(ACC.astype(np.int64), ONE, ONE),
            ArgumentTypeError,
            "^acc must be int32, got int64$",
        ),
        (lambda: scale_int8_matmul(ACC[0], ONE, ONE), ArgumentTypeError, "^acc must be a 2-d int32 array, got 1-d$"),
        (lambda: scale_int8_matmul(ACC, ONE, np.ones(1)), ArgumentTypeError, "^column_absmax .*, got float64$"),
        (lambda: scale_int8_matmul(ACC, ONE[:0], ONE), ArgumentValueError, r"^row_absmax .* \(1,\), got \(0,\)$"),
        (
            lambda: scale_int8_matmul(ACC, ONE, ONE, np.ones(1)),
            ArgumentTypeError,
            "^bias must be float32, got float64$",
        ),
    ],
)
def test_a_rejected_argument_is_named_with_its_rule_and_value(
    call: Callable[[], object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        call()
