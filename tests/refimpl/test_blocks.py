"""[blocks.absmax]: flat blocks, a short last one, poison, emptiness."""

import math
from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest

from qloracle import block_absmax, quantize_blockwise, quantize_int8
from qloracle.blocks import CHUNK, rectangles, spread
from qloracle.errors import ArgumentTypeError, ArgumentValueError
from qloracle.formats import Array

from .rationals import random_float32

NAN, INF = np.nan, np.inf


def absmax_words(values: list[float], block_size: int) -> list[int]:
    return block_absmax(np.array(values, np.float32), block_size).view(np.uint32).tolist()


@pytest.mark.proof("blocks.absmax", by="literal words")
def test_absmax_is_the_largest_magnitude_of_each_block() -> None:
    got = absmax_words([1, -3, 2, 0.5, -0.25, 0.125], 2)
    assert got == [0x40400000, 0x40000000, 0x3E800000], f"[1,-3 | 2,.5 | -.25,.125] has 3, 2, 0.25, got {got}"


@pytest.mark.proof("blocks.absmax", by="one element at a time in Python")
@pytest.mark.parametrize("block_size", [1, 2, 7, 64, 100, 65536, 70000])
def test_absmax_is_what_a_loop_over_elements_finds(block_size: int) -> None:
    x = random_float32(np.random.default_rng([41, block_size]), 2000 if block_size < 1000 else 140003)
    x[::777] = np.nan if block_size < 64 else 0
    expected: list[float] = []
    for start in range(0, x.size, block_size):
        largest = 0.0
        for value in x[start : start + block_size].tolist():
            largest = NAN if math.isnan(value) or math.isnan(largest) else max(largest, abs(value))
        expected.append(largest)
    got = block_absmax(x, block_size).tolist()
    assert list(map(repr, got)) == list(map(repr, expected)), f"blocks of {block_size}: {got[:5]} …"


def test_the_last_block_may_be_short() -> None:
    got = absmax_words([8, 1, 1, 2, 4], 3)
    assert got == [0x41000000, 0x40800000], f"[8,1,1 | 2,4] has 8 and 4, got {got}"


@pytest.mark.parametrize("size", [1, 63, 64, 65, 127, 128, 129])
def test_the_absmax_of_a_tail_reads_nothing_beyond_it(size: int) -> None:
    buffer = np.full(256, 1e30, np.float32)
    buffer[:size] = 1
    got = block_absmax(buffer[:size], 64)
    assert got.tolist() == [1.0] * -(-size // 64), f"{size} ones in blocks of 64 have absmax 1, got {got}"


def test_blocks_run_over_rows() -> None:
    x = np.repeat(np.array([1, 2, 4, 8], np.float32), 96).reshape(4, 96)
    got = block_absmax(x, 64).tolist()
    assert got == [1, 2, 2, 4, 8, 8], f"(4, 96) with rows of 1, 2, 4, 8 in flat blocks of 64, got {got}"


def test_rows_shorter_than_a_block_share_one() -> None:
    x = np.repeat(2.0 ** np.arange(8), 32).astype(np.float32).reshape(8, 32)
    got = block_absmax(x, 64).tolist()
    assert got == [2, 8, 32, 128], f"(8, 32) with row i of 2^i in flat blocks of 64, got {got}"


def test_a_transposed_array_is_read_in_its_own_row_major_order() -> None:
    x = np.array([[1, 2], [4, 8]], np.float32).T
    assert block_absmax(x, 2).tolist() == [4, 8], f"rows of the transpose are [1, 4], [2, 8], got {block_absmax(x, 2)}"


@pytest.mark.parametrize("where", [0, 31, 63])
@pytest.mark.parametrize("poison", [NAN, INF, -INF])
def test_one_non_finite_element_poisons_its_block_alone(where: int, poison: float) -> None:
    x = np.ones(192, np.float32)
    x[64 + where] = poison
    got = block_absmax(x, 64)
    assert np.isnan(got).tolist() == [False, True, False], f"{poison} at {64 + where} of 192: absmax {got}"


@pytest.mark.parametrize("where", [0, 2])
def test_a_short_last_block_can_be_poisoned(where: int) -> None:
    x = np.ones(67, np.float32)
    x[64 + where] = -INF
    assert np.isnan(block_absmax(x, 64)).tolist() == [False, True], f"-inf in a block of 3: {block_absmax(x, 64)}"


@pytest.mark.parametrize("word", [0x7F800001, 0xFF800001, 0x7FFFFFFF, 0xFFC00000])
def test_every_class_of_nan_poisons(word: int) -> None:
    x = np.array([0x3F800000, word], np.uint32).view(np.float32)
    assert np.isnan(block_absmax(x, 2)[0]), f"the NaN {word:#x} must poison, got {block_absmax(x, 2)}"


@pytest.mark.parametrize("values", [[0.0, 0.0], [-0.0, -0.0], [-0.0, 0.0]])
def test_a_block_of_zeros_has_absmax_plus_zero(values: list[float]) -> None:
    assert absmax_words(values, 2) == [0], f"absmax of {values} is +0, got word {absmax_words(values, 2)[0]:#x}"


@pytest.mark.parametrize("word", [1, 0x80000001, 0x007FFFFF, 0x7F7FFFFF, 0xFF7FFFFF])
def test_subnormal_and_largest_magnitudes_are_kept(word: int) -> None:
    got = block_absmax(np.array([word, 0], np.uint32).view(np.float32), 2).view(np.uint32).tolist()
    assert got == [word & 0x7FFFFFFF], f"absmax of float32 {word:#x} and 0, got {got[0]:#x}"


@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0)])
def test_an_empty_array_has_no_block(shape: tuple[int, ...]) -> None:
    assert block_absmax(np.empty(shape, np.float32), 64).shape == (0,), f"shape {shape} must have no block"


