"""[blockwise.quantize]: the code of the entry nearest to the real number x/absmax, the lower one at a tie.

The lemma of `blockwise` says that a float64 quotient decides this exactly; here Fraction decides it.
"""

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest

from qloracle.blockwise import CODEBOOKS, quantize_codes
from qloracle.codebooks import Codebook
from qloracle.formats import Array

from .compare import hex_of, require_same_codes
from .rationals import exact, midpoint_neighbours, nearest_entry, random_float32

BOTH = pytest.mark.parametrize("codebook", CODEBOOKS.values(), ids=CODEBOOKS.keys())
EDGE_ABSMAX_WORDS = [1, 2, 3, 0x007FFFFF, 0x00800000, 0x00800001, 0x3F800000, 0x3F7FFFFF, 0x7F7FFFFF, 0x7F000001]


def expected_codes(x: Array, absmax: Array, codebook: Codebook) -> list[int]:
    """Codes by exact distance; x and absmax finite, absmax not 0, one absmax an element."""
    order = sorted(range(codebook.entries.size), key=lambda code: exact(codebook.entries[code]))
    ascending = [exact(codebook.entries[code]) for code in order]
    targets = [exact(value) / exact(scale) for value, scale in zip(x, absmax, strict=True)]
    return [order[nearest_entry(target, ascending)] for target in targets]


def require_nearest(x: Array, absmax: Array, codebook: Codebook) -> None:
    got = quantize_codes(x, absmax, codebook, 1)

    def source(index: int) -> str:
        return f"x = {hex_of(x)(index)}, absmax = {hex_of(absmax)(index)}"

    require_same_codes(got, expected_codes(x, absmax, codebook), f"{codebook.name}: nearest entry", source)


def around_midpoints(codebook: Codebook, scales: Array) -> tuple[Array, Array]:
    """The floats at and beside every midpoint times every absmax."""
    ascending = sorted(exact(entry) for entry in codebook.entries)
    xs: list[np.float32] = []
    absmax: list[np.float32] = []
    for scale in scales:
        for low, high in pairwise(ascending):
            near = midpoint_neighbours((low + high) / 2 * exact(scale))
            xs += near
            absmax += [scale] * len(near)
    return np.array(xs, np.float32), np.array(absmax, np.float32)


@BOTH
def test_a_float_beside_every_midpoint_gets_the_nearest_entry(codebook: Codebook) -> None:
    count = 6000 // codebook.entries.size
    scales = random_float32(np.random.default_rng(11), count, signed=False)
    require_nearest(*around_midpoints(codebook, scales[scales > 0]), codebook)


@BOTH
def test_subnormal_and_near_overflow_absmax_get_the_nearest_entry(codebook: Codebook) -> None:
    scales = np.array(EDGE_ABSMAX_WORDS, np.uint32).view(np.float32)
    require_nearest(*around_midpoints(codebook, scales), codebook)


