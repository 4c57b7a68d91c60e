"""NumPy as a backend: its casts between its own formats."""

from collections.abc import Callable
from typing import Any

import numpy as np

from qloracle_conformance.backend import Backend, Claim

Array = Any
LAYOUTS = ("contiguous", "offset", "strided", "transposed", "reversed", "padded")
SOURCES = {
    "float16": ("float32", "float64", "int8", "int32", "int64"),
    "float32": ("float64", "int64"),
    "float64": ("int64",),
}
DOCUMENTATION = (
    "https://numpy.org/doc/stable/reference/generated/numpy.ndarray.astype.html names no rounding; IEEE 754's"
)


def place(buffer: Array, dtype: str, shape: tuple[int, ...], strides: tuple[int, ...], offset: int) -> Array:
    """Return a view of a buffer."""
    width = buffer.dtype.itemsize
    return np.lib.stride_tricks.as_strided(buffer[offset:], shape, tuple(s * width for s in strides))


def fetch(native: Array) -> tuple[Array, str]:
    """Return the items of an array, and the name of their type."""
    return native, native.dtype.name


def encode(values: Array, *, fmt: str) -> Array:
    """Cast to a format."""
    with np.errstate(all="ignore"):
        return values.astype(fmt)


def decode(bits: Array, *, dtype: str) -> Array:
    """Cast to float32."""
    with np.errstate(all="ignore"):
        return bits.astype(dtype)


OPS: dict[str, Callable[..., Array]] = {"encode": encode, "decode": decode}


def backend(device: str = "cpu") -> Backend:
    """Return NumPy as a backend; there is only one device.

    Raises
    ------
    ValueError
        For another device than "cpu".
    """
    if device != "cpu":
        raise ValueError(f"NumPy runs on cpu only, got {device!r}")
    claims = [
        Claim(f"{fmt}.encode", {"*": "exact"}, layouts=LAYOUTS, options={"source": sources}, source=DOCUMENTATION)
        for fmt, sources in SOURCES.items()
    ]
    exact = Claim("float16.decode", {"*": "exact"}, out_dtypes=("float32",), layouts=LAYOUTS, source=DOCUMENTATION)
    return Backend("numpy", np.__version__, place, fetch, OPS, (*claims, exact), {})
