"""[double_quant.offset]: the exact mean rounded once."""

from fractions import Fraction

import numpy as np
import pytest

from qloracle.errors import ArgumentTypeError
from qloracle.formats import Array
from qloracle.mean_offset import exact_sum, mean_offset, round_ratio

from .rationals import exact, random_float32, round_word


def word_of(value: np.float32) -> int:
    return int(np.asarray(value).view(np.uint32))


def expected_word(values: Array) -> int:
    return round_word(sum((exact(value) for value in values), Fraction(0)) / values.size, "float32")


def require_mean(values: Array, what: str) -> None:
    got, expected = word_of(mean_offset(values)), expected_word(values)
    assert got == expected, (
        f"mean of {what} ({values.size} numbers from {values[:4]}): {got:#010x}, not {expected:#010x}"
    )


LITERAL = [
    ([4, 2**-22, 2**-100, 0], 0x3F800001),
    ([4, 2**-22, 0, 0], 0x3F800000),
    ([4, 3 * 2**-22, 0, 0], 0x3F800002),
    ([4, 2**-22, -(2**-100), 0], 0x3F800000),
    ([-4, -(2**-22), -(2**-100), 0], 0xBF800001),
    ([1, 1 + 2**-23], 0x3F800000),
    ([1 + 2**-23, 1 + 2**-22], 0x3F800002),
    ([2**-149, 0], 0x00000000),
    ([3 * 2**-149, 0], 0x00000002),
    ([2**-149, 2**-149, 0], 0x00000001),
    ([2**-149, 0, 0], 0x00000000),
    ([3.4028234663852886e38] * 3, 0x7F7FFFFF),
    ([3.4028234663852886e38, 2**-149, -3.4028234663852886e38, 0], 0x00000000),
    ([3.4028234663852886e38, 2**-147, -3.4028234663852886e38, 0], 0x00000001),
    ([0.0, 0.0], 0x00000000),
    ([2.0], 0x40000000),
    ([1, 1, 2], 0x3FAAAAAB),
]


@pytest.mark.proof("double_quant.offset", by="literal words")
@pytest.mark.parametrize(("values", "word"), LITERAL)
def test_the_mean_of_these_numbers_is_the_literal_word(values: list[float], word: int) -> None:
    got = word_of(mean_offset(np.array(values, np.float32)))
    assert got == word, f"mean of {values} is {word:#010x}, got {got:#010x}"


@pytest.mark.proof("double_quant.offset", by="exact rationals")
@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 255, 256, 257, 1000])
def test_numbers_of_every_magnitude_are_summed_exactly(size: int) -> None:
    for seed in range(8):
        require_mean(random_float32(np.random.default_rng([seed, size]), size, signed=False), "every binade")


@pytest.mark.parametrize("size", [2, 3, 5, 100])
def test_numbers_that_nearly_cancel_are_summed_exactly(size: int) -> None:
    for seed in range(20):
        half = random_float32(np.random.default_rng([seed, size]), size)
        require_mean(np.concatenate([half, np.nextafter(-half, np.float32(0))]), "a near cancellation")


@pytest.mark.parametrize("seed", range(8))
def test_typical_absmax_are_averaged_in_one_rounding(seed: int) -> None:
    values = np.random.default_rng([51, seed]).lognormal(0, 2, 4096).astype(np.float32)
    require_mean(values, "lognormal absmax")


@pytest.mark.parametrize("count", [3, 5, 48, 127, 1000])
def test_means_beside_a_tie_are_decided_by_the_last_bit(count: int) -> None:
    rng = np.random.default_rng(52)
    for _ in range(50):
        # The first number carries a tie of the mean; a speck decides it.
        odd = 2 * int(rng.integers(2**23, 2**24)) + 1
        tie = np.array([odd / 2**24], np.float64) * count
        parts = [np.float32(tie[0])]
        parts.append(np.float32(tie[0] - np.float64(parts[0])))
        for speck in (0.0, 2.0**-120, -(2.0**-120)):
            values = np.array([*parts, speck, *[0.0] * (count - 3)], np.float32)
            require_mean(values, f"a tie and {speck}")


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_poisoned_blocks_are_left_out_of_the_mean(poison: float) -> None:
    got = mean_offset(np.array([1, poison, 2], np.float32))
    assert float(got) == 1.5, f"mean of [1, {poison}, 2] is that of [1, 2], got {got}"


@pytest.mark.parametrize("values", [[], [np.nan], [np.nan, np.nan]])
def test_with_no_block_left_the_offset_is_plus_zero(values: list[float]) -> None:
    assert word_of(mean_offset(np.array(values, np.float32))) == 0, f"offset of {values} is +0"


def test_the_order_of_the_numbers_does_not_matter() -> None:
    values = random_float32(np.random.default_rng(53), 500, signed=False)
    words = {word_of(mean_offset(values[order])) for order in (slice(None), slice(None, None, -1), np.argsort(values))}
    assert len(words) == 1, f"three orders of the same numbers have means {words}"


def test_a_strided_view_has_the_mean_of_its_copy() -> None:
    values = np.arange(10, dtype=np.float32)
    assert float(mean_offset(values[1::3])) == 4, f"mean of [1, 4, 7] is 4, got {mean_offset(values[1::3])}"


def test_exact_sum_counts_in_units_of_the_smallest_subnormal() -> None:
    got = exact_sum(np.array([2**-149, -1, 3.4028234663852886e38], np.float32))
    assert got == 1 - 2**149 + (2**24 - 1) * 2**253, f"exact sum in units of 2^-149, got {got}"


@pytest.mark.parametrize("seed", range(4))
def test_a_ratio_of_integers_is_rounded_once(seed: int) -> None:
    rng = np.random.default_rng([54, seed])
    for _ in range(300):
        numerator = int(rng.integers(1, 2**63)) >> int(rng.integers(0, 63)) << int(rng.integers(0, 150))
        numerator *= int(rng.choice([-1, 1]))
        denominator = int(rng.integers(1, 2**40)) >> int(rng.integers(0, 40)) or 1
        got = word_of(round_ratio(numerator, denominator, -149))
        expected = round_word(Fraction(numerator, denominator) / 2**149, "float32")
        assert got == expected, f"{numerator}/{denominator}·2^-149 is {expected:#010x}, got {got:#010x}"


@pytest.mark.parametrize("values", [np.ones(2), np.ones(2, np.float16), [1.0, 2.0]])
def test_another_dtype_is_refused(values: Array) -> None:
    with pytest.raises(ArgumentTypeError, match=r"^absmax must be float32, got "):
        mean_offset(values)
