"""Hold interpreted steps of AdamW against the reference; print how many parameters were judged.

Run in a process of its own, with TRITON_INTERPRET=1. With β = 0 the new moment is the gradient itself, so that
gradients beside the boundaries between codes, for absmax of every magnitude, put the moments there.
"""

from dataclasses import replace
from itertools import product

import numpy as np
import torch
from boundaries import beside_boundaries, with_specials  # type: ignore[import-not-found]  # run as a script
from step_judging import (  # type: ignore[import-not-found]
    FORMATS,
    judged_step,
    judged_step_8bit,
    native,
    require_same_bits,
)

import qloracle_gpu.torch as backend
from qloracle.formats import Array
from qloracle.tables import CODEBOOKS
from qloracle_gpu.torch.kernels.availability import kernels_of
from qloracle_gpu.torch.optim import AdamW, AdamW8bit
from qloracle_gpu.torch.optim.options import NONFINITE

BLOCK_SIZES = (1, 2, 7, 100, 256, 4096, 5000)  # the last one is more than a kernel takes whole
PLAIN = backend.AdamwOptions(lr=0.02, beta1=0.8, beta2=0.95, eps=1e-6, weight_decay=0.3)
GRADIENT_ALONE = backend.AdamwOptions(lr=0.5, beta1=0.0, beta2=0.0, eps=1e-20, weight_decay=0.125)


def gradients(rng: np.random.Generator, block_size: int) -> Array:
    """Blocks near boundaries and blocks with specials; the last one is short."""
    blocks, boundaries = max(2, 1000 // block_size), CODEBOOKS["dynamic_signed"].midpoints
    parts = beside_boundaries(rng, boundaries, blocks, block_size), with_specials(rng, blocks, block_size)
    flat: Array = np.concatenate([part.reshape(-1) for part in parts])
    return flat[: flat.size - block_size // 2]


def same_as_eager(
    p: torch.Tensor, gradient: torch.Tensor, state: backend.AdamwState, options: backend.AdamwOptions
) -> None:
    """Compare a step of the kernel with the eager functions, bit for bit."""
    new, after = backend.adamw_step(p, gradient, state, options)
    m, v = backend.adamw_moments(gradient, state.m, state.v, options)
    require_same_bits(after.m, m, "m of the kernel and of eager code")
    require_same_bits(after.v, v, "v of the kernel and of eager code")
    if options.nonfinite == "propagate":
        eager = backend.adamw_parameter(p, m, v, options, step=after.step).to(p.dtype)
        require_same_bits(new, eager, "p of the kernel and of eager code")


def trajectory(
    rng: np.random.Generator, fmt: str, block_size: int, options: backend.AdamwOptions, stochastic: bool
) -> int:
    """Judge three steps in 8 bits from each other's states, and in 32 bits; the second gradient is ordinary."""
    first = gradients(rng, block_size)
    p, count = native(rng.standard_normal(first.size).astype(np.float32), fmt), 0
    start = backend.adamw8bit_init(tuple(p.shape), block_size=block_size)
    codes = torch.from_numpy(rng.integers(0, 256, p.numel(), dtype=np.uint8))
    state = replace(start, codes_m=codes, codes_v=codes.flip(0))  # with absmax 0, whatever the codes are, all is 0
    last = first[::-1].copy()
    for lost, place in ((np.nan, 0), (np.inf, 11), (-np.inf, 23)):  # where the moments are something by then
        last[place :: 97 if options.nonfinite != "propagate" else 1997] = lost
    for values in (first, rng.standard_normal(first.size).astype(np.float32), last):
        gradient = native(values, fmt)
        bits = rng.integers(0, 2**32, p.numel(), dtype=np.uint32) if stochastic else None
        same_as_eager(p, gradient, backend.dequantize_moments(state, tuple(p.shape)), options)
        p, state, judged = judged_step_8bit(p, gradient, state, options, bits)
        count += judged
    return count


def limited(rng: np.random.Generator, fmt: str) -> int:
    """Judge steps with a limit on the norm of the update, below and above which it is."""
    p, gradient = (native(rng.standard_normal(777).astype(np.float32), fmt) for _ in range(2))
    count = 0
    for most in (0.25, 4.0):
        options = backend.AdamwOptions(lr=0.1, beta1=0.5, beta2=0.75, max_update_norm=most)
        count += judged_step(p, gradient, backend.adamw_init((777,)), options)[2]
    return count


def steps_for_graphs(rng: np.random.Generator, fmt: str) -> None:
    """Compare steps that a CUDA graph could hold with others, bit for bit; their constants come from the device."""
    start, how = native(rng.standard_normal(1000).astype(np.float32), fmt), {"betas": (0.8, 0.95), "weight_decay": 0.3}
    for kind, sizes in ((AdamW, {}), (AdamW8bit, {"min_8bit_size": 0, "block_size": 100})):
        plain, captured = (torch.nn.Parameter(start.clone()) for _ in range(2))
        lr = torch.tensor(0.02, dtype=torch.float64)
        optimizers = kind([plain], lr=0.02, **how, **sizes), kind([captured], lr=lr, **how, **sizes, capturable=True)
        for _ in range(3):
            plain.grad = native(rng.standard_normal(1000).astype(np.float32), fmt)
            captured.grad = plain.grad.clone()
            for optimizer in optimizers:
                optimizer.step()
        require_same_bits(captured.detach(), plain.detach(), f"p of {kind.__name__} in {fmt}")
        for key, value in optimizers[0].state[plain].items():
            if isinstance(value, torch.Tensor):
                require_same_bits(optimizers[1].state[captured][key], value, f"{key} of {kind.__name__} in {fmt}")


def main() -> None:
    assert kernels_of("cpu").startswith("triton"), "the kernels are not interpreted here"
    rng = np.random.default_rng(11)
    count = sum(trajectory(rng, fmt, size, PLAIN, False) for fmt, size in product(FORMATS, BLOCK_SIZES))
    count += sum(trajectory(rng, "float32", size, GRADIENT_ALONE, False) for size in BLOCK_SIZES)
    for fmt, nonfinite in product(("float16", "bfloat16"), NONFINITE):
        options = backend.AdamwOptions(lr=0.02, weight_decay=0.3, nonfinite=nonfinite)
        count += trajectory(rng, fmt, 256, options, True)
    count += sum(limited(rng, fmt) for fmt in FORMATS)
    for fmt in FORMATS:
        steps_for_graphs(rng, fmt)
    assert backend.adamw_step(torch.ones(0), torch.ones(0), backend.adamw_init((0,)), PLAIN)[0].shape == (0,)
    print(count)  # noqa: T201


if __name__ == "__main__":
    main()
