"""[llm_int8.*]: outlier columns, the absmax of what is left, codes, and the sum of both parts."""

from collections.abc import Callable
from fractions import Fraction
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from qloracle import QuantizedInt8, decompose, llm_int8_backward, llm_int8_forward, outlier_columns, quantize_int8
from qloracle.errors import ArgumentTypeError, ArgumentValueError
from qloracle.formats import Array

from .rationals import exact, int8_code, random_float32, rounded

F = np.float32
RNG = np.random.default_rng(551)
W = (RNG.integers(-99, 100, (4, 9)) / 16).astype(F)
BIAS = F([1, -2, 0.5, 3])
WEIGHT = quantize_int8(W, granularity="row")
X = (RNG.integers(-40, 41, (5, 9)) / 16).astype(F)
X[1, 2], X[4, 2], X[3, 7] = 6.0, -40, -6.0  # columns 2 and 7 are outliers, 5.9 is not
X[0, 5] = 5.9


def is_outlier(value: float, threshold: float) -> bool:
    return threshold != 0 and (not np.isfinite(value) or abs(exact(value)) >= Fraction(threshold))


def slow_parts(x: Array, threshold: float, exclusion: str) -> tuple[list[bool], list[Fraction], list[list[int]]]:
    """Outlier columns, absmax and codes of finite rows, element by element."""
    columns = [any(is_outlier(v, threshold) for v in column) for column in x.T]
    absmax, codes = [], []
    for row in x:
        kept = [
            abs(exact(v))
            for k, v in enumerate(row)
            if not (columns[k] if exclusion == "columns" else is_outlier(v, threshold))
        ]
        largest = max(kept, default=Fraction(0))
        absmax.append(largest)
        codes.append([0 if columns[k] or not largest else int8_code(exact(v), largest) for k, v in enumerate(row)])
    return columns, absmax, codes


@pytest.mark.proof("llm_int8.outliers", by="exact rationals")
@pytest.mark.proof("llm_int8.absmax", by="exact rationals")
@pytest.mark.proof("llm_int8.codes", by="exact rationals")
@pytest.mark.parametrize("threshold", [6.0, 0.0, 2.0, 1e-3])
@pytest.mark.parametrize("exclusion", ["columns", "elements"])
def test_the_decomposition_is_that_of_the_rule(threshold: float, exclusion: str) -> None:
    wide = random_float32(np.random.default_rng(552), 60).reshape(4, 15)
    for x in (X, wide, X * F(2.0**-120)):
        columns, absmax, codes = slow_parts(x, threshold, exclusion)
        parts = decompose(x, threshold, exclusion=exclusion)
        assert parts.outliers.tolist() == columns, f"outlier columns at threshold {threshold}"
        assert [exact(a) for a in parts.absmax] == absmax, f"absmax without {exclusion}"
        assert parts.codes.tolist() == codes, f"codes at threshold {threshold}, without {exclusion}"


@pytest.mark.proof("llm_int8.outliers", by="PyTorch")
@pytest.mark.proof("llm_int8.absmax", by="PyTorch")
@pytest.mark.proof("llm_int8.codes", by="PyTorch in float64")
def test_torch_decomposes_alike(torch: ModuleType) -> None:
    x = torch.from_numpy(X)
    columns = (x.abs() >= 6.0).any(dim=0)
    absmax = x.masked_fill(columns, 0).abs().amax(dim=1)
    codes = torch.round(127 * x.masked_fill(columns, 0).double() / absmax.double()[:, None])
    parts = decompose(X, 6.0)
    assert parts.outliers.tolist() == columns.tolist()
    assert parts.absmax.tolist() == absmax.tolist()
    assert parts.codes.tolist() == codes.int().tolist()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_an_outlier_unless_outliers_are_switched_off(value: float) -> None:
    x = np.ones((2, 3), F)
    x[1, 0] = value
    assert outlier_columns(x, 6.0).tolist() == [True, False, False], f"{value} makes its column one of outliers"
    assert decompose(x, 6.0).absmax.tolist() == [1, 1], "and does not reach the absmax"
    parts = decompose(x, 0.0)
    assert not parts.outliers.any(), "threshold 0 knows no outliers"
    assert np.isnan(parts.absmax).tolist() == [False, True], f"then {value} poisons its row alone"
    assert parts.codes.tolist() == [[127] * 3, [0] * 3], f"with the codes of zeros, got {parts.codes}"


def slow_sum(outlier_weight: str, threshold: float) -> list[list[Fraction]]:
    columns, absmax, codes = slow_parts(X, threshold, "columns")
    result = []
    for i, row in enumerate(X):
        result.append([])
        for n in range(4):
            scale = exact(WEIGHT.absmax[n])
            acc = sum(q * int(w) for q, w in zip(codes[i], WEIGHT.codes[n], strict=True))
            total = acc * absmax[i] * scale / 127**2 + exact(BIAS[n])
            for k in np.flatnonzero(columns):
                dense = rounded(int(WEIGHT.codes[n, k]) * scale / 127)
                total += exact(row[k]) * (exact(W[n, k]) if outlier_weight == "original" else dense)
            result[-1].append(total)
    return result


