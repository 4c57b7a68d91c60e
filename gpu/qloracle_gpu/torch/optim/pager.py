"""The states of an optimizer under a budget of bytes: those that do not fit wait on the host, and are fetched in turn.

The moves are those of `paging.page_in`, made in place: to make room the least recently used states go first. Host
memory is pinned where CUDA is there, so that copies are queued on the current stream and nothing waits for them; or it
is a temporary file that is mapped, which goes away with the optimizer. Clauses: ``[paged.plan]``, ``[paged.states]``.
"""

import mmap
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any
from weakref import finalize

import torch
from torch import Tensor

from qloracle.errors import reject_type, reject_value, require_integer
from qloracle_gpu.torch.optim.paged import host_bytes

DEFAULT_BUDGET = 2**30  # bytes
_ALIGNMENT = 16  # of every tensor of a state in its buffer


@dataclass(frozen=True)
class Paging:
    """How states are paged."""

    budget: int | None  # bytes that the device has for states; None: DEFAULT_BUDGET, or more if the largest needs it
    folder: str | None  # of the mapped file; None: host memory

    def __post_init__(self) -> None:
        """Refuse a budget that is no number of bytes, and a folder that is none."""
        if self.budget is not None:
            budget = require_integer("page_budget", self.budget, "a number of bytes, 0 or more")
            if budget < 0:
                reject_value("page_budget", "a number of bytes, 0 or more", budget)
        if self.folder is not None and not Path(self.folder).is_dir():
            reject_value("page_folder", "an existing folder", repr(self.folder))

    def require_room(self, parameter: str, size: int) -> None:
        """Raise if a state alone exceeds the budget."""
        if self.budget is not None and size > self.budget:
            reject_value("page_budget", f"at least the {size} bytes of the state of {parameter}", self.budget)


class StatePager:
    """Where the states of an optimizer are; it replaces the tensors in their dictionaries when they move."""

    def __init__(self, paging: Paging) -> None:
        """Begin with no state."""
        self.paging = paging
        self.resident: OrderedDict[str, int] = OrderedDict()  # bytes by name, the least recently used first
        self._states: dict[str, dict[str, Any]] = {}
        self._waiting: dict[str, dict[str, Tensor]] = {}
        self._devices: dict[str, torch.device] = {}
        self._sizes: dict[str, int] = {}
        self._used, self._largest = 0, 0  # bytes that are on the device, and that the largest state takes
        self._file = None if paging.folder is None else _MappedFile(paging.folder)

    def adopt(self, name: str, state: dict[str, Any], device: torch.device) -> None:
        """Put a state away: its tensors become views of a buffer on the host, until it is fetched to its device."""
        tensors = tensors_of(state)
        if _shapes(self._waiting.get(name, {})) != _shapes(tensors):
            self._waiting[name] = self._views(tensors, device)
        self._used -= self.resident.pop(name, 0)
        for key, view in self._waiting[name].items():
            state[key] = view.copy_(tensors[key])
        self._states[name], self._devices[name] = state, device
        self._sizes[name] = sum(view.nbytes for view in self._waiting[name].values())
        self._largest = max(self._largest, self._sizes[name])

    def fetch(self, name: str) -> None:
        """Bring a state to its device, and before that as many others away as its bytes need."""
        if name in self.resident:
            self.resident.move_to_end(name)
            return
        while self.resident and self._used + self._sizes[name] > self._budget:
            self._move_out(self.resident.popitem(last=False)[0])
        for key, view in self._waiting[name].items():
            self._states[name][key] = view.to(self._devices[name], copy=True, non_blocking=view.is_pinned())
        self.resident[name] = self._sizes[name]
        self._used += self._sizes[name]

    def synchronize(self) -> None:
        """Wait until every byte that moves to the host is there."""
        for device in {device for device in self._devices.values() if device.type == "cuda"}:
            torch.cuda.synchronize(device)

    @property
    def _budget(self) -> int:
        return max(DEFAULT_BUDGET, self._largest) if self.paging.budget is None else self.paging.budget

    def _move_out(self, name: str) -> None:
        state = self._states[name]
        for key, view in self._waiting[name].items():
            state[key] = view.copy_(state[key], non_blocking=view.is_pinned())
        self._used -= self._sizes[name]

    def _views(self, tensors: Mapping[str, Tensor], device: torch.device) -> dict[str, Tensor]:
        """Return tensors like the given ones in one new buffer on the host."""
        size = sum(_aligned(tensor.nbytes) for tensor in tensors.values())
        buffer = host_bytes(size, pinned=device.type == "cuda") if self._file is None else self._file.buffer(size)
        views, start = {}, 0
        for key, tensor in tensors.items():
            views[key] = buffer[start : start + tensor.nbytes].view(tensor.dtype).view(tensor.shape)
            start += _aligned(tensor.nbytes)
        return views


class _MappedFile:
    """A temporary file that grows by buffers, each mapped by itself."""

    def __init__(self, folder: str) -> None:
        try:
            self._file = TemporaryFile(dir=folder)  # noqa: SIM115  # it lives as long as its maps
        except OSError as error:
            reject_value("page_folder", f"a folder that can be written to ({error.strerror})", repr(folder))
        finalize(self, self._file.close)
        self._size = 0

    def buffer(self, size: int) -> Tensor:
        """Return a writable buffer at the end of the file."""
        if size == 0:
            return torch.empty(0, dtype=torch.uint8, device="cpu")
        start = -(-self._size // mmap.ALLOCATIONGRANULARITY) * mmap.ALLOCATIONGRANULARITY
        self._size = start + size
        self._file.truncate(self._size)
        return torch.frombuffer(mmap.mmap(self._file.fileno(), size, offset=start), dtype=torch.uint8)


def require_paging(page_budget: int | None, page_folder: str | Path | None) -> Paging:
    """Return how states are paged, or raise if an argument is none of that."""
    if page_folder is not None and not isinstance(page_folder, str | Path):
        reject_type("page_folder", "a path or None", type(page_folder).__name__)
    return Paging(page_budget, None if page_folder is None else str(page_folder))


def tensors_of(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return what of a state is a tensor."""
    return {key: value for key, value in state.items() if isinstance(value, Tensor)}


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[torch.dtype, torch.Size]]:
    return {key: (tensor.dtype, tensor.shape) for key, tensor in tensors.items()}


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT
