"""[blockwise.dequantize]: RN_out(fl32(entry · absmax)), +0 where absmax is 0, NaN where it is NaN."""

from dataclasses import replace

import numpy as np
import pytest

from qloracle import dequantize_blockwise, quantize_blockwise
from qloracle.blockwise import CODEBOOKS, dequantize_codes
from qloracle.codebooks import Codebook
from qloracle.errors import ArgumentTypeError, ArgumentValueError
from qloracle.formats import Array

from .compare import require_same_words
from .rationals import FIELDS, decode_word, exact, random_float32, round_word

BOTH = pytest.mark.parametrize("codebook", CODEBOOKS.values(), ids=CODEBOOKS.keys())
WORD = {"float32": np.uint32, "float16": np.uint16, "bfloat16": np.uint16}


def stepwise_word(entry: np.float32, absmax: np.float32, fmt: str) -> int:
    """Product rounded to float32, then to `fmt`, each from the exact number."""
    negative = bool(np.signbit(entry)) != bool(np.signbit(absmax))
    single = round_word(exact(entry) * exact(absmax), "float32", negative=negative)
    real = decode_word(single, "float32")
    if isinstance(real, float):  # overflow to infinity
        width, digits = FIELDS[fmt]
        return ((2**width - 1) << digits) | ((real < 0) << (width + digits))
    return round_word(real, fmt, negative=negative)  # type: ignore[arg-type]


