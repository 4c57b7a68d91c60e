"""[nf4.table], [dynamic.table], [codebook.midpoints]: the published words, and the derivations that regenerate them."""

from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from types import ModuleType

import numpy as np
import pytest

from qloracle import DYNAMIC_SIGNED, NF4
from qloracle.blockwise import CODEBOOKS
from qloracle.codebooks import Codebook, even_spacing, significant_bits, table_from_words
from qloracle.dynamic_map import derive_dynamic_signed
from qloracle.errors import ArgumentTypeError, ArgumentValueError
from qloracle.formats import Array
from qloracle.nf4 import derive_nf4

from .rationals import exact

NF4_WORDS = [
    *(0xBF800000, 0xBF3239B1, 0xBF066B30, 0xBECA32A0, 0xBE91A24D, 0xBE3D353F, 0xBDBA7871, 0x00000000),
    *(0x3DA2FAFF, 0x3E24CAE3, 0x3E7C04DD, 0x3EAD033A, 0x3EE1A4B8, 0x3F1007AB, 0x3F3913B3, 0x3F800000),
]


def words(entries: Array) -> list[int]:
    return [int(word) for word in entries.view(np.uint32)]


def hexadecimal(got: list[int]) -> str:
    return " ".join(f"{word:08x}" for word in got)


def test_nf4_holds_the_published_words() -> None:
    assert words(NF4.entries) == NF4_WORDS, f"NF4 words are {hexadecimal(words(NF4.entries))}"


def test_the_derivation_of_nf4_gives_the_published_words() -> None:
    assert words(derive_nf4()) == NF4_WORDS, f"derive_nf4() gave {hexadecimal(words(derive_nf4()))}"


def test_nf4_is_what_bitsandbytes_ships(bitsandbytes_functional: ModuleType) -> None:
    table = bitsandbytes_functional.get_4bit_type("nf4", device="cpu").numpy()
    assert words(table) == NF4_WORDS, f"bitsandbytes' NF4 words are {hexadecimal(words(table))}"


def test_the_dynamic_map_has_256_ascending_distinct_entries() -> None:
    entries = DYNAMIC_SIGNED.entries
    assert entries.size == 256, f"the signed dynamic map has {entries.size} entries"
    assert np.all(np.diff(entries) > 0), "the signed dynamic map is not strictly ascending"


def test_the_derivation_of_the_dynamic_map_gives_its_words() -> None:
    wrong = [i for i in range(256) if words(derive_dynamic_signed())[i] != words(DYNAMIC_SIGNED.entries)[i]]
    assert not wrong, f"derive_dynamic_signed() differs from the table at {wrong}"


def test_the_dynamic_map_is_what_bitsandbytes_creates(bitsandbytes_functional: ModuleType) -> None:
    created = words(bitsandbytes_functional.create_dynamic_map().numpy())
    wrong = [i for i in range(256) if created[i] != words(DYNAMIC_SIGNED.entries)[i]]
    assert not wrong, f"bitsandbytes' create_dynamic_map() differs from the table at {wrong}"


def test_the_dynamic_map_lies_at_the_centres_of_equal_pieces() -> None:
    pieces = [
        Fraction(1, 10) + Fraction(9, 10) * Fraction(2 * k + 1, 2 ** (i + 1)) for i in range(7) for k in range(2**i)
    ]
    scales = [Fraction(10) ** (i - 6) for i in range(7) for _ in range(2**i)]
    positive = sorted(p * s for p, s in zip(pieces, scales, strict=True))
    ideal = [-v for v in reversed(positive)] + [Fraction(0), *positive, Fraction(1)]
    for code, (entry, value) in enumerate(zip(DYNAMIC_SIGNED.entries, ideal, strict=True)):
        # At most six float32 roundings of cuts and centres, which lie in [0.1, 1]: relative to a centre ten times more.
        room = 60 * Fraction(1, 2**24) * abs(value)
        assert abs(exact(entry) - value) <= room, f"code {code}: entry {entry!r}, the construction gives {float(value)}"


@pytest.mark.parametrize("codebook", CODEBOOKS.values(), ids=CODEBOOKS.keys())
def test_the_ends_and_zero_are_entries(codebook: Codebook) -> None:
    assert codebook.entries[0] >= -1, f"{codebook.name} reaches below -1"
    assert codebook.entries[-1] == 1, f"{codebook.name} must hold 1 exactly, so that absmax is restored"
    assert codebook.entries[codebook.zero_code].view(np.uint32) == 0, f"{codebook.name}: its code of zero is not +0"


