"""Memory layouts: the elements lie where the strides say, and everything around them is poison."""

from itertools import product
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from qloracle_conformance.adapters.reference import fetch
from qloracle_conformance.adapters.reference import place as place_reference
from qloracle_conformance.arrays import LAYOUTS, STORAGE, HostArray, Placement, host, place_in, view_of

SHAPES: tuple[tuple[int, ...], ...] = (
    (), (1,), (2,), (7,), (0,), (3, 5), (1, 4), (4, 1), (2, 0), (0, 4), (2, 3, 4), (2, 0, 3), (2, 1, 3, 4),
)  # fmt: skip
DTYPES = ("float32", "float16", "bfloat16", "uint8", "int8", "int32", "bool")
POISON_BYTE = 0xFE


def numbered(shape: tuple[int, ...], dtype: str) -> HostArray:
    """An array whose elements can be told apart from their neighbours and from poison."""
    numbers = np.arange(1, int(np.prod(shape)) + 1).reshape(shape)
    return HostArray((numbers % 2 if dtype == "bool" else numbers).astype(STORAGE[dtype]), dtype)


def positions(placement: Placement) -> NDArray[np.int64]:
    """The item of the buffer where each element lies, in row-major order, by the definition of strides."""
    indices = product(*(range(n) for n in placement.shape))
    found = [placement.offset + sum(i * s for i, s in zip(index, placement.strides, strict=True)) for index in indices]
    return np.array(found, np.int64)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_elements_lie_at_their_strides_and_all_else_is_poison(layout: str, dtype: str) -> None:
    for shape in SHAPES:
        array = numbered(shape, dtype)
        placement = place_in(array, layout)
        places = positions(placement)
        buffer = placement.buffer
        assert placement.shape == shape
        assert len(set(places.tolist())) == array.items.size, f"{shape}: two elements share a place"
        assert np.all((places >= 0) & (places < buffer.size)), f"{shape}: places leave the {buffer.size} items"
        assert np.array_equal(buffer[places], array.items.reshape(-1)), f"{shape}: not where the strides say"
        around = np.delete(buffer, places)
        byte = 1 if dtype == "bool" else POISON_BYTE
        assert np.all(around.view(np.uint8) == byte), f"{shape}: an item around the array is not poison"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_view_of_a_placement_is_the_array(layout: str) -> None:
    for shape in SHAPES:
        array = numbered(shape, "float32")
        view = view_of(place_in(array, layout))
        assert view.shape == shape
        assert np.array_equal(view, array.items), f"{shape}: other elements"


@pytest.mark.parametrize(
    ("layout", "shape", "strides", "offset"),
    [
        ("contiguous", (2, 3, 4), (12, 4, 1), 0),
        ("offset", (2, 3, 4), (12, 4, 1), 1),
        ("strided", (2, 3, 4), (24, 8, 2), 1),
        ("transposed", (2, 3, 4), (1, 2, 6), 1),
        ("reversed", (2, 3, 4), (12, 4, -1), 4),
        ("padded", (2, 3, 4), (21, 7, 1), 1),
        ("padded", (5,), (1,), 1),
        ("padded", (), (), 1),
        ("contiguous", (5,), (1,), 0),
        ("strided", (5,), (2,), 1),
        ("transposed", (3, 5), (1, 3), 1),
        ("reversed", (5,), (-1,), 5),
        ("contiguous", (), (), 0),
        ("offset", (), (), 1),
        ("strided", (), (), 1),
        ("transposed", (), (), 1),
        ("reversed", (), (), 1),
    ],
)
def test_each_layout_has_its_own_strides_and_offset(
    layout: str, shape: tuple[int, ...], strides: tuple[int, ...], offset: int
) -> None:
    placement = place_in(numbered(shape, "float16"), layout)
    assert (placement.strides, placement.offset) == (strides, offset)


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name != "contiguous"])
def test_every_layout_but_the_contiguous_one_has_poison_before_and_behind(layout: str) -> None:
    placement = place_in(numbered((3, 5), "uint8"), layout)
    places = positions(placement)
    assert places.min() >= 1
    assert places.max() < placement.buffer.size - 1


