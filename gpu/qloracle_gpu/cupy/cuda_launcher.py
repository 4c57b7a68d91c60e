"""The launcher of GPUs: arrays and modules of CuPy, on its current device and stream.

Loading this module loads CuPy. To work on a stream of another library, make it CuPy's current one:
``with cupy.cuda.ExternalStream(torch.cuda.current_stream().cuda_stream): ...``.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np

from qloracle_gpu.cupy.compiling import FLAGS, cubin_of, found_compiler
from qloracle_gpu.cupy.errors import MatmulPrecisionError, NoDeviceError
from qloracle_gpu.cupy.launcher import Array, Grid, LaunchFailed, OutOfMemory, require_same_device

try:
    import cupy
except ImportError as error:
    raise NoDeviceError(
        f"CuPy cannot be loaded ({error}); try: pip install 'qloracle[cupy]'. "
        "qloracle (NumPy) and qloracle_gpu.torch need none"
    ) from error

FULL_PRECISION = ("COMPUTE_TYPE_DEFAULT", "COMPUTE_TYPE_FP32", "COMPUTE_TYPE_PEDANTIC", "COMPUTE_TYPE_FP64")
FAILURES = (cupy.cuda.driver.CUDADriverError, cupy.cuda.runtime.CUDARuntimeError)
ON_THE_GPU = (2, 13)  # kDLCUDA and kDLCUDAManaged of DLPack


class CudaLauncher:
    """Runs kernels on the GPUs that CuPy sees."""

    array_kind = "a CuPy array, or an array on the GPU with __cuda_array_interface__ or DLPack"

    def __init__(self) -> None:
        """Start without modules and tables."""
        self._kernels: dict[tuple[int, str], Any] = {}  # by device and module
        self._tables: dict[tuple[int, object], Array] = {}

    def adopt(self, value: object) -> Array | None:
        """Take CuPy's arrays, and those of others whose memory is on the GPU."""
        if isinstance(value, cupy.ndarray):
            return value
        try:
            if hasattr(value, "__cuda_array_interface__"):
                return cupy.asarray(value)
            if hasattr(value, "__dlpack_device__") and value.__dlpack_device__()[0] in ON_THE_GPU:
                return cupy.from_dlpack(value)
        except (TypeError, ValueError, AttributeError, BufferError, RuntimeError):  # a dtype that CuPy does not know
            return None
        return None

    @contextmanager
    def at(self, arrays: Mapping[str, Array]) -> Iterator[None]:
        """Make the device of the arrays the current one."""
        devices = {argument: array.device.id for argument, array in arrays.items()}
        require_same_device(devices)
        with cupy.cuda.Device(next(iter(devices.values()), None)), _memory():
            try:
                yield
            except FAILURES as error:
                raise LaunchFailed(str(error)) from error

    def address(self, array: Array) -> int:
        """Return the pointer."""
        return int(array.data.ptr)

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """Allocate from CuPy's pool."""
        with _memory():
            return cupy.empty(shape, dtype)

    def contiguous(self, array: Array) -> Array:
        """Copy only what needs it."""
        with _memory():
            return array if array.flags.c_contiguous else array.copy(order="C")

    def resident(self, key: object, make: Callable[[], np.ndarray[Any, Any]]) -> Array:
        """Keep one copy for each device."""
        place = (cupy.cuda.Device().id, key)
        if place not in self._tables:
            with _memory():
                self._tables[place] = cupy.asarray(make())
            cupy.cuda.get_current_stream().synchronize()  # other streams will read it
        return self._tables[place]

    def matmul(self, left: Array, right: Array) -> Array:
        """Multiply by cuBLAS."""
        require_float32_matmul()
        try:
            cublas = cupy.cuda.cublas  # loads the library
        except ImportError as error:
            raise NoDeviceError(f"products of matrices need cuBLAS: {error}") from error
        try:
            with _memory():
                return cupy.matmul(left, right)
        except cublas.CUBLASError as error:
            raise LaunchFailed(f"cuBLAS: {error}") from error

    def sort(self, integers: Array) -> Array:
        """Sort by Thrust."""
        with _memory():
            return cupy.sort(integers, axis=-1)

    def to_host(self, array: Array) -> np.ndarray[Any, Any]:
        """Copy on the current stream and wait for it."""
        made: np.ndarray[Any, Any] = cupy.asnumpy(array)
        return made

    def from_host(self, array: np.ndarray[Any, Any]) -> Array:
        """Copy on the current stream."""
        with _memory():
            return cupy.array(array)

    def launch(self, module: str, kernel: str, grid: Grid, block: Grid, arguments: Sequence[Any]) -> None:
        """Launch on the current stream."""
        try:
            self._module(module).get_function(kernel)(grid, block, tuple(arguments))
        except FAILURES as error:
            raise LaunchFailed(str(error)) from error

    def _module(self, module: str) -> Any:
        device = cupy.cuda.Device()
        key = (device.id, module)
        if key not in self._kernels:
            loaded = cupy.cuda.function.Module()
            loaded.load(cubin_of(module, f"sm_{device.compute_capability}"))
            self._kernels[key] = loaded
        return self._kernels[key]


