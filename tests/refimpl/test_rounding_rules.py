"""[format.encode], [format.rounding], [format.overflow]: every format, rule and end against exact rationals."""

from fractions import Fraction

import numpy as np
import pytest

from qloracle.formats import Array, format_named
from qloracle.rounding import decode, encode

from .decision_points import decision_points, places
from .rational_formats import (
    LAYOUTS,
    NAN,
    NARROW,
    PADDED,
    ROUNDINGS,
    largest_magnitude,
    magnitude_value,
    meaning,
    overflows,
    rounded_word,
)

RULES = [(fmt, rounding) for fmt in LAYOUTS for rounding in ROUNDINGS]


def require_words(got: Array, expected: list[int | str], fmt: str, values: Array, rule: str) -> None:
    """Fail at the first element that is not the expected word, or no NaN where NaN is expected."""
    for value, word, wanted in zip(values.tolist(), got.tolist(), expected, strict=True):
        shown = value.hex() if isinstance(value, float) else value
        if wanted == NAN:
            assert meaning(word, fmt) == NAN, f"{shown} to {fmt}, {rule}: NaN expected, got {word:#x}"
        else:
            assert word == wanted, f"{shown} to {fmt}, {rule}: {wanted:#x} expected, got {word:#x}"


def check(values: Array, fmt: str, rounding: str, overflow: str) -> None:
    """Compare `encode` of finite floats with the search among the values of the format."""
    expected = [
        rounded_word(Fraction(value), fmt, rounding, overflow, negative=bool(np.signbit(value)))
        for value in values.tolist()
    ]
    got = encode(values, fmt, rounding=rounding, overflow=overflow)
    require_words(got, expected, fmt, values, f"{rounding}, {overflow}")


@pytest.mark.proof("format.encode", by="exact rationals")
@pytest.mark.proof("format.rounding", by="exact rationals")
@pytest.mark.proof("format.overflow", by="exact rationals")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("fmt", "rounding"), RULES)
def test_a_float_rounds_as_a_search_among_the_values_of_the_format_says(fmt: str, rounding: str, dtype: str) -> None:
    for overflow in overflows(fmt):
        step = 1 if fmt in NARROW else 41
        points = decision_points(fmt, dtype)
        check(points[::step] if overflow == "ieee" else points[:: 3 * step], fmt, rounding, overflow)


@pytest.mark.exhaustive
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("fmt", "rounding"), RULES)
def test_a_float_at_every_decision_point_rounds_as_a_search_says(fmt: str, rounding: str, dtype: str) -> None:
    for overflow in overflows(fmt):
        check(decision_points(fmt, dtype), fmt, rounding, overflow)


@pytest.mark.proof("format.encode", by="exact rationals")
@pytest.mark.parametrize("dtype", ["int64", "uint64", "int32", "int16", "uint8"])
@pytest.mark.parametrize("fmt", LAYOUTS)
def test_an_integer_is_rounded_once_by_every_rule(fmt: str, dtype: str) -> None:
    limits, digits = np.iinfo(dtype), LAYOUTS[fmt][1]
    ties = {2**k + 2 ** max(k - p, 0) + d for k in range(0, 64, 9) for p in (digits, digits + 1) for d in (-1, 0, 1)}
    far = {2**k + 2 ** max(k - digits - 1, 0) + 2**j for k in (40, 53, 62, 63) for j in (0, 7, 11)}
    near = {0, 1, 2, 3, 5, 448, 464, 465, 16842753, 2**53 + 1, 2**63 - 1, 2**64 - 1}
    chosen = [n for n in sorted({s * n for n in ties | far | near for s in (1, -1)}) if limits.min <= n <= limits.max]
    chosen += [int(limits.min), int(limits.max)]
    values = np.array(chosen, dtype)
    for rounding in ROUNDINGS:
        for overflow in overflows(fmt):
            expected = [rounded_word(Fraction(n), fmt, rounding, overflow) for n in chosen]
            got = encode(values, fmt, rounding=rounding, overflow=overflow)
            require_words(got, expected, fmt, values, f"{dtype}, {rounding}, {overflow}")