def test_a_contiguous_array_fills_its_buffer() -> None:
    assert place_in(numbered((3, 5), "uint8"), "contiguous").buffer.size == 15


def test_the_readonly_layout_refuses_to_be_written_to() -> None:
    with pytest.raises(ValueError, match="read-only"):
        view_of(place_in(numbered((3, 5), "float32"), "readonly"))[...] = 0


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name != "readonly"])
def test_a_placed_array_is_a_copy_of_its_source(layout: str) -> None:
    array = numbered((3, 5), "float32")
    view_of(place_in(array, layout))[...] = 0
    assert array.items[2, 4] == 15


def test_an_unknown_layout_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^layout must be one of contiguous, .*, got 'tiled'$"):
        place_in(numbered((3,), "float32"), "tiled")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "bool"])
def test_the_reference_gets_every_layout_as_it_was_sent(layout: str, dtype: str) -> None:
    for shape in SHAPES:
        array = numbered(shape, dtype)
        p = place_in(array, layout)
        items, name = fetch(place_reference(p.buffer, p.dtype, p.shape, p.strides, p.offset))
        assert (name, items.shape) == (dtype, shape)
        assert np.array_equal(items, array.items), f"{shape}: other elements"


@pytest.mark.parametrize("layout", ["contiguous", "offset", "strided", "transposed", "padded"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "uint8", "bool"])
@pytest.mark.usefixtures("torch_backend")
def test_torch_gets_every_layout_that_it_has_as_it_was_sent(layout: str, dtype: str) -> None:
    from qloracle_conformance.adapters import torch_arrays

    for shape in SHAPES:
        array = numbered(shape, dtype)
        p = place_in(array, layout)
        tensor = torch_arrays.Placer("cpu").place(p.buffer, p.dtype, p.shape, p.strides, p.offset)
        if array.items.size:
            assert (tuple(tensor.stride()), tensor.storage_offset()) == (p.strides, p.offset)
        items, name = torch_arrays.fetch(tensor)
        assert (name, items.shape) == (dtype, shape)
        assert np.array_equal(items, array.items), f"{shape}: other elements"


@pytest.mark.parametrize(
    ("dtype", "words"),
    [
        ("float32", [0x3F800000, 0x80000000, 0x7FC00001]),
        ("float16", [0x3C00, 0x8000, 0x7E01]),
        ("bfloat16", [0x3F80, 0x8000, 0x7FC1]),
        ("int8", [0x01, 0x80, 0xFF]),
        ("bool", [0, 1, 1]),
    ],
)
def test_words_are_the_bits_of_the_items(dtype: str, words: list[int]) -> None:
    storage = np.dtype(STORAGE[dtype])
    items = np.array(words, f"u{storage.itemsize}").view(storage)
    assert HostArray(items, dtype).words().tolist() == words


@pytest.mark.parametrize(("dtype", "word"), [("float32", 0x7F800001), ("float16", 0x7C01), ("bfloat16", 0x7F81)])
def test_a_signaling_nan_is_a_nan_as_a_number_and_gives_no_warning(dtype: str, word: int) -> None:
    storage = np.dtype(STORAGE[dtype])
    array = HostArray(np.array([word], f"u{storage.itemsize}").view(storage), dtype)
    assert np.isnan(array.real()).tolist() == [True]
    assert np.isnan(array.single()).tolist() == [True]


@pytest.mark.parametrize(("items", "dtype"), [(np.zeros(2, np.float64), "float32"), (np.zeros(2, "f4"), "bfloat16")])
def test_items_that_are_not_stored_as_their_type_says_are_refused(items: NDArray[Any], dtype: str) -> None:
    with pytest.raises(ValueError, match=f"^items must be of dtype .* for {dtype}, got float"):
        HostArray(items, dtype)


def test_an_unknown_type_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^dtype must be one of float64, .*, got 'int16'$"):
        host(np.zeros(2, np.int16))
