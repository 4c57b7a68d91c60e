"""Few rows of activations times a weight of INT8 or affine codes: one kernel reads the codes and their scales."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import qloracle
import qloracle_gpu.cupy as backend
from qloracle.errors import ArgumentValueError
from qloracle.int8_linear import weight_values
from qloracle_gpu.cupy.launcher import using

from .emulator.building import has_compiler
from .emulator.launching import ORDERS, EmulatedLauncher

pytestmark = pytest.mark.skipif(not has_compiler(), reason="NOT RUN: the emulator needs g++")
GRANULARITIES = {"tensor": {}, "row": {}, "column": {}, "flat": {"size": 50}}
SHAPES = [(1, 1, 1), (1, 3, 5), (3, 9, 40), (4, 2, 513), (16, 9, 1100), (2, 17, 4099), (5, 1, 31), (2, 3, 0), (2, 0, 3)]


@pytest.fixture(autouse=True)
def emulator() -> Iterator[EmulatedLauncher]:
    launcher = EmulatedLauncher("shuffled")
    with using(launcher):
        yield launcher


def int8_weight(rng: np.random.Generator, shape: tuple[int, int], granularity: str, size: int | None = None) -> Any:
    """Any codes, with an absmax of 127 times a power of two: all values are few bits wide."""
    how = {"granularity": granularity if size is None else "block", "block_size": size}
    like = qloracle.quantize_int8(np.zeros(shape, np.float32), **how)
    absmax = np.float32(127) * np.float32(2) ** rng.integers(-1, 2, like.absmax.shape).astype(np.float32)
    codes = rng.integers(-127, 128, shape, dtype=np.int8)
    return qloracle.QuantizedInt8(codes, np.asarray(absmax, np.float32), dtype="float32", **how)


def affine_weight(
    rng: np.random.Generator, shape: tuple[int, int], granularity: str, size: int | None = None, qmin: int = -128
) -> Any:
    """Any codes and zero points, with a scale that is a power of two."""
    how = {"granularity": granularity if size is None else "group", "group_size": size}
    like = qloracle.quantize_affine(np.zeros(shape, np.float32), qmin=qmin, qmax=qmin + 255, **how)
    scale = np.float32(2) ** rng.integers(-1, 2, like.scale.shape).astype(np.float32)
    zero_point = rng.integers(qmin, qmin + 256, like.scale.shape).astype(np.int32)
    codes = rng.integers(qmin, qmin + 256, shape).astype(like.codes.dtype)
    return qloracle.QuantizedAffine(
        codes, np.asarray(scale, np.float32), np.asarray(zero_point), qmin, qmin + 255, dtype="float32", **how
    )


def mirrored(weight: Any) -> Any:
    """The same record of the backend."""
    return getattr(backend, type(weight).__name__)(**vars(weight))


def small_integers(rng: np.random.Generator, shape: tuple[int, ...], dtype: str = "float32") -> np.ndarray:
    """At most 2: with these weights no partial sum of 4099 products needs more than 24 bits."""
    return rng.integers(-2, 3, shape).astype(dtype)


def require_equal(got: np.ndarray, wanted: np.ndarray) -> None:
    assert got.dtype == np.float32
    assert got.shape == wanted.shape
    wrong = np.argwhere(~((got == wanted) | (np.isnan(got) & np.isnan(wanted))))
    assert wrong.size == 0, f"{len(wrong)} of {got.size} differ, first at {wrong[0]}: {got[tuple(wrong[0])]}"


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("made", [int8_weight, affine_weight])
def test_products_that_are_exact_in_any_order_are_those_of_the_reference(made: Any, granularity: str) -> None:
    rng = np.random.default_rng(1)
    for rows, columns, inner in SHAPES:
        weight = made(rng, (columns, inner), granularity, **GRANULARITIES[granularity])
        x, bias = small_integers(rng, (rows, inner)), small_integers(rng, (columns,))
        wanted = qloracle.weight_only_forward(x, weight, bias=bias)
        require_equal(backend.weight_only_forward(x, mirrored(weight), bias=bias), wanted)
        require_equal(backend.quantized_matmul(x, mirrored(weight), bias=bias), wanted)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("made", [int8_weight, affine_weight])
def test_halves_give_what_the_reference_gives(made: Any, dtype: str) -> None:
    rng = np.random.default_rng(2)
    weight = made(rng, (9, 70), "row")
    x, bias = small_integers(rng, (7, 70)), small_integers(rng, (9,))
    real = qloracle.weight_only_forward(x, weight, bias=bias, weight_rounding=dtype)
    halves, fmt = [qloracle.encode(array, dtype) for array in (x, bias)], dtype
    if dtype == "float16":
        halves, fmt = [array.view("float16") for array in halves], None
    for target in ("float32", "float16", "bfloat16"):
        y = backend.weight_only_forward(
            halves[0], mirrored(weight), bias=halves[1], weight_rounding=dtype, out_dtype=target, fmt=fmt
        )
        assert y.tobytes() == qloracle.encode(real, target).tobytes(), target


@pytest.mark.parametrize("rounding", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_a_row_with_a_single_one_reads_a_column_of_the_dequantized_weight(granularity: str, rounding: str) -> None:
    rng = np.random.default_rng(3)
    w = (rng.standard_normal((23, 16)) * 2.0 ** rng.integers(-20, 10, (23, 16))).astype(np.float32)
    size = GRANULARITIES[granularity].get("size")
    names = ("block", "group") if size else (granularity, granularity)
    weights = (
        qloracle.quantize_int8(w, granularity=names[0], block_size=size),
        qloracle.quantize_affine(w, granularity=names[1], group_size=size),
        qloracle.quantize_affine(w, granularity=names[1], group_size=size, qmin=0, qmax=15),
    )
    for weight in weights:
        y = backend.weight_only_forward(np.eye(16, dtype=np.float32), mirrored(weight), weight_rounding=rounding)
        require_equal(y.T, weight_values(weight, weight_rounding=rounding))


@pytest.mark.parametrize("made", [int8_weight, affine_weight])
def test_what_is_not_finite_stays_in_its_row_and_its_group(made: Any) -> None:
    rng = np.random.default_rng(4)
    weight = made(rng, (5, 300), "flat", 50)
    scales = weight.absmax if made is int8_weight else weight.scale
    scales[[12, 29]] = np.nan, np.inf  # the first group of row 2, the last one of row 4
    x = small_integers(rng, (4, 300))
    x[1, 0], x[2, -1], x[3, 17] = np.inf, np.nan, -np.inf
    with np.errstate(all="ignore"):
        wanted = qloracle.weight_only_forward(x, weight)
    require_equal(backend.weight_only_forward(x, mirrored(weight)), wanted)
    assert np.isfinite(wanted[0, [0, 1, 3]]).all(), "else nothing could have leaked"


def test_any_address_and_any_strides_give_the_same() -> None:
    rng = np.random.default_rng(5)
    weight, x = int8_weight(rng, (6, 64), "row"), small_integers(rng, (64, 3)).T
    wanted = qloracle.weight_only_forward(x, weight)
    held = np.zeros(weight.codes.size + 32, np.int8)
    for shift in range(18):
        codes = held[shift : shift + weight.codes.size]
        codes[...] = weight.codes.reshape(-1)
        moved = backend.QuantizedInt8(**vars(weight) | {"codes": codes.reshape(6, 64)})
        require_equal(backend.weight_only_forward(x, moved), wanted)
    turned = backend.QuantizedInt8(**vars(weight) | {"codes": weight.codes[:, ::-1]})
    require_equal(backend.weight_only_forward(x[:, ::-1], turned), wanted)


@pytest.mark.parametrize("made", [int8_weight, affine_weight])
def test_the_bits_do_not_depend_on_the_order_of_threads_or_on_how_many_rows_come_together(made: Any) -> None:
    rng = np.random.default_rng(6)
    weight, x = mirrored(made(rng, (19, 777), "row")), rng.standard_normal((7, 777)).astype(np.float32)
    found = set()
    for order in ORDERS:
        for most_ctas in (1, None):
            with using(EmulatedLauncher(order, most_ctas=most_ctas)):
                found.add(backend.weight_only_forward(x, weight).tobytes())
    assert len(found) == 1
    one_by_one = np.concatenate([backend.weight_only_forward(row[np.newaxis], weight) for row in x])
    assert found == {one_by_one.tobytes()}


def test_up_to_16_rows_read_codes_and_17_dequantize(emulator: EmulatedLauncher) -> None:
    rng = np.random.default_rng(7)
    weights = {"int8": int8_weight(rng, (3, 20), "column"), "affine": affine_weight(rng, (3, 20), "row", qmin=0)}
    for kind, weight in weights.items():
        for rows, kernel in ((1, 1), (2, 4), (4, 4), (5, 16), (16, 16), (17, None)):
            emulator.launches.clear()
            backend.quantized_matmul(small_integers(rng, (rows, 20)), mirrored(weight))
            first = f"gemv_{kind}_{kernel}rows" if kernel else f"dequantize_{kind}_float32"
            assert emulator.launches == [first, "combine_float32"]


@pytest.mark.parametrize("made", [int8_weight, affine_weight])
def test_a_weight_whose_parts_do_not_belong_together_is_refused_before_any_launch(
    made: Any, emulator: EmulatedLauncher
) -> None:
    weight = made(np.random.default_rng(8), (3, 20), "row")
    name = "absmax" if made is int8_weight else "scale"
    wrong = mirrored(weight)
    object.__setattr__(wrong, name, np.ones(2, np.float32))
    for call in (backend.quantized_matmul, backend.weight_only_forward):
        with pytest.raises(ArgumentValueError, match=rf"{name} must be of shape \(3,\), got \(2,\)"):
            call(np.ones((1, 20), np.float32), wrong)
        with pytest.raises(ArgumentValueError, match=r"for a weight of shape \(3, 20\)|for x of shape"):
            call(np.ones((1, 21), np.float32), mirrored(weight))
    assert emulator.launches == []
