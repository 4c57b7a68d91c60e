"""[format.stochastic]: the magnitude goes up exactly where R < frac · 2^32, and nowhere else."""

from fractions import Fraction
from math import ceil

import numpy as np
import pytest

from qloracle.errors import ArgumentTypeError, ArgumentValueError
from qloracle.formats import Array, format_named
from qloracle.rounding import decode, encode

from .decision_points import decision_points
from .rational_formats import (
    LAYOUTS,
    NAN,
    NARROW,
    PADDED,
    largest_magnitude,
    magnitude_value,
    meaning,
    neighbours,
    overflows,
    rounded_word,
)

ENDS = (0, 1, 2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1)


def at_the_threshold(values: list[Fraction], fmt: str) -> tuple[list[int], list[int]]:
    """For every number, random words on either side of the one where it turns: places in `values`, and the words."""
    which, random = [], []
    for place, value in enumerate(values):
        near = neighbours(abs(value), fmt)
        width = near.above - near.below
        turn = ceil((abs(value) - near.below) / width * 2**32) if width and value else 0
        chosen = {min(max(turn + d, 0), 2**32 - 1) for d in (-2, -1, 0, 1)} | {0, 2**32 - 1}
        which += [place] * len(chosen)
        random += sorted(chosen)
    return which, random


def check(values: Array, fmt: str) -> None:
    """Compare with exact rationals, with random words at the turning point of every number and at both ends."""
    reals = [Fraction(value) for value in values.tolist()]
    which, random = at_the_threshold(reals, fmt)
    repeated, bits = values[which], np.array(random, np.uint32)
    for overflow in overflows(fmt):
        got = encode(repeated, fmt, rounding="stochastic", overflow=overflow, random_bits=bits)
        for place, r, word in zip(which, random, got.tolist(), strict=True):
            sign = bool(np.signbit(values[place]))
            wanted = rounded_word(reals[place], fmt, "stochastic", overflow, negative=sign, random=r)
            same = meaning(word, fmt) == NAN if wanted == NAN else word == wanted
            assert same, f"{reals[place]} to {fmt}, {overflow}, R = {r}: expected {wanted}, got {word:#x}"


@pytest.mark.proof("format.stochastic", by="exact rationals")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("fmt", LAYOUTS)
def test_the_magnitude_goes_up_exactly_where_the_random_word_is_below_the_fraction(fmt: str, dtype: str) -> None:
    points = decision_points(fmt, dtype)
    check(points[:: 5 if fmt in NARROW else 97], fmt)


@pytest.mark.proof("format.stochastic", by="exact rationals")
@pytest.mark.parametrize("fmt", LAYOUTS)
def test_a_64_bit_integer_has_its_whole_fraction(fmt: str) -> None:
    rng = np.random.default_rng(5)
    values = rng.integers(-(2**63), 2**63, 30) >> rng.integers(0, 30, 30)
    check(np.concatenate([values, np.array([2**62 + 1, -(2**53) - 1, 2**63 - 1, 16842753])]), fmt)
    check(rng.integers(2**63, 2**64, 10, dtype=np.uint64), fmt)


@pytest.mark.proof("format.stochastic", by="fractions of 32 bits written down")
@pytest.mark.parametrize(
    ("value", "fmt", "low", "turn"),
    [
        (1 + 2.0**-8, "bfloat16", 0x3F80, 2**31),
        (-(1 + 2.0**-9), "bfloat16", 0xBF80, 2**30),
        (1 + 2.0**-7 * (1 - 2.0**-32), "bfloat16", 0x3F80, 2**32 - 1),
        (1 + 2.0**-39, "bfloat16", 0x3F80, 1),
        (1 + 2.0**-40, "bfloat16", 0x3F80, 1),
        (1 + 2.0**-52, "bfloat16", 0x3F80, 1),
        (1.0, "bfloat16", 0x3F80, 0),
        (2.0**-149, "bfloat16", 0x0000, 2**16),
        (2.0**-200, "bfloat16", 0x0000, 1),
        (65512.0, "float16", 0x7BFF, 2**30),
        (464.0, "float8_e4m3fn", 0x7E, 2**31),
        (3 * 2.0**-11, "float8_e4m3fn", 0x00, 3 * 2**30),
        (2.0**-31, "float4_e2m1fn", 0x0, 4),
        (5.5, "float4_e2m1fn", 0x6, 3 * 2**30),
        (1.75, "float8_e8m0fnu", 127, 3 * 2**30),
        (1 + 2.0**-24, "float32", 0x3F800000, 2**31),
        (3 * 2.0**-161, "float32", 0x00000000, 3 * 2**20),
        (2.0**-149 + 2.0**-190, "float32", 0x00000001, 1),
        (1 + 2.0**-11, "tfloat32", 0x3F800000, 2**31),
    ],
)
def test_the_turning_point_of_a_number_is_its_fraction_times_2_to_the_32(
    value: float, fmt: str, low: int, turn: int
) -> None:
    bits = [r for r in (0, turn - 1, turn, 2**32 - 1) if 0 <= r < 2**32]
    got = encode(np.full(len(bits), value), fmt, rounding="stochastic", random_bits=np.array(bits, np.uint32))
    step = 1 << PADDED.get(fmt, 0)
    expected = [low + step if r < turn else low for r in bits]
    assert got.tolist() == expected, f"{value!r} to {fmt} with R = {bits}: expected {expected}, got {got.tolist()}"


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("fmt", LAYOUTS)
def test_a_number_of_the_format_never_moves(fmt: str, dtype: str) -> None:
    named = format_named(fmt)
    magnitudes = np.unique(np.linspace(0, largest_magnitude(fmt), 300).astype(np.uint64)) << np.uint64(named.padding)
    words = np.concatenate([magnitudes, magnitudes | np.uint64(named.sign_bit)]).astype(named.word)
    words = words[~np.isnan(decode(words, fmt))]
    if dtype == "float32" and fmt == "float64":
        return
    for r in ENDS:
        bits = np.full(words.shape, r, np.uint32)
        got = encode(decode(words, fmt).astype(dtype), fmt, rounding="stochastic", random_bits=bits)
        np.testing.assert_array_equal(got, words)


