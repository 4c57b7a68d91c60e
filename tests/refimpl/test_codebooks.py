"""[codebook.midpoints]: what follows from a table, and which tables are legal."""

from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest

from qloracle.codebooks import Codebook, significant_bits, table_from_words
from qloracle.conditional_means import conditional_means, relative_error
from qloracle.errors import ArgumentTypeError, ArgumentValueError
from qloracle.tables import CODEBOOKS, codebook_named

from .codebook_cases import EVERY, HOSTILE
from .rationals import exact

ALL = pytest.mark.parametrize("codebook", EVERY.values(), ids=EVERY.keys())
SPECIFIED = pytest.mark.parametrize("codebook", CODEBOOKS.values(), ids=CODEBOOKS.keys())


def ascending(codebook: Codebook) -> list[Fraction]:
    return sorted({exact(entry) for entry in codebook.entries if not np.isnan(entry)})


@pytest.mark.proof("codebook.midpoints", by="exact rationals")
@SPECIFIED
def test_the_midpoints_are_exact(codebook: Codebook) -> None:
    ideal = [(low + high) / 2 for low, high in pairwise(ascending(codebook))]
    assert [exact(m) for m in codebook.midpoints] == ideal, f"a midpoint of {codebook.name} was rounded"


@pytest.mark.proof("codebook.midpoints", by="equal distance to both neighbours, sorted by words")
@SPECIFIED
def test_a_midpoint_is_as_far_from_the_entry_below_as_from_the_one_above(codebook: Codebook) -> None:
    words = codebook.entries[~np.isnan(codebook.entries)].view(np.uint32).astype(np.int64)
    order = np.where(words >> 31, -(words & 0x7FFFFFFF), words)  # the order of float words, one zero
    values = [exact(codebook.entries[np.flatnonzero(~np.isnan(codebook.entries))[i]]) for i in np.argsort(order)]
    distinct = [v for i, v in enumerate(values) if not i or v != values[i - 1]]
    for low, high, middle in zip(distinct[:-1], distinct[1:], map(exact, codebook.midpoints), strict=True):
        assert middle - low == high - middle > 0, f"{codebook.name}: {float(middle)} between {low} and {high}"


@ALL
def test_midpoints_that_need_more_bits_than_float64_has_are_rounded_once(codebook: Codebook) -> None:
    ideal = [(low + high) / 2 for low, high in pairwise(ascending(codebook))]
    assert codebook.midpoints.tolist() == [float(m) for m in ideal], f"{codebook.name}: a midpoint is rounded wrongly"


@ALL
def test_the_quotient_decides_exactly_where_midpoints_have_at_most_29_bits(codebook: Codebook) -> None:
    bits = [len(bin(abs(m.numerator)).rstrip("0")) - 2 for m in map(sum, pairwise(ascending(codebook))) if m]
    assert codebook.quotient_decides == all(b <= 29 for b in bits), f"{codebook.name}: midpoints of {bits} bits"


@SPECIFIED
def test_the_quotient_decides_every_table_of_the_specification(codebook: Codebook) -> None:
    assert codebook.quotient_decides, f"{codebook.name} needs exact comparisons"


def test_the_hostile_tables_need_exact_comparisons() -> None:
    undecided = [name for name, table in HOSTILE.items() if not table.quotient_decides]
    assert len(undecided) >= 6, f"only {undecided} leave the lemma: the fallback is hardly tested"


@ALL
def test_a_table_is_a_copy_that_cannot_be_changed(codebook: Codebook) -> None:
    with pytest.raises(ValueError, match="read-only"):
        codebook.entries[0] = 0
    mine = np.arange(16, dtype=np.float32)
    table = Codebook("mine", mine)
    mine[3] = 99
    assert table.entries[3] == 3, "a codebook must not change with the array that it was made from"
    assert mine.flags.writeable, "making a codebook must leave the array writable"


def test_a_byte_swapped_table_is_read_by_value() -> None:
    swapped = np.arange(16).astype(">f4")
    assert Codebook("swapped", swapped).entries.tolist() == list(range(16))


def test_codes_need_not_be_in_value_order_and_equal_values_share_a_position() -> None:
    table = CODEBOOKS["fp4"]
    assert table.value_order.tolist() == [11, 10, 13, 12, 15, 14, 9, 0, 1, 6, 7, 4, 5, 2, 3]
    assert table.position[8] == table.position[0] == 7, "codes 0 and 8 hold the same value"


