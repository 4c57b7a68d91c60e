"""[fake_quant.forward], [fake_quant.backward]: the value of the code, and a gradient of 1 on a closed interval."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from qloracle import dequantize_affine, fake_quantize, fake_quantize_backward, quantize_affine
from qloracle.errors import ArgumentTypeError, ArgumentValueError
from qloracle.formats import Array

from .rational_affine import affine_code, affine_word
from .rationals import exact, midpoint_neighbours, random_float32

F = np.float32
CASES = [(0.1, 3, 0, 15), (2.0**-140, -8, -8, 7), (1e30, 0, -128, 127), (0.25, 255, 0, 255)]


def beside(scale: float, zero_point: int, qmin: int, qmax: int) -> Array:
    """Floats on and beside the values of the outermost codes and of the boundaries after them."""
    found: list[np.float32] = []
    for code in (qmin, qmax):
        for half in (-1, 0, 1):
            found += midpoint_neighbours((code - zero_point) * exact(F(scale)) + half * exact(F(scale)) / 2)
    return np.array([*found, 0.0, *random_float32(np.random.default_rng(531), 200)], F)


@pytest.mark.proof("fake_quant.forward", by="exact rationals")
@pytest.mark.parametrize(("scale", "zero_point", "qmin", "qmax"), CASES)
def test_the_value_is_that_of_the_code(scale: float, zero_point: int, qmin: int, qmax: int) -> None:
    x, size = beside(scale, zero_point, qmin, qmax), float(F(scale))
    got = fake_quantize(x, F(scale), np.int32(zero_point), qmin=qmin, qmax=qmax).view(np.uint32)
    for value, word in zip(x, got, strict=True):
        expected = affine_word(affine_code(value, size, zero_point, qmin, qmax), size, zero_point, "float32")
        assert word == expected, f"x = {value!r}, scale {scale}: word {word:#x}, the rule gives {expected:#x}"


@pytest.mark.proof("fake_quant.forward", by="PyTorch")
@pytest.mark.parametrize("power", [2.0**-10, 1.0, 2.0**20])
def test_values_are_those_of_torch_where_its_reciprocal_is_exact(power: float, torch: ModuleType) -> None:
    x = (np.arange(-1200, 1200) / 4 * power).astype(F)
    for qmin, qmax, z in ((0, 255, 100), (-128, 127, -3), (-8, 7, 0)):
        theirs = torch.fake_quantize_per_tensor_affine(torch.from_numpy(x), power, z, qmin, qmax).numpy()
        got = fake_quantize(x, F(power), np.int32(z), qmin=qmin, qmax=qmax)
        assert np.array_equal(got, theirs), f"scale {power}, codes {qmin} to {qmax}: torch differs"


@pytest.mark.parametrize("fmt", ["float32", "float16", "bfloat16"])
def test_it_is_quantizing_and_dequantizing_at_once(fmt: str) -> None:
    rng = np.random.default_rng(532)
    x = rng.standard_normal((6, 10)).astype(F)
    words = (
        x if fmt == "float32" else x.astype(np.float16) if fmt == "float16" else (x.view(np.uint32) >> 16).astype("u2")
    )
    for granularity, size in (("row", None), ("group", 7), ("column", None), ("tensor", None)):
        how: Any = {"granularity": granularity, "group_size": size, "fmt": fmt}
        q = quantize_affine(words, **how)
        got = fake_quantize(words, q.scale, q.zero_point, **how)
        assert np.array_equal(got, dequantize_affine(q)), f"{fmt} by {granularity}"


@pytest.mark.proof("fake_quant.backward", by="exact rationals")
@pytest.mark.parametrize(("scale", "zero_point", "qmin", "qmax"), CASES)
def test_the_gradient_passes_on_the_closed_interval(scale: float, zero_point: int, qmin: int, qmax: int) -> None:
    x = beside(scale, zero_point, qmin, qmax)
    ends = [
        exact(np.array([affine_word(q, float(F(scale)), zero_point, "float32")], np.uint32).view(F)[0])
        for q in (qmin, qmax)
    ]
    dy = random_float32(np.random.default_rng(533), x.size)
    got = fake_quantize_backward(dy, x, F(scale), np.int32(zero_point), qmin=qmin, qmax=qmax)
    for value, gradient, result in zip(x, dy, got, strict=True):
        expected = gradient if ends[0] <= exact(value) <= ends[1] else F(0)
        assert result == expected, f"x = {value!r} in {list(map(float, ends))}: {result!r}, expected {expected!r}"


@pytest.mark.proof("fake_quant.backward", by="PyTorch autograd of a clamp")
def test_the_gradient_is_that_of_a_clamp(torch: ModuleType) -> None:
    x = torch.tensor(beside(0.1, 3, 0, 15), requires_grad=True)
    low, high = (float(F(q - 3) * F(0.1)) for q in (0, 15))
    torch.clamp(x, low, high).sum().backward()
    got = fake_quantize_backward(np.ones(len(x), F), x.detach().numpy(), F(0.1), np.int32(3), qmin=0, qmax=15)
    assert x.grad is not None
    assert got.tolist() == x.grad.tolist(), "the gradient of torch.clamp differs"


def test_the_variant_of_codes_is_the_gradient_of_torch(torch: ModuleType) -> None:
    for qmin, qmax, z in ((0, 15, 3), (-128, 127, -3)):
        x = torch.tensor((np.arange(-1200, 1200) / 4).astype(F), requires_grad=True)
        torch.fake_quantize_per_tensor_affine(x, 1.0, z, qmin, qmax).sum().backward()
        dy = np.ones(len(x), F)
        how: Any = {"qmin": qmin, "qmax": qmax, "interval": "codes"}
        got = fake_quantize_backward(dy, x.detach().numpy(), F(1), np.int32(z), **how)
        assert x.grad is not None
        assert got.tolist() == x.grad.tolist(), f"codes {qmin} to {qmax}: torch's gradient differs"


def test_the_largest_and_smallest_output_are_inside_in_every_format() -> None:
    for fmt, x in (("float16", np.float16([-99, 99])), ("bfloat16", np.uint16([0xC2C6, 0x42C6]))):
        # float16: 12.703125, beyond fl32(12.7); bfloat16: −12.8125, beyond fl32(−12.8).
        values = fake_quantize(x, F(0.1), np.int32(0), fmt=fmt)
        beyond = (values.view(np.uint16) + 1).view(values.dtype)
        for ends, expected in ((values, x), (beyond, np.zeros_like(x))):
            got = fake_quantize_backward(x, ends, F(0.1), np.int32(0), fmt=fmt)
            assert got.tolist() == expected.tolist(), f"{fmt}: the gradient at {ends} is {got}"


def test_outside_the_gradient_is_plus_zero_whatever_comes_in() -> None:
    dy = F([np.nan, np.inf, -1, -0.0])
    got = fake_quantize_backward(dy, F([99] * 4), F(1), np.int32(0), qmin=-8, qmax=7)
    assert got.view(np.uint32).tolist() == [0] * 4, f"outside the interval the gradient is +0, got {got}"


def test_a_poisoned_scale_gives_nan_both_ways() -> None:
    x, scale = np.ones(2, F), F("nan")
    assert np.isnan(fake_quantize(x, scale, np.int32(0))).all()
    assert np.isnan(fake_quantize_backward(x, x, scale, np.int32(0))).all()


X = np.ones((2, 3), F)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: fake_quantize(X, F(1), np.int64(0)), ArgumentTypeError, "^zero_point must be int32, got int64$"),
        (lambda: fake_quantize(X, 1.0, np.int32(0)), ArgumentTypeError, "^scale must be float32, got float$"),
        (
            lambda: fake_quantize(X, F(1), np.int32(8), qmin=-8, qmax=7),
            ArgumentValueError,
            "^zero_point .* got 8 to 8$",
        ),
        (
            lambda: fake_quantize(X, F([1]), np.int32([0])),
            ArgumentValueError,
            r"^scale must be of shape \(\), got \(1,\)",
        ),
        (
            lambda: fake_quantize_backward(X[0], X, F(1), np.int32(0)),
            ArgumentValueError,
            r"^dy must be of the shape of x \(2, 3\), got \(3,\)$",
        ),
        (
            lambda: fake_quantize_backward(X.astype(np.float16), X, F(1), np.int32(0)),
            ArgumentTypeError,
            "^dy must be of the format of x float32, got float16$",
        ),
        (
            lambda: fake_quantize_backward(X, X, F(1), np.int32(0), interval="open"),
            ArgumentValueError,
            "^interval must be one of values, codes, got 'open'$",
        ),
    ],
)
def test_a_rejected_argument_is_named(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
