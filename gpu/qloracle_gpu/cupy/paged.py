"""Paged optimizer states: where they wait, never what they hold.

The device has room for a number of bytes; the states of tensors that do not fit wait in host memory or in a
memory-mapped file. A step fetches the state of its tensor, and to make room the least recently used states move out.
All of it is a copy of bytes: a trajectory is the same, bit for bit, for every budget.
Clause: ``[paged.states]``; the moves are those of `paging`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np

from qloracle.errors import reject_type, reject_value, require_mapping, require_record
from qloracle_gpu.cupy.arrays import copied, flat_items
from qloracle_gpu.cupy.launcher import Array, operation, require_array
from qloracle_gpu.cupy.paging import PagePlan, page_in, page_plan

Arrays = Mapping[str, Array]
Buffer = np.ndarray[Any, Any]


@dataclass(frozen=True)
class PagedStates:
    """States, each on the device or waiting; a state that waits is a row of bytes of the host."""

    plan: PagePlan
    device: Mapping[str, Arrays]  # states that are resident
    waiting: Mapping[str, Buffer]  # uint8 buffers of all states, in host memory or mapped from a file
    layouts: Mapping[str, Mapping[str, tuple[np.dtype[Any], tuple[int, ...]]]]  # of every array of every state


def page_states(states: Mapping[str, Arrays], budget: int, waiting: Mapping[str, Buffer] | None = None) -> PagedStates:
    """Put states away, so that they are fetched one by one.

    Parameters
    ----------
    states : mapping of str to mapping of str to array
        The arrays of each tensor's state, for example of `state_arrays`.
    budget : int
        Bytes that the device has for states.
    waiting : mapping of str to NumPy array of uint8, optional
        Where each state waits: a writable buffer of exactly its bytes, such as a ``numpy.memmap``. These are the only
        arrays that are written to, and all records that follow share them: only the last record is good to go on with.
        By default it is host memory.

    Returns
    -------
    PagedStates

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        As `page_plan`, and if a buffer is missing, is not uint8, has another size than its state, or
        cannot be written to.

    Notes
    -----
    Clause ``[paged.states]``. Rounding points: none; bytes are copied, which waits for the device.
    """
    given = require_mapping("states", states, "a mapping of names to states")
    arrays = {name: _arrays_of(name, state) for name, state in given.items()}
    plan = page_plan({name: sum(array.nbytes for array in state.values()) for name, state in arrays.items()}, budget)
    if waiting is None:
        waiting = {name: np.empty(size, np.uint8) for name, size in plan.sizes.items()}
    buffers = require_mapping("waiting", waiting, "a mapping of names to arrays")
    for name, size in plan.sizes.items():
        _require_waiting(buffers, name, size)
        _write(buffers, name, arrays[name])
    layouts = {n: {k: (np.dtype(a.dtype), tuple(a.shape)) for k, a in state.items()} for n, state in arrays.items()}
    return PagedStates(plan, {}, buffers, layouts)


def fetch_state(paged: PagedStates, name: str) -> tuple[PagedStates, Arrays]:
    """Return the state of a tensor, on the device, and where all states are then.

    Raises
    ------
    ArgumentValueError
        If there is no state of that name, or one has to move out to a buffer that cannot be written to.
    DeviceMemoryError
        If the device has less room than the budget says.

    Notes
    -----
    Clause ``[paged.states]``. Moves as in `page_in`; a state that moves out is written to where it waits, and read from
    there when it comes back. What is returned are copies: writing to them changes no record.
    """
    require_record("paged", paged, PagedStates)
    plan, moves = page_in(paged.plan, name)
    device = dict(paged.device)
    for move in moves:
        if move.direction == "out":
            _write(paged.waiting, move.name, device.pop(move.name))
        else:
            device[move.name] = _read(paged.waiting[move.name], paged.layouts[move.name])
    return replace(paged, plan=plan, device=device), _copies("fetch_state", device[name])


def store_state(paged: PagedStates, name: str, state: Arrays) -> PagedStates:
    """Replace the state of a tensor that is on the device.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If it is not on the device, or its arrays are not those that were put away, in type and shape.

    Notes
    -----
    Clause ``[paged.states]``. The arrays are copied: what is written to them later changes no record.
    """
    require_record("paged", paged, PagedStates)
    if name not in paged.device:
        reject_value("name", f"on the device: {', '.join(paged.device) or 'nothing'}", repr(name))
    arrays = _arrays_of(name, state)
    layout = {key: (np.dtype(array.dtype), tuple(array.shape)) for key, array in arrays.items()}
    if layout != paged.layouts[name]:
        reject_value("state", f"of arrays {dict(paged.layouts[name])}", layout)
    return replace(paged, device={**paged.device, name: _copies("store_state", arrays)})


def _arrays_of(name: str, state: object) -> dict[str, Array]:
    arrays = require_mapping(f"state of {name!r}", state, "a mapping of names to arrays")
    return {key: require_array(f"{key!r} of {name!r}", array) for key, array in arrays.items()}


def _require_waiting(waiting: Mapping[str, Buffer], name: str, size: int) -> None:
    buffer = waiting.get(name)
    if not isinstance(buffer, np.ndarray) or buffer.dtype != np.uint8:
        reject_type(f"waiting[{name!r}]", "an array of uint8", type(buffer).__name__)
    if buffer.shape != (size,):
        reject_value(f"waiting[{name!r}]", f"of shape ({size},), the bytes of the state", buffer.shape)


def _write(waiting: Mapping[str, Buffer], name: str, state: Arrays) -> None:
    buffer, start = waiting[name], 0
    if not buffer.flags.writeable:
        reject_value(f"waiting[{name!r}]", "writable", "a read-only array")
    for key, array in state.items():
        with operation("page_out", **{key: array}) as run:
            host = run.launcher.to_host(flat_items(run, array))
        buffer[start : start + array.nbytes] = host.view(np.uint8)
        start += array.nbytes


def _read(buffer: Buffer, layout: Mapping[str, tuple[np.dtype[Any], tuple[int, ...]]]) -> dict[str, Array]:
    arrays, start = {}, 0
    with operation("page_in") as run:
        for key, (dtype, shape) in layout.items():
            size = prod(shape) * dtype.itemsize
            host = np.frombuffer(buffer[start : start + size].tobytes(), dtype).reshape(shape)
            arrays[key] = run.from_host(host)
            start += size
    return arrays


def _copies(name: str, state: Arrays) -> dict[str, Array]:
    with operation(name, **state) as run:
        return {key: copied(run, array) for key, array in state.items()}