@pytest.mark.parametrize("fmt", ["bfloat16", "float8_e4m3fn", "float8_e5m2", "float16", "float8_e4m3fnuz"])
@pytest.mark.parametrize("r", ENDS)
def test_infinities_and_nan_do_not_depend_on_the_random_word(fmt: str, r: int) -> None:
    values = np.array([np.inf, -np.inf, np.nan, 1e30, -1e30], np.float32)
    if fmt == "bfloat16":
        values = values[:3]
    bits = np.full(values.shape, r, np.uint32)
    got = encode(values, fmt, rounding="stochastic", random_bits=bits)
    np.testing.assert_array_equal(got, encode(values, fmt))


@pytest.mark.proof("format.stochastic", by="gfloat")
@pytest.mark.parametrize("fmt", ["float8_e4m3fn", "float8_e5m2", "float6_e3m2fn", "float4_e2m1fn"])
def test_stochastic_rounding_agrees_with_gfloat_where_a_fraction_has_32_bits(fmt: str) -> None:
    gfloat, formats = pytest.importorskip("gfloat"), pytest.importorskip("gfloat.formats")
    names = {"float8_e4m3fn": "e4m3", "float8_e5m2": "e5m2", "float6_e3m2fn": "e3m2", "float4_e2m1fn": "e2m1"}
    info = getattr(formats, f"format_info_ocp_{names[fmt]}")
    rng = np.random.default_rng(11)
    largest = float(magnitude_value(largest_magnitude(fmt), fmt))
    values = rng.uniform(-largest, largest, 400).astype(np.float32)
    values = values[np.abs(values) > 2.0**-4]
    bits = rng.integers(0, 2**32, values.size, dtype=np.uint32)
    got = decode(encode(values, fmt, rounding="stochastic", random_bits=bits), fmt)
    fastest = gfloat.RoundMode.StochasticFastest  # up where frac + s/2^33 >= 1, which is R < frac · 2^32 for this s
    for value, r, word in zip(values.tolist(), bits.tolist(), got.tolist(), strict=True):
        theirs = gfloat.round_float(info, value, fastest, srbits=2**33 - 2 * r - 1, srnumbits=33)
        assert word == theirs, f"{value!r} to {fmt}, R = {r}: gfloat {theirs!r}, got {word!r}"


def test_the_mean_over_all_of_many_random_words_is_the_value() -> None:
    value = 1 + 2.0**-7 * 0.3
    bits = np.linspace(0, 2**32 - 1, 1 << 16).astype(np.uint32)
    got = decode(encode(np.full(bits.shape, value), "bfloat16", rounding="stochastic", random_bits=bits), "bfloat16")
    assert abs(got.mean() - value) < 2.0**-7 * 2.0**-15, f"mean {got.mean()!r} of {value!r}: biased"


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"rounding": "stochastic"}, ArgumentValueError, "^random_bits must be given where rounding is stochastic"),
        ({"random_bits": np.zeros(3, np.uint32)}, ArgumentValueError, "^random_bits must be None where rounding is ti"),
        ({"rounding": "stochastic", "random_bits": np.zeros(2, np.uint32)}, ArgumentValueError,
         r"^random_bits must be of shape \(3,\), that of values, got \(2,\)$"),
        ({"rounding": "stochastic", "random_bits": np.zeros(3, np.int64)}, ArgumentTypeError,
         "^random_bits must be uint32, got int64$"),
        ({"rounding": "stochastic", "random_bits": [0, 0, 0]}, ArgumentTypeError,
         "^random_bits must be a NumPy array of uint32, got list$"),
    ],
)  # fmt: skip
def test_random_bits_are_there_where_they_are_used_and_only_there(
    options: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        encode(np.zeros(3, np.float32), "bfloat16", **options)  # type: ignore[arg-type]
