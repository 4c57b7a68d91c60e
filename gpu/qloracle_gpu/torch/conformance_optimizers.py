"""The optimizers of the torch backend as the conformance suite sees them: a backend of their own, `torch-adamw`.

Single steps are those of the functions; paged and resumed trajectories those of the `torch.optim.Optimizer` classes.
"""

import io
from collections.abc import Callable, Sequence
from typing import Any

import torch

import qloracle_gpu.torch as q
from qloracle_conformance import Backend, Claim, Roundings
from qloracle_conformance.adapters.torch_arrays import LAYOUTS, Placer, environment, fetch
from qloracle_gpu.torch.kernels.availability import kernels_of
from qloracle_gpu.torch.optim import AdamW, AdamW8bit, PagedAdamW, PagedAdamW8bit
from qloracle_gpu.torch.optim.accumulate import REDUCTIONS
from qloracle_gpu.torch.optim.options import NONFINITE
from qloracle_gpu.torch.optim.states import size_of_state

Tensor = torch.Tensor
SUMS = (
    "adamw.step", "adamw.nonfinite", "adamw.stochastic", "adamw.limited", "adamw8bit.step", "gradient.clip",
    "gradient.accumulate", "accumulate.step",
)  # fmt: skip
EXACT = ("paged.plan", "adamw.paged", "adamw.resume")
BITS: dict[str, tuple[object, ...]] = {"state_bits": (32, 8)}
OPTIONS: dict[str, dict[str, tuple[object, ...]]] = {
    **{name: {"nonfinite": NONFINITE} for name in ("adamw.nonfinite", "adamw.stochastic", "adamw8bit.step")},
    "gradient.accumulate": {"reduction": REDUCTIONS},
    "accumulate.step": {"reduction": REDUCTIONS},
    "adamw.paged": BITS,
    "adamw.resume": BITS,
}
SOURCE = "qloracle_gpu.torch.optim documents the reference's rules as its own"


def backend(device: str = "cpu") -> Backend:
    """Return the optimizers on a device, with everything that they promise."""
    placer = Placer(device)
    claims = tuple(
        Claim(
            operation=name,
            levels={"*": "exact" if name in EXACT else "bound"},
            layouts=LAYOUTS,
            options=OPTIONS.get(name, {}),
            roundings=Roundings(accumulate="float32", hyperparameters="float64"),
            basis="promised",
            source=SOURCE,
        )
        for name in (*SUMS, *EXACT)
    )
    around = {**environment(placer.device), "kernels": kernels_of(placer.device.type)}
    return Backend("torch-adamw", torch.__version__, placer.place, fetch, OPS, claims, around)


def _options(options: dict[str, Any]) -> q.AdamwOptions:
    return q.AdamwOptions(**{name: value for name, value in options.items() if name not in ("step", "reduction")})


def _adamw_step(
    p: Tensor, gradient: Tensor, m: Tensor, v: Tensor, random_bits: Tensor | None, *, step: int, **options: Any
) -> tuple[Tensor, ...]:
    state = q.AdamwState(m, v, step - 1)
    new, after = q.adamw_step(p, gradient, state, _options(options), random_bits=random_bits)
    return new, after.m, after.v


def _adamw8bit_step(
    p: Tensor, gradient: Tensor, codes_m: Tensor, absmax_m: Tensor, codes_v: Tensor, absmax_v: Tensor, *, step: int,
    block_size: int, **options: Any,
) -> tuple[Tensor, ...]:  # fmt: skip
    state = q.Adamw8bitState(codes_m, absmax_m, codes_v, absmax_v, step - 1, block_size)
    new, after = q.adamw8bit_step(p, gradient, state, _options(options))
    return new, *after.tensors


def _clip_by_norm(first: Tensor, second: Tensor, *, max_norm: float) -> tuple[Tensor, ...]:
    return tuple(q.clip_by_norm([first, second], max_norm))


def _accumulated_step(
    p: Tensor, gradients: Tensor, counts: Tensor, m: Tensor, v: Tensor, *, step: int, reduction: str, **options: Any
) -> tuple[Tensor, ...]:
    state = q.AdamwState(m, v, step - 1)
    gradient, new, after = q.accumulated_step(p, gradients, counts, state, _options(options), reduction=reduction)
    return gradient, new, after.m, after.v


