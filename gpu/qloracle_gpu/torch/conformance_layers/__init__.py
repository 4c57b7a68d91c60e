"""The modules of the torch backend as the conformance suite sees them: a backend of their own, `torch-layers`.

Whatever a module does is asked of the module: products of its `forward`, gradients of torch's autograd, merges of
`merge` and `unmerge`, starts of its constructor. The rest is asked of the functions. Dropout masks and random starts
replace what torch draws, inside of the module's own code.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from qloracle_conformance import Backend
from qloracle_conformance.adapters.torch_arrays import Placer, environment, fetch
from qloracle_gpu.torch.conformance_layers import adapters, decomposed, layers, merges, stored
from qloracle_gpu.torch.conformance_layers.claims import claims
from qloracle_gpu.torch.kernels.availability import kernels_of


def made_backend(device: str = "cpu", *, compute_dtype: str = "float32") -> Backend:
    """Return the modules on a device, with everything that they promise; quantized layers have one compute dtype."""
    placer = Placer(device)
    around = {**environment(placer.device), "kernels": kernels_of(placer.device.type), "compute_dtype": compute_dtype}
    quantized = {**layers.QUANTIZED, **decomposed.OPS}
    ops: dict[str, Callable[..., Any]] = {
        **{name: partial(op, compute_dtype=compute_dtype) for name, op in quantized.items()},
        **layers.OPS, **merges.OPS, **stored.OPS, **adapters.OPS,
    }  # fmt: skip
    return Backend("torch-layers", torch.__version__, placer.place, fetch, ops, claims(compute_dtype), around)


backend = partial(made_backend, compute_dtype="float32")
backend_bfloat16 = partial(made_backend, compute_dtype="bfloat16")
backend_float16 = partial(made_backend, compute_dtype="float16")
