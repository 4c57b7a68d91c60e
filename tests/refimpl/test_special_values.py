"""[format.nan]: NaN stays NaN, its bits are a named variant; names that a format does not know are refused."""

import numpy as np
import pytest

from qloracle.errors import ArgumentTypeError, ArgumentValueError
from qloracle.formats import format_named
from qloracle.rounding import ROUNDINGS, decode, encode, nan_rules_of, overflows_of, round_to

from .rational_formats import LAYOUTS, NAN, NO_NAN, meaning, overflows

NANS = np.array([0x7FC00000, 0xFFC00000, 0x7F800001, 0xFF800001, 0x7FFFFFFF, 0xFFFFFFFF, 0x7FFF8000], np.uint32)
WITH_NAN = [name for name in LAYOUTS if name not in NO_NAN]


@pytest.mark.proof("format.nan", by="meaning of every resulting word")
@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("fmt", WITH_NAN)
def test_every_class_of_nan_stays_nan_by_every_rule(fmt: str, rounding: str) -> None:
    bits = np.full(NANS.shape, 0xFFFFFFFF, np.uint32) if rounding == "stochastic" else None
    for overflow in overflows(fmt):
        for nan in nan_rules_of(fmt):
            for values in (NANS.view(np.float32), decode(NANS, "float32")):
                got = encode(values, fmt, rounding=rounding, overflow=overflow, nan=nan, random_bits=bits)
                wrong = [hex(word) for word in got.tolist() if meaning(word, fmt) != NAN]
                assert not wrong, f"NaN to {fmt}, {rounding}, {overflow}, {nan}: became {wrong}"


@pytest.mark.proof("format.nan", by="literal words")
@pytest.mark.parametrize(
    ("fmt", "nan", "words"),
    [
        ("bfloat16", "payload", [0x7FC0, 0xFFC0, 0x7FC0, 0xFFC0, 0x7FFF, 0xFFFF, 0x7FFF]),
        ("bfloat16", "sign", [0x7FC0, 0xFFC0, 0x7FC0, 0xFFC0, 0x7FC0, 0xFFC0, 0x7FC0]),
        ("bfloat16", "canonical", [0x7FC0] * 7),
        ("float16", "payload", [0x7E00, 0xFE00, 0x7E00, 0xFE00, 0x7FFF, 0xFFFF, 0x7FFC]),
        ("tfloat32", "payload", [0x7FC00000, 0xFFC00000, 0x7FC00000, 0xFFC00000, 0x7FFFE000, 0xFFFFE000, 0x7FFF8000]),
        ("float8_e5m2", "payload", [0x7E, 0xFE, 0x7E, 0xFE, 0x7F, 0xFF, 0x7F]),
        ("float8_e5m2", "canonical", [0x7E] * 7),
        ("float8_e4m3fn", "payload", [0x7F, 0xFF, 0x7F, 0xFF, 0x7F, 0xFF, 0x7F]),
        ("float8_e4m3fn", "canonical", [0x7F] * 7),
        ("float8_e4m3fnuz", "payload", [0x80] * 7),
        ("float8_e5m2fnuz", "sign", [0x80] * 7),
        ("float8_e8m0fnu", "sign", [0xFF] * 7),
        ("float4_e2m1fn", "zero", [0] * 7),
        ("float4_e2m1fn", "largest", [7] * 7),
        ("float6_e2m3fn", "largest", [0x1F] * 7),
    ],
)
def test_a_variant_fixes_the_bits_of_nan(fmt: str, nan: str, words: list[int]) -> None:
    got = encode(NANS.view(np.float32), fmt, nan=nan).tolist()
    assert got == words, f"NaN to {fmt}, {nan}: expected {[hex(w) for w in words]}, got {[hex(w) for w in got]}"
    if fmt not in NO_NAN:
        assert all(meaning(word, fmt) == NAN for word in got)


@pytest.mark.proof("format.nan", by="ml_dtypes and NumPy")
@pytest.mark.parametrize("fmt", [name for name in WITH_NAN if name not in ("float64", "float32", "tfloat32")])
def test_the_sign_of_nan_is_that_of_the_library(ml_dtypes: object, fmt: str) -> None:
    theirs = np.dtype(np.float16) if fmt == "float16" else np.dtype(getattr(ml_dtypes, fmt))
    values = NANS[:2].view(np.float32)
    with np.errstate(invalid="ignore"):
        expected = values.astype(theirs).view(format_named(fmt).word)
    np.testing.assert_array_equal(encode(values, fmt, nan="sign"), expected)


