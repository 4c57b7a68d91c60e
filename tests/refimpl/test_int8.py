"""[int8.absmax], [int8.quantize]: the integer nearest to the real number 127·x/absmax, ties to even."""

from fractions import Fraction
from types import ModuleType

import numpy as np
import pytest

from qloracle import dequantize_int8, quantize_int8
from qloracle.formats import Array
from qloracle.int8 import int8_absmax, quantize_int8_codes

from .compare import hex_of, require_same_codes
from .rationals import exact, int8_code, midpoint_neighbours, random_float32

EDGES = np.array([1, 2, 3, 0x007FFFFF, 0x00800000, 0x3F800000, 0x7F7FFFFF], np.uint32).view(np.float32)


def require_nearest(x: Array, absmax: Array) -> None:
    expected = [int8_code(exact(value), exact(scale)) for value, scale in zip(x, absmax, strict=True)]

    def source(index: int) -> str:
        return f"x = {hex_of(x)(index)}, absmax = {hex_of(absmax)(index)}"

    require_same_codes(quantize_int8_codes(x, absmax), expected, "INT8: nearest integer to 127·x/absmax", source)


@pytest.mark.parametrize("seed", [31, 32])
def test_a_float_beside_every_boundary_gets_the_nearest_integer(seed: int) -> None:
    scales = random_float32(np.random.default_rng(seed), 15, signed=False)
    scales = np.concatenate([scales[scales > 0], EDGES, -EDGES])
    x, absmax = [], []
    for scale in scales:
        for k in range(-127, 127):
            near = midpoint_neighbours(Fraction(2 * k + 1, 254) * exact(scale))
            x += near
            absmax += [scale] * len(near)
    require_nearest(np.array(x, np.float32), np.array(absmax, np.float32))


@pytest.mark.proof("int8.quantize", by="exact rationals")
def test_any_x_with_any_absmax_gets_the_nearest_integer() -> None:
    rng = np.random.default_rng(33)
    x = random_float32(rng, 20000)
    absmax = (x.view(np.uint32) ^ rng.integers(0, 1 << 25, x.size, dtype=np.uint32)).view(np.float32)
    usable = np.isfinite(absmax) & (absmax != 0)
    require_nearest(x[usable], absmax[usable])


@pytest.mark.parametrize("power", [2.0**-150, 2.0**-100, 1.0, 2.0**119])
def test_exact_ties_go_to_the_even_integer(power: float) -> None:
    halves = np.array([1, 3, 5, 7, 251, 253, -1, -3, -5, -7, -253])
    x, absmax = (halves * power).astype(np.float32), np.float32(254 * power)
    if power == 2.0**-150:  # 254·2^-150 is subnormal, x = odd · 2^-150 is not representable: use doubled numbers
        x, absmax = (2 * halves * power).astype(np.float32), np.float32(508 * power)
    got = quantize_int8_codes(x, absmax).tolist()
    assert got == [0, 2, 2, 4, 126, 126, 0, -2, -2, -4, -126], f"absmax 254, x = ±1, ±3, …: ties to even, got {got}"


@pytest.mark.proof("int8.quantize", by="published codes")
def test_the_worked_example_has_its_published_codes() -> None:
    q = quantize_int8(np.array([1.2, -0.5, -4.3, 1.2, -3.1, 0.8, 2.4, 5.4], np.float32))
    assert q.codes.tolist() == [28, -12, -101, 28, -73, 19, 56, 127], f"the worked example, got {q.codes}"


@pytest.mark.parametrize("absmax", [1e-45, 1.0, 3.4028235e38])
def test_the_absmax_itself_gets_127_and_comes_back(absmax: float) -> None:
    x = np.array([absmax, -absmax], np.float32)
    q = quantize_int8(x)
    assert q.codes.tolist() == [127, -127], f"±absmax = ±{absmax} are ±127, never -128, got {q.codes}"
    assert dequantize_int8(q).tolist() == x.tolist(), f"±{absmax} must come back exactly, got {dequantize_int8(q)}"


