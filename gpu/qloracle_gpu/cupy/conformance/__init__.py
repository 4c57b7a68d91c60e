"""The CuPy backend as the conformance suite sees it: through the same record as anybody else's.

`backend` is the real one. `backend_on` makes the record of any launcher, so that the tests judge the same functions on
the emulator.
"""

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

import numpy as np

from qloracle_conformance import Backend
from qloracle_gpu.cupy.conformance.affine import AFFINE
from qloracle_gpu.cupy.conformance.claims import claims
from qloracle_gpu.cupy.conformance.layers import LAYERS
from qloracle_gpu.cupy.conformance.merging import ADAPTERS
from qloracle_gpu.cupy.conformance.operations import CONVERSIONS_AND_QUANTIZERS, Native
from qloracle_gpu.cupy.conformance.optimizers import OPTIMIZERS
from qloracle_gpu.cupy.launcher import Array, Launcher, using


def backend(device: str = "cuda") -> Backend:
    """Return the CuPy backend on a GPU, with everything that it promises.

    Raises
    ------
    NoDeviceError
        If there is none.
    """
    from qloracle_gpu.cupy.cuda_launcher import cuda_launcher, environment, select

    select(device)
    import cupy

    return backend_on(cuda_launcher(), cupy, cupy.asnumpy, "cupy", cupy.__version__, environment())


def backend_on(
    launcher: Launcher, arrays: Any, to_host: Callable[[Array], np.ndarray[Any, Any]], name: str, version: str,
    environment: Mapping[str, str],
) -> Backend:  # fmt: skip
    """Return the record of the backend on a launcher; `arrays` is the module of its arrays, NumPy or CuPy."""

    def place(
        buffer: np.ndarray[Any, Any], dtype: str, shape: tuple[int, ...], strides: tuple[int, ...], offset: int
    ) -> Native:
        if buffer.size == 0:
            return Native(arrays.empty(shape, buffer.dtype), dtype)
        whole = arrays.asarray(buffer)
        steps = [step * buffer.itemsize for step in strides]
        return Native(arrays.lib.stride_tricks.as_strided(whole[offset:], shape, steps), dtype)

    def fetch(native: Native) -> tuple[np.ndarray[Any, Any], str]:
        return to_host(native.array), native.dtype

    def on_launcher(function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def run(*positional: Any, **named: Any) -> Any:
            with using(launcher):
                return function(*positional, **named)

        return run

    offered = CONVERSIONS_AND_QUANTIZERS | AFFINE | LAYERS | ADAPTERS | OPTIMIZERS
    ops = {key: on_launcher(function) for key, function in offered.items()}
    return Backend(name, version, place, fetch, ops, claims(), dict(environment))