@pytest.mark.parametrize("fmt", NO_NAN)
def test_a_format_without_nan_refuses_it_wherever_it_stands(fmt: str) -> None:
    values = np.zeros((200, 200), np.float32)
    values[199, 198] = np.nan
    message = f"^values must be free of NaN, which {fmt} lacks, unless nan= says otherwise, got NaN$"
    with pytest.raises(ArgumentValueError, match=message):
        encode(values, fmt)


@pytest.mark.parametrize("fmt", LAYOUTS)
def test_a_format_knows_its_own_rules_only(fmt: str) -> None:
    assert overflows_of(fmt) == overflows(fmt)
    for argument, value in (
        ("overflow", "ieee" if fmt in NO_NAN else "wrap"),
        ("nan", "zero" if fmt not in NO_NAN else "sign"),
    ):
        with pytest.raises(ArgumentValueError, match=f"^{argument} must be one of .* for {fmt}, got '{value}'$"):
            encode(np.zeros(1), fmt, **{argument: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("fmt", LAYOUTS)
def test_encode_takes_any_layout_and_changes_nothing(fmt: str) -> None:
    values = np.linspace(0.51, 5.9, 24).astype(np.float32)
    values.flags.writeable = False
    expected = encode(values, fmt)
    np.testing.assert_array_equal(encode(values[::-1], fmt), expected[::-1])
    np.testing.assert_array_equal(encode(values.reshape(4, 6).T, fmt), expected.reshape(4, 6).T)
    np.testing.assert_array_equal(encode(values.astype(">f4"), fmt), expected)
    np.testing.assert_array_equal(encode(values.astype(np.float64), fmt), expected)
    assert encode(values[3], fmt).shape == ()
    assert encode(values[:0].reshape(0, 3), fmt).shape == (0, 3)
    assert not np.shares_memory(expected, values), "the words are the caller's own"


def test_a_long_array_rounds_like_its_parts() -> None:
    rng = np.random.default_rng(3)
    values = rng.standard_normal(50_001).astype(np.float32)
    bits = rng.integers(0, 2**32, values.size, dtype=np.uint32)
    whole = encode(values, "float8_e5m2", rounding="stochastic", random_bits=bits)
    parts = [
        encode(values[i : i + 777], "float8_e5m2", rounding="stochastic", random_bits=bits[i : i + 777])
        for i in range(0, values.size, 777)
    ]
    np.testing.assert_array_equal(whole, np.concatenate(parts))


def test_round_to_gives_a_dtype_of_numpy_where_there_is_one() -> None:
    values = np.array([1 / 3, -1e6])
    assert round_to(values, "float16").dtype == np.float16
    assert round_to(values, "float16", overflow="saturate").tolist() == [0.333251953125, -65504.0]
    assert round_to(values, "float8_e4m3fn", rounding="toward_zero").tolist() == [0x2A, 0xFE]


@pytest.mark.parametrize(
    ("values", "source", "error", "message"),
    [
        (np.zeros(1, np.uint8), "posit8", ArgumentValueError, "^source must be one of .*, got 'posit8'$"),
        (
            np.zeros(1, np.uint16),
            "float8_e5m2",
            ArgumentTypeError,
            "^values must be float8_e5m2 as bit patterns of dty",
        ),
        (np.full(1, 0x1F, np.uint8), "float4_e2m1fn", ArgumentValueError, "^values must be float4_e2m1fn words, whose"),
        (np.zeros(1, np.longdouble), None, ArgumentTypeError, "^values must be an array of .*, got float128$"),
        (np.zeros(1, np.complex64), None, ArgumentTypeError, "^values must be an array of .*, got complex64$"),
        (np.zeros(1, complex), None, ArgumentTypeError, "or integers, or bit patterns with source=, got complex128$"),
    ],
)
def test_a_source_that_is_none_is_refused(
    values: np.ndarray, source: str | None, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        encode(values, "bfloat16", source=source)
