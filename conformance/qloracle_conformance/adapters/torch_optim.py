"""torch.optim as a backend: AdamW, its state through save and load, and the limit on the norm of gradients."""

import io
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from qloracle_conformance.adapters.torch_arrays import LAYOUTS, Placer, environment, fetch, placed
from qloracle_conformance.backend import Backend, Claim

Tensor = torch.Tensor
ADAMW = "https://docs.pytorch.org/docs/stable/generated/torch.optim.AdamW.html"
CLIP = "https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.clip_grad_norm_.html"


def optimizer_of(parameter: Tensor, options: dict[str, Any]) -> torch.optim.AdamW:
    """Return the optimizer of one parameter."""
    betas = (options["beta1"], options["beta2"])
    return torch.optim.AdamW(
        [parameter], lr=options["lr"], betas=betas, eps=options["eps"], weight_decay=options["weight_decay"]
    )


def adamw_step(
    p: Tensor, gradient: Tensor, m: Tensor, v: Tensor, random_bits: Tensor | None, *, step: int, nonfinite: str,
    max_update_norm: float | None, **options: Any,
) -> tuple[Tensor, ...]:  # fmt: skip
    """Make one step from given moments."""
    parameter = torch.nn.Parameter(p.clone())
    optimizer = optimizer_of(parameter, options)
    state = {"step": torch.tensor(float(step - 1)), "exp_avg": m.clone(), "exp_avg_sq": v.clone()}
    optimizer.state[parameter] = state
    parameter.grad = gradient.clone()
    optimizer.step()
    return parameter.detach(), state["exp_avg"], state["exp_avg_sq"]


def trajectory(p: Tensor, gradients: Tensor, split: int | None, options: dict[str, Any]) -> tuple[Tensor, ...]:
    """Return p, m and v after all steps, with save and load into a new optimizer after `split` of them."""
    parameter = torch.nn.Parameter(p.clone())
    optimizer = optimizer_of(parameter, options)
    for done, gradient in enumerate(gradients):
        if done == split:
            file = io.BytesIO()
            torch.save(optimizer.state_dict(), file)
            file.seek(0)
            optimizer = optimizer_of(parameter, options)
            optimizer.load_state_dict(torch.load(file, weights_only=True))
        parameter.grad = gradient.clone()
        optimizer.step()
    state = optimizer.state[parameter]
    return parameter.detach(), state["exp_avg"], state["exp_avg_sq"]


def adamw_resumed(p: Tensor, gradients: Tensor, *, split: int, state_bits: int, **options: Any) -> tuple[Tensor, ...]:
    """Return p, m and v after all steps with save and load on the way, then the same in one go."""
    return (*trajectory(p, gradients, split, options), *trajectory(p, gradients, None, options))


def clip_by_norm(first: Tensor, second: Tensor, *, max_norm: float) -> tuple[Tensor, Tensor]:
    """Limit the common norm of two gradients."""
    parameters = [torch.nn.Parameter(torch.zeros_like(t)) for t in (first, second)]
    for parameter, gradient in zip(parameters, (first, second), strict=True):
        parameter.grad = gradient.clone()
    torch.nn.utils.clip_grad_norm_(parameters, max_norm)
    return tuple(parameter.grad for parameter in parameters)  # type: ignore[return-value]


OPS: dict[str, Callable[..., Any]] = {
    "adamw_step": adamw_step,
    "adamw_resumed": adamw_resumed,
    "clip_by_norm": clip_by_norm,
}


def backend(device: str = "cpu") -> Backend:
    """Return torch.optim as a backend on a device; moments have the format of the parameter, so all is float32."""
    used = Placer(device).device
    how: dict[str, Any] = {"layouts": LAYOUTS, "dtypes": ("float32",)}
    claims = (
        Claim("adamw.step", {"*": "bound"}, basis="promised", source=ADAMW, **how),
        Claim("adamw.nonfinite", {"*": "bound"}, source=f"{ADAMW}: its algorithm has no case for them", **how),
        Claim("adamw.resume", {"*": "exact"}, source="state_dict holds it all", options={"state_bits": (32,)}, **how),
        Claim("gradient.clip", {"*": "bound"}, layouts=LAYOUTS, source=CLIP),
    )
    place = partial(placed, device=str(used))
    return Backend("torch_optim", torch.__version__, place, fetch, OPS, claims, environment(used))