def test_a_0_d_array_is_one_block() -> None:
    assert block_absmax(np.array(-3, np.float32), 64).tolist() == [3]


@pytest.mark.parametrize("block_size", [4, 64, 2**40, 10**30])
def test_a_block_larger_than_the_tensor_is_the_whole_tensor(block_size: int) -> None:
    q = quantize_blockwise(np.array([1, -2, 0], np.float32), block_size=block_size)
    assert q.absmax.tolist() == [2], f"three elements in one block of {block_size}, got absmax {q.absmax}"


@pytest.mark.parametrize("size", [0, 1, 5, 64, 65536, 65537, 200001])
@pytest.mark.parametrize("block_size", [1, 3, 64, 65535, 65536, 65537, 100000, 10**30])
def test_rectangles_cover_every_element_once_and_know_its_block(size: int, block_size: int) -> None:
    at = 0
    for elements, blocks in rectangles(size, block_size):
        length, count = elements.stop - elements.start, blocks.stop - blocks.start
        assert (elements.start, length > 0, length <= CHUNK, length % count) == (at, True, True, 0), f"{elements}"
        owners = {i // block_size for i in (elements.start, elements.stop - 1)}
        assert owners == {blocks.start, blocks.stop - 1}, f"{elements} lie in blocks {owners}, not {blocks}"
        at = elements.stop
    assert at == size, f"{at} of {size} elements are covered"


def test_the_values_of_blocks_spread_over_their_elements() -> None:
    assert spread(np.array([5, 7]), 5, 3).tolist() == [5, 5, 5, 7, 7]


@pytest.mark.parametrize("words", [[0x3F80, 0xC040, 0x0001]])
def test_bfloat16_words_have_the_absmax_of_their_values(words: list[int]) -> None:
    got = block_absmax(np.array(words, np.uint16), 2, fmt="bfloat16").view(np.uint32).tolist()
    assert got == [0x40400000, 0x00010000], f"bfloat16 [1, -3 | 2^-133], got {[hex(word) for word in got]}"


def test_ml_dtypes_bfloat16_has_the_absmax_of_its_values(ml_dtypes: ModuleType) -> None:
    x = np.array([1, -3], ml_dtypes.bfloat16)
    assert block_absmax(x, 2).tolist() == [3], f"bfloat16 [1, -3], got {block_absmax(x, 2)}"


def test_float16_has_the_absmax_of_its_values() -> None:
    x = np.array([0x0001, 0x8002, 0x7BFF], np.uint16).view(np.float16)
    assert block_absmax(x, 2).tolist() == [2.0**-23, 65504.0]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: block_absmax(x, 0), ArgumentValueError, "^block_size must be a positive integer, got 0$"),
        (lambda x: block_absmax(x, -4), ArgumentValueError, "^block_size must be a positive integer, got -4$"),
        (lambda x: block_absmax(x, 2.0), ArgumentTypeError, "^block_size must be a positive integer, got 2.0$"),
        (lambda x: block_absmax(x, True), ArgumentTypeError, "^block_size must be a positive integer, got True$"),
        (lambda x: block_absmax(x.astype(np.float64), 2), ArgumentTypeError, "^x must be .*, got float64$"),
        (lambda x: block_absmax(x.tolist(), 2), ArgumentTypeError, "^x must be a NumPy array, got list$"),
        (lambda x: quantize_blockwise(x.astype(np.float64)), ArgumentTypeError, "^x must be .*, got float64$"),
        (lambda x: quantize_blockwise(x, block_size=0), ArgumentValueError, "^block_size must be .*, got 0$"),
        (lambda x: quantize_blockwise(x, codebook="nf5"), ArgumentValueError, "^codebook must be one .*, got 'nf5'$"),
        (lambda x: quantize_int8(x.astype(np.int32)), ArgumentTypeError, "^x must be .*, got int32$"),
        (lambda x: quantize_int8(x, granularity="group"), ArgumentValueError, "^granularity must .*, got 'group'$"),
        (lambda x: quantize_int8(x, granularity="block"), ArgumentTypeError, "^block_size must be .*, got None$"),
        (lambda x: quantize_int8(x, block_size=2), ArgumentValueError, "^block_size must be None .*'tensor', got 2$"),
        (lambda x: quantize_int8(x[0], granularity="row"), ArgumentValueError, "^granularity .* 0-d .*, got 'row'$"),
    ],
)
def test_a_rejected_argument_is_named_with_its_rule_and_value(
    call: Callable[[Array], object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        call(np.ones(4, np.float32))
