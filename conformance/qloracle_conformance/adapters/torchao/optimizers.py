"""AdamW of torchao on its own arrays: the function of one parameter that its optimizers compile, run without compiling.

A compiler may contract or reorder; that is another implementation, which these claims say nothing of.
"""

from collections.abc import Callable
from typing import Any

import torch
from torchao.optim.adam import single_param_adam
from torchao.optim.subclass_8bit import OptimState8bit

Tensor = torch.Tensor


def adamw_step(
    p: Tensor, gradient: Tensor, m: Tensor, v: Tensor, random_bits: Tensor | None, *, step: int, lr: float,
    beta1: float, beta2: float, eps: float, weight_decay: float, nonfinite: str, max_update_norm: float | None,
) -> tuple[Tensor, ...]:  # fmt: skip
    """Make one step with float32 states."""
    p, m, v = p.clone(), m.clone(), v.clone()
    single_param_adam(
        p, gradient, torch.tensor(float(step)), m, v, None, torch.tensor(lr), beta1, beta2, weight_decay, eps,
        IS_ADAMW=True, BF16_STOCHASTIC_ROUND=False,
    )  # fmt: skip
    return p, m, v


def state_8bit(codes: Tensor, absmax: Tensor, missing: int, *, signed: bool) -> OptimState8bit:
    """Return a state of whole blocks: torchao has no others, so that codes of zero fill the last one."""
    table = OptimState8bit.zeros((256,), signed=signed, block_size=256, device=codes.device).qmap
    zero = int(torch.argmin(table.abs()))
    whole = torch.nn.functional.pad(codes, (0, missing), value=zero).clone()
    return OptimState8bit(whole, absmax.clone(), table, signed)


def adamw8bit_step(
    p: Tensor, gradient: Tensor, codes_m: Tensor, absmax_m: Tensor, codes_v: Tensor, absmax_v: Tensor, *, step: int,
    lr: float, beta1: float, beta2: float, eps: float, weight_decay: float, nonfinite: str, block_size: int,
) -> tuple[Tensor, ...]:  # fmt: skip
    """Make one step with 8-bit states; parameters and gradients of zero stand where the last block is filled up."""
    size, missing = p.numel(), absmax_m.numel() * block_size - p.numel()
    flat, slope = (torch.nn.functional.pad(t.reshape(-1), (0, missing)) for t in (p, gradient))
    flat = flat.clone()
    m = state_8bit(codes_m, absmax_m, missing, signed=True)
    v = state_8bit(codes_v, absmax_v, missing, signed=False)
    single_param_adam(
        flat, slope, torch.tensor(float(step)), m, v, None, torch.tensor(lr), beta1, beta2, weight_decay, eps,
        IS_ADAMW=True, BF16_STOCHASTIC_ROUND=False,
    )  # fmt: skip
    return flat[:size].reshape(p.shape), m.codes[:size], m.scale, v.codes[:size], v.scale


OPS: dict[str, Callable[..., Any]] = {"adamw_step": adamw_step, "adamw8bit_step": adamw8bit_step}
