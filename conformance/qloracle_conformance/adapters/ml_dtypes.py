"""ml_dtypes as a backend: its casts on NumPy arrays, in both directions."""

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np

from qloracle_conformance.backend import Backend, Claim

Array = Any  # of NumPy
LAYOUTS = ("contiguous", "offset", "strided", "transposed", "reversed", "padded")
WITH_NAN = ("bfloat16", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu")
WITHOUT_NAN = ("float6_e2m3fn", "float6_e3m2fn", "float4_e2m1fn")
SOURCES = ("float32", "float64", "float16", "bfloat16", "int8", "int32", "int64")
DOCUMENTATION = "https://github.com/jax-ml/ml_dtypes#readme names the formats; a cast is assumed to round once, to even"


def dtype_named(name: str) -> Any:
    """Return a dtype of ml_dtypes, or of NumPy."""
    return np.dtype(getattr(ml_dtypes, name, name))


def place(buffer: Array, dtype: str, shape: tuple[int, ...], strides: tuple[int, ...], offset: int) -> Array:
    """Return a view of a buffer."""
    width = buffer.dtype.itemsize
    words = np.lib.stride_tricks.as_strided(buffer[offset:], shape, tuple(s * width for s in strides))
    return words.view(dtype_named(dtype))


def fetch(native: Array) -> tuple[Array, str]:
    """Return the items of an array, as words where NumPy itself has no such type, and the name of the type."""
    name, items = native.dtype.name, np.ascontiguousarray(native).reshape(native.shape)
    return (items if native.dtype.isbuiltin == 1 else items.view(f"u{native.dtype.itemsize}")), name


def encode(values: Array, *, fmt: str) -> Array:
    """Cast to a format."""
    with np.errstate(all="ignore"):
        return values.astype(dtype_named(fmt))


def decode(bits: Array, *, dtype: str) -> Array:
    """Cast to float32."""
    with np.errstate(all="ignore"):
        return bits.astype(dtype)


OPS: dict[str, Callable[..., Array]] = {"encode": encode, "decode": decode}


def backend(device: str = "cpu") -> Backend:
    """Return ml_dtypes as a backend; there is only one device.

    Raises
    ------
    ValueError
        For another device than "cpu".
    """
    if device != "cpu":
        raise ValueError(f"ml_dtypes runs on cpu only, got {device!r}")
    claims = []
    for fmt in (*WITH_NAN, *WITHOUT_NAN):
        claims += [
            Claim(f"{fmt}.encode", {"*": "exact"}, layouts=LAYOUTS, options={"source": SOURCES}, source=DOCUMENTATION),
            Claim(f"{fmt}.decode", {"*": "exact"}, out_dtypes=("float32",), layouts=LAYOUTS, source=DOCUMENTATION),
        ]
    environment = {"numpy": np.__version__}
    return Backend("ml_dtypes", ml_dtypes.__version__, place, fetch, OPS, tuple(claims), environment)