def test_codes_of_nan_have_a_position_beyond_all_numbers() -> None:
    table = CODEBOOKS["float8"]
    assert table.position[[0x7E, 0x7F, 0xFF]].tolist() == [252, 253, 253]
    assert not {0x7F, 0xFF} & set(table.value_order.tolist()), "a NaN code is never written"


def test_a_codebook_without_zero_sends_zero_to_the_lower_of_two_nearest() -> None:
    assert HOSTILE["no_zero"].zero_code == 7, "-1/16 and 1/16 are equally near 0, the lower has code 7"


def test_a_codebook_of_one_value_has_no_midpoint() -> None:
    assert Codebook("zeros", np.zeros(16, np.float32)).midpoints.size == 0


def test_a_codebook_stands_for_itself_where_a_name_is_expected() -> None:
    assert codebook_named(HOSTILE["gaps"]) is HOSTILE["gaps"]
    assert codebook_named("fp4") is CODEBOOKS["fp4"]


@pytest.mark.parametrize(
    ("value", "bits"), [(0.0, 0), (1.0, 1), (-0.75, 2), (1 + 2**-25, 26), (2.0**-1074, 1), (1 + 2**-52, 53)]
)
def test_significant_bits_run_from_the_first_to_the_last_one(value: float, bits: int) -> None:
    assert significant_bits(exact(value)) == bits, f"{value.hex()} has {bits} significant bits"


def test_the_conditional_means_are_those_of_a_numerical_integral() -> None:
    grid = np.linspace(-12, 12, 1 << 20)
    density = np.exp(-grid * grid / 2)
    mass = np.cumsum(density) / density.sum()
    ninth = [
        float(np.average(grid[b], weights=density[b]))
        for b in ((mass > i / 16) & (mass <= (i + 1) / 16) for i in range(8, 16))
    ]
    for entry, mean in zip(conditional_means().entries[8:], ninth, strict=True):
        assert abs(float(entry) - mean / ninth[-1]) < 1e-4, f"{entry} is not the scaled mean {mean / ninth[-1]}"


def test_conditional_means_have_no_zero_and_err_more_than_nf4_on_normal_blocks() -> None:
    x = np.random.default_rng(72).standard_normal(1 << 20).astype(np.float32)
    assert 0 not in conditional_means().entries
    ratio = relative_error(x, conditional_means()) / relative_error(x, "nf4")
    assert 1.09 < ratio < 1.12, f"0.00143 against 0.00130, got a ratio of {ratio}"


@pytest.mark.parametrize("x", [np.zeros(64, np.float32), np.full(3, np.nan, np.float32), np.empty(0, np.float32)])
def test_blocks_without_scale_have_no_relative_error(x: np.ndarray) -> None:
    assert relative_error(x, "nf4") == 0.0


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: Codebook("c", np.zeros(16)),
            ArgumentTypeError,
            "^entries must be a 1-d float32 array, got 1-d float64$",
        ),
        (lambda: Codebook("c", [0.0] * 16), ArgumentTypeError, "^entries must be a 1-d float32 array, got list$"),
        (
            lambda: Codebook("c", np.zeros((4, 4), np.float32)),
            ArgumentTypeError,
            "^entries must be .*, got 2-d float32$",
        ),
        (lambda: Codebook("c", np.zeros(9, np.float32)), ArgumentValueError, "^entries must be .*16 or 256 .*, got 9$"),
        (
            lambda: Codebook("c", np.zeros(32, np.float32)),
            ArgumentValueError,
            "^entries must be .*16 or 256.*, got 32$",
        ),
        (
            lambda: Codebook("c", np.full(16, np.inf, np.float32)),
            ArgumentValueError,
            "^entries must be finite .*infinity$",
        ),
        (
            lambda: Codebook("c", np.full(16, np.nan, np.float32)),
            ArgumentValueError,
            "^entries must .* one number, got NaN",
        ),
        (lambda: Codebook("c", table_from_words("3f800000")), ArgumentValueError, "^entries must be .*, got 1$"),
        (lambda: codebook_named("nf5"), ArgumentValueError, "^codebook must be one of nf4, fp4, .*, got 'nf5'$"),
        (lambda: codebook_named(4), ArgumentTypeError, "^codebook must be a name or a Codebook, got int$"),
    ],
)
def test_what_breaks_a_rule_is_refused(call: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
