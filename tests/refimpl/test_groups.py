"""Parts of a tensor and the groups that they belong to: the results of whole arrays, in little memory."""

import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest

from qloracle import (
    dequantize_affine,
    dequantize_int8,
    lora_merge,
    quantize_affine,
    quantize_double,
    quantize_int8,
)
from qloracle.blocks import CHUNK
from qloracle.formats import Array
from qloracle.groups import by_groups, group_shape, spread_groups

X = np.random.default_rng(81).standard_normal((1024, 1024)).astype(np.float32)
MOST = 6  # times the input
FACTOR = np.ones((8, 1024), np.float32)


@pytest.mark.parametrize(
    ("shape", "granularity", "size"),
    [
        *(((3, 5), name, None) for name in ("tensor", "row", "column")),
        *(((3, CHUNK + 7), name, None) for name in ("tensor", "row", "column")),
        *(((CHUNK + 7, 2), name, None) for name in ("tensor", "row", "column")),
        *(((3, CHUNK + 7), "group", size) for size in (1, 2, 7, CHUNK - 1, CHUNK, CHUNK + 1, 10**9)),
        *(((0, 3), name, None) for name in ("row", "column")),
        *(((3, 0), name, None) for name in ("row", "column")),
        ((), "tensor", None),
        ((), "group", 4),
        ((5,), "row", None),
    ],
)
def test_parts_give_what_the_whole_array_gives(shape: tuple[int, ...], granularity: str, size: int | None) -> None:
    rng, known = np.random.default_rng(82), ("tensor", "row", "column", "group")
    x = np.asarray(rng.integers(0, 1000, shape))
    numbers = np.asarray(rng.integers(0, 1000, group_shape(shape, granularity, size, known)))
    got = by_groups(np.subtract, x.dtype, x, (numbers,), granularity, size)
    assert np.array_equal(got, x - spread_groups(numbers, shape, granularity, size))


@pytest.mark.parametrize(
    "call",
    [
        lambda: quantize_affine(X),
        lambda: quantize_affine(X, granularity="column"),
        lambda: quantize_affine(X, granularity="group", group_size=1),
        lambda: dequantize_affine(quantize_affine(X, granularity="group", group_size=1)),
        lambda: quantize_double(X, block_size=1),
        lambda: quantize_int8(X, granularity="block", block_size=1),
        lambda: dequantize_int8(quantize_int8(X, granularity="block", block_size=1)),
        lambda: lora_merge(X, FACTOR, FACTOR.T, alpha=8),
        lambda: lora_merge(X, FACTOR, FACTOR.T, alpha=8, fan_in_fan_out=True),
    ],
)
def test_no_call_needs_more_memory_than_six_inputs(call: Callable[[], Array]) -> None:
    tracemalloc.start()
    try:
        call()
        most = tracemalloc.get_traced_memory()[1] / X.nbytes
    finally:
        tracemalloc.stop()
    assert most <= MOST, f"{most:.1f} times the input"
