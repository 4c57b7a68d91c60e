"""The launcher that runs the kernels of the CuPy backend on NumPy arrays."""

import ctypes
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from threading import Lock
from typing import Any

import numpy as np

from qloracle_gpu.cupy.launcher import Grid, LaunchFailed, OutOfMemory

from .building import built_module, built_source

Array = np.ndarray[Any, Any]
ORDERS = ("forward", "reversed", "shuffled")
POISON = 0xFE
C_LIBRARY = ctypes.CDLL(None)
C_LIBRARY.malloc.restype = ctypes.c_void_p
C_LIBRARY.malloc.argtypes = [ctypes.c_size_t]
_ONE_AT_A_TIME = Lock()  # the emulator's threads are its own, but its state belongs to the process


class EmulatedLauncher:
    """Runs kernels on the CPU, thread by thread, in one order of CUDA threads or another."""

    array_kind = "a NumPy array"

    def __init__(
        self, order: str = "forward", *, seed: int = 0, sanitize: bool = False,
        replaced: Mapping[str, str] | None = None, own_sources: Mapping[str, str] | None = None,
        most_ctas: int | None = None, room: int | None = None,
    ) -> None:  # fmt: skip
        """Keep what to run with.

        `replaced` are other texts for files of kernels, `own_sources` whole modules in place of those of the package;
        `most_ctas` makes few CTAs stride over much, `room` is the largest allocation in bytes.
        """
        self.order, self.seed, self.sanitize, self.replaced = ORDERS.index(order), seed, sanitize, replaced
        self.own_sources = own_sources or {}
        self.most_ctas, self.room = most_ctas, room
        self.launches: list[str] = []  # names of kernels, in the order of the calls
        self._libraries: dict[str, ctypes.CDLL] = {}
        self._tables: dict[object, Array] = {}

    def adopt(self, value: object) -> Array | None:
        """Take NumPy arrays and scalars, and what hands out its memory on the CPU."""
        if isinstance(value, np.ndarray | np.generic):
            return np.asarray(value)
        return np.from_dlpack(value) if hasattr(value, "__dlpack__") else None  # type: ignore[arg-type]

    def at(self, arrays: Mapping[str, Array]) -> AbstractContextManager[None]:
        """There is one place."""
        return nullcontext()

    def address(self, array: Array) -> int:
        """The pointer."""
        return int(array.ctypes.data)

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """Memory full of poison: what a kernel does not write shows."""
        made = np.empty(shape, dtype)
        if self.room is not None and made.nbytes > self.room:
            raise OutOfMemory(f"there are {self.room} bytes")
        made.reshape(-1).view(np.uint8)[...] = POISON
        return made

    def contiguous(self, array: Array) -> Array:
        """As the name says; np.ascontiguousarray would make a 0-d array 1-d."""
        return array if array.flags.c_contiguous and array.flags.aligned else array.copy(order="C")

    def resident(self, key: object, make: Callable[[], Array]) -> Array:
        """Tables are NumPy arrays already."""
        if key not in self._tables:
            self._tables[key] = make()
        return self._tables[key]

    def matmul(self, left: Array, right: Array) -> Array:
        """A float32 product, by whatever NumPy calls."""
        with np.errstate(all="ignore"):
            product: Array = left @ right
        return product

    def sort(self, integers: Array) -> Array:
        """Sorted by NumPy."""
        assert integers.dtype.kind == "i", "only the order of integers is the same everywhere"
        return np.sort(integers, axis=-1)

    def to_host(self, array: Array) -> Array:
        """A copy: the host is where arrays are."""
        return array.copy()

    def from_host(self, array: Array) -> Array:
        """A copy, if there is room."""
        made = self.empty(array.shape, array.dtype)
        made[...] = array
        return made

    def launch(self, module: str, kernel: str, grid: Grid, block: Grid, arguments: Sequence[Any]) -> None:
        """Run a kernel to its end."""
        if self.most_ctas is not None:
            grid = (min(grid[0], self.most_ctas), *grid[1:])
        self.launches.append(kernel)
        with self._lent(arguments) as cells:
            self._run(module, kernel, (*grid, *block), cells)

    def _run(self, module: str, kernel: str, dims: tuple[int, ...], cells: list[Any]) -> None:
        parameters = (ctypes.c_void_p * len(cells))(*(ctypes.addressof(cell) for cell in cells))
        sizes = (ctypes.c_size_t * len(cells))(*(ctypes.sizeof(cell) for cell in cells))
        message = ctypes.create_string_buffer(500)
        with _ONE_AT_A_TIME:
            self._library(module).emulator_launch(
                kernel.encode(), (ctypes.c_uint * 6)(*dims), parameters, sizes, len(cells), self.order, self.seed,
                message, ctypes.c_size_t(len(message)),
            )  # fmt: skip
        if message.value:
            raise LaunchFailed(message.value.decode())

    @contextmanager
    def _lent(self, arguments: Sequence[Any]) -> Iterator[list[Any]]:
        """Lend memory for a launch; to sanitized kernels blocks of exactly the size of an array, guarded around."""
        if not self.sanitize:
            yield [_cell(argument) for argument in arguments]
            return
        arrays = {(a.ctypes.data, a.nbytes): a for a in arguments if isinstance(a, np.ndarray)}
        blocks = {key: C_LIBRARY.malloc(key[1]) for key in arrays}
        for key, block in blocks.items():
            ctypes.memmove(block, *key)
        yield [
            ctypes.c_void_p(blocks[a.ctypes.data, a.nbytes]) if isinstance(a, np.ndarray) else _cell(a)
            for a in arguments
        ]
        for (address, size), block in blocks.items():
            ctypes.memmove(address, block, size)
            C_LIBRARY.free(ctypes.c_void_p(block))

    def _library(self, module: str) -> ctypes.CDLL:
        if module not in self._libraries:
            if module in self.own_sources:
                path = built_source(module, self.own_sources[module], sanitize=self.sanitize)
            else:
                path = built_module(module, sanitize=self.sanitize, replaced=self.replaced)
            self._libraries[module] = ctypes.CDLL(str(path))
        return self._libraries[module]


def _cell(argument: object) -> Any:
    """Return the memory that holds an argument as a launch reads it."""
    if isinstance(argument, np.ndarray):
        assert argument.flags.c_contiguous, "kernels take contiguous arrays"
        return ctypes.c_void_p(argument.ctypes.data)
    assert isinstance(argument, np.generic), f"kernels take arrays and NumPy scalars, got {type(argument).__name__}"
    return ctypes.create_string_buffer(argument.tobytes(), argument.itemsize)
