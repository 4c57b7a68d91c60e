"""[format.decode]: every word of every format against its publication, in rationals and by other libraries."""

from collections.abc import Callable
from fractions import Fraction
from math import isnan
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from qloracle import quantize_affine, quantize_blockwise, quantize_double, quantize_int8
from qloracle.errors import ArgumentTypeError, ArgumentValueError
from qloracle.formats import FORMATS, Array, format_named
from qloracle.rounding import decode, format_table, widen

from .rational_formats import LAYOUTS, NAN, meaning

SMALL = [name for name, (width, digits, _) in LAYOUTS.items() if width + digits < 16]
WIDE = [name for name in LAYOUTS if name not in SMALL]


def words_of(fmt: str) -> Array:
    """All words of a format of at most 16 bits."""
    width, digits, _ = LAYOUTS[fmt]
    bits = width + digits + (fmt != "float8_e8m0fnu")
    return np.arange(2**bits, dtype=np.uint16 if bits > 8 else np.uint8)


def require_values(got: Array, words: Array, fmt: str) -> None:
    """Fail at the first word whose value is not what the publication says."""
    for word, value in zip(words.tolist(), got.tolist(), strict=True):
        expected = meaning(word, fmt)
        if expected == NAN:
            assert isnan(value), f"{fmt} {word:#x} is NaN, decoded to {value!r}"
        else:
            same = value == expected if isinstance(expected, float) else Fraction(value) == expected
            assert same, f"{fmt} {word:#x} is {expected}, decoded to {value!r}"


def test_all_thirteen_formats_are_there() -> None:
    assert sorted(FORMATS) == sorted(LAYOUTS)


@pytest.mark.proof("format.decode", by="exact rationals")
@pytest.mark.parametrize("fmt", [name for name in SMALL if name not in ("float16", "bfloat16")])  # see test_decode
def test_every_word_of_a_small_format_decodes_to_its_published_value(fmt: str) -> None:
    require_values(decode(words_of(fmt), fmt), words_of(fmt), fmt)


