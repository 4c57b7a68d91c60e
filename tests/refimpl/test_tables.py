"""The published words of every table, the derivations that regenerate them, and oracles that share nothing with it."""

from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from statistics import NormalDist
from types import ModuleType

import numpy as np
import pytest

from qloracle.codebooks import even_spacing
from qloracle.dynamic_map import derive_dynamic_signed, derive_dynamic_unsigned
from qloracle.float8_map import derive_float8
from qloracle.formats import Array
from qloracle.fp4 import derive_fp4
from qloracle.linear_map import derive_linear
from qloracle.nf4 import derive_nf4
from qloracle.tables import CODEBOOKS

from .codebook_cases import UNWRITTEN, ZERO_CODES
from .rationals import exact, round_word, rounded

NF4_WORDS = [
    *(0xBF800000, 0xBF3239B1, 0xBF066B30, 0xBECA32A0, 0xBE91A24D, 0xBE3D353F, 0xBDBA7871, 0x00000000),
    *(0x3DA2FAFF, 0x3E24CAE3, 0x3E7C04DD, 0x3EAD033A, 0x3EE1A4B8, 0x3F1007AB, 0x3F3913B3, 0x3F800000),
]
DERIVATIONS = {
    "nf4": derive_nf4,
    "fp4": derive_fp4,
    "linear_signed_4bit": lambda: derive_linear(signed=True, bits=4),
    "linear_unsigned_4bit": lambda: derive_linear(signed=False, bits=4),
    "dynamic_signed": derive_dynamic_signed,
    "dynamic_unsigned": derive_dynamic_unsigned,
    "linear_signed": lambda: derive_linear(signed=True, bits=8),
    "linear_unsigned": lambda: derive_linear(signed=False, bits=8),
    "float8": derive_float8,
}


def words(entries: Array) -> list[int]:
    return [int(word) for word in entries.view(np.uint32)]


def table_words(name: str) -> list[int]:
    return words(CODEBOOKS[name].entries)


def require_words(got: list[int], expected: list[int], what: str) -> None:
    wrong = [i for i, (g, e) in enumerate(zip(got, expected, strict=True)) if g != e]
    assert not wrong, f"{what}: code {wrong[0]} has word {got[wrong[0]]:08x}, expected {expected[wrong[0]]:08x}"


