"""AdamW of bitsandbytes on its own arrays: a step with 32-bit or 8-bit states, a trajectory with save and load."""

import io
from collections.abc import Callable
from typing import Any

import bitsandbytes
import bitsandbytes.functional as library
import torch

Tensor = torch.Tensor


def adamw_step(
    p: Tensor, gradient: Tensor, m: Tensor, v: Tensor, random_bits: Tensor | None, *, step: int, lr: float,
    beta1: float, beta2: float, eps: float, weight_decay: float, nonfinite: str, max_update_norm: float | None,
) -> tuple[Tensor, ...]:  # fmt: skip
    """Make one step with float32 states."""
    p, gradient, m, v = (tensor.clone(memory_format=torch.contiguous_format) for tensor in (p, gradient, m, v))
    limit: dict[str, Any] = (
        {} if max_update_norm is None else {"max_unorm": max_update_norm, "unorm_vec": torch.zeros(1).to(p.device)}
    )
    library.optimizer_update_32bit(
        "adam", gradient, p, m, beta1, eps, step, lr, state2=v, beta2=beta2, weight_decay=weight_decay, **limit
    )
    return p, m, v


def adamw8bit_step(
    p: Tensor, gradient: Tensor, codes_m: Tensor, absmax_m: Tensor, codes_v: Tensor, absmax_v: Tensor, *, step: int,
    lr: float, beta1: float, beta2: float, eps: float, weight_decay: float, nonfinite: str, block_size: int,
) -> tuple[Tensor, ...]:  # fmt: skip
    """Make one step with 8-bit states."""
    given = (p, gradient, codes_m, absmax_m, codes_v, absmax_v)
    p, gradient, codes_m, absmax_m, codes_v, absmax_v = (
        tensor.clone(memory_format=torch.contiguous_format) for tensor in given
    )
    maps = [library.create_dynamic_map(signed=signed).to(p.device) for signed in (True, False)]
    library.optimizer_update_8bit_blockwise(
        "adam", gradient, p, codes_m.view(p.shape), codes_v.view(p.shape), beta1, beta2, 0.0, 0.0, eps, step, lr,
        maps[0], maps[1], absmax_m, absmax_v, weight_decay=weight_decay,
    )  # fmt: skip
    return p, codes_m, absmax_m, codes_v, absmax_v


def optimizer_of(parameter: Tensor, state_bits: int, options: dict[str, Any]) -> Any:
    """Return the library's optimizer of one parameter."""
    betas = (options["beta1"], options["beta2"])
    how = {"lr": options["lr"], "betas": betas, "eps": options["eps"], "weight_decay": options["weight_decay"]}
    if state_bits == 32:
        return bitsandbytes.optim.AdamW32bit([parameter], **how)
    return bitsandbytes.optim.AdamW8bit([parameter], min_8bit_size=1, **how)


def moments_of(state: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Return both moments as float32."""
    if "absmax1" not in state:
        return state["state1"].clone(), state["state2"].clone()
    restored = [
        library.dequantize_blockwise(
            state[f"state{n}"], absmax=state[f"absmax{n}"], code=state[f"qmap{n}"], blocksize=256
        )
        for n in (1, 2)
    ]
    return restored[0], restored[1]


def trajectory(p: Tensor, gradients: Tensor, split: int | None, state_bits: int, options: dict[str, Any]) -> Any:
    """Return p, m and v after all steps, with save and load into a new optimizer after `split` of them."""
    parameter = torch.nn.Parameter(p.clone(memory_format=torch.contiguous_format))
    optimizer = optimizer_of(parameter, state_bits, options)
    for done, gradient in enumerate(gradients):
        if done == split:
            file = io.BytesIO()
            torch.save(optimizer.state_dict(), file)
            file.seek(0)
            optimizer = optimizer_of(parameter, state_bits, options)
            optimizer.load_state_dict(torch.load(file, weights_only=False))
        parameter.grad = gradient.clone(memory_format=torch.contiguous_format)
        optimizer.step()
    return parameter.detach(), *moments_of(optimizer.state[parameter])


def adamw_resumed(p: Tensor, gradients: Tensor, *, split: int, state_bits: int, **options: Any) -> tuple[Tensor, ...]:
    """Return p, m and v after all steps with save and load on the way, then the same in one go."""
    return (
        *trajectory(p, gradients, split, state_bits, options),
        *trajectory(p, gradients, None, state_bits, options),
    )


OPS: dict[str, Callable[..., Any]] = {
    "adamw_step": adamw_step,
    "adamw8bit_step": adamw8bit_step,
    "adamw_resumed": adamw_resumed,
}