@pytest.mark.proof("format.rounding", by="order of the words")
@pytest.mark.parametrize("fmt", LAYOUTS)
def test_directed_rounding_encloses_the_value_and_nearest_lies_at_an_end(fmt: str) -> None:
    limit = magnitude_value(largest_magnitude(fmt), fmt)
    values = decision_points(fmt, "float64")
    low = float(magnitude_value(0, fmt)) if fmt == "float8_e8m0fnu" else -float(limit)
    values = values[(values >= low) & (values <= float(limit))]
    made = {rounding: decode(encode(values, fmt, rounding=rounding), fmt) for rounding in ROUNDINGS}
    down, up, inward = made["toward_negative"], made["toward_positive"], made["toward_zero"]
    assert np.all((down <= values) & (values <= up)), f"{fmt}: a directed rounding lies on the wrong side"
    assert np.all(np.where(values < 0, up, down) == inward), f"{fmt}: toward_zero is not the end nearer to zero"
    for rounding in ("ties_to_even", "ties_to_away"):
        got = made[rounding]
        assert np.all((got == down) | (got == up)), f"{fmt}: {rounding} is neither neighbour"
        below, above = np.abs(values - down), np.abs(up - values)  # exact or rounded alike: neighbours are this close
        assert np.all(np.where(below < above, got == down, (got == up) | (below == above))), f"{fmt}: not the nearest"


@pytest.mark.proof("format.encode", by="identity on the format's own words")
@pytest.mark.proof("format.rounding", by="identity on the format's own words")
@pytest.mark.parametrize(("fmt", "rounding"), RULES)
def test_every_number_of_a_format_survives_every_rounding(fmt: str, rounding: str) -> None:
    named = format_named(fmt)
    words = np.array(places(fmt), np.uint64) << np.uint64(PADDED.get(fmt, 0))
    words = np.concatenate([words, words | np.uint64(named.sign_bit)]).astype(named.word)
    words = words[~np.isnan(decode(words, fmt))]
    for overflow in overflows(fmt):
        got = encode(decode(words, fmt), fmt, rounding=rounding, overflow=overflow)
        np.testing.assert_array_equal(got, words)
        np.testing.assert_array_equal(encode(words, fmt, source=fmt, rounding=rounding, overflow=overflow), words)


@pytest.mark.proof("format.overflow", by="literal words")
@pytest.mark.parametrize(
    ("fmt", "value", "rounding", "ieee", "saturated"),
    [
        ("float8_e4m3fn", 464.0, "ties_to_even", 0x7E, 0x7E),
        ("float8_e4m3fn", 464.0001, "ties_to_even", 0x7F, 0x7E),
        ("float8_e4m3fn", 464.0, "ties_to_away", 0x7F, 0x7E),
        ("float8_e4m3fn", 480.0, "toward_zero", 0x7E, 0x7E),
        ("float8_e4m3fn", -1e30, "toward_negative", 0xFF, 0xFE),
        ("float8_e4m3fn", -1e30, "toward_positive", 0xFE, 0xFE),
        ("float8_e4m3fn", np.inf, "toward_zero", 0x7F, 0x7E),
        ("float8_e4m3fn", -np.inf, "ties_to_even", 0xFF, 0xFE),
        ("float8_e4m3fn", 448.5, "toward_positive", 0x7F, 0x7E),
        ("float8_e5m2", 61439.9, "ties_to_even", 0x7B, 0x7B),
        ("float8_e5m2", 61440.0, "ties_to_even", 0x7C, 0x7B),
        ("float8_e5m2", np.inf, "toward_zero", 0x7C, 0x7B),
        ("float8_e5m2", -1e9, "toward_zero", 0xFB, 0xFB),
        ("float8_e4m3fnuz", 247.9, "ties_to_even", 0x7F, 0x7F),
        ("float8_e4m3fnuz", 248.0, "ties_to_even", 0x80, 0x7F),
        ("float8_e5m2fnuz", -np.inf, "ties_to_even", 0x80, 0xFF),
        ("float16", 65520.0, "ties_to_even", 0x7C00, 0x7BFF),
        ("float16", 65519.996, "ties_to_even", 0x7BFF, 0x7BFF),
        ("float16", -65505.0, "toward_negative", 0xFC00, 0xFBFF),
        ("bfloat16", np.inf, "toward_negative", 0x7F80, 0x7F7F),
        ("tfloat32", 1e300, "toward_negative", 0x7F7FE000, 0x7F7FE000),
        ("float8_e8m0fnu", 1.5 * 2.0**127, "ties_to_even", 0xFE, 0xFE),
        ("float8_e8m0fnu", 1.6 * 2.0**127, "ties_to_even", 0xFF, 0xFE),
        ("float8_e8m0fnu", np.inf, "ties_to_even", 0xFF, 0xFE),
        ("float8_e8m0fnu", -np.inf, "ties_to_even", 0xFF, 0xFF),
    ],
)
def test_what_lies_beyond_the_largest_finite_number(
    fmt: str, value: float, rounding: str, ieee: int, saturated: int
) -> None:
    for overflow, word in (("ieee", ieee), ("saturate", saturated)):
        got = int(encode(np.array([value]), fmt, rounding=rounding, overflow=overflow)[0])
        assert got == word, f"{value} to {fmt}, {rounding}, {overflow}: {word:#x} expected, got {got:#x}"