@BOTH
@pytest.mark.parametrize("fmt", ["float32", "float16", "bfloat16"])
def test_every_code_times_any_absmax_is_rounded_twice_in_order(codebook: Codebook, fmt: str) -> None:
    scales = random_float32(np.random.default_rng(21), 8000 // codebook.entries.size)
    scales[:6] = np.array([1, 0x80000001, 0x00800000, 0x7F7FFFFF, 0x477FE000, 0x33800000], np.uint32).view(np.float32)
    count = codebook.entries.size
    codes, absmax = np.tile(np.arange(count, dtype=np.uint8), scales.size), np.repeat(scales, count)
    got = dequantize_codes(codes, scales, codebook, count, fmt).view(WORD[fmt])
    expected = [stepwise_word(codebook.entries[c], a, fmt) if a else 0 for c, a in zip(codes, absmax, strict=True)]
    require_same_words(
        got, np.array(expected, WORD[fmt]), fmt, f"{codebook.name} to {fmt}", lambda i: f"{codes[i]} {absmax[i]!r}"
    )


def test_the_product_is_rounded_to_float32_before_the_output_format() -> None:
    # Where the float32 product is a tie between two bfloat16 numbers, but the real product lies beside it, one rounding
    # and two disagree for about half of the scales.
    entry = CODEBOOKS["nf4"].entries[1]
    scales = np.random.default_rng(22).random(1 << 20).astype(np.float32) + np.float32(1)
    product = entry * scales
    ties = np.flatnonzero((product.view(np.uint32) & 0xFFFF) == 0x8000)
    twice = dequantize_codes(np.ones(ties.size, np.uint8), scales[ties], CODEBOOKS["nf4"], 1, "bfloat16")
    stepwise = [stepwise_word(entry, a, "bfloat16") for a in scales[ties]]
    once = [round_word(exact(entry) * exact(a), "bfloat16") for a in scales[ties]]
    assert once != stepwise, "no example tells one rounding from two"
    assert twice.tolist() == stepwise, "the product must be rounded to float32 first"


@pytest.mark.parametrize("scale", [0.0, -0.0])
@BOTH
def test_absmax_zero_dequantizes_to_plus_zero(codebook: Codebook, scale: float) -> None:
    codes = np.arange(codebook.entries.size, dtype=np.uint8)
    got = dequantize_codes(codes, np.array([scale], np.float32), codebook, 256, "float32").view(np.uint32)
    assert not got.any(), f"{codebook.name}: absmax {scale} must give +0 everywhere, got words {np.unique(got)}"


@BOTH
@pytest.mark.parametrize("fmt", ["float32", "float16", "bfloat16"])
def test_absmax_nan_dequantizes_to_nan_in_its_block_alone(codebook: Codebook, fmt: str) -> None:
    codes, scales = np.full(9, 3, np.uint8), np.array([1, np.nan, 1], np.float32)
    words = dequantize_codes(codes, scales, codebook, 3, fmt).view(WORD[fmt])
    infinity = {"float32": 0x7F800000, "float16": 0x7C00, "bfloat16": 0x7F80}[fmt]
    sign = {"float32": 0x7FFFFFFF, "float16": 0x7FFF, "bfloat16": 0x7FFF}[fmt]
    nans = ((words & sign) > infinity).tolist()
    assert nans == [False] * 3 + [True] * 3 + [False] * 3, f"{codebook.name} to {fmt}: NaN at {nans}"


@pytest.mark.parametrize("shape", [(), (0,), (1,), (7,), (4, 96), (2, 3, 5), (0, 5), (2, 1, 3, 1)])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_shape_and_dtype_come_back(shape: tuple[int, ...], dtype: str) -> None:
    x = np.ones(shape, dtype)
    got = dequantize_blockwise(quantize_blockwise(x))
    assert (got.shape, got.dtype.name) == (shape, dtype), f"{dtype} {shape} came back as {got.dtype} {got.shape}"
    assert np.all(got == 1), f"ones of shape {shape} came back as {got}"


def test_bfloat16_words_come_back_as_words() -> None:
    got = dequantize_blockwise(quantize_blockwise(np.array([0xBF80, 0x4000], np.uint16), fmt="bfloat16"))
    assert (got.dtype, got.tolist()) == (np.uint16, [0xBF86, 0x4000]), f"bfloat16 [-1, 2] came back as {got}"


@pytest.mark.parametrize("where", [0, 63, 64, 100, 127, 128])
def test_a_poisoned_block_is_nan_and_no_other_value_changes(where: int) -> None:
    x = np.linspace(-1, 1, 130, dtype=np.float32)
    clean = dequantize_blockwise(quantize_blockwise(x))
    x[where] = -np.inf
    got, block = dequantize_blockwise(quantize_blockwise(x)), np.arange(130) // 64 == where // 64
    assert np.isnan(got).tolist() == block.tolist(), f"-inf at {where}: NaN at {np.flatnonzero(np.isnan(got))}"
    assert got[~block].tolist() == clean[~block].tolist(), f"-inf at {where} changed another block"


def test_zero_blocks_beside_others_stay_plus_zero() -> None:
    x = np.concatenate([np.zeros(64), np.ones(64), np.full(3, -0.0)]).astype(np.float32)
    got = dequantize_blockwise(quantize_blockwise(x)).view(np.uint32).tolist()
    assert got == [0] * 64 + [0x3F800000] * 64 + [0] * 3, "zeros(64), ones(64), -0 must come back as +0, 1, +0"


GOOD = quantize_blockwise(np.ones((2, 3), np.float32), block_size=4)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"absmax": np.ones(1, np.float32)}, ArgumentValueError, r"^absmax must be of shape \(2,\), .*, got \(1,\)$"),
        ({"absmax": np.ones(2)}, ArgumentTypeError, "^absmax must be float32, got float64$"),
        ({"data": np.zeros(4, np.uint8)}, ArgumentValueError, "^packed must be 3 bytes for 6 codes, got 4 bytes$"),
        ({"data": np.zeros(3, np.int8)}, ArgumentTypeError, "^data must be uint8, got int8$"),
        ({"codebook": "fp5"}, ArgumentValueError, "^codebook must be one of nf4, .*, got 'fp5'$"),
        ({"codebook": "dynamic_signed"}, ArgumentValueError, r"^data must be 6 codes for shape \(2, 3\), got 3$"),
        ({"dtype": "float64"}, ArgumentValueError, "^dtype must be one of float32, .*, got 'float64'$"),
        ({"block_size": 0}, ArgumentValueError, "^block_size must be a positive integer, got 0$"),
    ],
)
def test_parts_that_do_not_belong_together_are_named(
    change: dict[str, Array], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        dequantize_blockwise(replace(GOOD, **change))  # type: ignore[arg-type]
