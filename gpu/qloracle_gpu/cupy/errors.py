"""What can go wrong besides a bad argument; every message names the operation and what it was about to do."""

from qloracle.errors import QloracleError


class NoDeviceError(QloracleError, RuntimeError):
    """CUDA cannot be used here: CuPy, the driver, a device or a compiler is missing."""


class KernelCompileError(QloracleError, RuntimeError):
    """A kernel does not compile for a device's architecture."""


class DeviceMemoryError(QloracleError, MemoryError):
    """The device has too little memory for an operation."""


class KernelLaunchError(QloracleError, RuntimeError):
    """The driver refused a kernel, or one that ran before failed."""


class MatmulPrecisionError(QloracleError, RuntimeError):
    """CuPy is set to multiply float32 matrices with fewer bits than float32 has."""
