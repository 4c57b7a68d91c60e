"""Where the Triton kernels run."""

import os
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec

import torch

OPTIONS = {"enable_fp_fusion": False}  # of every launch


def interpreted() -> bool:
    """Return whether Triton interprets its kernels on the CPU: it reads the variable when it is imported."""
    return os.environ.get("TRITON_INTERPRET", "0") == "1"


@cache
def kernels_run_on(device_type: str) -> bool:
    """Return whether kernels take tensors of a device: a GPU, or the CPU while Triton interprets them.

    ROCm's devices are called cuda too. A missing Triton is no error: the eager code gives the same bits.
    """
    if device_type != ("cpu" if interpreted() else "cuda") or find_spec("triton") is None:
        return False
    return interpreted() or torch.cuda.is_available()


def kernels_of(device_type: str) -> str:
    """Return what computes on a device, for reports."""
    if not kernels_run_on(device_type):
        return "eager"
    return f"triton {version('triton')}{', interpreted' if interpreted() else ''}"
