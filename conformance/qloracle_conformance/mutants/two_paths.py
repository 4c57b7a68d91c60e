"""Kernels of two paths, of which one is wrong: what runs for some calls only, or for some elements of an output."""

from collections.abc import Callable
from typing import Any

import numpy as np

from qloracle.formats import Array
from qloracle_conformance.adapters.reference import OPS
from qloracle_conformance.arrays import HostArray
from qloracle_conformance.mutants.mutant import Op

Arguments = dict[str, Any]
Change = Callable[[Any, Arguments], Any]


def if_call(function: str, condition: Callable[[Arguments], bool], wrong: Op) -> Op:
    """Return a function that goes the wrong path for some calls."""

    def op(**arguments: Any) -> Any:
        return (wrong if condition(arguments) else OPS[function])(**arguments)

    return op


def with_changed(function: str, **changes: Change) -> Op:
    """Return a function that reads some of its arguments as something else, where they are given."""

    def op(**arguments: Any) -> Any:
        read = {n: c(arguments[n], arguments) for n, c in changes.items() if arguments.get(n) is not None}
        with np.errstate(all="ignore"):
            return OPS[function](**{**arguments, **read})

    return op


def if_element(
    function: str, which: Callable[[tuple[int, ...], Arguments], Array], wrong: Op, output: int | None = None
) -> Op:
    """Return a function some of whose elements come from the wrong path; `which` marks them, given a shape.

    Without `output`, those of every output.
    """

    def op(**arguments: Any) -> Any:
        right, other = OPS[function](**arguments), wrong(**arguments)
        if not isinstance(right, tuple):
            return joined(right, other, which(right.shape, arguments))
        parts = zip(range(len(right)), right, other, strict=True)
        return tuple(joined(r, o, which(r.shape, arguments)) if output in (None, place) else r for place, r, o in parts)

    return op


def joined(right: HostArray, other: HostArray, marked: Array) -> HostArray:
    """Return one array whose marked elements are those of the other."""
    items = np.where(np.broadcast_to(marked, right.shape), other.items, right.items)
    return HostArray(np.asarray(items, right.items.dtype), right.dtype)


def places(shape: tuple[int, ...]) -> Array:
    """Return the flat place of every element."""
    return np.arange(int(np.prod(shape, dtype=np.int64))).reshape(shape)


def lane(number: int, width: int = 32) -> Callable[[tuple[int, ...], Arguments], Array]:
    """Mark one lane of every warp."""
    return lambda shape, _: places(shape) % width == number


def from_place(first: int) -> Callable[[tuple[int, ...], Arguments], Array]:
    """Mark all elements from a flat place on."""
    return lambda shape, _: places(shape) >= first


def odd_last(shape: tuple[int, ...], arguments: Arguments) -> Array:
    """Mark the last element of a tensor of odd size."""
    size = int(np.prod(shape, dtype=np.int64))
    marked: Array = (places(shape) == size - 1) & (size % 2 == 1) & (size > 1)
    return marked


def row_from(first: int) -> Callable[[tuple[int, ...], Arguments], Array]:
    """Mark all rows from one on; a vector is one row."""

    def which(shape: tuple[int, ...], arguments: Arguments) -> Array:
        return places(shape) // max(1, shape[-1] if shape else 1) >= first

    return which


def with_items(array: HostArray, items: Array) -> HostArray:
    """Return an array with other items of the same type."""
    return HostArray(np.asarray(items, array.items.dtype), array.dtype)


def without_inputs_from(first: int, name: str = "x") -> Callable[[str], Op]:
    """Return, for a function, one that leaves the inputs from one on out of its sums."""

    def of(function: str) -> Op:
        def shortened(x: HostArray, arguments: Arguments) -> HostArray:
            inner = x.shape[-1] if x.items.ndim else 1
            return with_items(x, np.where(np.arange(inner) >= first, np.zeros((), x.items.dtype), x.items))

        return with_changed(function, **{name: shortened})

    return of
