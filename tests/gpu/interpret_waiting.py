"""Launch every kernel of the hot path under a watch for operations that hand a value of a tensor to the host.

Run in a process of its own, with TRITON_INTERPRET=1. On a GPU such an operation waits for the device.
"""

import sys
from collections.abc import Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

import qloracle_gpu.torch as backend
from qloracle_gpu.torch.kernels.availability import kernels_run_on
from qloracle_gpu.torch.optim import AdamW, AdamW8bit

WAITING = {"_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal", "_unique2", "unique_dim"}


class WaitingError(AssertionError):
    """An operation that would wait for the device."""


class Watch(TorchDispatchMode):
    """Raises where an operation returns a value, or a shape that depends on values, or copies to another device."""

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name, options = func.overloadpacket.__name__, kwargs or {}
        indices = args[1] if name in {"index", "index_put", "index_put_"} else ()
        if name in WAITING or any(i is not None and i.dtype is torch.bool for i in indices):
            raise WaitingError(str(func))
        if name == "_to_copy" and options.get("device") not in (None, args[0].device):
            raise WaitingError(f"{func} to {options['device']}")
        return func(*args, **options)


def steps() -> dict[str, Any]:
    """Every function of the hot path that has kernels, by name."""
    x, weight = torch.randn(3, 64), torch.randn(8, 64)
    a, b, dy, bias = torch.randn(4, 64), torch.randn(8, 4), torch.randn(3, 8), torch.randn(8)
    blocks = [backend.quantize_blockwise(weight, codebook=name) for name in ("nf4", "dynamic_signed")]
    blocks.append(backend.quantize_double(weight, block_size=32))  # type: ignore[arg-type]
    rows = backend.quantize_int8(weight, granularity="row")
    made: dict[str, Any] = {
        "quantize_blockwise": lambda: backend.quantize_blockwise(weight),
        "quantize_blockwise, 8 bits": lambda: backend.quantize_blockwise(weight, codebook="dynamic_signed"),
        "quantize_double": lambda: backend.quantize_double(weight, block_size=32),
        "quantize_int8": lambda: [backend.quantize_int8(weight, granularity=g) for g in ("tensor", "row", "column")],
        "dequantize_int8": lambda: backend.dequantize_int8(rows),
        "int8_linear_forward": lambda: backend.int8_linear_forward(x, rows),
        "encode": lambda: backend.encode(weight, "float8_e4m3fn", rounding="toward_zero"),
        "decode": lambda: backend.decode(weight.to(torch.float8_e5m2)),
    }
    for index, q in enumerate(blocks):
        restore = backend.dequantize_double if index == 2 else backend.dequantize_blockwise
        made[f"dequantize, {index}"] = lambda r=restore, q=q: r(q, dtype="bfloat16")
        made[f"quantized_matmul, {index}"] = lambda q=q: backend.quantized_matmul(x, q, bias=bias)
        made[f"qlora_forward, {index}"] = lambda q=q: backend.qlora_forward(x, q, a, b, alpha=2, bias=bias)
        made[f"qlora_backward, {index}"] = lambda q=q: backend.qlora_backward(dy, x, q, a, b, alpha=2)
    return made | {f"step of {kind.__name__}": captured_step(kind) for kind in (AdamW, AdamW8bit)}


def captured_step(kind: Any) -> Any:
    """A step as a CUDA graph would hold it, after one that makes states and tables."""
    p = torch.nn.Parameter(torch.randn(3, 100))
    p.grad, lr = torch.randn(3, 100), torch.tensor(0.01, dtype=torch.float64)
    sizes = {"min_8bit_size": 0} if kind is AdamW8bit else {}
    optimizer = kind([p], lr=lr, capturable=True, **sizes)
    optimizer.step()
    return optimizer.step


def main() -> None:
    """Run each step under the watch."""
    assert kernels_run_on("cpu"), "Triton does not interpret: nothing was shown"
    with Watch():
        try:
            torch.ones(2).sum().item()
        except WaitingError:
            pass
        else:
            raise AssertionError("the watch sees nothing")
    for name, step in steps().items():
        with Watch():
            step()
        sys.stdout.write(f"{name}\n")
    sys.stdout.write("waits: none\n")


if __name__ == "__main__":
    main()