def spaced(start: int | Fraction, stop: int, count: int) -> list[Fraction]:
    """Evenly spaced float32 numbers, up from the start and down from the end, in rationals."""
    first, last = rounded(Fraction(start)), rounded(Fraction(stop))
    step = rounded(rounded(last - first) / (count - 1))
    up = [rounded(first + step * i) for i in range(count // 2)]
    return up + [rounded(last - step * (count - 1 - i)) for i in range(count // 2, count)]


def dynamic_magnitudes(doubling: int) -> list[Fraction]:
    """The positive entries of a dynamic map below 1, every float32 rounding in rationals."""
    found = []
    for step in range(7):
        cuts = spaced(Fraction(1, 10), 1, doubling * 2**step + 1)
        power = rounded(Fraction(10) ** (step - 6))
        found += [rounded(power * rounded(low + high) / 2) for low, high in pairwise(cuts)]
    return found


def rational_words(values: list[Fraction]) -> list[int]:
    return [round_word(value, "float32") for value in values]


@pytest.mark.parametrize("name", CODEBOOKS)
def test_every_derivation_gives_the_words_of_its_table(name: str) -> None:
    require_words(words(DERIVATIONS[name]()), table_words(name), f"the derivation of {name}")


@pytest.mark.proof("nf4.table", by="published words")
def test_nf4_holds_the_published_words() -> None:
    require_words(table_words("nf4"), NF4_WORDS, "NF4")


@pytest.mark.proof("nf4.table", by="quantiles of the standard library on rational spacing")
def test_nf4_is_the_quotients_of_normal_quantiles() -> None:
    outermost = Fraction(0.9677083)
    upper = [NormalDist().inv_cdf(float(p)) for p in spaced_half(outermost, 9)[:-1]]
    lower = [-NormalDist().inv_cdf(float(p)) for p in spaced_half(outermost, 8)[:-1]]
    singles = sorted(exact(np.float32(value)) for value in [*lower, 0.0, *upper])
    require_words(table_words("nf4"), rational_words([v / singles[-1] for v in singles]), "NF4")


def spaced_half(start: Fraction, count: int) -> list[Fraction]:
    """From `start` down to one half."""
    first, last = rounded(start), Fraction(1, 2)
    step = rounded(rounded(last - first) / (count - 1))
    up = [rounded(first + step * i) for i in range(count // 2)]
    return up + [rounded(last - step * (count - 1 - i)) for i in range(count // 2, count)]


@pytest.mark.proof("nf4.table", by="bitsandbytes")
def test_nf4_is_what_bitsandbytes_ships(bitsandbytes_functional: ModuleType) -> None:
    require_words(table_words("nf4"), words(bitsandbytes_functional.get_4bit_type("nf4", device="cpu").numpy()), "NF4")


@pytest.mark.proof("fp4.table", by="published numbers over 12 as rationals")
def test_fp4_is_the_published_numbers_over_12() -> None:
    twelfths = [Fraction(v) for v in ("0", "0.0625", "8", "12", "4", "6", "2", "3")]
    positive = rational_words([v / 12 for v in twelfths])
    require_words(table_words("fp4"), positive + [word | 1 << 31 for word in positive], "FP4")


@pytest.mark.proof("fp4.table", by="bitsandbytes")
def test_fp4_is_what_bitsandbytes_ships_but_for_the_sign_of_code_8(bitsandbytes_functional: ModuleType) -> None:
    shipped = words(bitsandbytes_functional.get_4bit_type("fp4", device="cpu").numpy())
    assert shipped[8] == 0, "bitsandbytes' table holds +0 at code 8"
    require_words(table_words("fp4"), [*shipped[:8], 1 << 31, *shipped[9:]], "FP4")


@pytest.mark.proof("dynamic.table", by="exact rationals")
@pytest.mark.parametrize("name", ["dynamic_signed", "dynamic_unsigned"])
def test_the_dynamic_maps_are_the_scaled_centres_of_equal_pieces(name: str) -> None:
    signed = name == "dynamic_signed"
    positive = dynamic_magnitudes(1 if signed else 2)
    values = sorted([*([-v for v in positive] if signed else []), *positive, Fraction(0), Fraction(1)])
    assert len(set(values)) == 256, f"{name} has {len(set(values))} distinct entries"
    require_words(table_words(name), rational_words(values), name)


@pytest.mark.proof("dynamic.table", by="bitsandbytes")
@pytest.mark.parametrize("signed", [True, False])
def test_the_dynamic_maps_are_what_bitsandbytes_creates(bitsandbytes_functional: ModuleType, signed: bool) -> None:
    name = "dynamic_signed" if signed else "dynamic_unsigned"
    require_words(table_words(name), words(bitsandbytes_functional.create_dynamic_map(signed=signed).numpy()), name)


@pytest.mark.proof("linear.table", by="exact rationals")
@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("linear_signed", lambda: sorted([*spaced(-1, 1, 255), Fraction(0)])),
        ("linear_unsigned", lambda: spaced(0, 1, 256)),
        ("linear_signed_4bit", lambda: [Fraction(k, 8) for k in range(-8, 8)]),
        ("linear_unsigned_4bit", lambda: spaced(0, 1, 16)),
    ],
)
def test_the_linear_maps_are_evenly_spaced(name: str, values: Callable[[], list[Fraction]]) -> None:
    require_words(table_words(name), rational_words(values()), name)


@pytest.mark.proof("linear.table", by="bitsandbytes")
@pytest.mark.parametrize(
    ("name", "signed", "bits"),
    [("linear_signed", True, 8), ("linear_unsigned", False, 8), ("linear_unsigned_4bit", False, 4)],
)
def test_the_linear_maps_are_what_bitsandbytes_creates(
    bitsandbytes_functional: ModuleType, name: str, signed: bool, bits: int
) -> None:
    created = bitsandbytes_functional.create_linear_map(signed=signed, total_bits=bits).numpy()
    if bits == 4:  # it fills 4-bit maps up to 256 entries with zeros in the middle
        created = np.concatenate([created[:8], created[-8:]])
    require_words(table_words(name), words(created), name)


def test_the_middle_of_the_signed_linear_map_is_not_zero_in_the_field() -> None:
    entries = CODEBOOKS["linear_signed"].entries
    assert (float(entries[127]), float(entries[128])) == (0.0, 2.0**-28), f"codes 127 and 128 hold {entries[127:129]}"


@pytest.mark.proof("float8.table", by="exact rationals")
def test_float8_is_the_numbers_of_e4m3fn_over_448() -> None:
    positive = [
        (Fraction(8 + m, 8) * Fraction(2) ** (e - 7) if e else Fraction(m, 8) / 64) / 448
        for e in range(16)
        for m in range(8)
    ][:127]
    half = [*rational_words(positive), 0x7FC00000]
    negative = [word | 1 << 31 for word in half[:127]]
    require_words(table_words("float8"), [*half, *negative, 0x7FC00000], "float8")


@pytest.mark.proof("float8.table", by="ml_dtypes")
def test_float8_is_what_ml_dtypes_decodes_over_448(ml_dtypes: ModuleType) -> None:
    values = np.arange(256, dtype=np.uint8).view(ml_dtypes.float8_e4m3fn).astype(np.float64)
    got = CODEBOOKS["float8"].entries
    assert np.array_equal(np.isnan(values), np.isnan(got)), "NaN stands at other codes"
    finite = ~np.isnan(values)
    require_words(words(got[finite]), words((values[finite] / 448).astype(np.float32)), "float8")


@pytest.mark.parametrize("name", CODEBOOKS)
def test_the_largest_magnitude_is_one_and_the_code_of_zero_is_plus_zero(name: str) -> None:
    codebook = CODEBOOKS[name]
    assert np.nanmax(np.abs(codebook.entries)) == 1, f"{name} must reach 1"
    assert codebook.entries[codebook.zero_code].view(np.uint32) == 0, f"{name}: its code of zero is not +0"
    assert codebook.zero_code == ZERO_CODES[name], f"the code of zero of {name} is {codebook.zero_code}"


@pytest.mark.parametrize("name", CODEBOOKS)
def test_every_code_is_written_but_second_zeros_and_nan(name: str) -> None:
    codebook = CODEBOOKS[name]
    unwritten = set(range(codebook.entries.size)) - set(codebook.value_order.tolist())
    assert unwritten == UNWRITTEN.get(name, set()), f"{name}: codes {sorted(unwritten)} are never written"


@pytest.mark.parametrize("name", ["nf4", "dynamic_signed", "dynamic_unsigned"])
def test_most_tables_are_in_value_order(name: str) -> None:
    assert np.all(np.diff(CODEBOOKS[name].entries) > 0), f"{name} is not strictly ascending"


def test_even_spacing_is_what_torch_computes(torch: ModuleType) -> None:
    for count in (2, 3, 5, 8, 9, 17, 33, 65, 255, 256):
        for start in (0.1, 0.0, -1.0):
            got, expected = even_spacing(start, 1.0, count), torch.linspace(start, 1.0, count).numpy()
            assert words(got) == words(expected), f"torch.linspace({start}, 1, {count}) has other last bits"


def test_nobody_can_change_the_codebooks_of_everybody() -> None:
    with pytest.raises(TypeError, match="does not support item assignment"):
        CODEBOOKS["nf4"] = CODEBOOKS["fp4"]  # type: ignore[index]
