"""Paged optimizer states: where they wait, never what they hold.

A device has room for a number of bytes; the states of tensors that do not fit wait elsewhere, in host memory or in a
memory-mapped file. A step fetches the state of its tensor, and to make room the least recently used states move out.
All of it is a copy of bytes: a trajectory is the same, bit for bit, for every budget. The optimizers page in place
(`pager`); these are the pure functions.

Clause: ``[paged.states]``; the moves are those of `paging`. Source: Dettmers et al. 2023, "QLoRA", section 3, "Paged
Optimizers" (there the unit is a page of unified memory; here it is the whole state of one tensor).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod

import torch
from torch import Tensor

from qloracle.errors import reject_type, reject_value, require_mapping, require_record
from qloracle_gpu.torch.optim.paging import PagePlan, page_in, page_plan

Arrays = Mapping[str, Tensor]


@dataclass(frozen=True)
class Layout:
    """What a row of bytes is on the device."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    device: torch.device

    @property
    def size(self) -> int:
        """Bytes."""
        return prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class PagedStates:
    """States, each on the device or waiting; a state that waits is a row of bytes on the host."""

    plan: PagePlan
    device: Mapping[str, Arrays]  # states that are resident
    waiting: Mapping[str, Tensor]  # uint8 buffers of all states, in host memory or mapped from a file
    layouts: Mapping[str, Mapping[str, Layout]]  # of every array of every state

    def __post_init__(self) -> None:
        """Refuse parts that do not belong together."""
        names = set(self.plan.sizes)
        for argument, part in (("waiting", self.waiting), ("layouts", self.layouts)):
            if set(part) != names:
                reject_value(argument, f"of the states {', '.join(map(str, names))}", ", ".join(map(str, part)))
        if set(self.device) != set(self.plan.resident):
            reject_value("device", f"of the resident states {self.plan.resident}", ", ".join(map(str, self.device)))
        for name, size in self.plan.sizes.items():
            _require_waiting(self.waiting, name, size)
            if sum(layout.size for layout in self.layouts[name].values()) != size:
                reject_value(f"layouts[{name!r}]", f"of {size} bytes", dict(self.layouts[name]))


def page_states(states: Mapping[str, Arrays], budget: int, waiting: Mapping[str, Tensor] | None = None) -> PagedStates:
    """Put states away, so that they are fetched one by one.

    Parameters
    ----------
    states : mapping of str to mapping of str to tensor
        The tensors of each parameter's state, for example of `state_arrays`; each comes back to the device it is on.
    budget : int
        Bytes that the device has for states.
    waiting : mapping of str to tensor of uint8, optional
        Where each state waits: a buffer on the CPU of exactly its bytes, such as one that `torch.from_file` maps. These
        are the only tensors that are written to, and all records that follow share them: only the last record is good
        to go on with. By default it is host memory, pinned where a state comes from a CUDA device.

    Returns
    -------
    PagedStates

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        As `page_plan`, and if a buffer is missing, is not uint8, is not on the CPU or has another size than its state.

    Notes
    -----
    Clause ``[paged.states]``. Rounding points: none; bytes are copied.

    Examples
    --------
    >>> paged = page_states({"a": {"m": torch.ones(2)}, "b": {"m": torch.zeros(2)}}, budget=8)
    >>> paged, a = fetch_state(paged, "a")
    >>> paged = store_state(paged, "a", {"m": a["m"] + 1})
    >>> paged, _ = fetch_state(paged, "b")
    >>> paged, a = fetch_state(paged, "a")
    >>> a["m"], paged.plan.resident
    (tensor([2., 2.]), ('a',))
    """
    given = require_mapping("states", states, "a mapping of names to states")
    checked = {name: _arrays_of(name, state) for name, state in given.items()}
    layouts = {name: _layouts_of(state) for name, state in checked.items()}
    plan = page_plan({name: sum(layout.size for layout in parts.values()) for name, parts in layouts.items()}, budget)
    if waiting is None:
        waiting = {name: host_bytes(size, pinned=_any_on_cuda(layouts[name])) for name, size in plan.sizes.items()}
    for name, size in plan.sizes.items():
        _require_waiting(require_mapping("waiting", waiting, "a mapping of names to tensors"), name, size)
    for name in plan.sizes:
        _write(waiting[name], checked[name])
    return PagedStates(plan, {}, waiting, layouts)


