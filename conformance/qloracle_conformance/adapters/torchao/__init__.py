"""torchao as a backend: affine quantization, NF4, float8, the INT8 product and 8-bit AdamW, on any device of torch.

What torchao stores in another form than the specification has no operation here: absmax INT8, for torchao keeps a
scale; double quantization, whose nested scales are linear; LLM.int8(). Its documentation promises formulas where a
claim says so; the rest follows its own code.
"""

from collections.abc import Callable, Mapping
from functools import partial
from importlib.metadata import version
from typing import Any

from qloracle_conformance.adapters.torch_arrays import Placer, environment, fetch, placed
from qloracle_conformance.adapters.torchao import affine, float8, layers, nf4, optimizers
from qloracle_conformance.adapters.torchao.claims import CLAIMS
from qloracle_conformance.backend import Backend

OPS: Mapping[str, Callable[..., Any]] = {**affine.OPS, **float8.OPS, **layers.OPS, **optimizers.OPS}


def backend(device: str = "cpu") -> Backend:
    """Return torchao as a backend on a device."""
    used = Placer(device).device
    place = partial(placed, device=str(used))
    ops: dict[str, Callable[..., Any]] = {
        **OPS,
        **nf4.OPS,
        "codebook_entries": partial(nf4.codebook_entries, device=str(used)),
    }
    return Backend("torchao", version("torchao"), place, fetch, ops, CLAIMS, environment(used))