@pytest.mark.parametrize(("codebook", "code"), [(NF4, 7), (DYNAMIC_SIGNED, 127)])
def test_the_code_of_zero_is_the_one_the_field_ships(codebook: Codebook, code: int) -> None:
    assert codebook.zero_code == code, f"the code of zero of {codebook.name} is {code}, got {codebook.zero_code}"


@pytest.mark.parametrize("codebook", CODEBOOKS.values(), ids=CODEBOOKS.keys())
def test_the_midpoints_are_exact(codebook: Codebook) -> None:
    values = sorted(exact(entry) for entry in codebook.entries)
    ideal = [(low + high) / 2 for low, high in pairwise(values)]
    assert [exact(m) for m in codebook.midpoints] == ideal, f"a midpoint of {codebook.name} was rounded"


@pytest.mark.parametrize("codebook", CODEBOOKS.values(), ids=CODEBOOKS.keys())
def test_the_midpoints_have_at_most_26_significant_bits(codebook: Codebook) -> None:
    longest = max(len(bin(abs(exact(m).numerator)).rstrip("0")) - 2 for m in codebook.midpoints)
    assert longest <= 26, f"a midpoint of {codebook.name} has {longest} significant bits"


@pytest.mark.parametrize("codebook", CODEBOOKS.values(), ids=CODEBOOKS.keys())
def test_the_tables_cannot_be_changed(codebook: Codebook) -> None:
    with pytest.raises(ValueError, match="read-only"):
        codebook.entries[0] = 0


def test_codes_need_not_be_in_value_order_and_equal_values_share_a_position() -> None:
    thirds = np.array([0, 1, 8, 12, 4, 6, 2, 3], np.float32) / np.float32(16)
    table = Codebook("mixed", np.concatenate([thirds, -thirds]))
    assert table.value_order.tolist() == [11, 10, 13, 12, 15, 14, 9, 0, 1, 6, 7, 4, 5, 2, 3]
    assert table.position[8] == table.position[0] == 7, "codes 0 and 8 hold the same value"
    assert table.zero_code == 0, f"the lower code of the two zeros is written, got {table.zero_code}"


def test_a_codebook_without_zero_sends_zero_to_the_lower_of_two_nearest() -> None:
    table = Codebook("odd", np.arange(-15, 16, 2).astype(np.float32) / 16)
    assert table.zero_code == 7, f"-1/16 and 1/16 are equally near 0, the lower has code 7, got {table.zero_code}"


def test_a_codebook_of_one_value_has_no_midpoint() -> None:
    assert Codebook("zeros", np.zeros(16, np.float32)).midpoints.size == 0


@pytest.mark.parametrize(
    ("value", "bits"), [(0.0, 0), (1.0, 1), (-0.75, 2), (1 + 2**-25, 26), (2.0**-1074, 1), (1 + 2**-52, 53)]
)
def test_significant_bits_run_from_the_first_to_the_last_one(value: float, bits: int) -> None:
    assert significant_bits(exact(value)) == bits, f"{value.hex()} has {bits} significant bits"


def test_even_spacing_is_what_torch_computes(torch: ModuleType) -> None:
    for count in (2, 3, 5, 8, 9, 17, 33, 65):
        got, expected = even_spacing(0.1, 1.0, count), torch.linspace(0.1, 1.0, count).numpy()
        assert words(got) == words(expected), f"torch.linspace(0.1, 1, {count}) has other last bits"


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: Codebook("c", np.zeros(16)),
            ArgumentTypeError,
            "^entries must be a 1-d float32 array, got 1-d float64$",
        ),
        (lambda: Codebook("c", np.zeros(9, np.float32)), ArgumentValueError, "^entries must be .*16 or 256 .*, got 9$"),
        (
            lambda: Codebook("c", np.full(16, 2, np.float32)),
            ArgumentValueError,
            r"^entries must .*\[-1, 1\], got others$",
        ),
        (lambda: Codebook("c", np.full(16, np.nan, np.float32)), ArgumentValueError, "^entries must be finite"),
        (
            lambda: Codebook("c", table_from_words("bf800000 80000001 " * 8)),
            ArgumentValueError,
            "^entries must be a table whose midpoints have at most 29 significant bits, got more$",
        ),
    ],
)
def test_a_table_that_breaks_a_rule_is_refused(
    call: Callable[[], object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        call()
