"""[format.encode] from float64 and integers, at the edges of a format, and of what is no number."""

from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest

from qloracle.errors import ArgumentTypeError, ArgumentValueError
from qloracle.formats import Array
from qloracle.rounding import decode, encode

from .compare import hex_of, is_nan, require_same_words
from .rationals import FIELDS, exact, round_word

FLOAT64_CASES = [
    (1 + 2**-8 + 2**-40, "bfloat16", 0x3F81),
    (1 + 2**-8, "bfloat16", 0x3F80),
    (1 + 3 * 2**-8, "bfloat16", 0x3F82),
    (1 + 2**-8 - 2**-52, "bfloat16", 0x3F80),
    (1 + 2**-11 + 2**-40, "float16", 0x3C01),
    (1 + 2**-11, "float16", 0x3C00),
    (1 + 2**-24 + 2**-50, "float32", 0x3F800001),
    (1 + 2**-24, "float32", 0x3F800000),
    (65519.99999999999, "float16", 0x7BFF),
    (65519.996, "float16", 0x7BFF),
    (65520.0, "float16", 0x7C00),
    (-65520.0, "float16", 0xFC00),
    (2.0**-25, "float16", 0x0000),
    (2.0**-25 * (1 + 2**-52), "float16", 0x0001),
    (-(2.0**-25), "float16", 0x8000),
    (3 * 2.0**-25, "float16", 0x0002),
    (2.0**-24, "float16", 0x0001),
    (1023.5 * 2.0**-24, "float16", 0x0400),
    (2.0**-134, "bfloat16", 0x0000),
    (2.0**-134 * (1 + 2**-52), "bfloat16", 0x0001),
    (3 * 2.0**-134, "bfloat16", 0x0002),
    (2.0**-150, "float32", 0x00000000),
    (3 * 2.0**-150, "float32", 0x00000002),
    (5e-324, "float32", 0x00000000),
    (-5e-324, "bfloat16", 0x8000),
    (1.7976931348623157e308, "float32", 0x7F800000),
    ((2 - 2**-24) * 2.0**127, "float32", 0x7F800000),
    ((2 - 2**-23) * 2.0**127, "float32", 0x7F7FFFFF),
]


@pytest.mark.parametrize(("value", "fmt", "word"), FLOAT64_CASES)
def test_a_float64_is_rounded_once(value: float, fmt: str, word: int) -> None:
    got = int(encode(np.array([value]), fmt)[0])
    assert got == word, f"{value.hex()} to {fmt} is {word:#x}, got {got:#x}"


@pytest.mark.parametrize(
    ("source", "fmt", "word"),
    [
        (0x7F7F7FFF, "bfloat16", 0x7F7F),
        (0x7F7F8000, "bfloat16", 0x7F80),
        (0xFF7F8000, "bfloat16", 0xFF80),
        (0x477FEFFF, "float16", 0x7BFF),
        (0x477FF000, "float16", 0x7C00),
        (0x3E89CCD5, "bfloat16", 0x3E8A),
        (0x3F808000, "bfloat16", 0x3F80),
        (0x3F818000, "bfloat16", 0x3F82),
        (0x00008001, "bfloat16", 0x0001),
        (0x00008000, "bfloat16", 0x0000),
        (0x80008001, "bfloat16", 0x8001),
        (0x80000000, "bfloat16", 0x8000),
        (0x7F800000, "float16", 0x7C00),
        (0xFF800000, "bfloat16", 0xFF80),
    ],
)
def test_a_float32_at_an_edge_becomes_the_literal_word(source: int, fmt: str, word: int) -> None:
    got = int(encode(np.array([source], np.uint32).view(np.float32), fmt)[0])
    assert got == word, f"float32 {source:#010x} to {fmt} is {word:#06x}, got {got:#06x}"


@pytest.mark.parametrize("fmt", ["bfloat16", "float16", "float32"])
def test_float64_beside_every_tie_of_some_exponents_rounds_like_the_exact_rational(fmt: str) -> None:
    digits, rng = FIELDS[fmt][1], np.random.default_rng(7)
    numbers = (2 * rng.integers(0, 2**digits, 600) + 1) * 2.0 ** -(digits + 1) + 1
    ties = np.ldexp(numbers, rng.integers(-152, 129, 600))
    values = np.concatenate([np.nextafter(ties, 0), ties, np.nextafter(ties, np.inf)])
    values = np.concatenate([values, -values])
    expected = np.array([round_word(exact(value), fmt) for value in values])
    require_same_words(encode(values, fmt), expected, fmt, f"float64 to {fmt}", hex_of(values))


@pytest.mark.parametrize("fmt", ["bfloat16", "float16", "float32", "float64"])
@pytest.mark.parametrize("dtype", [np.int64, np.uint64, np.int32, np.uint32, np.int8])
def test_an_integer_is_rounded_once(dtype: type[np.integer], fmt: str) -> None:
    limits = np.iinfo(dtype)
    near = [0, 1, 2049, 2**24 + 1, 16842753, 2**53 + 1, 2**53 + 2, 2**53 + 3, 2**62 + 2**9 + 1, 2**63 - 1, 2**64 - 1]
    around = {s * (n + d) for n in near for d in (-1, 0, 1) for s in (1, -1)} | {limits.min, limits.max}
    powers = {s * (2**k + 2**j + d) for k in range(64) for j in range(0, k + 1, 5) for d in (-1, 0, 1) for s in (1, -1)}
    # Ties of bfloat16 and float32, decided by one bit far below.
    powers |= {
        s * (2**k + 2 ** (k - p) + 2**j) for k in range(24, 64) for p in (8, 24) for j in range(k - p) for s in (1, -1)
    }
    chosen = [n for n in sorted(around | powers) if limits.min <= n <= limits.max]
    expected = np.array([round_word(Fraction(n), fmt) for n in chosen], np.uint64)
    got = encode(np.array(chosen, dtype), fmt)
    require_same_words(got, expected, fmt, f"{dtype.__name__} to {fmt}", lambda i: str(chosen[i]))


def test_the_integer_16842753_becomes_bfloat16_without_a_stop_at_float32() -> None:
    assert encode(np.array([16842753]), "bfloat16").tolist() == [0x4B81], "16842753 = 2^24 + 2^16 + 1 lies above a tie"


@pytest.mark.parametrize("value", [np.int64(-5), np.array(-5), np.float32(-5), np.array(-5.0)])
def test_scalars_and_0_d_arrays_encode_like_arrays(value: Array) -> None:
    got = encode(value, "bfloat16")
    assert int(got) == 0xC0A0, f"-5 is 0xc0a0 in bfloat16, {value!r} gave {int(got):#x}"
    assert got.shape == (), f"{value!r} must stay 0-d, got shape {got.shape}"


@pytest.mark.parametrize("word", [0x7F800001, 0xFF800001, 0x7FFFFFFF, 0x7FFF8000, 0xFFFFFFFF, 0x7FC00000, 0xFFC00000])
@pytest.mark.parametrize("fmt", ["bfloat16", "float16", "float64"])
def test_every_class_of_nan_stays_a_nan_of_the_same_sign(word: int, fmt: str) -> None:
    got = encode(np.array([word], np.uint32).view(np.float32), fmt)
    assert is_nan(got, fmt)[0], f"the NaN {word:#010x} became {int(got[0]):#x}, a number of {fmt}"
    sign = int(got[0]) >> sum(FIELDS[fmt])
    assert sign == word >> 31, f"the NaN {word:#010x} changed its sign in {fmt}: {int(got[0]):#x}"


@pytest.mark.parametrize("fmt", ["bfloat16", "float16", "float32", "float64"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
def test_minus_zero_keeps_its_sign(dtype: type[np.floating], fmt: str) -> None:
    got = int(encode(np.array([-0.0], dtype), fmt)[0])
    assert got == 1 << sum(FIELDS[fmt]), f"-0 of {dtype.__name__} became {got:#x} in {fmt}"


def test_big_endian_floats_encode_like_native_ones() -> None:
    assert encode(np.array([1.0, -2.0], ">f4"), "bfloat16").tolist() == [0x3F80, 0xC000]


@pytest.mark.parametrize("length", [0, 1, 7, 8, 15, 16, 17, 63, 64, 65])
def test_the_result_does_not_depend_on_length_or_alignment(length: int) -> None:
    values = np.linspace(-3, 3, 70, dtype=np.float32)
    whole = encode(values, "bfloat16")
    got = encode(values[3 : 3 + length], "bfloat16")
    assert got.tolist() == whole[3 : 3 + length].tolist(), f"{length} elements at offset 3 encode differently"


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: encode([1.5], "bfloat16"), ArgumentTypeError, "^values must be a NumPy array, got list$"),  # type: ignore[arg-type]
        (lambda: encode(np.array([True]), "bfloat16"), ArgumentTypeError, "^values must be .*, got bool$"),
        (lambda: encode(np.zeros(1), "int4"), ArgumentValueError, "^fmt must be one of .*, got 'int4'$"),
        (lambda: encode(np.zeros(1, np.uint8), "float16", source="int4"), ArgumentValueError, "^source must be one of"),
        (lambda: encode(np.zeros(1), "float16", rounding="up"), ArgumentValueError, "^rounding must .*, got 'up'$"),
        (lambda: encode(np.zeros(1), "float16", overflow="trap"), ArgumentValueError, "^overflow .*, got 'trap'$"),
        (lambda: decode(np.zeros(1, np.int8)), ArgumentTypeError, "^bits must be .*, got int8$"),
    ],
)
def test_encode_names_argument_rule_and_value(call: Callable[[], Array], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