@pytest.mark.parametrize("absmax", [0.0, -0.0, np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("x", [0.0, 1.0, -3e38, np.inf, -np.inf, np.nan])
def test_an_absmax_that_is_no_scale_gives_code_zero(absmax: float, x: float) -> None:
    got = int(quantize_int8_codes(np.array([x], np.float32), np.array([absmax], np.float32))[0])
    assert got == 0, f"x = {x}, absmax = {absmax}: code 0, got {got}"


@pytest.mark.parametrize(
    ("x", "absmax", "code"),
    [
        (2, 1, 127),
        (-2, 1, -127),
        (np.inf, 1, 127),
        (-np.inf, 1, -127),
        (3e38, 1e-45, 127),
        (np.nan, 1, 0),
        (1, -1, -127),
    ],
)
def test_codes_are_total(x: float, absmax: float, code: int) -> None:
    got = int(quantize_int8_codes(np.array([x], np.float32), np.array([absmax], np.float32))[0])
    assert got == code, f"x = {x}, absmax = {absmax}: code {code}, got {got}"


GRANULARITIES = [
    ("tensor", None, (), 8.0),
    ("row", None, (2,), [4.0, 8.0]),
    ("column", None, (3,), [8.0, 2.0, 4.0]),
    ("block", 4, (2,), [8.0, 4.0]),
]


@pytest.mark.proof("int8.absmax", by="worked by hand")
@pytest.mark.parametrize(("granularity", "block_size", "shape", "expected"), GRANULARITIES)
def test_absmax_of_each_granularity(
    granularity: str, block_size: int | None, shape: tuple[int, ...], expected: object
) -> None:
    got = int8_absmax(np.array([[1, -2, 4], [8, 0.5, -4]], np.float32), granularity, block_size)
    assert (got.shape, got.tolist()) == (shape, expected), f"absmax by {granularity}: {expected}, got {got}"


@pytest.mark.proof("int8.absmax", by="PyTorch")
def test_absmax_is_the_largest_magnitude_that_torch_finds(torch: ModuleType) -> None:
    x = random_float32(np.random.default_rng(34), 60).reshape(5, 12)
    size = torch.from_numpy(x).abs()
    groups = {"tensor": size.amax(), "row": size.amax(dim=1), "column": size.amax(dim=0)}
    for granularity, theirs in groups.items():
        got = int8_absmax(x, granularity)
        assert got.tolist() == theirs.tolist(), f"absmax by {granularity}: torch finds {theirs}, got {got}"
    blocks = [float(part.max()) for part in size.reshape(-1).split(7)]
    assert int8_absmax(x, "block", 7).tolist() == blocks, "absmax of flat blocks of 7"


@pytest.mark.parametrize(
    ("granularity", "block_size"), [("tensor", None), ("row", None), ("column", None), ("block", 2)]
)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (0, 3), (3, 0), (2, 3), (2, 3, 4)])
def test_every_shape_comes_back(shape: tuple[int, ...], granularity: str, block_size: int | None) -> None:
    if not shape and granularity in ("row", "column"):
        return  # refused, see test_blocks
    got = dequantize_int8(quantize_int8(np.ones(shape, np.float32), granularity=granularity, block_size=block_size))
    assert got.shape == shape, f"{shape} by {granularity} came back with shape {got.shape}"
    assert np.all(got == 1), f"ones of shape {shape} by {granularity} came back as {got}"


@pytest.mark.parametrize(("granularity", "hurt"), [("tensor", 6), ("row", 3), ("column", 2)])
def test_one_nan_poisons_its_group_alone(granularity: str, hurt: int) -> None:
    x = np.ones((2, 3), np.float32)
    x[1, 2] = np.nan
    got = dequantize_int8(quantize_int8(x, granularity=granularity))
    assert int(np.isnan(got).sum()) == hurt, f"one NaN in (2, 3) by {granularity} spoils {hurt} values, got {got}"
