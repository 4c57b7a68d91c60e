"""[packing.nibbles], [packing.storage]: two codes in a byte, the first in the high nibble; a view is the same bytes."""

import struct
from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest

from qloracle import pack_4bit, quantize_blockwise, storage_bytes, storage_view, unpack_4bit
from qloracle.errors import ArgumentTypeError, ArgumentValueError


def codes(*values: int) -> np.ndarray:
    return np.array(values, np.uint8)


@pytest.mark.proof("packing.nibbles", by="literal bytes")
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


@pytest.mark.proof("packing.nibbles", by="hexadecimal digits")
@pytest.mark.parametrize("size", [1, 2, 3, 16, 255, 256, 1001])
def test_packed_bytes_are_the_hexadecimal_digits_of_the_codes(size: int) -> None:
    values = np.random.default_rng([31, size]).integers(0, 16, size, np.uint8)
    digits = "".join(f"{code:x}" for code in values) + ("7" if size % 2 else "")
    assert pack_4bit(values, 7).tobytes() == bytes.fromhex(digits), f"{size} codes"
    assert unpack_4bit(np.frombuffer(bytes.fromhex(digits), np.uint8), size).tolist() == values.tolist()


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


@pytest.mark.proof("packing.storage", by="bytes of the memory")
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


STORAGES = pytest.mark.parametrize(
    ("storage", "code"), [("uint8", "B"), ("float16", "H"), ("bfloat16", "H"), ("float32", "I")]
)


@pytest.mark.proof("packing.storage", by="the struct module")
@STORAGES
def test_storage_items_are_what_struct_unpacks(storage: str, code: str) -> None:
    packed = np.random.default_rng(32).integers(0, 256, 4096, np.uint8)
    view = storage_view(packed, storage)
    words = view.view({1: np.uint8, 2: np.uint16, 4: np.uint32}[view.itemsize]).tolist()
    assert tuple(words) == struct.unpack(f"={view.size}{code}", packed.tobytes()), f"{storage} items"


@pytest.mark.proof("packing.storage", by="torch")
@STORAGES
def test_storage_items_are_what_a_view_of_torch_holds(storage: str, code: str, torch: ModuleType) -> None:
    packed = np.random.default_rng(33).integers(0, 256, 4096, np.uint8)
    theirs = torch.from_numpy(packed).view(getattr(torch, storage)).view(torch.uint8).numpy()
    assert storage_bytes(storage_view(packed, storage)).tolist() == theirs.tolist()


@STORAGES
@pytest.mark.parametrize("shape", [(0,), (8,), (4, 6), (2, 2, 4)])
def test_bytes_come_back_from_every_storage(storage: str, code: str, shape: tuple[int, ...]) -> None:
    packed = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    got = storage_bytes(storage_view(packed, storage))
    assert got.tolist() == packed.reshape(-1).tolist(), f"{shape} as {storage} came back as {got}"


def test_strided_bytes_are_stored_in_row_major_order() -> None:
    packed = np.arange(16, dtype=np.uint8).reshape(4, 4)
    assert storage_view(packed.T, "float32").tobytes() == packed.T.tobytes()
    stored = storage_view(packed, "float16").reshape(2, 4)
    assert storage_bytes(stored.T).tobytes() == stored.T.tobytes()


def test_storage_of_ml_dtypes_bfloat16_gives_its_bytes(ml_dtypes: ModuleType) -> None:
    words = np.array([0x7F81, 0x8000], np.uint16)
    assert storage_bytes(words.view(ml_dtypes.bfloat16)).tobytes() == words.tobytes()


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
    view = storage_view(packed, "float32")
    assert np.shares_memory(packed, view), "storage_view copied contiguous bytes"
    assert np.shares_memory(packed, storage_bytes(view)), "storage_bytes copied contiguous items"


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
        (
            lambda: storage_view(np.ones(4, np.float32), "uint8"),
            ArgumentTypeError,
            "^packed must be uint8, got float32$",
        ),
        (lambda: storage_view([1, 2], "uint8"), ArgumentTypeError, "^packed must be uint8, got list$"),  # type: ignore[arg-type]
        (lambda: storage_bytes(np.ones(2)), ArgumentTypeError, "^stored must be an array of uint8, .*, got float64$"),
        (lambda: storage_bytes(np.ones(2, np.int8)), ArgumentTypeError, "^stored must be an array of .*, got int8$"),
        (lambda: storage_bytes(b"12"), ArgumentTypeError, "^stored must be an array of uint8.*, got .*bytes"),  # type: ignore[arg-type]
        (lambda: storage_view(codes(1), "float64"), ArgumentValueError, "^storage must be one of .*, got 'float64'$"),
    ],
)
def test_a_rejected_argument_is_named_with_its_rule_and_value(
    call: Callable[[], object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        call()
