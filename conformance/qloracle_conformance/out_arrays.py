"""Calling with ``out=``: the given arrays are written whole, and nothing beside them, whatever lay there before."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from qloracle_conformance.arrays import HostArray, Placement, view_of
from qloracle_conformance.backend import Backend, Native
from qloracle_conformance.execution import Call, fetch_all

PATTERNS = (0xFF, 0x5A)  # bytes: NaN and −1, then ordinary numbers; what is not written is the same as neither
CANARIES = 64  # items before and after an array: it stays aligned as a fresh one is


def problem_with_out(
    backend: Backend, call: Call, arguments: Mapping[str, Any], native: Native, outputs: tuple[HostArray, ...]
) -> str:
    """Return what is wrong with calls that are given arrays for their results, "" if nothing is.

    Parameters
    ----------
    backend : Backend
    call : Call
    arguments : mapping
        Of the call without `out`.
    native : object
        What that call returned: whether one array or a tuple of them.
    outputs : tuple of HostArray
        The same, fetched.
    """
    several = isinstance(native, tuple)
    lead = 1 if "offset" in call.layouts.values() else CANARIES
    for pattern in PATTERNS:
        placements = [poisoned(array, pattern, lead) for array in outputs]
        # A native array may be a view of the buffer; what lay there before is compared with another one.
        out = tuple(backend.place(p.buffer.copy(), p.dtype, p.shape, p.strides, p.offset) for p in placements)
        try:
            backend.ops[call.function](**arguments, out=out if several else out[0])
        except Exception as error:  # noqa: BLE001  # whatever a backend raises is a verdict
            return " ".join(f"with out= it raised {type(error).__name__}: {error}".split())[:300]
        for index, (array, placement, written) in enumerate(zip(outputs, placements, out, strict=True)):
            found = _contents(backend, array, placement, written) or _surroundings(backend, placement, written)
            if found:
                return f"output {index}, placed among bytes {pattern:#04x}: {found}"
    return ""


def poisoned(array: HostArray, pattern: int, lead: int) -> Placement:
    """Return a contiguous place for an array in a buffer full of a pattern, with canaries before and after it."""
    width, items = array.items.dtype.itemsize, array.items
    count = lead + items.size + CANARIES
    if items.dtype == np.bool_:
        buffer = np.full(count, pattern == PATTERNS[0])
    else:
        buffer = np.full(count * width, pattern, np.uint8).view(items.dtype)
    strides = tuple(s // width for s in np.empty(items.shape, items.dtype).strides)
    return Placement(buffer, array.dtype, array.shape, strides, lead)


def _contents(backend: Backend, expected: HostArray, placement: Placement, written: Native) -> str:
    fetched = fetch_all(backend, written)
    if isinstance(fetched, str):
        return fetched
    got = fetched[0]
    if (got.dtype, got.shape) != (expected.dtype, expected.shape):
        return f"it became {got.dtype} {got.shape}"
    before = HostArray(np.array(view_of(placement)), placement.dtype).words().reshape(-1)
    words, right = got.words().reshape(-1), expected.words().reshape(-1)
    wrong = np.flatnonzero(words != right)
    if not wrong.size:
        return ""
    left = np.flatnonzero((words == before) & (words != right))
    if left.size:
        return f"{left.size} of {words.size} elements were not written, the first is {left[0]}"
    first, digits = wrong[0], 2 * words.dtype.itemsize
    return (
        f"{wrong.size} of {words.size} elements are others than without out=, the first is {first}:"
        f" 0x{int(words[first]):0{digits}x} instead of 0x{int(right[first]):0{digits}x}"
    )


def _surroundings(backend: Backend, placement: Placement, written: Native) -> str:
    """Return which canary was overwritten; nothing can be said of a backend that does not show them."""
    if backend.whole is None:
        return ""
    fetched = fetch_all(backend, backend.whole(written))
    if isinstance(fetched, str):
        return f"its whole buffer cannot be fetched: {fetched}"
    got = fetched[0].words().reshape(-1)
    before = HostArray(placement.buffer, placement.dtype).words()
    if got.size != before.size:
        return f"its whole buffer has {got.size} items, {before.size} were placed"
    first, last = placement.offset, placement.offset + int(np.prod(placement.shape))
    changed = np.flatnonzero(got != before)
    beside = changed[(changed < first) | (changed >= last)]
    if not beside.size:
        return ""
    place = int(beside[0])
    where = f"{first - place} before its begin" if place < first else f"{place - last + 1} past its end"
    return f"{beside.size} items beside it were overwritten, the first is {where}"


def with_out(operation: Any) -> Any:
    """Return a function that also takes out=, from one that returns new host arrays: for the reference and mutants."""

    def given(*arguments: Any, out: Any = None, **options: Any) -> Any:
        result = operation(*arguments, **options)
        if out is None:
            return result
        for target, array in zip(_all(out), _all(result), strict=True):
            target.items[...] = array.items
        return out

    return given


def _all(arrays: Any) -> tuple[HostArray, ...]:
    return arrays if isinstance(arrays, tuple) else (arrays,)
