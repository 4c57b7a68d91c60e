"""Where the Triton kernels run."""

import os
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec

import torch
from torch import Tensor

from qloracle_gpu.torch.kernels.compiled_loops import loops_named

OPTIONS = {"enable_fp_fusion": False}  # of every launch


def interpreted() -> bool:
    """Return whether Triton interprets its kernels on the CPU: it reads the variable when it is imported."""
    return os.environ.get("TRITON_INTERPRET", "0") == "1"


def tile_size(compiled: int) -> int:
    """Return how many elements a program has: more where each one is interpreted, which costs the same for any size."""
    return 8 * compiled if interpreted() else compiled


def fixed_steps(inner: int, step: int) -> int:
    """Return how often a loop over `inner` runs where Triton interprets, else 0: a kernel then counts by itself.

    Triton 3.6's interpreter cannot loop up to a number that a kernel is called with.
    """
    return -(-inner // step) if interpreted() else 0


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
        return loops_named() if device_type == "cpu" else "eager"
    return f"triton {version('triton')}{', interpreted' if interpreted() else ''}"


def on_device_of(tensor: Tensor) -> AbstractContextManager[object]:
    """Return a context in which a launch goes to the device of a tensor: Triton takes the current one."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()
