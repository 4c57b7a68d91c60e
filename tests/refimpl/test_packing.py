"""[packing.nibbles], [packing.storage]: two codes in a byte, the first in the high nibble; a view is the same bytes."""

from collections.abc import Callable

import numpy as np
import pytest

from qloracle import pack_4bit, quantize_blockwise, unpack_4bit
from qloracle.errors import ArgumentTypeError, ArgumentValueError
from qloracle.packing import storage_view


def codes(*values: int) -> np.ndarray:
    return np.array(values, np.uint8)


@pytest.mark.parametrize(
    ("unpacked", "packed"),
    [
        ((0, 15), (0x0F,)),
        ((15, 0), (0xF0,)),
        ((1, 2, 3, 4), (0x12, 0x34)),
        (tuple(range(16)), (0x01, 0x23, 0x45, 0x67, 0x89, 0xAB, 0xCD, 0xEF)),
        ((9,), (0x97,)),
        ((1, 2, 3), (0x12, 0x37)),
        ((), ()),
    ],
)
def test_codes_pack_into_the_literal_bytes(unpacked: tuple[int, ...], packed: tuple[int, ...]) -> None:
    got = pack_4bit(codes(*unpacked), 7).tolist()
    assert got == list(packed), f"codes {unpacked} pack into {packed}, pad code 7, got {got}"


def test_every_pair_of_codes_packs_and_unpacks() -> None:
    pairs = np.indices((16, 16)).reshape(2, -1).T.astype(np.uint8)
    packed = pack_4bit(pairs)
    assert packed.tolist() == list(range(256)), f"the pairs (0, 0) … (15, 15) are the bytes 0 … 255, got {packed}"
    assert unpack_4bit(packed, 512).tolist() == pairs.reshape(-1).tolist(), "unpacking bytes 0 … 255 lost the codes"


@pytest.mark.parametrize(
    ("values", "data"),
    [
        ([-1.0, 1.0], [0x0F]),
        ([1.0, -1.0], [0xF0]),
        ([-1.0, 1.0, 0.0], [0x0F, 0x77]),
        ([0.0, 1.0], [0x7F]),
        ([0.0], [0x77]),
        ([-0.0], [0x77]),
        ([0.03979014977812767, 1.0], [0x7F]),
    ],
)
def test_a_tensor_quantizes_to_the_literal_nf4_bytes(values: list[float], data: list[int]) -> None:
    got = quantize_blockwise(np.array(values, np.float32)).data.tolist()
    assert got == data, f"NF4 of {values} is {[hex(b) for b in data]}, got {[hex(b) for b in got]}"


@pytest.mark.parametrize("low", range(16))
def test_the_low_nibble_after_an_odd_length_is_ignored(low: int) -> None:
    got = unpack_4bit(codes(0x12, 0x30 | low), 3).tolist()
    assert got == [1, 2, 3], f"bytes 12 3{low:x} hold codes 1, 2, 3, got {got}"


def test_packing_leaves_its_argument_alone() -> None:
    given = codes(1, 2, 3)
    given.setflags(write=False)
    pack_4bit(given, 7)
    assert given.tolist() == [1, 2, 3]


@pytest.mark.parametrize("storage", ["uint8", "float16", "bfloat16", "float32"])
def test_a_storage_view_holds_the_same_bytes(storage: str) -> None:
    packed = np.arange(256, dtype=np.uint8)
    view = storage_view(packed, storage)
    assert view.tobytes() == bytes(range(256)), f"{storage} storage changed the bytes"


@pytest.mark.parametrize("word", [0x7F81, 0xFFC1, 0x7C01, 0x8000])
@pytest.mark.parametrize("storage", ["float16", "bfloat16"])
def test_a_storage_item_that_is_a_nan_or_minus_zero_keeps_its_bits(storage: str, word: int) -> None:
    view = storage_view(np.array([word], np.uint16).view(np.uint8), storage)
    assert view.view(np.uint16).tolist() == [word], f"{storage} item {word:#x} became {view.view(np.uint16)[0]:#x}"


@pytest.mark.parametrize(("storage", "item"), [("uint8", 1), ("float16", 2), ("bfloat16", 2), ("float32", 4)])
@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5, 6, 8])
def test_only_whole_items_can_be_viewed(storage: str, item: int, count: int) -> None:
    packed = np.zeros(count, np.uint8)
    if count % item == 0:
        assert storage_view(packed, storage).size == count // item
        return
    with pytest.raises(ArgumentValueError, match=f"^packed must be a multiple of {item} bytes .*, got {count} bytes$"):
        storage_view(packed, storage)


def test_a_view_is_the_memory_of_its_argument() -> None:
    packed = np.zeros(4, np.uint8)
    assert np.shares_memory(packed, storage_view(packed, "float32")), "storage_view copied contiguous bytes"


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: pack_4bit(codes(16)), ArgumentValueError, "^codes must be codes from 0 to 15, got 16$"),
        (lambda: pack_4bit(codes(1, 255)), ArgumentValueError, "^codes must be codes from 0 to 15, got 255$"),
        (lambda: pack_4bit(codes(1), 16), ArgumentValueError, "^pad_code must be a code from 0 to 15, got 16$"),
        (lambda: pack_4bit(codes(1), -1), ArgumentValueError, "^pad_code must be a code from 0 to 15, got -1$"),
        (lambda: pack_4bit(np.zeros(2, np.int8)), ArgumentTypeError, "^codes must be uint8, got int8$"),
        (lambda: pack_4bit([1, 2]), ArgumentTypeError, "^codes must be uint8, got list$"),  # type: ignore[arg-type]
        (lambda: unpack_4bit(codes(1), 3), ArgumentValueError, "^packed must be 2 bytes for 3 codes, got 1 bytes$"),
        (lambda: unpack_4bit(codes(1), 0), ArgumentValueError, "^packed must be 0 bytes for 0 codes, got 1 bytes$"),
        (lambda: unpack_4bit(codes(), -1), ArgumentValueError, "^size must be .* 0 or more, got -1$"),
        (lambda: unpack_4bit(np.zeros(1, np.uint16), 2), ArgumentTypeError, "^packed must be uint8, got uint16$"),
        (lambda: storage_view(codes(1), "float64"), ArgumentValueError, "^storage must be one of .*, got 'float64'$"),
    ],
)
def test_a_rejected_argument_is_named_with_its_rule_and_value(
    call: Callable[[], object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        call()