@pytest.mark.proof("format.decode", by="exact rationals")
@pytest.mark.parametrize("fmt", WIDE)
def test_words_of_every_exponent_of_a_wide_format_decode_to_their_published_values(fmt: str) -> None:
    width, digits, _ = LAYOUTS[fmt]
    lows = [0, 1, 2 ** (digits - 1), 2 ** (digits - 1) - 1, 2**digits - 1, 2 ** (digits // 2)]
    codes = [(high << digits) | low for high in range(2 ** (width + 1)) for low in lows]
    words = np.array(codes, np.uint64) << np.uint64(13 if fmt == "tfloat32" else 0)
    words = words.astype(np.uint64 if fmt == "float64" else np.uint32)
    require_values(decode(words, fmt), words, fmt)


@pytest.mark.proof("format.decode", by="ml_dtypes")
@pytest.mark.parametrize("fmt", [name for name in SMALL if name != "float16"])
def test_every_word_decodes_as_in_ml_dtypes(ml_dtypes: ModuleType, fmt: str) -> None:
    words = words_of(fmt)
    theirs = words.view(getattr(ml_dtypes, fmt))
    with np.errstate(invalid="ignore"):
        expected = theirs.astype(np.float64)
    for got in (decode(words, fmt), decode(theirs)):
        np.testing.assert_array_equal(got, expected)
        number = ~np.isnan(expected)
        np.testing.assert_array_equal(np.signbit(got[number]), np.signbit(expected[number]))


GFLOAT_NAMES = {
    "float8_e4m3fn": "ocp_e4m3", "float8_e5m2": "ocp_e5m2", "float8_e8m0fnu": "ocp_e8m0", "float6_e2m3fn": "ocp_e2m3",
    "float6_e3m2fn": "ocp_e3m2", "float4_e2m1fn": "ocp_e2m1", "float16": "binary16", "bfloat16": "bfloat16",
}  # fmt: skip


@pytest.mark.proof("format.decode", by="gfloat")
@pytest.mark.parametrize("fmt", [name for name in GFLOAT_NAMES if LAYOUTS[name][0] + LAYOUTS[name][1] < 9])
def test_every_word_decodes_as_in_gfloat(fmt: str) -> None:
    gfloat = pytest.importorskip("gfloat")
    formats = pytest.importorskip("gfloat.formats")
    info: Any = getattr(formats, f"format_info_{GFLOAT_NAMES[fmt]}")
    expected = np.array([gfloat.decode_float(info, word).fval for word in words_of(fmt).tolist()])
    np.testing.assert_array_equal(decode(words_of(fmt), fmt), expected)


@pytest.mark.proof("format.decode", by="literal words")
@pytest.mark.parametrize(
    ("fmt", "word", "value"),
    [
        ("float8_e4m3fn", 0x7E, 448.0), ("float8_e4m3fn", 0x08, 2.0**-6), ("float8_e4m3fn", 0x01, 2.0**-9),
        ("float8_e5m2", 0x7B, 57344.0), ("float8_e5m2", 0x01, 2.0**-16), ("float8_e5m2", 0xFC, -np.inf),
        ("float8_e4m3fnuz", 0x7F, 240.0), ("float8_e4m3fnuz", 0x01, 2.0**-10), ("float8_e5m2fnuz", 0x7F, 57344.0),
        ("float8_e5m2fnuz", 0x01, 2.0**-17), ("float8_e8m0fnu", 0x00, 2.0**-127), ("float8_e8m0fnu", 0xFE, 2.0**127),
        ("float6_e2m3fn", 0x1F, 7.5), ("float6_e2m3fn", 0x01, 0.125), ("float6_e3m2fn", 0x1F, 28.0),
        ("float6_e3m2fn", 0x21, -0.0625), ("float4_e2m1fn", 0x7, 6.0), ("float4_e2m1fn", 0x9, -0.5),
        ("tfloat32", 0x3F802000, 1 + 2.0**-10), ("tfloat32", 0x00002000, 2.0**-136), ("tfloat32", 0xFF800000, -np.inf),
    ],
)  # fmt: skip
def test_a_published_word_decodes_to_its_published_value(fmt: str, word: int, value: float) -> None:
    got = float(decode(np.array([word], format_named(fmt).word), fmt)[0])
    assert got.hex() == value.hex(), f"{fmt} {word:#x} is {value!r}, got {got!r}"


@pytest.mark.parametrize("fmt", LAYOUTS)
def test_the_limits_of_a_format_are_those_of_its_words(fmt: str) -> None:
    named, (_, digits, bias) = FORMATS[fmt], LAYOUTS[fmt]
    largest = float(decode(np.array([named.finite_magnitude << named.padding], named.word), fmt)[0])
    assert named.largest_finite == largest, f"largest finite {fmt} is {largest}, recorded {named.largest_finite}"
    smallest = 2.0**-127 if fmt == "float8_e8m0fnu" else 2.0 ** (1 - bias)
    assert 2.0**named.minimum_exponent == smallest, f"smallest normal {fmt} is {smallest}"
    if named.has_nan:
        canonical = np.array([named.quiet_nan_bits], named.word)
        assert np.isnan(decode(canonical, fmt)[0]), f"{int(canonical[0]):#x} is no NaN of {fmt}"
    assert named.half_smallest_subnormal == smallest * 2.0 ** -(digits + 1)


@pytest.mark.parametrize("fmt", SMALL)
def test_the_table_of_a_format_holds_all_its_values_and_cannot_be_written(fmt: str) -> None:
    table = format_table(fmt)
    np.testing.assert_array_equal(table, decode(words_of(fmt), fmt))
    assert table is format_table(fmt), "the table must be made once"
    with pytest.raises(ValueError, match="read-only"):
        table[0] = 1


@pytest.mark.parametrize("fmt", WIDE)
def test_a_wide_format_has_no_table(fmt: str) -> None:
    with pytest.raises(ArgumentValueError, match=f"^fmt must be a format of at most 16 bits, got '{fmt}'$"):
        format_table(fmt)


@pytest.mark.parametrize(
    ("fmt", "word"), [("float4_e2m1fn", 0x10), ("float6_e2m3fn", 0x40), ("float6_e3m2fn", 0xFF), ("tfloat32", 0x1FFF)]
)
def test_a_word_with_a_bit_that_the_format_keeps_0_is_refused(fmt: str, word: int) -> None:
    words = np.zeros((2, 3), format_named(fmt).word)
    words[1, 1] = word
    with pytest.raises(ArgumentValueError, match=f"^bits must be {fmt} words, .* got {word:#x}$"):
        decode(words, fmt)


@pytest.mark.parametrize("fmt", [name for name in LAYOUTS if name not in ("float32", "float16", "bfloat16")])
def test_a_format_that_no_weight_has_is_not_widened(fmt: str) -> None:
    with pytest.raises(ArgumentTypeError, match=f"^weight must be float32, float16 or bfloat16, got {fmt}$"):
        widen(np.zeros(2, format_named(fmt).word), fmt, argument="weight")


@pytest.mark.parametrize("fmt", LAYOUTS)
def test_decode_takes_any_layout_and_changes_nothing(fmt: str) -> None:
    words = np.arange(16, dtype=format_named(fmt).word) << format_named(fmt).padding
    words.flags.writeable = False
    expected = decode(words, fmt)
    np.testing.assert_array_equal(decode(words[::-1], fmt), expected[::-1])
    np.testing.assert_array_equal(decode(words.reshape(4, 4).T, fmt), expected.reshape(4, 4).T)
    np.testing.assert_array_equal(decode(words.astype(words.dtype.newbyteorder(">")), fmt), expected)
    assert decode(words[3], fmt).shape == ()
    assert decode(words[:0].reshape(0, 3), fmt).shape == (0, 3)
    assert not np.shares_memory(expected, words), "the values are the caller's own"


@pytest.mark.parametrize("values", [np.array([1, 2]), np.ones(2, complex)])
@pytest.mark.parametrize("quantize", [quantize_int8, quantize_blockwise, quantize_affine, quantize_double])
def test_a_quantizer_lists_the_formats_that_it_takes(quantize: Callable[[Array], object], values: Array) -> None:
    listed = f"^x must be float32, float16 or bfloat16, or bit patterns with fmt=, got {values.dtype}$"
    with pytest.raises(ArgumentTypeError, match=listed):
        quantize(values)