@BOTH
def test_a_negative_absmax_still_means_the_real_quotient(codebook: Codebook) -> None:
    scales = -random_float32(np.random.default_rng(12), 1000 // codebook.entries.size, signed=False)
    require_nearest(*around_midpoints(codebook, scales[scales < 0]), codebook)


@BOTH
def test_any_x_with_any_absmax_gets_the_nearest_entry(codebook: Codebook) -> None:
    rng = np.random.default_rng(13)
    x, absmax = random_float32(rng, 20000), random_float32(rng, 20000)
    close = x.copy().view(np.uint32) ^ rng.integers(0, 1 << 25, 20000, dtype=np.uint32)
    absmax[::2] = close.view(np.float32)[::2]
    usable = np.isfinite(absmax) & (absmax != 0)
    require_nearest(x[usable], absmax[usable], codebook)


@BOTH
def test_every_exact_tie_goes_to_the_lower_entry(codebook: Codebook) -> None:
    ascending = sorted((exact(entry), code) for code, entry in enumerate(codebook.entries))
    ties = [
        ((low + high) / 2, code)
        for (low, code), (high, _) in pairwise(ascending)
        if exact(np.float32(float((low + high) / 2))) == (low + high) / 2
    ]
    assert len(ties) >= 2, f"{codebook.name} has {len(ties)} midpoints that are float32 numbers: nothing was tested"
    for power in (2.0**-140, 1.0, 2.0**100):
        for midpoint, code in ties:
            x = np.array([float(midpoint) * power], np.float32)
            if exact(x[0]) != midpoint * Fraction(power):
                continue
            got = int(quantize_codes(x, np.array([power], np.float32), codebook, 1)[0])
            assert got == code, f"{codebook.name}: {x[0]!r} / {power} lies on a midpoint: code {code}, got {got}"


def test_the_midpoint_above_zero_of_nf4_is_a_tie_that_goes_to_zero() -> None:
    x = np.array([0.03979014977812767, np.nextafter(np.float32(0.03979014977812767), np.float32(1))], np.float32)
    got = quantize_codes(x, np.ones(1, np.float32), CODEBOOKS["nf4"], 2).tolist()
    assert got == [7, 8], f"0.0397901498 is the midpoint of codes 7 and 8: codes 7 and then 8, got {got}"


@BOTH
def test_every_entry_times_absmax_one_gets_its_own_code(codebook: Codebook) -> None:
    got = quantize_codes(codebook.entries, np.ones(1, np.float32), codebook, 256).tolist()
    assert got == list(range(codebook.entries.size)), f"{codebook.name}: an entry does not map to itself: {got}"


@BOTH
@pytest.mark.parametrize("absmax", [0.0, -0.0, np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("x", [0.0, -0.0, 1.0, -3e38, 1e-45, np.inf, -np.inf, np.nan])
def test_an_absmax_that_is_no_scale_gives_the_code_of_zero(codebook: Codebook, absmax: float, x: float) -> None:
    got = int(quantize_codes(np.array([x], np.float32), np.array([absmax], np.float32), codebook, 1)[0])
    zero = {"nf4": 7, "dynamic_signed": 127}[codebook.name]
    assert got == zero, f"{codebook.name}: x = {x}, absmax = {absmax} has the code of zero, {zero}, got {got}"


@BOTH
@pytest.mark.parametrize("absmax", [1e-45, 1.0, 3e38, -1.0])
def test_a_nan_among_numbers_gets_the_code_of_zero(codebook: Codebook, absmax: float) -> None:
    x = np.array([0x7F800001, 0xFFC00000], np.uint32).view(np.float32)
    got = quantize_codes(x, np.array([absmax], np.float32), codebook, 2).tolist()
    zero = {"nf4": 7, "dynamic_signed": 127}[codebook.name]
    assert got == [zero, zero], f"{codebook.name}: NaN with absmax {absmax} has the code of zero, {zero}, got {got}"


@BOTH
@pytest.mark.parametrize(("absmax", "x"), [(1.0, 2.0), (1.0, np.inf), (1e-45, 3e38), (3e38, np.inf), (-1.0, -np.inf)])
def test_codes_saturate_beyond_the_outermost_entries(codebook: Codebook, absmax: float, x: float) -> None:
    got = quantize_codes(np.array([x, -x], np.float32), np.array([absmax], np.float32), codebook, 2).tolist()
    top = codebook.entries.size - 1
    assert got == [top, 0], f"{codebook.name}: ±{x} with absmax {absmax} saturate to {top} and 0, got {got}"


@BOTH
@pytest.mark.parametrize("block_size", [1, 3, 64, 65535, 65536, 65537])
def test_the_codes_do_not_depend_on_how_many_elements_are_handled_at_once(codebook: Codebook, block_size: int) -> None:
    rng = np.random.default_rng(14)
    x = rng.standard_normal(70001).astype(np.float32)
    absmax = (rng.random(-(-x.size // block_size)) + 0.5).astype(np.float32)
    got = quantize_codes(x, absmax, codebook, block_size)
    ones = quantize_codes(x, np.array([absmax[i // block_size] for i in range(x.size)]), codebook, 1)
    wrong = np.flatnonzero(got != ones)
    assert not wrong.size, f"{codebook.name}, blocks of {block_size}: element {wrong[:1]} depends on its neighbours"


@pytest.mark.exhaustive
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
