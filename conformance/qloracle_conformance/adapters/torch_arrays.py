"""Placing and fetching torch tensors: shared by every adapter of a library that is built on torch.

The functions stand alone, for `qloracle witness-script` writes their source into a script that imports no qloracle.
"""

import platform
from typing import Any

import numpy as np
import torch

Array = Any  # of NumPy
LAYOUTS = ("contiguous", "offset", "strided", "transposed", "padded")  # torch has no negative strides

# The narrow formats that this torch has; the others cannot be placed, so that an adapter cannot claim them.
_NARROW = tuple(
    name
    for name in ("float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu")
    if hasattr(torch, name)
)
_NAMES = ("float64", "float32", "float16", "bfloat16", "uint8", "int8", "int32", "int64", "uint32", "bool", *_NARROW)
DTYPES = {name: getattr(torch, name) for name in _NAMES}


class Placer:
    """Makes tensors on one device."""

    def __init__(self, device: str) -> None:
        """Keep the device, and make sure that it can be used.

        Raises
        ------
        RuntimeError
            If torch cannot make a tensor there.
        """
        self.device = torch.device(device)
        torch.empty(1, device=self.device)

    def place(
        self, buffer: Array, dtype: str, shape: tuple[int, ...], strides: tuple[int, ...], offset: int
    ) -> torch.Tensor:
        """Return a tensor that is a view into a copy of the whole buffer on the device."""
        return placed(buffer, dtype, shape, strides, offset, device=str(self.device))


def placed(
    buffer: Array, dtype: str, shape: tuple[int, ...], strides: tuple[int, ...], offset: int, *, device: str
) -> torch.Tensor:
    """Return a tensor that is a view into a copy of the whole buffer on a device."""
    if buffer.size == 0:
        return torch.empty(shape, dtype=DTYPES[dtype], device=device)
    whole = torch.from_numpy(buffer.copy().view(np.uint8)).view(DTYPES[dtype]).to(device)
    return torch.as_strided(whole, shape, strides, offset)


def whole(native: torch.Tensor) -> torch.Tensor:
    """Return the buffer that a tensor was placed in, as a tensor of one axis."""
    storage = native.untyped_storage()
    return native.new_empty(0).set_(storage, 0, (storage.nbytes() // native.itemsize,), (1,))


def fetch(native: torch.Tensor) -> tuple[Array, str]:
    """Return the items of a tensor, and the name of its type.

    Raises
    ------
    TypeError
        If it is no tensor.
    """
    if not isinstance(native, torch.Tensor):
        raise TypeError(f"a tensor was expected, got {type(native).__name__}")
    on_host, name = native.detach().cpu().contiguous(), str(native.dtype).removeprefix("torch.")
    if name in _NARROW or name == "bfloat16":  # NumPy has no such type
        on_host = on_host.view(torch.uint8 if native.itemsize == 1 else torch.uint16)
    return on_host.numpy(), name


def environment(device: torch.device) -> dict[str, str]:
    """Return what of torch and the device may change results."""
    found = {
        "torch": torch.__version__,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "processor": platform.processor() or platform.machine(),
        "threads": str(torch.get_num_threads()),
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
        "subnormals_kept": str(bool((torch.tensor([1e-45], device=device) * 1 > 0).item())),
    }
    if device.type == "cuda":
        found |= {
            "device": torch.cuda.get_device_name(device),
            "capability": ".".join(map(str, torch.cuda.get_device_capability(device))),
            "cuda": str(torch.version.cuda),
            "allow_tf32": str(torch.backends.cuda.matmul.allow_tf32),
        }
    return found
