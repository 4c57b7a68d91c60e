"""[weight_only.forward], [weight_only.backward], [int8_linear.forward]: sums over dequantized weights and codes."""

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from qloracle import (
    QuantizedAffine,
    QuantizedInt8,
    dequantize_affine,
    dequantize_int8,
    int8_linear_forward,
    quantize_affine,
    quantize_int8,
    weight_only_backward,
    weight_only_forward,
    weight_values,
)
from qloracle.errors import ArgumentTypeError, ArgumentValueError
from qloracle.formats import Array

from .rational_affine import affine_word
from .rationals import exact, int8_code, rounded

F = np.float32
Weight = QuantizedInt8 | QuantizedAffine
RNG = np.random.default_rng(541)
W = (RNG.integers(-99, 100, (4, 6)) / 16).astype(F)
X = (RNG.integers(-99, 100, (3, 6)) / 16).astype(F)
DY = (RNG.integers(-99, 100, (3, 4)) / 16).astype(F)
BIAS = F([1, -2, 0.5, 3])
WEIGHTS: dict[str, Weight] = {
    "int8 row": quantize_int8(W, granularity="row"),
    "int8 column": quantize_int8(W, granularity="column"),
    "int8 block": quantize_int8(W, granularity="block", block_size=5),
    "affine row": quantize_affine(W, granularity="row"),
    "uint4 group": quantize_affine(W, granularity="group", group_size=5, qmin=0, qmax=15),
}


