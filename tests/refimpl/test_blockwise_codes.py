"""[blockwise.quantize]: the code of the entry nearest to the real number x/absmax, the lower one at a tie.

The lemma of `blockwise` says that a float64 quotient decides this exactly; here Fraction decides it.
"""

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest

from qloracle.codebooks import Codebook
from qloracle.formats import Array
from qloracle.nearest import quantize_codes
from qloracle.tables import CODEBOOKS

from .codebook_cases import EVERY, ZERO_CODES
from .compare import hex_of, require_same_codes
from .rationals import exact, midpoint_neighbours, nearest_entry, random_float32

SPECIFIED = pytest.mark.parametrize("codebook", CODEBOOKS.values(), ids=CODEBOOKS.keys())
ALL = pytest.mark.parametrize("codebook", EVERY.values(), ids=EVERY.keys())
EDGE_ABSMAX_WORDS = [1, 2, 3, 0x007FFFFF, 0x00800000, 0x00800001, 0x3F800000, 0x3F7FFFFF, 0x7F7FFFFF, 0x7F000001]


def value_order(codebook: Codebook) -> tuple[list[Fraction], list[int]]:
    """Distinct values in ascending order, and the lowest code of each."""
    numbers = [(exact(entry), code) for code, entry in enumerate(codebook.entries) if not np.isnan(entry)]
    lowest = dict(sorted(numbers, key=lambda pair: -pair[1]))
    ascending = sorted(lowest)
    return ascending, [lowest[value] for value in ascending]


def expected_codes(x: Array, absmax: Array, codebook: Codebook) -> list[int]:
    """Codes by exact distance; x and absmax finite, absmax not 0, one absmax an element."""
    ascending, codes = value_order(codebook)
    if len(ascending) == 1:
        return codes * x.size
    targets = [exact(value) / exact(scale) for value, scale in zip(x, absmax, strict=True)]
    return [codes[nearest_entry(target, ascending)] for target in targets]


def require_nearest(x: Array, absmax: Array, codebook: Codebook) -> None:
    got = quantize_codes(x, absmax, codebook, 1)

    def source(index: int) -> str:
        return f"x = {hex_of(x)(index)}, absmax = {hex_of(absmax)(index)}"

    require_same_codes(got, expected_codes(x, absmax, codebook), f"{codebook.name}: nearest entry", source)


def around_midpoints(codebook: Codebook, scales: Array) -> tuple[Array, Array]:
    """The floats at and beside every midpoint times every absmax."""
    ascending = value_order(codebook)[0]
    xs: list[np.float32] = [np.float32(0)]
    absmax: list[np.float32] = [np.float32(1)]
    for scale in scales:
        for low, high in pairwise(ascending):
            try:
                near = midpoint_neighbours((low + high) / 2 * exact(scale))
            except OverflowError:
                continue
            xs += near
            absmax += [scale] * len(near)
    return np.array(xs, np.float32), np.array(absmax, np.float32)


@pytest.mark.proof("blockwise.quantize", by="exact rationals")
@ALL
def test_a_float_beside_every_midpoint_gets_the_nearest_entry(codebook: Codebook) -> None:
    count = (6000 if codebook.name in ("nf4", "fp4") else 1500) // codebook.entries.size
    scales = random_float32(np.random.default_rng(11), count, signed=False)
    require_nearest(*around_midpoints(codebook, scales[scales > 0]), codebook)


@pytest.mark.proof("blockwise.quantize", by="exact rationals")
@ALL
def test_subnormal_and_near_overflow_absmax_get_the_nearest_entry(codebook: Codebook) -> None:
    chosen = EDGE_ABSMAX_WORDS if codebook.code_bits == 4 else EDGE_ABSMAX_WORDS[::3]
    scales = np.array(chosen, np.uint32).view(np.float32)
    require_nearest(*around_midpoints(codebook, scales), codebook)