def fetch_state(paged: PagedStates, name: str) -> tuple[PagedStates, Arrays]:
    """Return the state of a parameter, on its device, and where all states are then.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If `paged` is something else, or there is no state of that name.

    Notes
    -----
    Clause ``[paged.states]``. Moves as in `page_in`; a state that moves out is written to where it waits, and read from
    there when it comes back. What is returned are copies: writing to them changes no record.

    Examples
    --------
    >>> fetch_state(page_states({"a": {"m": torch.ones(2)}}, 8), "a")[1]["m"]
    tensor([1., 1.])
    """
    require_record("paged", paged, PagedStates)
    plan, moves = page_in(paged.plan, name)
    device = dict(paged.device)
    for move in moves:
        if move.direction == "out":
            _write(paged.waiting[move.name], device.pop(move.name))
        else:
            device[name] = _read(paged.waiting[name], paged.layouts[name])
    return replace(paged, plan=plan, device=device), _copies(device[name])


def store_state(paged: PagedStates, name: str, state: Arrays) -> PagedStates:
    """Replace the state of a parameter that is on its device.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If it is not on the device, or its tensors are not those that were put away, in type, shape and device.

    Notes
    -----
    Clause ``[paged.states]``. The tensors are copied: what is written to them later changes no record.

    Examples
    --------
    >>> paged, a = fetch_state(page_states({"a": {"m": torch.ones(2)}}, 8), "a")
    >>> store_state(paged, "a", {"m": -a["m"]}).device["a"]["m"]
    tensor([-1., -1.])
    """
    require_record("paged", paged, PagedStates)
    if name not in paged.device:
        reject_value("name", f"on the device: {', '.join(paged.device) or 'nothing'}", repr(name))
    arrays = _arrays_of(name, state)
    if (layout := _layouts_of(arrays)) != paged.layouts[name]:
        reject_value("state", f"of arrays {dict(paged.layouts[name])}", layout)
    return replace(paged, device={**paged.device, name: _copies(arrays)})


def host_bytes(size: int, *, pinned: bool) -> Tensor:
    """Return a buffer in host memory; pinned, so that copies need not wait for the device, where CUDA is there."""
    return torch.empty(size, dtype=torch.uint8, device="cpu", pin_memory=pinned and torch.cuda.is_available())


def _any_on_cuda(layouts: Mapping[str, Layout]) -> bool:
    return any(layout.device.type == "cuda" for layout in layouts.values())


def _layouts_of(state: Arrays) -> dict[str, Layout]:
    return {key: Layout(array.dtype, tuple(array.shape), array.device) for key, array in state.items()}


def _arrays_of(name: str, state: object) -> dict[str, Tensor]:
    arrays = require_mapping(f"state of {name!r}", state, "a mapping of names to tensors")
    for key, array in arrays.items():
        if not isinstance(array, Tensor):
            reject_type(f"{key!r} of {name!r}", "a torch tensor", type(array).__name__)
    return {key: array.detach() for key, array in arrays.items()}


def _require_waiting(waiting: Mapping[str, Tensor], name: str, size: int) -> None:
    buffer = waiting.get(name)
    if not isinstance(buffer, Tensor) or buffer.dtype is not torch.uint8:
        reject_type(f"waiting[{name!r}]", "a tensor of uint8", getattr(buffer, "dtype", type(buffer).__name__))
    if buffer.shape != (size,):
        reject_value(f"waiting[{name!r}]", f"of shape ({size},), the bytes of the state", tuple(buffer.shape))
    if buffer.device.type != "cpu":
        reject_value(f"waiting[{name!r}]", "on the CPU", buffer.device)


def _copies(state: Arrays) -> dict[str, Tensor]:
    return {key: array.clone(memory_format=torch.contiguous_format) for key, array in state.items()}


def _write(buffer: Tensor, state: Arrays) -> None:
    start = 0
    for array in state.values():
        row = array.contiguous().reshape(-1).view(torch.uint8)
        buffer[start : start + row.numel()] = row
        start += row.numel()


def _read(buffer: Tensor, layouts: Mapping[str, Layout]) -> dict[str, Tensor]:
    arrays, start = {}, 0
    for key, layout in layouts.items():
        row = buffer[start : start + layout.size].clone()  # a copy begins where a number of any type may begin
        arrays[key] = row.view(layout.dtype).view(layout.shape).to(layout.device)
        start += layout.size
    return arrays
