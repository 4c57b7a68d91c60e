"""[affine.scale], [affine.zero_point]: one rounding of a real quotient; the integer nearest to qmin − lo/scale."""

from types import ModuleType

import numpy as np
import pytest

from qloracle import affine_parameters
from qloracle.errors import ArgumentTypeError, ArgumentValueError
from qloracle.formats import Array

from .rational_affine import scale_and_zero_point
from .rationals import random_float32

RANGES = [(-128, 127), (0, 255), (-8, 7), (0, 15), (-127, 127), (-7, 7), (1, 255), (3, 9)]
EDGES = np.array([0, 1, 2, 3, 0x007FFFFF, 0x00800000, 0x3F800000, 0x7F7FFFFF], np.uint32).view(np.float32)


def require_parameters(lo: Array, hi: Array, qmin: int, qmax: int) -> None:
    scale, zero_point = affine_parameters(lo, hi, qmin=qmin, qmax=qmax)
    for i, (low, high) in enumerate(zip(lo.tolist(), hi.tolist(), strict=True)):
        expected = scale_and_zero_point(low, high, qmin, qmax)
        got = (float(scale[i]), int(zero_point[i]))
        same = got == expected or (np.isnan(got[0]) and np.isnan(expected[0]) and got[1] == expected[1])
        assert same, f"range [{low!r}, {high!r}], codes {qmin} to {qmax}: got {got}, the rule gives {expected}"


def ordered(first: Array, second: Array) -> tuple[Array, Array]:
    return np.minimum(first, second), np.maximum(first, second)


@pytest.mark.proof("affine.scale", by="exact rationals")
@pytest.mark.proof("affine.zero_point", by="exact rationals")
@pytest.mark.parametrize(("qmin", "qmax"), RANGES)
def test_any_range_has_the_scale_and_the_zero_point_of_the_rule(qmin: int, qmax: int) -> None:
    rng = np.random.default_rng(501)
    first = random_float32(rng, 700)
    # The other end has a near exponent in half of the cases: there both take part in the rounding.
    near = (first.view(np.uint32) ^ rng.integers(0, 1 << 27, first.size, dtype=np.uint32)).view(np.float32)
    second = np.where(rng.integers(0, 2, first.size) == 0, -near, random_float32(rng, first.size))
    usable = np.isfinite(second)
    require_parameters(*ordered(first[usable], second[usable]), qmin, qmax)
    signed = np.concatenate([EDGES, -EDGES])
    require_parameters(*ordered(np.repeat(signed, signed.size), np.tile(signed, signed.size)), qmin, qmax)


@pytest.mark.parametrize("steps", [255, 15])
def test_a_width_of_56_bits_is_rounded_once(steps: int) -> None:
    rng = np.random.default_rng(502)
    middle = rng.integers(1 << 24, 1 << 25, 1 << 15) | 1
    product = middle * steps
    unit = 1 << (np.frexp(product.astype(np.float64))[1] - 24)
    rest = product % unit
    chosen = np.argsort(rest)[:150]
    high, low = (product - rest)[chosen].astype(np.float32), rest[chosen].astype(np.float32)
    for end in (low, np.nextafter(low, np.float32(np.inf)), np.nextafter(low, np.float32(0))):
        require_parameters(-end, high, 0, steps)


@pytest.mark.parametrize(("qmin", "qmax"), RANGES)
def test_a_tie_of_the_zero_point_goes_to_the_even_integer(qmin: int, qmax: int) -> None:
    below = np.arange(qmax - qmin) + 0.5
    for power in (2.0**-140, 1.0, 2.0**100):
        lo, hi = (-below * power).astype(np.float32), ((qmax - qmin - below) * power).astype(np.float32)
        require_parameters(lo, hi, qmin, qmax)
        for direction in (-np.inf, 0):
            require_parameters(np.nextafter(lo, np.float32(direction)), hi, qmin, qmax)


@pytest.mark.proof("affine.scale", by="IEEE 754 division")
@pytest.mark.parametrize("steps", [255, 15, 254])
def test_a_range_from_0_has_the_correctly_rounded_float32_quotient(steps: int) -> None:
    hi = np.concatenate([random_float32(np.random.default_rng(503), 5000, signed=False), EDGES])
    scale, _ = affine_parameters(np.zeros_like(hi), hi, qmin=0, qmax=steps)
    quotient = hi / np.float32(steps)
    expected = np.where(quotient == 0, np.float32(1), quotient)
    wrong = np.flatnonzero(scale != expected)
    assert not wrong.size, (
        f"hi = {hi[wrong[:1]]}: scale {scale[wrong[:1]]}, a float32 division gives {expected[wrong[:1]]}"
    )