@ALL
def test_a_negative_absmax_still_means_the_real_quotient(codebook: Codebook) -> None:
    scales = -random_float32(np.random.default_rng(12), 600 // codebook.entries.size, signed=False)
    require_nearest(*around_midpoints(codebook, scales[scales < 0]), codebook)


@ALL
def test_any_x_with_any_absmax_gets_the_nearest_entry(codebook: Codebook) -> None:
    rng, count = np.random.default_rng(13), 2000
    x, absmax = random_float32(rng, count), random_float32(rng, count)
    close = x.copy().view(np.uint32) ^ rng.integers(0, 1 << 25, count, dtype=np.uint32)
    absmax[::2] = close.view(np.float32)[::2]
    usable = np.isfinite(absmax) & (absmax != 0)
    require_nearest(x[usable], absmax[usable], codebook)


@pytest.mark.proof("blockwise.quantize", by="squared distances in extended precision, all pairs")
@SPECIFIED
def test_no_entry_is_nearer_than_the_one_that_is_chosen(codebook: Codebook) -> None:
    x = np.random.default_rng(15).standard_normal(4000).astype(np.float32)
    absmax = np.abs(x.reshape(-1, 16)).max(axis=1)
    got = quantize_codes(x, absmax, codebook, 16)
    scale = np.repeat(absmax, 16).astype(np.longdouble)
    distance = np.abs(
        x[:, np.newaxis] - codebook.entries.astype(np.longdouble) * scale[:, np.newaxis]
    )  # 48 bits: exact
    distance[np.isnan(distance)] = np.inf
    nearest = distance.min(axis=1)
    wrong = np.flatnonzero(distance[np.arange(x.size), got] != nearest)
    assert not wrong.size, f"{codebook.name}: x = {x[wrong[:1]]} has an entry nearer than code {got[wrong[:1]]}"


@ALL
def test_every_exact_tie_goes_to_the_lower_entry(codebook: Codebook) -> None:
    ascending, codes = value_order(codebook)
    for power in (2.0**-140, 2.0**-60, 1.0, 2.0**100):
        for (low, high), code in zip(pairwise(ascending), codes, strict=False):
            midpoint = (low + high) / 2 * Fraction(power)
            if abs(midpoint) >= 2**127:
                continue
            x = np.array([float(midpoint)], np.float32)
            if exact(x[0]) == midpoint:
                got = int(quantize_codes(x, np.array([power], np.float32), codebook, 1)[0])
                assert got == code, f"{codebook.name}: {x[0]!r} / {power} lies on a midpoint: code {code}, got {got}"


def test_most_midpoints_of_the_small_tables_are_floats_so_that_ties_are_tested() -> None:
    for name in ("nf4", "fp4", "linear_signed_4bit", "dynamic_signed", "float8"):
        ties = [m for m in CODEBOOKS[name].midpoints if m == np.float32(m)]
        assert len(ties) >= 2, f"{name} has {len(ties)} midpoints that are float32 numbers"


@pytest.mark.proof("blockwise.quantize", by="literal decimals")
def test_the_midpoint_above_zero_of_nf4_is_a_tie_that_goes_to_zero() -> None:
    x = np.array([0.03979014977812767, np.nextafter(np.float32(0.03979014977812767), np.float32(1))], np.float32)
    got = quantize_codes(x, np.ones(1, np.float32), CODEBOOKS["nf4"], 2).tolist()
    assert got == [7, 8], f"0.0397901498 is the midpoint of codes 7 and 8: codes 7 and then 8, got {got}"


@pytest.mark.proof("blockwise.quantize", by="literal decimals")
@pytest.mark.parametrize(
    ("name", "x", "codes"),
    [
        ("fp4", [-12, -6, -2, 0, -0.0, 0.03, 3, 3.5, 5, 7, 10.1, 12], [11, 13, 14, 0, 0, 0, 7, 7, 4, 5, 3, 3]),
        ("linear_signed_4bit", [-8, -7.5, -0.6, 0, 0.5, 0.6, 7.4, 8], [0, 0, 7, 8, 8, 9, 15, 15]),
        ("linear_unsigned_4bit", [-15, -0.1, 0, 0.4, 0.6, 14.4, 15], [0, 0, 0, 0, 1, 14, 15]),
        ("linear_signed", [-127, -1, -0.4, 0, 0.4, 1, 127], [0, 126, 127, 127, 128, 129, 255]),
        ("float8", [-448, -0.0, 0, 1, 1.0624, 447, 448], [0xFE, 0, 0, 0x38, 0x38, 0x7E, 0x7E]),
    ],
)
def test_these_numbers_have_these_codes(name: str, x: list[float], codes: list[int]) -> None:
    values = np.array(x, np.float32)
    got = quantize_codes(values, np.abs(values).max()[np.newaxis], CODEBOOKS[name], len(x)).tolist()
    assert got == codes, f"{name} of {x}: {codes}, got {got}"


@ALL
def test_an_entry_times_absmax_one_gets_the_lowest_code_of_its_value(codebook: Codebook) -> None:
    written = codebook.value_order
    got = quantize_codes(codebook.entries[written], np.ones(1, np.float32), codebook, 256).tolist()
    assert got == written.tolist(), f"{codebook.name}: an entry does not map to itself: {got}"


@ALL
@pytest.mark.parametrize("absmax", [0.0, -0.0, np.nan, np.inf, -np.inf])
def test_an_absmax_that_is_no_scale_gives_the_code_of_zero(codebook: Codebook, absmax: float) -> None:
    x = np.array([0.0, -0.0, 1.0, -3e38, 1e-45, np.inf, -np.inf, np.nan], np.float32)
    got = quantize_codes(x, np.array([absmax], np.float32), codebook, 8).tolist()
    zero = ZERO_CODES.get(codebook.name, codebook.zero_code)
    assert got == [zero] * 8, f"{codebook.name}: {x}, absmax = {absmax} have the code of zero, {zero}, got {got}"


@ALL
@pytest.mark.parametrize("absmax", [1e-45, 1.0, 3e38, -1.0])
def test_a_nan_among_numbers_gets_the_code_of_zero(codebook: Codebook, absmax: float) -> None:
    x = np.array([0x7F800001, 0xFFC00000], np.uint32).view(np.float32)
    got = quantize_codes(x, np.array([absmax], np.float32), codebook, 2).tolist()
    zero = ZERO_CODES.get(codebook.name, codebook.zero_code)
    assert got == [zero, zero], f"{codebook.name}: NaN with absmax {absmax} has the code of zero, {zero}, got {got}"


@ALL
@pytest.mark.parametrize(("absmax", "x"), [(1.0, 1e9), (1.0, np.inf), (1e-45, 3e38), (3e38, np.inf), (-1.0, -np.inf)])
def test_codes_saturate_beyond_the_outermost_entries(codebook: Codebook, absmax: float, x: float) -> None:
    if np.isfinite(x) and np.nanmax(np.abs(codebook.entries)) > 4:
        return  # a table that reaches further than these numbers
    got = quantize_codes(np.array([x, -x], np.float32), np.array([absmax], np.float32), codebook, 2).tolist()
    ends = value_order(codebook)[1]
    expected = [ends[-1], ends[0]]
    assert got == expected, f"{codebook.name}: ±{x} with absmax {absmax} saturate to {expected}, got {got}"


@pytest.mark.parametrize("codebook", [EVERY["nf4"], EVERY["dynamic_signed"], EVERY["spread_out_0"]], ids=str)
@pytest.mark.parametrize("block_size", [1, 3, 64, 65535, 65536, 65537])
def test_the_codes_do_not_depend_on_how_many_elements_are_handled_at_once(codebook: Codebook, block_size: int) -> None:
    rng = np.random.default_rng(14)
    x = rng.standard_normal(140001).astype(np.float32)
    absmax = (rng.random(-(-x.size // block_size)) + 0.5).astype(np.float32)
    got = quantize_codes(x, absmax, codebook, block_size)
    ones = quantize_codes(x, absmax[np.arange(x.size) // block_size], codebook, 1)
    wrong = np.flatnonzero(got != ones)
    assert not wrong.size, f"{codebook.name}, blocks of {block_size}: element {wrong[:1]} depends on its neighbours"


@pytest.mark.parametrize(("dtype", "fmt"), [(np.float16, None), (np.uint16, "bfloat16")])
def test_16_bit_numbers_get_the_codes_of_their_values(dtype: type, fmt: str | None) -> None:
    words = np.random.default_rng(16).integers(0, 0x7C00, 5000, np.uint16)
    x = words.view(dtype)
    wide = (words.astype(np.uint32) << 16).view(np.float32) if fmt else x.astype(np.float32)
    absmax = np.abs(wide.reshape(-1, 50)).max(axis=1)
    got = quantize_codes(x, absmax, CODEBOOKS["nf4"], 50, fmt=fmt)
    assert got.tolist() == quantize_codes(wide, absmax, CODEBOOKS["nf4"], 50).tolist()


@pytest.mark.exhaustive
@pytest.mark.proof("blockwise.quantize", by="products of integer significands")
@pytest.mark.parametrize(
    ("name", "position", "stride"), [("nf4", p, 1) for p in range(15)] + [("dynamic_signed", p, 31) for p in range(255)]
)
def test_codes_are_exact_at_a_midpoint_for_the_significands_of_absmax(name: str, position: int, stride: int) -> None:
    codebook = CODEBOOKS[name]
    total = exact(codebook.entries[position]) + exact(codebook.entries[position + 1])
    sign, numerator, power = (-1 if total < 0 else 1), abs(total.numerator), total.denominator.bit_length()
    for start in range(1 << 23, 1 << 24, 1 << 20):
        scale = np.arange(start + position % stride, start + (1 << 20), stride, dtype=np.int64)
        product = numerator * scale  # |midpoint · scale| in units of 2^-power, at most 50 bits
        bits = np.frexp(product.astype(np.float64))[1].astype(np.int64)
        unit = np.int64(1) << np.maximum(bits - 24, 0)
        for step in (0, 1):
            x = (product // unit + step) * unit  # the float32 numbers on either side of it
            lower = (x <= product) if sign > 0 else (x >= product)
            values = np.ldexp((sign * x).astype(np.float64), -power).astype(np.float32)
            got = quantize_codes(values, scale.astype(np.float32), codebook, 1)
            wrong = np.flatnonzero(got != np.where(lower, position, position + 1))
            assert not wrong.size, f"x = {values[wrong[:1]]}, absmax = {scale[wrong[:1]]}: got code {got[wrong[:1]]}"
