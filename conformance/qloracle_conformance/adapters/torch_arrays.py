"""Placing and fetching torch tensors: shared by every adapter of a library that is built on torch."""

import platform

import numpy as np
import torch

from qloracle.formats import FORMATS, Array, format_named

LAYOUTS = ("contiguous", "offset", "strided", "transposed", "padded")  # torch has no negative strides

_DTYPES = {
    "float64": torch.float64,
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "uint8": torch.uint8,
    "int8": torch.int8,
    "int32": torch.int32,
    "int64": torch.int64,
    "uint32": torch.uint32,
    "bool": torch.bool,
}
# The narrow formats that this torch has; the others cannot be placed, so that an adapter cannot claim them.
_DTYPES |= {name: getattr(torch, name) for name in FORMATS if name.startswith("float8") and hasattr(torch, name)}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


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
        if buffer.size == 0:
            return torch.empty(shape, dtype=_DTYPES[dtype], device=self.device)
        whole = torch.from_numpy(buffer.copy().view(np.uint8)).view(_DTYPES[dtype]).to(self.device)
        return torch.as_strided(whole, shape, strides, offset)


def fetch(native: torch.Tensor) -> tuple[Array, str]:
    """Return the items of a tensor, and the name of its type.

    Raises
    ------
    TypeError
        If it is no tensor.
    """
    if not isinstance(native, torch.Tensor):
        raise TypeError(f"a tensor was expected, got {type(native).__name__}")
    on_host = native.detach().cpu().contiguous()
    name = _NAMES.get(native.dtype, str(native.dtype).removeprefix("torch."))
    if name in FORMATS and format_named(name).numpy is None:
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
