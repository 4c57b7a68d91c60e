"""bitsandbytes as a backend: its public functions, on any device and with any plug-in that it supports.

Data types and block sizes are those that its documentation lists; the documentation says nothing of rounding, so that
levels are assumptions that follow the formulas of the library's own code, each with its reason. What is not met is
reported, not excused. Functions that the library compiles run without compiling: a compiler may contract or reorder,
which is another implementation, and it takes seconds for every shape. An operation is claimed where the device has a
kernel for it: of bitsandbytes or of a plug-in.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import bitsandbytes
import torch

from qloracle_conformance.adapters.bitsandbytes import blocks, int8, layers, optimizers
from qloracle_conformance.adapters.bitsandbytes.claims import claims_with
from qloracle_conformance.adapters.torch_arrays import Placer, environment, fetch, placed
from qloracle_conformance.backend import Backend

OPS: Mapping[str, Callable[..., Any]] = {**blocks.OPS, **int8.OPS, **layers.OPS, **optimizers.OPS}
_ANY_DEVICE = "CompositeExplicitAutograd"  # where kernels called "default" are registered


def backend(device: str = "cpu") -> Backend:
    """Return bitsandbytes as a backend on a device."""
    used = Placer(device).device
    torch.compiler.set_stance("force_eager")
    claims = claims_with(partial(has_kernel, device_type=used.type), used.type)
    ops: dict[str, Callable[..., Any]] = {**OPS, "codebook_entries": partial(blocks.codebook_entries, device=str(used))}
    place = partial(placed, device=str(used))
    found = {**environment(used), "torch_compile": "force_eager"}
    return Backend("bitsandbytes", bitsandbytes.__version__, place, fetch, ops, claims, found)


def has_kernel(operation: str, device_type: str) -> bool:
    """Return whether an operation of bitsandbytes can run on a kind of device: its own kernel, or one for all."""
    # Nothing public says which devices an operator has kernels for.
    key = torch._C._dispatch_key_for_device(device_type)  # noqa: SLF001
    offered = torch._C._dispatch_has_kernel_for_dispatch_key  # noqa: SLF001
    found: bool = any(offered(f"bitsandbytes::{operation}", k) for k in (key, _ANY_DEVICE))
    return found