def entry(weight: Weight, row: int, column: int) -> Fraction:
    """The dequantized weight, from its parts."""
    flat = row * weight.codes.shape[1] + column
    code = int(weight.codes[row, column])
    if isinstance(weight, QuantizedInt8):
        place = {"row": row, "column": column, "block": flat // (weight.block_size or 1)}[weight.granularity]
        return rounded(code * exact(weight.absmax[place]) / 127)
    place = row if weight.granularity == "row" else flat // (weight.group_size or 1)
    word = affine_word(code, float(weight.scale[place]), int(weight.zero_point[place]), "float32")
    return exact(np.array([word], np.uint32).view(F)[0])


def matrix(weight: Weight) -> list[list[Fraction]]:
    return [[entry(weight, n, k) for k in range(6)] for n in range(4)]


def require_near(got: Array, expected: list[list[Fraction]], what: str) -> None:
    """Within a few float64 roundings of the magnitudes here, which are below 2^10."""
    for row, line in zip(got.tolist(), expected, strict=True):
        for value, real in zip(row, line, strict=True):
            assert abs(Fraction(value) - real) <= Fraction(1, 2**40), f"{what}: {value}, exactly {float(real)}"


@pytest.mark.proof("weight_only.forward", by="exact rationals")
@pytest.mark.parametrize("name", WEIGHTS)
def test_y_is_the_product_with_the_dequantized_weight(name: str) -> None:
    values = matrix(WEIGHTS[name])
    expected = [
        [sum((exact(x) * w for x, w in zip(row, values[n], strict=True)), exact(BIAS[n])) for n in range(4)]
        for row in X
    ]
    require_near(weight_only_forward(X, WEIGHTS[name], bias=BIAS), expected, name)


@pytest.mark.proof("weight_only.backward", by="exact rationals")
@pytest.mark.parametrize("name", WEIGHTS)
def test_the_gradient_goes_through_the_dequantized_weight(name: str) -> None:
    values, gradients = matrix(WEIGHTS[name]), weight_only_backward(DY, WEIGHTS[name])
    expected = [
        [sum((exact(d) * values[n][k] for n, d in enumerate(row)), Fraction(0)) for k in range(6)] for row in DY
    ]
    require_near(gradients.x, expected, name)
    assert gradients.bias.tolist() == DY.astype(np.float64).sum(axis=0).tolist(), "db is the sum over all rows"


@pytest.mark.proof("weight_only.forward", by="PyTorch")
@pytest.mark.proof("weight_only.backward", by="PyTorch autograd")
@pytest.mark.parametrize("name", WEIGHTS)
def test_torch_agrees_in_float64(name: str, torch: ModuleType) -> None:
    weight = WEIGHTS[name]
    values = dequantize_int8(weight) if isinstance(weight, QuantizedInt8) else dequantize_affine(weight)
    dense = torch.from_numpy(np.array(values)).double()
    x, bias = torch.from_numpy(X).double().requires_grad_(), torch.from_numpy(BIAS).double().requires_grad_()
    y = torch.nn.functional.linear(x, dense, bias)
    y.backward(torch.from_numpy(DY).double())
    gradients = weight_only_backward(DY, weight)
    parts = ((weight_only_forward(X, weight, bias=BIAS), y.detach()), (gradients.x, x.grad))
    for got, theirs in parts:
        require_near(got, [[Fraction(v) for v in row] for row in theirs.tolist()], f"{name} and torch")
    assert gradients.bias.tolist() == bias.grad.tolist(), "db differs from autograd"


def test_a_declared_rounding_of_the_weight_is_applied() -> None:
    weight = QuantizedInt8(np.int8([[127, 1]]), F([1]), "row", None, "float32")
    for fmt, step in (("bfloat16", 2.0**-15), ("float16", 2.0**-18)):
        got = float(weight_values(weight, weight_rounding=fmt)[0, 1])
        assert got == round(1 / 127 / step) * step, f"1/127 in {fmt} is {round(1 / 127 / step) * step}, got {got}"


@pytest.mark.proof("int8_linear.forward", by="exact rationals")
@pytest.mark.proof("int8_linear.forward", by="PyTorch integers")
def test_activations_are_quantized_row_by_row(torch: ModuleType) -> None:
    weight = quantize_int8(W, granularity="row")
    absmax = [max(map(abs, map(exact, row))) for row in X]
    codes = [[int8_code(exact(v), a) for v in row] for row, a in zip(X, absmax, strict=True)]
    acc = (torch.tensor(codes).long() @ torch.from_numpy(weight.codes).long().T).tolist()
    expected = [
        [acc[i][n] * absmax[i] * exact(weight.absmax[n]) / 127**2 + exact(BIAS[n]) for n in range(4)] for i in range(3)
    ]
    require_near(int8_linear_forward(X, weight, bias=BIAS), expected, "int8_linear_forward")
    sums = [[sum(a * int(b) for a, b in zip(row, line, strict=True)) for line in weight.codes] for row in codes]
    assert sums == acc, "torch's integer product differs from Python's"


@pytest.mark.parametrize("lead", [(), (0,), (2, 3), (2, 0, 1)])
def test_leading_axes_are_kept(lead: tuple[int, ...]) -> None:
    x, dy = np.ones((*lead, 6), F), np.ones((*lead, 4), F)
    weight = quantize_int8(W, granularity="row")
    assert weight_only_forward(x, weight).shape == int8_linear_forward(x, weight).shape == (*lead, 4)
    assert weight_only_backward(dy, weight).x.shape == (*lead, 6)


ROW = quantize_int8(W, granularity="row")


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: weight_only_forward(X, W), ArgumentTypeError, "^weight must be QuantizedInt8 or QuantizedAffine, got"),  # type: ignore[arg-type]
        (lambda: weight_only_forward(X[:, :5], ROW), ArgumentValueError, r"^x must be of shape \(\.\.\., 6\)"),
        (lambda: weight_only_forward(X, ROW, bias=BIAS[:3]), ArgumentValueError, r"^bias must be of shape \(4,\)"),
        (
            lambda: weight_only_forward(X, ROW, weight_rounding="float64"),
            ArgumentValueError,
            "^weight_rounding must be",
        ),
        (
            lambda: weight_only_backward(DY[:, :3], ROW),
            ArgumentValueError,
            r"^dy must be of shape \(3, 4\), got \(3, 3\)",
        ),
        (
            lambda: weight_only_forward(X, quantize_int8(W[0])),
            ArgumentValueError,
            "^weight must be a quantized 2-d tensor",
        ),
        (
            lambda: int8_linear_forward(X, quantize_int8(W)),
            ArgumentValueError,
            "^weight must be an INT8 matrix quantized",
        ),
        (
            lambda: int8_linear_forward(X, replace(ROW, granularity="column")),
            ArgumentValueError,
            "^weight must be an INT8 matrix quantized by row, got 2-d by column$",
        ),
        (lambda: int8_linear_forward(X.astype(float), ROW), ArgumentTypeError, "^x must be .*, got float64$"),
    ],
)
def test_a_rejected_argument_is_named(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
