"""PyTorch's own casts as a backend, on any device."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from qloracle_conformance.adapters.torch_arrays import DTYPES, LAYOUTS, Placer, environment, fetch, placed
from qloracle_conformance.backend import Backend, Claim

Tensor = torch.Tensor
SOURCES = ("float32", "float64", "float16", "bfloat16", "int8", "int32", "int64")
NARROW = ("bfloat16", "float16", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu")
WIDE = {"float32": ("float64", "int64"), "float64": ("int64",)}
DOCUMENTATION = (
    "https://docs.pytorch.org/docs/stable/tensor_attributes.html names the formats; a cast is assumed to round once"
)


def encode(values: Tensor, *, fmt: str, overflow: str = "") -> Tensor:
    """Cast to a format."""
    return values.to(getattr(torch, fmt))


def decode(bits: Tensor, *, dtype: str) -> Tensor:
    """Cast to float32."""
    return bits.to(getattr(torch, dtype))


OPS: dict[str, Callable[..., Any]] = {"encode": encode, "decode": decode}


def overflows(fmt: str, device: str) -> tuple[str, ...]:
    """Return the policy that a cast has: torch 2.12 made casts to float8_e4m3fn saturate, and devices differ."""
    if fmt != "float8_e4m3fn":
        return ("ieee",)
    beyond = torch.tensor([1e30], device=device).to(torch.float8_e4m3fn).float()
    return ("ieee",) if bool(beyond.isnan().item()) else ("saturate",)


def backend(device: str = "cpu") -> Backend:
    """Return PyTorch's casts as a backend on a device."""
    used = Placer(device).device
    claims = []
    for fmt in (name for name in NARROW if name in DTYPES):
        options = {"source": SOURCES, "overflow": overflows(fmt, str(used))}
        claims += [
            Claim(f"{fmt}.encode", {"*": "exact"}, layouts=LAYOUTS, options=options, source=DOCUMENTATION),
            Claim(f"{fmt}.decode", {"*": "exact"}, out_dtypes=("float32",), layouts=LAYOUTS, source=DOCUMENTATION),
        ]
    claims += [
        Claim(f"{fmt}.encode", {"*": "exact"}, layouts=LAYOUTS, options={"source": sources}, source=DOCUMENTATION)
        for fmt, sources in WIDE.items()
    ]
    place = partial(placed, device=str(used))
    return Backend("torch_casts", torch.__version__, place, fetch, OPS, tuple(claims), environment(used))
