"""Results of kernels against what the reference allows; for scripts that run in processes of their own.

With TRITON_INTERPRET=1 the kernels are interpreted on the CPU; without it they run on the GPU.
"""

from typing import Any

import numpy as np
import torch
from words import words  # type: ignore[import-not-found]  # its neighbour, since these files are run as scripts

import qloracle
import qloracle_gpu.torch as backend
from qloracle.formats import Array
from qloracle.tracking.interval import Interval
from qloracle_gpu.torch.kernels.availability import interpreted

DEVICE = "cpu" if interpreted() else "cuda"


def name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def tensor(values: Array, fmt: str) -> torch.Tensor:
    """Numbers of a format on the device."""
    return torch.from_numpy(np.ascontiguousarray(values)).to(getattr(torch, fmt)).to(DEVICE)


def placed(values: Array) -> torch.Tensor:
    """An array on the device as it is."""
    return torch.from_numpy(np.ascontiguousarray(values)).to(DEVICE)


def require_inside(got: torch.Tensor, allowed: Interval, rule: str) -> int:
    """Fail where a result is outside its bound, whose ends are rounded to its format; return how many were judged."""
    name = name_of(got.dtype)
    y = got.cpu().to(torch.float64).numpy()
    lo, hi = (qloracle.decode(qloracle.encode(end, name), name) for end in (allowed.lo, allowed.hi))
    outside = ~((lo <= y) & (y <= hi)) & allowed.judged
    assert y.shape == lo.shape, f"{rule}: shape {y.shape}, expected {lo.shape}"
    assert not outside.any(), f"{rule}: {np.count_nonzero(outside)} of {y.size} outside their bound"
    return int(np.count_nonzero(allowed.judged))


def require_exact(got: torch.Tensor, real: Array, rule: str) -> int:
    """Fail where a result is another number than the real one, rounded once; return how many were compared."""
    expected = qloracle.encode(np.asarray(real, np.float64) + 0.0, name_of(got.dtype))
    mine = words((got + 0.0).cpu())  # the sign of a zero sum is left open
    wrong = mine != words(expected)
    assert mine.shape == wrong.shape == np.shape(real), f"{rule}: shape {mine.shape}, expected {np.shape(real)}"
    assert not wrong.any(), f"{rule}: {np.count_nonzero(wrong)} of {wrong.size} are not exact"
    return wrong.size


def both(quantize: str, values: Array, **how: Any) -> tuple[Any, Any]:
    """The record of the reference, and that of the backend."""
    mine = getattr(backend, quantize)(placed(values), **how)
    return getattr(qloracle, quantize)(values, **how), mine
