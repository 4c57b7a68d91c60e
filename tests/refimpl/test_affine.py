"""[affine.quantize], [affine.dequantize], [symmetric.scale]: codes, values, and the scale of a clipping range."""

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from qloracle import dequantize_affine, minmax_range, quantize_affine, quantize_symmetric, symmetric_scale
from qloracle.affine import dequantize_affine_codes, quantize_affine_codes
from qloracle.errors import ArgumentTypeError, ArgumentValueError

from .compare import hex_of, require_same_codes, require_same_words
from .rational_affine import affine_code, affine_word, float32_of
from .rationals import exact, midpoint_neighbours, random_float32

RANGES = [(-128, 127), (0, 255), (-8, 7), (0, 15), (-127, 127)]
SCALES = np.array([1, 3, 0x007FFFFF, 0x00800000, 0x3DCCCCCD, 0x3F800000, 0x7E7FFFFF], np.uint32).view(np.float32)


@pytest.mark.proof("affine.quantize", by="exact rationals")
@pytest.mark.parametrize(("qmin", "qmax"), RANGES)
def test_a_float_beside_every_boundary_gets_the_nearest_code(qmin: int, qmax: int) -> None:
    x, scale, zero_point = [], [], []
    for size in SCALES:
        for z in (qmin, qmax, (qmin + qmax) // 2):
            for code in range(qmin - 1, qmax + 1, 1 if qmax - qmin < 20 else 7):
                near = midpoint_neighbours((Fraction(2 * code + 1, 2) - z) * exact(size))
                x += near
                scale += [size] * len(near)
                zero_point += [z] * len(near)
    values, sizes, places = np.array(x, np.float32), np.array(scale, np.float32), np.array(zero_point, np.int32)
    got = quantize_affine_codes(values, sizes, places, qmin, qmax)
    expected = [affine_code(v, s, z, qmin, qmax) for v, s, z in zip(x, scale, zero_point, strict=True)]
    require_same_codes(got, expected, f"codes {qmin} to {qmax}", hex_of(values))


@pytest.mark.proof("affine.quantize", by="PyTorch")
@pytest.mark.parametrize("scale", [2.0**-20, 0.1, 3e30])
def test_codes_are_those_of_torch_in_float64(scale: float, torch: ModuleType) -> None:
    size = np.float32(scale)
    x = (np.arange(-1200, 1200) / 4 * size).astype(np.float32)
    for qmin, qmax, z in ((0, 255, 100), (-128, 127, -3), (-8, 7, 7)):
        real = torch.from_numpy(x).double() / float(size)
        theirs = torch.clamp(torch.round(real) + z, qmin, qmax).to(torch.int32).tolist()
        got = quantize_affine_codes(x, size, np.int32(z), qmin, qmax)
        require_same_codes(got, theirs, f"torch in float64 with scale {scale}", hex_of(x))


@pytest.mark.parametrize("scale", [0.0, np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("x", [0.0, 1.0, -3e38, np.inf, np.nan])
def test_a_scale_that_is_none_gives_the_code_of_zero(scale: float, x: float) -> None:
    got = quantize_affine_codes(np.float32([x]), np.float32([scale]), np.int32([5]), 0, 15).tolist()
    assert got == [5], f"x = {x}, scale = {scale}, zero point 5: code 5, got {got}"


@pytest.mark.parametrize(("x", "code"), [(np.inf, 15), (-np.inf, 0), (np.nan, 5), (3e38, 15), (-3e38, 0), (1e-45, 5)])
def test_codes_are_total(x: float, code: int) -> None:
    got = quantize_affine_codes(np.float32([x]), np.float32([1]), np.int32([5]), 0, 15).tolist()
    assert got == [code], f"x = {x}: code {code}, got {got}"


@pytest.mark.proof("affine.dequantize", by="exact rationals")
@pytest.mark.parametrize(("fmt", "dtype"), [("float32", np.uint32), ("float16", np.uint16), ("bfloat16", np.uint16)])
@pytest.mark.parametrize(("qmin", "qmax"), RANGES)
def test_every_code_is_one_product_rounded_twice(
    fmt: str, dtype: type[np.unsignedinteger], qmin: int, qmax: int
) -> None:
    codes = np.arange(qmin, qmax + 1)
    scales = np.concatenate([SCALES, random_float32(np.random.default_rng(511), 12, signed=False) / np.float32(512)])
    for scale in scales[scales > 0]:
        for z in (qmin, qmax, max(0, qmin)):
            got = dequantize_affine_codes(codes, np.float32([scale]), np.int32([z]), fmt).view(dtype)
            expected = np.array([affine_word(int(q), float(scale), z, fmt) for q in codes], dtype)
            require_same_words(got, expected, fmt, f"(q − {z})·{scale!r}", lambda i: f"code {codes[i]}")


@pytest.mark.proof("affine.dequantize", by="PyTorch")
def test_values_are_the_float32_products_of_torch(torch: ModuleType) -> None:
    codes = np.arange(256, dtype=np.uint8)
    for scale in (0.1, 3e-5, 2.0**-140):
        steps = torch.from_numpy(codes).to(torch.float32) - 77
        for fmt, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16), ("float16", torch.float16)):
            theirs = (steps * torch.tensor(scale, dtype=torch.float32)).to(dtype).to(torch.float32).numpy()
            got = dequantize_affine_codes(codes, np.float32([scale]), np.int32([77]), fmt)
            wide = got.astype(np.float32) if fmt != "bfloat16" else (got.astype(np.uint32) << 16).view(np.float32)
            assert np.array_equal(wide, theirs), f"scale {scale} to {fmt}: torch's product differs"


def test_the_code_of_zero_is_plus_zero_and_a_poisoned_scale_gives_nan() -> None:
    got = dequantize_affine_codes(np.int8([3, 4]), np.float32([1e-45, np.nan]), np.int32([3, 3]), "float32")
    assert got[:1].view(np.uint32).tolist() == [0], f"the code of zero is +0, got {got[0]}"
    assert np.isnan(got[1]), f"a scale of NaN gives NaN, got {got[1]}"


GROUPS = [("tensor", None, ()), ("row", None, (2,)), ("column", None, (3,)), ("group", 4, (2,))]


@pytest.mark.parametrize(("granularity", "size", "shape"), GROUPS)
def test_each_granularity_has_its_own_scales(granularity: str, size: int | None, shape: tuple[int, ...]) -> None:
    x = np.array([[1, -2, 4], [8, 0.5, -4]], np.float32)
    q = quantize_affine(x, granularity=granularity, group_size=size)
    lo, hi = minmax_range(x, granularity=granularity, group_size=size)
    assert q.scale.shape == q.zero_point.shape == shape, f"{granularity}: shape {q.scale.shape}, expected {shape}"
    expected = (np.maximum(hi, 0) - np.minimum(lo, 0)) / np.float32(255)
    assert np.array_equal(q.scale, expected), f"{granularity}: scales {q.scale}, expected {expected}"


@pytest.mark.parametrize(("granularity", "size", "shape"), GROUPS)
def test_one_nan_poisons_its_group_alone(granularity: str, size: int | None, shape: tuple[int, ...]) -> None:
    x = np.ones((2, 3), np.float32)
    x[1, 2] = np.inf
    hurt = {"tensor": 6, "row": 3, "column": 2, "group": 2}[granularity]
    got = dequantize_affine(quantize_affine(x, granularity=granularity, group_size=size))
    assert int(np.isnan(got).sum()) == hurt, f"one infinity by {granularity} spoils {hurt} values, got {got}"


@pytest.mark.parametrize("shape", [(), (0,), (3,), (0, 3), (3, 0), (2, 3, 4)])
@pytest.mark.parametrize(("granularity", "size", "unused"), GROUPS)
def test_every_shape_comes_back(
    shape: tuple[int, ...], granularity: str, size: int | None, unused: tuple[int, ...]
) -> None:
    if not shape and granularity in ("row", "column"):
        return  # refused, see below
    x = np.full(shape, 255, np.float32)
    got = dequantize_affine(quantize_affine(x, granularity=granularity, group_size=size, qmin=0, qmax=255))
    assert np.array_equal(got, x), f"{shape} by {granularity} came back as {got}"


def test_views_and_read_only_arrays_are_read_as_their_elements() -> None:
    x = np.arange(24, dtype=np.float32).reshape(4, 6)
    expected = quantize_affine(np.ascontiguousarray(x[::-1, ::2]), granularity="row").codes
    for view in (x[::-1, ::2], x[::-1, ::2].astype(">f4")):
        view.flags.writeable = False
        got = quantize_affine(view, granularity="row").codes
        assert np.array_equal(got, expected), f"{view.dtype} with strides {view.strides} gives other codes"


def test_given_ranges_saturate_and_are_not_poisoned() -> None:
    ends = (np.float32(-8), np.float32(7))
    q = quantize_affine(np.float32([-9, 0, np.inf, np.nan]), qmin=-8, qmax=7, value_range=ends)
    assert q.codes.tolist() == [-8, 0, 7, 0], f"beyond the range codes saturate, NaN has that of 0, got {q.codes}"


@pytest.mark.proof("symmetric.scale", by="exact rationals")
@pytest.mark.proof("symmetric.scale", by="IEEE 754 division")
@pytest.mark.parametrize("qmax", [127, 7, 128, 255, 1])
def test_the_symmetric_scale_is_one_rounding_of_the_real_quotient(qmax: int) -> None:
    clip = np.concatenate([random_float32(np.random.default_rng(512), 1500, signed=False), SCALES])
    got, quotient = symmetric_scale(clip, qmax=qmax), clip / np.float32(qmax)
    for i, (scale, value) in enumerate(zip(got, clip, strict=True)):
        real = float32_of(exact(value) / qmax)
        assert scale == (real or 1), f"clip {value!r} / {qmax}: {scale!r}, the rule gives {real!r}"
        assert scale == (quotient[i] or 1), f"clip {value!r}: a float32 division gives {quotient[i]!r}"


def test_symmetric_codes_saturate_at_both_ends() -> None:
    q = quantize_symmetric(np.float32([-9, -7.5, 7.4, 9]), clip=np.float32(7), qmin=-8, qmax=7)
    assert q.codes.tolist() == [-8, -8, 7, 7], f"−7.5 ties to −8, which int4 has; got {q.codes}"
    assert not q.zero_point.any(), "symmetric codes have zero point 0"


def test_a_clipping_range_that_is_not_finite_poisons() -> None:
    q = quantize_symmetric(np.ones((2, 2), np.float32), clip=np.float32([1, np.inf]), granularity="row")
    assert np.isnan(dequantize_affine(q)).tolist() == [[False, False], [True, True]]


X, GOOD = np.ones((2, 3), np.float32), quantize_affine(np.ones((2, 3), np.float32), granularity="row")


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: quantize_affine(X.astype(np.float64)), ArgumentTypeError, "^x must be .*, got float64$"),
        (lambda: quantize_affine(X, granularity="block"), ArgumentValueError, "^granularity must be one of .*'block'$"),
        (lambda: quantize_affine(X, granularity="group"), ArgumentTypeError, "^group_size must be .*, got None$"),
        (lambda: quantize_affine(X, group_size=2), ArgumentValueError, "^group_size must be None .*, got 2$"),
        (lambda: quantize_affine(X[0, 0], granularity="row"), ArgumentValueError, "^granularity must be .* 0-d array"),
        (
            lambda: quantize_affine(X, value_range=(X[0], X[0])),
            ArgumentValueError,
            r"^value_range must be two arrays of shape \(\), got shape \(3,\)$",
        ),
        (lambda: quantize_symmetric(X, clip=X[0]), ArgumentValueError, r"^clip must be of shape \(\), got \(3,\)$"),
        (lambda: symmetric_scale(-X, qmax=7), ArgumentValueError, "^clip must be not negative, got -1.0$"),
        (lambda: symmetric_scale(X, qmax=0), ArgumentValueError, "^qmax must be from 1 to 255, got 0$"),
        (lambda: quantize_symmetric(X, clip=X[0, :1].reshape(()), qmin=1), ArgumentValueError, "^qmin must be not pos"),
        (lambda: dequantize_affine(replace(GOOD, dtype="float64")), ArgumentValueError, "^dtype must be one of"),
        (
            lambda: dequantize_affine(replace(GOOD, codes=GOOD.codes.astype(np.int16))),
            ArgumentTypeError,
            "^codes must be int8, got int16$",
        ),
        (
            lambda: dequantize_affine(replace(GOOD, qmin=-8, qmax=7)),
            ArgumentValueError,
            "^codes must be from -8 to 7, got 127 to 127$",
        ),
        (
            lambda: dequantize_affine(replace(GOOD, scale=GOOD.scale[:1])),
            ArgumentValueError,
            r"^scale must be of shape",
        ),
        (
            lambda: dequantize_affine(replace(GOOD, zero_point=np.int32([300, 0]))),
            ArgumentValueError,
            "^zero_point must be from -128 to 127, got 0 to 300$",
        ),
    ],
)
def test_a_rejected_argument_is_named(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
