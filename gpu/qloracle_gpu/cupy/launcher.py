"""The seam between an operation and the machine that runs it.

An operation asks a `Launcher` for memory and launches kernels through it; it knows no framework. `CudaLauncher` runs
them on a GPU through CuPy. Anything else that obeys the protocol can take its place, as the emulator of the tests
does: NumPy arrays, and the same kernels compiled for the CPU.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from math import prod
from typing import Any, Protocol

import numpy as np

from qloracle.errors import reject_type, reject_value
from qloracle_gpu.cupy.errors import DeviceMemoryError, KernelLaunchError

Array = Any  # of the launcher's framework: NumPy's attributes `dtype`, `shape`, `size`, `view`, `reshape`
Grid = tuple[int, int, int]


class OutOfMemory(Exception):  # noqa: N818 - not the error that a caller sees
    """An allocation failed."""


class LaunchFailed(Exception):  # noqa: N818 - likewise
    """A kernel could not be launched."""


class Launcher(Protocol):
    """A machine that holds arrays and runs kernels, one after another in the order of the calls."""

    array_kind: str  # what an error message calls its arrays

    def adopt(self, value: object) -> Array | None:
        """Return a value as an array of this machine without a copy, or None if it is none."""

    def at(self, arrays: Mapping[str, Array]) -> AbstractContextManager[None]:
        """Return a context in which allocations and launches go to the device of the arrays.

        What the machine itself raises inside, for want of memory or because a kernel failed that ran before, leaves it
        as `OutOfMemory` or `LaunchFailed`.

        Raises
        ------
        ArgumentValueError
            If the arrays are on several devices.
        """

    def address(self, array: Array) -> int:
        """Return where the first item of an array lies."""

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """Return a new C-contiguous array of any content; raise `OutOfMemory` if there is no room."""

    def contiguous(self, array: Array) -> Array:
        """Return the array itself if it is C-contiguous, else a copy that is; raise `OutOfMemory`."""

    def resident(self, key: object, make: Callable[[], np.ndarray[Any, Any]]) -> Array:
        """Return the device's copy of a host table, made once for a key; raise `OutOfMemory`."""

    def matmul(self, left: Array, right: Array) -> Array:
        """Return the product of two float32 matrices, accumulated in float32; raise `OutOfMemory`.

        Raises
        ------
        MatmulPrecisionError
            If the machine is set to multiply with fewer bits.
        """

    def sort(self, integers: Array) -> Array:
        """Return integers sorted along the last axis, ascending, in a new array; raise `OutOfMemory`."""

    def to_host(self, array: Array) -> np.ndarray[Any, Any]:
        """Return a copy of an array in host memory, once what makes it is done."""

    def from_host(self, array: np.ndarray[Any, Any]) -> Array:
        """Return a copy of an array of the host on the current device; raise `OutOfMemory`."""

    def launch(self, module: str, kernel: str, grid: Grid, block: Grid, arguments: Sequence[Any]) -> None:
        """Launch a kernel of ``kernels/MODULE.cu``; arguments are arrays and NumPy scalars of the kernel's types.

        Raises
        ------
        LaunchFailed
            If it cannot be launched.
        NoDeviceError, KernelCompileError
            If it cannot be compiled.
        """


_CHOSEN: ContextVar[Launcher | None] = ContextVar("launcher", default=None)


@contextmanager
def using(launcher: Launcher) -> Iterator[None]:
    """Let the operations called inside run on a machine of the caller's choice."""
    token = _CHOSEN.set(launcher)
    try:
        yield
    finally:
        _CHOSEN.reset(token)


def current_launcher() -> Launcher:
    """Return the machine chosen by `using`, else the GPU that CuPy sees.

    Raises
    ------
    NoDeviceError
        If there is none.
    """
    chosen = _CHOSEN.get()
    if chosen is not None:
        return chosen
    from qloracle_gpu.cupy.cuda_launcher import cuda_launcher  # loads CuPy

    return cuda_launcher()


def require_array(argument: str, value: object) -> Array:
    """Return `value` as an array of the current machine, else raise `ArgumentTypeError`."""
    launcher = current_launcher()
    array = launcher.adopt(value)
    if array is None:
        reject_type(argument, launcher.array_kind, type(value).__name__)
    return array


