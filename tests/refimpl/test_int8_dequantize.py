"""[int8.dequantize]: RN_out(fl32(q · absmax / 127)), the inner step one rounding of the real quotient."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from qloracle import dequantize_int8, quantize_int8
from qloracle.errors import ArgumentTypeError, ArgumentValueError
from qloracle.formats import Array
from qloracle.int8 import dequantize_int8_codes

from .compare import require_same_words
from .rationals import exact, random_float32, round_word

ALL_CODES = np.arange(-127, 128, dtype=np.int8)
EDGES = np.array([1, 2, 3, 0x007FFFFF, 0x00800000, 0x3F800000, 0x7F7FFFFF], np.uint32).view(np.float32)


@pytest.mark.proof("int8.dequantize", by="exact rationals")
@pytest.mark.parametrize(("fmt", "dtype"), [("float32", np.uint32), ("float16", np.uint16), ("bfloat16", np.uint16)])
def test_every_code_with_any_absmax_is_one_real_quotient_rounded_to_float32_and_then_to_the_output(
    fmt: str, dtype: type[np.unsignedinteger]
) -> None:
    scales = np.concatenate([EDGES, -EDGES, random_float32(np.random.default_rng(34), 40, signed=False)])
    for scale in scales[scales != 0]:
        got = dequantize_int8_codes(ALL_CODES, np.array([scale], np.float32), fmt).view(dtype)
        expected = []
        for code in ALL_CODES.tolist():
            negative = (code < 0) != (scale < 0) and code != 0
            single = round_word(Fraction(code) * exact(scale) / 127, "float32", negative=bool(negative))
            real = exact(np.array([single], np.uint32).view(np.float32)[0])
            expected.append(round_word(real, fmt, negative=bool(negative)))
        words = np.array(expected, dtype)
        require_same_words(got, words, fmt, f"q · {scale!r} / 127 to {fmt}", lambda i: f"code {ALL_CODES[i]}")


@pytest.mark.parametrize("absmax", [0.0, -0.0])
def test_absmax_zero_dequantizes_to_plus_zero(absmax: float) -> None:
    words = dequantize_int8_codes(ALL_CODES, np.array([absmax], np.float32), "float32").view(np.uint32)
    assert not words.any(), f"absmax {absmax} must give +0 for every code, got words {np.unique(words)}"


@pytest.mark.parametrize("absmax", [1.0, -1.0, 1e-45])
def test_code_zero_dequantizes_to_plus_zero(absmax: float) -> None:
    words = dequantize_int8_codes(np.zeros(1, np.int8), np.array([absmax], np.float32), "float32").view(np.uint32)
    assert words.tolist() == [0], f"code 0 with absmax {absmax} is +0, got {words[0]:#x}"


def test_absmax_nan_dequantizes_to_nan_for_every_code() -> None:
    values = dequantize_int8_codes(ALL_CODES, np.array([np.nan], np.float32), "float32")
    assert np.isnan(values).all(), f"absmax NaN gives NaN, got numbers for codes {ALL_CODES[~np.isnan(values)]}"


GOOD = quantize_int8(np.ones((2, 3), np.float32), granularity="row")


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"codes": np.zeros((2, 3), np.uint8)}, ArgumentTypeError, "^codes must be int8, got uint8$"),
        ({"absmax": np.ones(2)}, ArgumentTypeError, "^absmax must be float32, got float64$"),
        ({"absmax": np.ones(3, np.float32)}, ArgumentValueError, r"^absmax must be of shape \(2,\), got \(3,\)$"),
        ({"dtype": "float64"}, ArgumentValueError, "^dtype must be one of .*, got 'float64'$"),
        ({"granularity": "rows"}, ArgumentValueError, "^granularity must be one of .*, got 'rows'$"),
    ],
)
def test_parts_that_do_not_belong_together_are_named(
    change: dict[str, Array], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        dequantize_int8(replace(GOOD, **change))  # type: ignore[arg-type]


@pytest.mark.proof("int8.dequantize", by="integer arithmetic")
@pytest.mark.exhaustive
@pytest.mark.parametrize("code", range(1, 128))
def test_dequantizing_is_one_rounding_for_every_significand_of_absmax(code: int) -> None:
    scale = np.arange(1 << 23, 1 << 24, dtype=np.int64)
    shift = 31 - int(np.log2(code))  # the quotient of code · scale · 2^shift by 127 has 48 bits or more
    quotient, rest = np.divmod((code * scale) << (shift - 7), 127)
    bits = np.frexp(quotient.astype(np.float64))[1].astype(np.int64)
    unit = np.int64(1) << (bits - 24)
    floor, below = quotient // unit, quotient % unit
    up = (below > unit // 2) | ((below == unit // 2) & ((rest > 0) | (floor % 2 == 1)))
    expected = np.ldexp(((floor + up) * unit).astype(np.float64), -(shift - 7)).astype(np.float32)
    got = dequantize_int8_codes(np.full(scale.size, code, np.int8), scale.astype(np.float32), "float32")
    wrong = np.flatnonzero(got != expected)
    assert not wrong.size, f"{code} · {scale[wrong[:1]]} / 127: {got[wrong[:1]]}, expected {expected[wrong[:1]]}"
