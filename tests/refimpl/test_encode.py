"""[format.encode] from float32 and float16: one rounding, ties to even, against NumPy, ml_dtypes and Fraction."""

from fractions import Fraction
from types import ModuleType

import numpy as np
import pytest

from qloracle.formats import Array
from qloracle.rounding import decode, encode

from .compare import hex_of, require_same_words
from .rationals import FIELDS, NAN, Real, decode_word, random_float32, round_word

LOW_HALVES = (0x0000, 0x0001, 0x7FFF, 0x8000, 0x8001, 0xFFFF)
ALL_16_BIT_WORDS = np.arange(2**16, dtype=np.uint16)


def every_high_half() -> Array:
    """float32 with every sign, exponent and leading mantissa, and around each bfloat16 tie."""
    high = np.arange(2**16, dtype=np.uint32)[:, np.newaxis] << np.uint32(16)
    return (high | np.array(LOW_HALVES, np.uint32)).reshape(-1).view(np.float32)


def around_float16_ties() -> Array:
    """float32 with every exponent near the range of float16, at each tie between its numbers and on either side."""
    middle = (np.arange(95 << 10, 145 << 10, dtype=np.uint32) << np.uint32(13))[:, np.newaxis]
    positive = (middle | np.array([0, 1, 0xFFF, 0x1000, 0x1001, 0x1FFF], np.uint32)).reshape(-1)
    return np.concatenate([positive, positive | np.uint32(1 << 31)]).view(np.float32)


def words_of(reals: list[Real], signs: list[int], fmt: str, dtype: type[np.unsignedinteger]) -> Array:
    """Round real numbers one by one; a NaN stays any NaN."""
    width, digits = FIELDS[fmt]
    infinity = (2**width - 1) << digits
    words = []
    for real, sign in zip(reals, signs, strict=True):
        if isinstance(real, Fraction):
            words.append(round_word(real, fmt, negative=sign == 1))
        else:
            words.append(infinity + (real == NAN) | sign << (width + digits))
    return np.array(words, dtype)


def expected_words(values: Array, fmt: str, dtype: type[np.unsignedinteger] = np.uint16) -> Array:
    """Round float32 numbers through Fraction."""
    words = values.view(np.uint32).tolist()
    return words_of([decode_word(word, "float32") for word in words], [word >> 31 for word in words], fmt, dtype)


@pytest.mark.parametrize("values", [every_high_half(), around_float16_ties()], ids=["every high half", "ties"])
def test_float32_to_bfloat16_agrees_with_ml_dtypes(ml_dtypes: ModuleType, values: Array) -> None:
    with np.errstate(all="ignore"):
        expected = values.astype(ml_dtypes.bfloat16).view(np.uint16)
    require_same_words(encode(values, "bfloat16"), expected, "bfloat16", "float32 to bfloat16", hex_of(values))


@pytest.mark.parametrize("values", [every_high_half(), around_float16_ties()], ids=["every high half", "ties"])
def test_float32_to_float16_agrees_with_the_cast_of_numpy(values: Array) -> None:
    with np.errstate(all="ignore"):
        expected = values.astype(np.float16).view(np.uint16)
    require_same_words(encode(values, "float16"), expected, "float16", "float32 to float16", hex_of(values))


@pytest.mark.parametrize("fmt", ["bfloat16", "float16"])
@pytest.mark.parametrize("low_half", LOW_HALVES)
def test_every_91st_high_half_rounds_like_the_exact_rational(fmt: str, low_half: int) -> None:
    values = ((np.arange(0, 2**16, 91, dtype=np.uint32) << np.uint32(16)) | np.uint32(low_half)).view(np.float32)
    got, expected = encode(values, fmt), expected_words(values, fmt)
    require_same_words(got, expected, fmt, f"float32 to {fmt}", hex_of(values))


@pytest.mark.parametrize("fmt", ["bfloat16", "float16"])
def test_random_float32_rounds_like_the_exact_rational(fmt: str) -> None:
    values = random_float32(np.random.default_rng(20240501), 5000)
    require_same_words(encode(values, fmt), expected_words(values, fmt), fmt, f"float32 to {fmt}", hex_of(values))


@pytest.mark.parametrize(("fmt", "dtype"), [("bfloat16", np.uint16), ("float32", np.uint32), ("float64", np.uint64)])
def test_every_float16_becomes_another_format_in_one_rounding(fmt: str, dtype: type[np.unsignedinteger]) -> None:
    values = ALL_16_BIT_WORDS.view(np.float16)
    reals = [decode_word(word, "float16") for word in range(2**16)]
    expected = words_of(reals, [word >> 15 for word in range(2**16)], fmt, dtype)
    require_same_words(encode(values, fmt), expected, fmt, f"float16 to {fmt}", hex_of(values))


def test_float32_of_every_exponent_widens_to_the_same_float64() -> None:
    values = every_high_half()[::97]
    got, expected = encode(values, "float64"), expected_words(values, "float64", np.uint64)
    require_same_words(got, expected, "float64", "float32 to float64", hex_of(values))


@pytest.mark.parametrize("fmt", ["bfloat16", "float16"])
def test_every_word_survives_decoding_and_encoding(fmt: str) -> None:
    got = encode(decode(ALL_16_BIT_WORDS, fmt), fmt)
    require_same_words(got, ALL_16_BIT_WORDS, fmt, f"{fmt} there and back", lambda i: f"word {i:#06x}")


def test_every_bfloat16_word_of_ml_dtypes_encodes_to_itself(ml_dtypes: ModuleType) -> None:
    got = encode(ALL_16_BIT_WORDS.view(ml_dtypes.bfloat16), "bfloat16")
    require_same_words(got, ALL_16_BIT_WORDS, "bfloat16", "bfloat16 to bfloat16", lambda i: f"word {i:#06x}")


def test_an_array_of_the_target_format_keeps_its_words() -> None:
    words = np.array([0x7FC00001, 0x80000000, 0x00000001], np.uint32)
    got = encode(words.view(np.float32), "float32")
    assert got.tolist() == words.tolist(), f"float32 to float32 must be the identity on {words}, got {got}"


@pytest.mark.exhaustive
@pytest.mark.parametrize("part", range(16))
def test_every_float32_rounds_like_ml_dtypes_and_numpy(ml_dtypes: ModuleType, part: int) -> None:
    for start in range(part << 28, (part + 1) << 28, 1 << 22):
        values = np.arange(start, start + (1 << 22), dtype=np.uint32).view(np.float32)
        with np.errstate(all="ignore"):
            brain, half = values.astype(ml_dtypes.bfloat16), values.astype(np.float16)
        require_same_words(encode(values, "bfloat16"), brain.view(np.uint16), "bfloat16", "bfloat16", hex_of(values))
        require_same_words(encode(values, "float16"), half.view(np.uint16), "float16", "float16", hex_of(values))
