"""The reference as a backend: the strict twin that proves that the suite can be passed."""

from collections.abc import Callable
from typing import Any

import numpy as np

import qloracle
from qloracle.formats import Array
from qloracle_conformance.adapters.reference import (
    adapters,
    affine,
    blockwise,
    conversions,
    double,
    footprint,
    int8,
    int8_linear,
    layers,
    merging,
    optimizers,
    packing,
    requantizing,
    tables,
)
from qloracle_conformance.arrays import LAYOUTS, HostArray, Placement, view_of
from qloracle_conformance.backend import FEATURES, Backend, Claim
from qloracle_conformance.out_arrays import with_out
from qloracle_conformance.registry import OPERATIONS

OPS: dict[str, Callable[..., Any]] = {
    name: with_out(function)
    for part in (
        conversions,
        packing,
        tables,
        blockwise,
        double,
        int8,
        affine,
        int8_linear,
        layers,
        merging,
        requantizing,
        adapters,
        optimizers,
        footprint,
    )
    for name, function in part.OPS.items()
}


def backend(device: str = "cpu") -> Backend:
    """Return the reference as a backend; there is only one device.

    Raises
    ------
    ValueError
        For another device than "cpu".
    """
    if device != "cpu":
        raise ValueError(f"the reference runs on cpu only, got {device!r}")
    claims = tuple(
        Claim(
            operation=name,
            levels={"*": operation.strictest, **operation.own_levels},
            out_dtypes=("float32",) if name.endswith("decode") else ("float32", "float16", "bfloat16"),
            layouts=LAYOUTS,
            features=FEATURES,
            options=operation.options,
            source="the reference defines the rules",
        )
        for name, operation in OPERATIONS.items()
    )
    return Backend("reference", qloracle.SPECIFICATION_VERSION, place, fetch, OPS, claims, {"numpy": np.__version__},
                   whole)  # fmt: skip


def place(buffer: Array, dtype: str, shape: tuple[int, ...], strides: tuple[int, ...], offset: int) -> HostArray:
    """Return a view of the buffer with the type's name."""
    return HostArray(view_of(Placement(buffer, dtype, shape, strides, offset)), dtype)


def fetch(native: HostArray) -> tuple[Array, str]:
    """Return the items and the type's name."""
    return native.items, native.dtype


def whole(native: HostArray) -> HostArray:
    """Return the buffer that an array was placed in."""
    base: Any = native.items
    while base.base is not None:
        base = base.base
    return HostArray(base.reshape(-1).view(native.items.dtype), native.dtype)