@pytest.mark.proof("affine.zero_point", by="PyTorch")
@pytest.mark.parametrize(("qmin", "qmax"), [(0, 255), (-128, 127), (0, 15), (-8, 7)])
def test_zero_points_are_those_of_torch_where_its_float32_steps_are_exact(
    qmin: int, qmax: int, torch: ModuleType
) -> None:
    rng = np.random.default_rng(504)
    steps = qmax - qmin
    below = rng.integers(0, steps + 1, 400) + rng.choice([0.0, 0.25, 0.5, 0.75], 400)
    below = np.minimum(below, steps)
    lo, hi = -below.astype(np.float32), (steps - below).astype(np.float32)
    scale, zero_point = affine_parameters(lo, hi, qmin=qmin, qmax=qmax)
    assert np.all(scale == 1), "a range of as many units as there are steps has scale 1"
    expected = torch.clamp(torch.round(qmin - torch.from_numpy(lo)), qmin, qmax).to(torch.int32)
    assert zero_point.tolist() == expected.tolist(), "torch.round of qmin − lo differs"


@pytest.mark.parametrize("end", [np.nan, np.inf, -np.inf])
def test_an_end_that_is_not_finite_poisons_its_group_alone(end: float) -> None:
    lo, hi = np.float32([-1, np.minimum(end, 1)]), np.float32([1, np.maximum(end, 1)])
    scale, zero_point = affine_parameters(lo, hi, qmin=-128, qmax=127)
    assert [np.isnan(s) for s in scale] == [False, True], f"only the group with {end} is poisoned, got {scale}"
    assert zero_point[1] == 0, f"a poisoned group has zero point 0, got {zero_point[1]}"


@pytest.mark.parametrize(("qmin", "qmax", "expected"), [(-128, 127, 0), (0, 255, 0), (3, 9, 3)])
def test_a_range_without_width_has_scale_1_and_zero_point_0_clipped(qmin: int, qmax: int, expected: int) -> None:
    for width in (np.float32(0), np.float32(1e-45)):
        scale, zero_point = affine_parameters(
            np.zeros(1, np.float32), width.reshape(1), qmin=qmin, qmax=max(qmax, qmin + 4)
        )
        assert (scale.tolist(), zero_point.tolist()) == ([1.0], [expected]), f"width {width}: {scale}, {zero_point}"


ONE = np.ones(1, np.float32)


@pytest.mark.parametrize(
    ("lo", "hi", "qmin", "qmax", "error", "message"),
    [
        (np.ones(1), ONE, 0, 255, ArgumentTypeError, "^lo must be float32, got float64$"),
        (ONE, [1.0], 0, 255, ArgumentTypeError, "^hi must be float32, got list$"),
        (ONE, ONE[:0], 0, 255, ArgumentValueError, r"^hi must be of the shape of lo \(1,\), got \(0,\)$"),
        (2 * ONE, ONE, 0, 255, ArgumentValueError, "^hi must be not below lo, here 2.0, got 1.0$"),
        (ONE, ONE, 0, 256, ArgumentValueError, "^qmin and qmax must be within .*, got 0 and 256$"),
        (ONE, ONE, -129, 0, ArgumentValueError, "^qmin and qmax must be within .*, got -129 and 0$"),
        (ONE, ONE, -1, 128, ArgumentValueError, "^qmin and qmax must be within .*, got -1 and 128$"),
        (ONE, ONE, 5, 6, ArgumentValueError, r"^qmax must be at least qmin \+ 2, here 7, got 6$"),
        (ONE, ONE, 0.0, 255, ArgumentTypeError, "^qmin must be an integer, got 0.0$"),
        (ONE, ONE, 0, True, ArgumentTypeError, "^qmax must be an integer, got True$"),
    ],
)
def test_a_rejected_argument_is_named(
    lo: Array, hi: Array, qmin: int, qmax: int, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        affine_parameters(lo, hi, qmin=qmin, qmax=qmax)
