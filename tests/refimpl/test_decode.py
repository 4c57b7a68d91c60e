"""[format.decode]: every bit pattern stands for the real number of IEEE 754, section 3.4."""

from fractions import Fraction
from math import inf, isinf, isnan
from types import ModuleType

import numpy as np
import pytest

from qloracle.errors import ArgumentTypeError, ArgumentValueError
from qloracle.formats import Array
from qloracle.rounding import decode, widen

from .compare import require_same_words
from .rationals import NAN, Real, decode_word

ALL_16_BIT_WORDS = np.arange(2**16, dtype=np.uint16)


def agrees(got: float, expected: Real) -> bool:
    """Whether a float64 is exactly the expected number; the sign of zero is not compared here."""
    if expected == NAN:
        return isnan(got)
    if isinstance(expected, float):
        return got == expected
    return not isnan(got) and not isinf(got) and Fraction(got) == expected


@pytest.mark.proof("format.decode", by="exact rationals")
@pytest.mark.parametrize("fmt", ["float16", "bfloat16"])
def test_every_16_bit_word_decodes_to_its_real_number(fmt: str) -> None:
    for word, got in enumerate(decode(ALL_16_BIT_WORDS, fmt).tolist()):
        expected = decode_word(word, fmt)
        assert agrees(got, expected), f"decode({word:#06x}, {fmt}) gave {got!r}, the real number is {expected}"


@pytest.mark.parametrize("fmt", ["float16", "bfloat16"])
def test_the_sign_bit_of_every_16_bit_word_is_kept(fmt: str) -> None:
    values = decode(ALL_16_BIT_WORDS, fmt)
    wrong = np.flatnonzero((np.signbit(values) != (ALL_16_BIT_WORDS >> 15 == 1)) & ~np.isnan(values))
    assert not wrong.size, f"decode({int(wrong[0]):#06x}, {fmt}) lost the sign: {values[wrong[0]]}"


@pytest.mark.parametrize("mantissa", [0, 1, 2, 0x2AAAAA, 0x3FFFFF, 0x400000, 0x400001, 0x7FFFFE, 0x7FFFFF])
def test_float32_words_of_every_exponent_decode_to_their_real_numbers(mantissa: int) -> None:
    words = (np.arange(512, dtype=np.uint32) << 23) | np.uint32(mantissa)
    for word, got in zip(words.tolist(), decode(words, "float32").tolist(), strict=True):
        expected = decode_word(word, "float32")
        assert agrees(got, expected), f"decode({word:#010x}, float32) gave {got!r}, the real number is {expected}"


def test_float64_words_decode_to_themselves() -> None:
    words = np.array([0x3FF0000000000001, 0x8000000000000000, 1, 0x7FF0000000000000], np.uint64)
    require_same_words(decode(words, "float64").view(np.uint64), words, "float64", "decode float64", hex)


@pytest.mark.parametrize(
    ("word", "value"),
    [(0x3F80, 1.0), (0x0001, 2.0**-133), (0x8001, -(2.0**-133)), (0x0080, 2.0**-126), (0xFF80, -inf), (0x8000, -0.0)],
)
def test_a_bfloat16_word_decodes_to_its_published_value(word: int, value: float) -> None:
    got = float(decode(np.array([word], np.uint16), "bfloat16")[0])
    assert got.hex() == value.hex(), f"bfloat16 {word:#06x} is {value.hex()}, got {got.hex()}"


@pytest.mark.parametrize("shape", [(), (0,), (0, 3), (1,), (2, 3, 4)])
def test_decode_keeps_the_shape(shape: tuple[int, ...]) -> None:
    assert decode(np.zeros(shape, np.uint16), "bfloat16").shape == shape


def test_a_strided_view_decodes_like_its_copy() -> None:
    words = ALL_16_BIT_WORDS[5::-2]
    assert decode(words, "bfloat16").tolist() == decode(words.copy(), "bfloat16").tolist()


def test_big_endian_words_decode_like_native_ones() -> None:
    got = decode(np.frombuffer(b"\x3f\x80\xc0\x00", ">u2"), "bfloat16").tolist()
    assert got == [1.0, -2.0], f"big-endian 3f80 c000 is [1, -2] in bfloat16, got {got}"


@pytest.mark.parametrize("dtype", [">f2", ">f4"])
def test_big_endian_floats_widen_to_their_values(dtype: str) -> None:
    wide = widen(np.array([1.0, -2.5], dtype))
    assert wide.tolist() == [1.0, -2.5], f"[1, -2.5] of dtype {dtype} widened to {wide.tolist()}"
    assert wide.view(np.uint32).tolist() == [0x3F800000, 0xC0200000], f"the words of widened {dtype} are not native"


def test_float32_bit_patterns_widen_to_floats() -> None:
    wide = widen(np.array([0x3F800000], np.uint32), "float32")
    assert wide.dtype == np.float32, f"widen of float32 bit patterns gave dtype {wide.dtype}"
    assert wide.tolist() == [1.0], f"float32 0x3f800000 widened to {wide.tolist()}"


def test_an_ml_dtypes_array_decodes_like_its_words(ml_dtypes: ModuleType) -> None:
    words = ALL_16_BIT_WORDS[~np.isnan(decode(ALL_16_BIT_WORDS, "bfloat16"))]
    got = decode(words.view(ml_dtypes.bfloat16))
    assert got.tolist() == words.view(ml_dtypes.bfloat16).astype(np.float64).tolist()


@pytest.mark.parametrize("word", [0x7F800001, 0xFF800001, 0x7FC00000, 0xFFFFFFFF])
def test_widening_any_nan_gives_a_nan(word: int) -> None:
    assert np.isnan(widen(np.array([word], np.uint32).view(np.float32))[0]), f"NaN {word:#x} widened to a number"


@pytest.mark.parametrize(
    ("values", "fmt", "error", "message"),
    [
        (np.zeros(1, np.uint16), None, ArgumentTypeError, "bits must be an array of float64, float32, float16, bfloat"),
        (np.zeros(1, np.uint32), "bfloat16", ArgumentTypeError, "bits must be bfloat16 as bit patterns of dtype uint"),
        (np.zeros(1, np.float32), "float16", ArgumentTypeError, "bits must be float16 as bit patterns of dtype uint16"),
        (np.zeros(1, np.uint8), "posit8", ArgumentValueError, "fmt must be one of .*, got 'posit8'"),
        ([1, 2], "bfloat16", ArgumentTypeError, "bits must be a NumPy array, got list"),
    ],
)
def test_decode_names_argument_rule_and_value(
    values: Array, fmt: str | None, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        decode(values, fmt)


@pytest.mark.parametrize("values", [np.zeros(1, np.float64), np.zeros(1, np.int32), np.zeros(1, np.bool_)])
def test_widen_refuses_what_is_no_weight(values: Array) -> None:
    with pytest.raises(ArgumentTypeError, match=f"^weight must be .*, got {values.dtype}$"):
        widen(values, argument="weight")
