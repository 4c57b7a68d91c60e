"""Arrays of the same values in other memory, wherever they sit in a call's arguments; and a call's result as bits."""

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

import numpy as np

Change = Callable[[Any], Any]


def contiguous(array: Any) -> Any:
    return np.array(array, order="C")


def read_only(array: Any) -> Any:
    made = np.array(array, order="C")
    made.setflags(write=False)
    return made


def strided(array: Any) -> Any:
    """Every second element of a buffer whose other elements are poison."""
    buffer = np.full([2 * size for size in array.shape] or [1], 0x55, array.dtype)
    made = buffer[tuple(slice(0, 2 * size, 2) for size in array.shape)] if array.ndim else buffer.reshape(())
    made[...] = array
    return made


def reversed_axes(array: Any) -> Any:
    flip = (slice(None, None, -1),) * array.ndim
    return np.array(array[flip], order="C")[flip]


def fortran(array: Any) -> Any:
    return np.array(array, order="F")


def offset(array: Any) -> Any:
    """A view that begins one element into its buffer."""
    buffer = np.full(array.size + 2, 0x55, array.dtype)
    made = buffer[1 : 1 + array.size].reshape(array.shape)
    made[...] = array
    return made


def broadcast(array: Any) -> Any:
    """A view of stride 0 along a new first axis, where all rows are equal; else a copy."""
    if array.ndim and array.shape[0] > 1 and all(np.array_equal(row, array[0]) for row in array):
        return np.broadcast_to(array[0], array.shape)
    return np.array(array)


def byte_swapped(array: Any) -> Any:
    return array.astype(array.dtype.newbyteorder(">")) if array.dtype.itemsize > 1 else np.array(array)


LAYOUTS: dict[str, Change] = {
    f.__name__: f for f in (contiguous, read_only, strided, reversed_axes, fortran, offset, broadcast, byte_swapped)
}


def changed(thing: Any, change: Change) -> Any:
    """The same arguments with every array changed, in records, sequences and mappings too."""
    if isinstance(thing, np.ndarray):
        return change(thing)
    if is_dataclass(thing) and not isinstance(thing, type):
        return replace(thing, **{f.name: changed(getattr(thing, f.name), change) for f in fields(thing) if f.init})
    if isinstance(thing, Mapping):
        return {key: changed(value, change) for key, value in thing.items()}
    if isinstance(thing, list | tuple):
        return type(thing)(changed(value, change) for value in thing)
    return thing


def arrays_in(thing: Any) -> list[Any]:
    """All arrays, and the buffers that they are views of."""
    found: list[Any] = []

    def collect(array: Any) -> Any:
        found.extend([array] if array.base is None or not isinstance(array.base, np.ndarray) else [array, array.base])
        return array

    changed(thing, collect)
    return found


def bits_of(result: Any) -> Any:
    """A result as nested tuples of types, shapes and bytes: equal exactly if every bit is."""
    if isinstance(result, np.ndarray | np.generic):
        native = np.asarray(result, result.dtype.newbyteorder("="))
        return (native.dtype.str, native.shape, native.tobytes())
    if is_dataclass(result) and not isinstance(result, type):
        return (type(result).__name__, *(bits_of(getattr(result, f.name)) for f in fields(result)))
    if isinstance(result, Mapping):
        return tuple((key, bits_of(value)) for key, value in result.items())
    if isinstance(result, list | tuple):
        return tuple(bits_of(value) for value in result)
    return repr(result)