def _page_in(sizes: Tensor, accesses: Tensor, *, budget: int) -> Tensor:
    plan = q.page_plan({str(index): size for index, size in enumerate(sizes.tolist())}, budget)
    resident = torch.zeros(accesses.numel(), sizes.numel(), dtype=torch.bool, device=sizes.device)
    for row, access in zip(resident, accesses.tolist(), strict=True):
        plan, _ = q.page_in(plan, str(access))
        row[[int(name) for name in plan.resident]] = True
    return resident


def _optimizer(parameters: Sequence[Tensor], state_bits: int, options: dict[str, Any], **paging: Any) -> Any:
    how = {name: options[name] for name in ("lr", "eps", "weight_decay")}
    how["betas"] = (options["beta1"], options["beta2"])
    if state_bits == 32:
        return (PagedAdamW if paging else AdamW)(parameters, **how, **paging)
    return (PagedAdamW8bit if paging else AdamW8bit)(parameters, **how, **paging, min_8bit_size=0)


def _tensors(p: Tensor, sizes: tuple[int, ...]) -> list[torch.nn.Parameter]:
    return [torch.nn.Parameter(part.clone()) for part in _parts(p, sizes)]


def _parts(row: Tensor, sizes: tuple[int, ...]) -> tuple[Tensor, ...]:
    return tuple(torch.split_with_sizes(row, list(sizes)))


def _step(optimizer: Any, tensors: list[torch.nn.Parameter], row: Tensor) -> None:
    for tensor, gradient in zip(tensors, _parts(row, tuple(tensor.numel() for tensor in tensors)), strict=True):
        tensor.grad = gradient.clone()
    optimizer.step()


def _outputs(optimizer: Any, tensors: list[torch.nn.Parameter]) -> tuple[Tensor, ...]:
    """Return parameters and moments, one tensor after the other, as they are saved."""
    saved, moments = optimizer.state_dict()["state"], []
    for index, tensor in enumerate(tensors):
        state: dict[str, Any] = {
            key: value.to(tensor.device) if isinstance(value, Tensor) else value for key, value in saved[index].items()
        }
        if "m" not in state:
            plain = q.dequantize_moments(q.Adamw8bitState(**state), tuple(tensor.shape))
            state = {"m": plain.m, "v": plain.v}
        moments.append((state["m"], state["v"]))
    parts = [tensor.detach() for tensor in tensors], [m for m, _ in moments], [v for _, v in moments]
    return tuple(torch.cat(part) for part in parts)


def _adamw_paged(
    p: Tensor, gradients: Tensor, *, sizes: tuple[int, ...], budget: int, state_bits: int, **options: Any
) -> tuple[Tensor, ...]:
    block_size = None if state_bits == 32 else 256
    bytes_of = [size_of_state(part, block_size) for part in _parts(p, sizes)]
    most = max(size / count for size, count in zip(bytes_of, sizes, strict=True))
    found: list[Tensor] = []
    for paging in ({"page_budget": max(int(budget * most), *bytes_of)}, {}):
        tensors = _tensors(p, sizes)
        optimizer = _optimizer(tensors, state_bits, options, **paging)
        for row in gradients:
            _step(optimizer, tensors, row)
        found += _outputs(optimizer, tensors)
    return tuple(found)


def _adamw_resumed(p: Tensor, gradients: Tensor, *, split: int, state_bits: int, **options: Any) -> tuple[Tensor, ...]:
    found: list[Tensor] = []
    for at in (split, None):
        tensors = _tensors(p, (p.numel(),))
        optimizer = _optimizer(tensors, state_bits, options)
        for done, row in enumerate(gradients):
            if done == at:
                file = io.BytesIO()
                torch.save(optimizer.state_dict(), file)
                file.seek(0)
                optimizer = _optimizer(tensors, state_bits, options)
                optimizer.load_state_dict(torch.load(file, weights_only=True))
            _step(optimizer, tensors, row)
        found += _outputs(optimizer, tensors)
    return tuple(found)


OPS: dict[str, Callable[..., Any]] = {
    "adamw_step": _adamw_step,
    "adamw8bit_step": _adamw8bit_step,
    "clip_by_norm": _clip_by_norm,
    "accumulate_gradients": q.accumulate_gradients,
    "accumulated_step": _accumulated_step,
    "page_in": _page_in,
    "adamw_paged": _adamw_paged,
    "adamw_resumed": _adamw_resumed,
}