@pytest.mark.proof("format.overflow", by="literal words")
@pytest.mark.parametrize(("fmt", "largest"), [("float6_e2m3fn", 0x1F), ("float6_e3m2fn", 0x1F), ("float4_e2m1fn", 0x7)])
@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_a_format_without_special_values_saturates(fmt: str, largest: int, rounding: str) -> None:
    values = np.array([1e30, np.inf, -1e30, -np.inf], np.float32)
    sign = largest + 1
    assert encode(values, fmt, rounding=rounding).tolist() == [largest, largest, largest | sign, largest | sign]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (2.0**-127, (0, 0, 0, 0, 0)), (2.0**-128, (0, 0, 0, 0, 0)), (2.0**-149, (0, 0, 0, 0, 0)),
        (1.5 * 2.0**-127, (0, 1, 0, 1, 0)), (1.4 * 2.0**-127, (0, 0, 0, 1, 0)), (1.5 * 2.0**-126, (2, 2, 1, 2, 1)),
        (3.0, (128, 129, 128, 129, 128)), (6.0, (130, 130, 129, 130, 129)), (1.5, (128, 128, 127, 128, 127)),
    ],
)  # fmt: skip
def test_a_power_of_two_format_rounds_ties_to_the_even_code_and_has_nothing_below_its_first(
    value: float, words: tuple[int, ...]
) -> None:
    for dtype in (np.float32, np.float64):
        got = tuple(int(encode(np.array([value], dtype), "float8_e8m0fnu", rounding=r)[0]) for r in ROUNDINGS)
        assert got == words, f"{value} of {dtype.__name__} to float8_e8m0fnu: {words} expected, got {got}"


@pytest.mark.parametrize("overflow", ["ieee", "saturate"])
@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_a_power_of_two_format_has_only_nan_for_what_is_not_positive(rounding: str, overflow: str) -> None:
    values = np.array([0.0, -0.0, -1.0, -(2.0**-200), -np.inf, np.nan])
    got = encode(values, "float8_e8m0fnu", rounding=rounding, overflow=overflow)
    assert got.tolist() == [255] * 6, f"values <= 0 are NaN (255) in float8_e8m0fnu, got {got}"
    assert encode(np.array([0, -5, 1]), "float8_e8m0fnu").tolist() == [255, 255, 127]


@pytest.mark.parametrize("fmt", LAYOUTS)
@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_a_negative_number_that_becomes_zero_keeps_its_sign_where_zero_has_one(fmt: str, rounding: str) -> None:
    if fmt == "float8_e8m0fnu":
        return
    smallest = float(magnitude_value(1, fmt))
    values = np.array([-0.0, -smallest / 8]) if fmt != "float64" else np.array([-0.0])
    zero = 0 if fmt.endswith("fnuz") else format_named(fmt).sign_bit
    got = encode(values, fmt, rounding=rounding).tolist()
    step = 1 << PADDED.get(fmt, 0)
    away = format_named(fmt).sign_bit + step if rounding == "toward_negative" else zero
    assert got == [zero, away][: len(got)], f"{fmt}, {rounding}: -0 and a tiny negative number became {got}"