@contextmanager
def _memory() -> Iterator[None]:
    try:
        yield
    except cupy.cuda.memory.OutOfMemoryError as error:
        raise OutOfMemory(str(error)) from error


def require_float32_matmul() -> None:
    """Raise `MatmulPrecisionError` if CuPy or cuBLAS would round the operands of float32 products to TF32 or less."""
    from cupy._core import _routines_linalg as linear_algebra

    chosen = linear_algebra.compute_type_to_str(linear_algebra.get_compute_type("f"))
    if chosen not in FULL_PRECISION:
        raise MatmulPrecisionError(
            f"CuPy's compute type of float32 must keep float32, got {chosen}: operands would lose bits that the "
            "declared roundings keep; unset CUPY_TF32"
        )
    if os.environ.get("NVIDIA_TF32_OVERRIDE") == "1":
        raise MatmulPrecisionError("NVIDIA_TF32_OVERRIDE must not be 1: cuBLAS would round operands to TF32")


@cache
def cuda_launcher() -> CudaLauncher:
    """Return the launcher of this process.

    Raises
    ------
    NoDeviceError
        If there is no driver or no device.
    """
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        raise NoDeviceError(
            f"CUDA cannot be used here: {error}; qloracle (NumPy) and qloracle_gpu.torch run without"
        ) from error
    if count == 0:
        raise NoDeviceError("CUDA sees no device; qloracle (NumPy) and qloracle_gpu.torch run without")
    return CudaLauncher()


def select(device: str) -> None:
    """Make a device such as "cuda" or "cuda:1" CuPy's current one.

    Raises
    ------
    ValueError
        For another kind of device.
    NoDeviceError
        If there is none.
    """
    kind, _, number = device.partition(":")
    if kind != "cuda" or not (number.isdigit() or number == ""):
        raise ValueError(f"CuPy runs on cuda or cuda:N, got {device!r}")
    cuda_launcher()
    cupy.cuda.Device(int(number or 0)).use()


def environment() -> dict[str, str]:
    """Return what of the device and the libraries may change results."""
    device, compiler = cupy.cuda.Device(), found_compiler()
    properties = cupy.cuda.runtime.getDeviceProperties(device.id)
    return {
        "cupy": cupy.__version__,
        "device": properties["name"].decode(),
        "capability": device.compute_capability,
        "driver": str(cupy.cuda.runtime.driverGetVersion()),
        "runtime": str(cupy.cuda.runtime.runtimeGetVersion()),
        "compiler": "cached cubins" if compiler is None else compiler.version,
        "flags": " ".join(FLAGS),
    }
