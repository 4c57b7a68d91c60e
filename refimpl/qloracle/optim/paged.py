"""Paged optimizer states: where they wait, never what they hold.

A device has room for a number of bytes; the states of tensors that do not fit wait elsewhere, in host memory or in a
memory-mapped file. A step fetches the state of its tensor, and to make room the least recently used states move out.
All of it is a copy of bytes: a trajectory is the same, bit for bit, for every budget.

Clause: ``[paged.states]``; the moves are those of `paging`. Source: Dettmers et al. 2023, "QLoRA", section 3, "Paged
Optimizers" (there the unit is a page of unified memory; here it is the whole state of one tensor).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np

from qloracle.errors import reject_type, reject_value, require_mapping, require_pair, require_record, require_shape
from qloracle.formats import Array
from qloracle.optim.paging import PagePlan, page_in, page_plan
from qloracle.records import require_fields

Arrays = Mapping[str, Array]


@dataclass(frozen=True)
class PagedStates:
    """States, each on the device or waiting; a state that waits is a row of bytes."""

    plan: PagePlan
    device: Mapping[str, Arrays]  # states that are resident
    waiting: Mapping[str, Array]  # uint8 buffers of all states, in host memory or mapped from a file
    layouts: Mapping[str, Mapping[str, tuple[np.dtype[Any], tuple[int, ...]]]]  # of every array of every state

    def __post_init__(self) -> None:
        """Refuse parts that do not belong together."""
        require_fields(self)
        names = set(self.plan.sizes)
        for argument, part in (("waiting", self.waiting), ("layouts", self.layouts)):
            if set(part) != names:
                reject_value(argument, f"of the states {', '.join(map(str, names))}", ", ".join(map(str, part)))
        if set(self.device) != set(self.plan.resident):
            reject_value("device", f"of the resident states {self.plan.resident}", ", ".join(map(str, self.device)))
        for name, size in self.plan.sizes.items():
            _require_waiting(self.waiting, name, size)
            layout = require_mapping(f"layouts[{name!r}]", self.layouts[name], "a mapping of names to dtype and shape")
            if sum(_layout_bytes(name, entry) for entry in layout.values()) != size:
                reject_value(f"layouts[{name!r}]", f"of {size} bytes", dict(layout))


def page_states(states: Mapping[str, Arrays], budget: int, waiting: Mapping[str, Array] | None = None) -> PagedStates:
    """Put states away, so that they are fetched one by one.

    Parameters
    ----------
    states : mapping of str to mapping of str to array
        The arrays of each tensor's state, for example of `optimizer_state.state_arrays`.
    budget : int
        Bytes that the device has for states.
    waiting : mapping of str to array of uint8, optional
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
    Clause ``[paged.states]``. Rounding points: none; bytes are copied.

    Examples
    --------
    >>> paged = page_states({"a": {"m": np.ones(2, np.float32)}, "b": {"m": np.zeros(2, np.float32)}}, budget=8)
    >>> paged, a = fetch_state(paged, "a")
    >>> paged = store_state(paged, "a", {"m": a["m"] + 1})
    >>> paged, _ = fetch_state(paged, "b")
    >>> paged, a = fetch_state(paged, "a")
    >>> a["m"], paged.plan.resident
    (array([2., 2.], dtype=float32), ('a',))
    """
    states = {name: _arrays_of(name, state) for name, state in _require_states(states).items()}
    plan = page_plan({name: sum(array.nbytes for array in state.values()) for name, state in states.items()}, budget)
    if waiting is None:
        waiting = {name: np.empty(size, np.uint8) for name, size in plan.sizes.items()}
    for name, size in plan.sizes.items():
        _require_waiting(require_mapping("waiting", waiting, "a mapping of names to arrays"), name, size)
        _write(waiting, name, states[name])
    layouts = {n: {k: (a.dtype, a.shape) for k, a in state.items()} for n, state in states.items()}
    return PagedStates(plan, {}, waiting, layouts)


def fetch_state(paged: PagedStates, name: str) -> tuple[PagedStates, Arrays]:
    """Return the state of a tensor, on the device, and where all states are then.

    Raises
    ------
    ArgumentValueError
        If there is no state of that name, or one has to move out to a buffer that cannot be written to.

    Notes
    -----
    Clause ``[paged.states]``. Moves as in `page_in`; a state that moves out is written to where it waits, and read from
    there when it comes back. What is returned are copies: writing to them changes no record.

    Examples
    --------
    >>> fetch_state(page_states({"a": {"m": np.ones(2, np.float32)}}, 8), "a")[1]["m"]
    array([1., 1.], dtype=float32)
    """
    require_record("paged", paged, PagedStates)
    plan, moves = page_in(paged.plan, name)
    device = dict(paged.device)
    for move in moves:
        if move.direction == "out":
            _write(paged.waiting, move.name, device.pop(move.name))
        else:
            device[name] = _read(paged.waiting[name], paged.layouts[name])
    return replace(paged, plan=plan, device=device), _copies(device[name])


def store_state(paged: PagedStates, name: str, state: Arrays) -> PagedStates:
    """Replace the state of a tensor that is on the device.

    Raises
    ------
    ArgumentValueError
        If it is not on the device, or its arrays are not those that were put away, in type and shape.

    Notes
    -----
    Clause ``[paged.states]``. The arrays are copied: what is written to them later changes no record.

    Examples
    --------
    >>> paged, a = fetch_state(page_states({"a": {"m": np.ones(2, np.float32)}}, 8), "a")
    >>> store_state(paged, "a", {"m": -a["m"]}).device["a"]["m"]
    array([-1., -1.], dtype=float32)
    """
    require_record("paged", paged, PagedStates)
    if not any(known is name or known == str(name) for known in paged.device):
        reject_value("name", f"on the device: {', '.join(paged.device) or 'nothing'}", repr(name))
    state = _arrays_of(name, state)
    layout = {key: (array.dtype, array.shape) for key, array in state.items()}
    if layout != paged.layouts[name]:
        reject_value("state", f"of arrays {dict(paged.layouts[name])}", layout)
    return replace(paged, device={**paged.device, name: _copies(state)})


def _require_states(states: object) -> Mapping[str, Arrays]:
    return require_mapping("states", states, "a mapping of names to states")


def _arrays_of(name: str, state: object) -> Arrays:
    arrays = require_mapping(f"state of {name!r}", state, "a mapping of names to arrays")
    for key, array in arrays.items():
        if not isinstance(array, np.ndarray | np.generic) or array.dtype.hasobject:
            reject_type(f"{key!r} of {name!r}", "an array of numbers", type(array).__name__)
    return arrays


def _require_waiting(waiting: Mapping[str, Array], name: str, size: int) -> None:
    if not isinstance(waiting.get(name), np.ndarray) or waiting[name].dtype != np.uint8:
        reject_type(f"waiting[{name!r}]", "an array of uint8", type(waiting.get(name)).__name__)
    if waiting[name].shape != (size,):
        reject_value(f"waiting[{name!r}]", f"of shape ({size},), the bytes of the state", waiting[name].shape)


def _copies(state: Arrays) -> dict[str, Array]:
    return {key: np.array(array) for key, array in state.items()}


def _layout_bytes(name: str, entry: object) -> int:
    dtype, shape = require_pair(f"layouts[{name!r}]", entry)
    try:
        kind = np.dtype(dtype)
    except (TypeError, ValueError):
        reject_value(f"layouts[{name!r}]", "of dtypes", repr(dtype))
    size: int = prod(require_shape(shape, f"layouts[{name!r}]")) * kind.itemsize
    return size


def _write(waiting: Mapping[str, Array], name: str, state: Arrays) -> None:
    buffer, start = waiting[name], 0
    if not buffer.flags.writeable:
        reject_value(f"waiting[{name!r}]", "writable", "a read-only array")
    for array in state.values():
        buffer[start : start + array.nbytes] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        start += array.nbytes


def _read(buffer: Array, layout: Mapping[str, tuple[np.dtype[Any], tuple[int, ...]]]) -> dict[str, Array]:
    arrays, start = {}, 0
    for key, (dtype, shape) in layout.items():
        size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        arrays[key] = np.frombuffer(buffer[start : start + size].tobytes(), dtype).reshape(shape).copy()
        start += size
    return arrays