THREADS = 256  # of a CTA
MOST_CTAS = 1 << 20  # kernels stride over whatever is left


@dataclass(frozen=True)
class Operation:
    """One call of a public function: what its errors name, and where it runs."""

    name: str
    sizes: str  # of its arguments, for messages
    launcher: Launcher

    def empty(self, shape: int | tuple[int, ...], dtype: str | np.dtype[Any]) -> Array:
        """Return a new array of any content."""
        sizes = (shape,) if isinstance(shape, int) else tuple(shape)
        kind = np.dtype(dtype)
        try:
            return self.launcher.empty(sizes, kind)
        except OutOfMemory as error:
            self._out_of_memory(f"{prod(sizes) * kind.itemsize} bytes for {kind} of shape {sizes}", error)

    def contiguous(self, array: Array) -> Array:
        """Return the array, or a copy if it is not C-contiguous."""
        try:
            return self.launcher.contiguous(array)
        except OutOfMemory as error:
            self._out_of_memory(f"{array.nbytes} bytes for a contiguous copy of shape {array.shape}", error)

    def resident(self, key: object, make: Callable[[], np.ndarray[Any, Any]]) -> Array:
        """Return the device's copy of a host table."""
        try:
            return self.launcher.resident(key, make)
        except OutOfMemory as error:
            self._out_of_memory("a table", error)

    def matmul(self, left: Array, right: Array) -> Array:
        """Return a product of float32 matrices."""
        try:
            return self.launcher.matmul(left, right)
        except OutOfMemory as error:
            self._out_of_memory(f"the product of {left.shape} and {right.shape}", error)

    def sort(self, integers: Array) -> Array:
        """Return integers sorted along the last axis, ascending."""
        try:
            return self.launcher.sort(integers)
        except OutOfMemory as error:
            self._out_of_memory(f"sorting {integers.dtype} of shape {integers.shape}", error)

    def from_host(self, array: np.ndarray[Any, Any]) -> Array:
        """Return the device's copy of an array of the host."""
        try:
            return self.launcher.from_host(array)
        except OutOfMemory as error:
            self._out_of_memory(f"{array.nbytes} bytes from the host", error)

    def launch(
        self, module: str, kernel: str, units: int, arguments: Sequence[Any], *, block: Grid = (THREADS, 1, 1)
    ) -> None:
        """Launch a kernel on at least one thread for each unit of work, or as many as a grid should have; none for 0.

        Raises
        ------
        KernelLaunchError
            If it cannot be launched.
        """
        if units == 0:
            return
        grid = (max(1, min(-(-units // prod(block)), MOST_CTAS)), 1, 1)
        try:
            self.launcher.launch(module, kernel, grid, block, arguments)
        except OutOfMemory as error:
            self._out_of_memory(f"kernel {kernel}", error)
        except LaunchFailed as error:
            raise KernelLaunchError(
                f"{self.name} with {self.sizes}: kernel {kernel} on a grid of {grid} CTAs of {block} threads: {error}"
            ) from error

    def _out_of_memory(self, what: str, error: Exception) -> Any:
        raise DeviceMemoryError(f"{self.name} with {self.sizes}: no room for {what}: {error}") from error


@contextmanager
def operation(name: str, **arrays: Array | None) -> Iterator[Operation]:
    """Enter the device of an operation's array arguments; they are arrays of the current machine already."""
    launcher = current_launcher()
    given = {argument: array for argument, array in arrays.items() if array is not None}
    sizes = ", ".join(f"{argument} {array.dtype} of shape {array.shape}" for argument, array in given.items())
    run = Operation(name, sizes or "no arrays", launcher)
    try:
        with launcher.at(given):
            yield run
    except OutOfMemory as error:
        raise DeviceMemoryError(f"{name} with {run.sizes}: {error}") from error
    except LaunchFailed as error:
        raise KernelLaunchError(f"{name} with {run.sizes}: {error}") from error


def require_same_device(devices: Mapping[str, int]) -> None:
    """Raise `ArgumentValueError` unless all arguments, given by name, are on the same device."""
    if len(set(devices.values())) > 1:
        where = ", ".join(f"{argument} on device {number}" for argument, number in devices.items())
        reject_value("arguments", "on one device", where)