@pytest.mark.proof("llm_int8.forward", by="exact rationals")
@pytest.mark.parametrize("threshold", [6.0, 0.0, 2.0])
@pytest.mark.parametrize("outlier_weight", ["original", "dequantized"])
def test_y_is_the_sum_of_both_parts(threshold: float, outlier_weight: str) -> None:
    original = W if outlier_weight == "original" else None
    y = llm_int8_forward(X, WEIGHT, original, threshold=threshold, outlier_weight=outlier_weight, bias=BIAS)
    for got, expected in zip(y.tolist(), slow_sum(outlier_weight, threshold), strict=True):
        for value, real in zip(got, expected, strict=True):
            assert abs(Fraction(value) - real) <= Fraction(1, 2**40), f"{value}, exactly {float(real)}"


@pytest.mark.proof("llm_int8.forward", by="closed form")
def test_a_single_outlier_meets_the_original_weight_or_the_dequantized_one() -> None:
    x = np.zeros((1, 9), F)
    x[0, 5] = 8
    y = llm_int8_forward(x, WEIGHT, W)
    assert y[0].tolist() == (8 * W[:, 5].astype(np.float64)).tolist(), "8 times the fifth column of the original weight"
    y = llm_int8_forward(x, WEIGHT, outlier_weight="dequantized")
    dense = (WEIGHT.codes[:, 5] * WEIGHT.absmax.astype(np.float64) / 127).astype(F).astype(np.float64)
    assert y[0].tolist() == (8 * dense).tolist(), "8 times the fifth column of the dequantized weight"


@pytest.mark.proof("llm_int8.backward", by="exact rationals")
@pytest.mark.proof("llm_int8.backward", by="PyTorch autograd")
def test_the_gradient_goes_through_the_dequantized_weight_in_every_column(torch: ModuleType) -> None:
    dy = (np.random.default_rng(553).integers(-9, 10, (5, 4)) / 4).astype(F)
    dense = [
        [rounded(int(q) * exact(a) / 127) for q in row] for row, a in zip(WEIGHT.codes, WEIGHT.absmax, strict=True)
    ]
    weight = torch.tensor([[float(v) for v in row] for row in dense], dtype=torch.float64)
    x = torch.from_numpy(X).double().requires_grad_()
    torch.nn.functional.linear(x, weight).backward(torch.from_numpy(dy).double())
    gradients = llm_int8_backward(dy, WEIGHT)
    for i in range(5):
        for k in range(9):
            real = sum((exact(dy[i, n]) * dense[n][k] for n in range(4)), Fraction(0))
            assert abs(Fraction(gradients.x[i, k]) - real) <= Fraction(1, 2**42), f"dx[{i}, {k}] = {gradients.x[i, k]}"
            assert abs(float(x.grad[i, k]) - gradients.x[i, k]) <= 2.0**-42, f"dx[{i}, {k}]: torch has {x.grad[i, k]}"
    assert gradients.bias.tolist() == dy.astype(np.float64).sum(axis=0).tolist()


def test_the_input_is_not_modified() -> None:
    x = X.copy()
    x.flags.writeable = False
    llm_int8_forward(x, WEIGHT, W, bias=BIAS)
    assert np.array_equal(x, X), "the input was changed"


@pytest.mark.parametrize("lead", [(), (0,), (2, 2)])
def test_leading_axes_are_kept(lead: tuple[int, ...]) -> None:
    x = np.full((*lead, 9), 7, F)
    assert llm_int8_forward(x, WEIGHT, W).shape == (*lead, 4)
    parts = decompose(x, 6.0)
    assert (parts.codes.shape, parts.absmax.shape) == ((*lead, 9), lead)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: outlier_columns(X, -1.0), ArgumentValueError, "^threshold must be a number of at least 0, got -1.0$"),
        (lambda: outlier_columns(X, float("nan")), ArgumentValueError, "^threshold must be a number of at least 0"),
        (lambda: outlier_columns(X, "6"), ArgumentTypeError, "^threshold must be a number, got '6'$"),
        (lambda: outlier_columns(X.astype(float), 6), ArgumentTypeError, "^x must be .*, got float64$"),
        (lambda: outlier_columns(X[0, 0], 6), ArgumentValueError, "^x must be at least 1-d, got 0-d$"),
        (lambda: decompose(X, 6, exclusion="rows"), ArgumentValueError, "^exclusion must be one of columns, elements"),
        (lambda: decompose(X, 6, outliers=np.zeros(9)), ArgumentTypeError, "^outliers must be bool, got float64$"),
        (lambda: decompose(X, 6, absmax=np.zeros(3, F)), ArgumentValueError, r"^absmax must be of shape \(5,\)"),
        (lambda: llm_int8_forward(X, WEIGHT), ArgumentValueError, "^original must be given for outlier_weight"),
        (lambda: llm_int8_forward(X, WEIGHT, W[:3]), ArgumentValueError, r"^original must be of the shape of the"),
        (lambda: llm_int8_forward(X, WEIGHT, W, outlier_weight="none"), ArgumentValueError, "^outlier_weight must be"),
        (lambda: llm_int8_forward(X[:, :8], WEIGHT, W), ArgumentValueError, r"^b must be of shape"),
        (
            lambda: llm_int8_forward(
                np.ones((1, 133145), F), QuantizedInt8(np.ones((1, 133145), np.int8), F([1]), "row", None, "float32"),
                np.ones((1, 133145), F),
            ),
            ArgumentValueError,
            "^K must be at most 133144 .*, got 133145$",
        ),
    ],
)  # fmt: skip
def test_a_rejected_argument_is_named(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
