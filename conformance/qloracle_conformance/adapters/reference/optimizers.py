"""Optimizers of the reference on host arrays."""

from collections.abc import Callable
from typing import Any

import numpy as np

from qloracle.formats import Array
from qloracle.optim import accumulate, clipping
from qloracle.optim.adamw import AdamwState, adamw_init, adamw_step
from qloracle.optim.adamw8bit import Adamw8bitState, adamw8bit_init, adamw8bit_step, dequantize_moments
from qloracle.optim.options import AdamwOptions
from qloracle.optim.paged import fetch_state, page_states, store_state
from qloracle.optim.paging import page_in, page_plan
from qloracle.optim.state import state_arrays, state_from_arrays
from qloracle.rounding import encode
from qloracle_conformance.arrays import HostArray, host
from qloracle_conformance.operations.adamw import adamw_options

State = AdamwState | Adamw8bitState


def adamw_state(m: HostArray, v: HostArray, step: int) -> AdamwState:
    """Return the state before step `step`."""
    return AdamwState(m.items, v.items, step - 1)


def _adamw_step(
    p: HostArray, gradient: HostArray, m: HostArray, v: HostArray, random_bits: HostArray | None, **options: Any
) -> tuple[HostArray, ...]:
    bits = None if random_bits is None else random_bits.items
    state = adamw_state(m, v, options["step"])
    new, after = adamw_step(p.items, gradient.items, state, adamw_options(options), fmt=p.dtype, random_bits=bits)
    return HostArray(new, p.dtype), host(after.m), host(after.v)


def _adamw8bit_step(
    p: HostArray, gradient: HostArray, codes_m: HostArray, absmax_m: HostArray, codes_v: HostArray,
    absmax_v: HostArray, *, step: int, block_size: int, **options: Any,
) -> tuple[HostArray, ...]:  # fmt: skip
    state = Adamw8bitState(codes_m.items, absmax_m.items, codes_v.items, absmax_v.items, step - 1, block_size)
    new, after = adamw8bit_step(p.items, gradient.items, state, adamw_options(options), fmt=p.dtype)
    parts = (after.codes_m, after.absmax_m, after.codes_v, after.absmax_v)
    return HostArray(new, p.dtype), *(host(part) for part in parts)


def rounded_once(real: Array, dtype: str) -> HostArray:
    """Return real numbers rounded to a format."""
    return host(np.asarray(encode(real, dtype)), dtype)


def _clip_by_norm(first: HostArray, second: HostArray, *, max_norm: float) -> tuple[HostArray, ...]:
    clipped = clipping.clip_by_norm([first.items, second.items], max_norm, fmt=first.dtype)
    return tuple(rounded_once(tensor, first.dtype) for tensor in clipped)


def _accumulate_gradients(gradients: HostArray, counts: HostArray, *, reduction: str) -> HostArray:
    real = accumulate.accumulate_gradients(gradients.items, counts.items, reduction=reduction, fmt=gradients.dtype)
    return rounded_once(real, gradients.dtype)


def _accumulated_step(
    p: HostArray, gradients: HostArray, counts: HostArray, m: HostArray, v: HostArray, *, reduction: str, step: int,
    **options: Any,
) -> tuple[HostArray, ...]:  # fmt: skip
    gradient, new, state = accumulate.accumulated_step(
        p.items, gradients.items, counts.items, adamw_state(m, v, step), adamw_options(options),
        reduction=reduction, fmt=p.dtype,
    )  # fmt: skip
    return HostArray(gradient, p.dtype), HostArray(new, p.dtype), host(state.m), host(state.v)


def _page_in(sizes: HostArray, accesses: HostArray, *, budget: int) -> HostArray:
    plan = page_plan({str(i): int(size) for i, size in enumerate(sizes.items)}, budget)
    resident = np.zeros((accesses.items.size, sizes.items.size), np.bool_)
    for row, access in zip(resident, accesses.items, strict=True):
        plan, _ = page_in(plan, str(access))
        row[[int(name) for name in plan.resident]] = True
    return host(resident)


def initial_state(size: int, state_bits: int) -> State:
    """Return a state of 32 or 8 bits before the first step."""
    return adamw_init((size,)) if state_bits == 32 else adamw8bit_init((size,))


def one_step(p: Array, gradient: Array, state: State, options: AdamwOptions, fmt: str) -> tuple[Array, State]:
    """Make a step with a state of either kind."""
    if isinstance(state, AdamwState):
        return adamw_step(p, gradient, state, options, fmt=fmt)
    return adamw8bit_step(p, gradient, state, options, fmt=fmt)


def moments_of(state: State, size: int) -> tuple[Array, Array]:
    """Return the moments of a state of either kind as float32."""
    plain = state if isinstance(state, AdamwState) else dequantize_moments(state, (size,))
    return plain.m, plain.v


def joined(p: list[Array], states: list[State], dtype: str) -> tuple[HostArray, ...]:
    """Return the outputs of a trajectory: parameters and moments of all tensors one after the other."""
    moments = [moments_of(state, part.size) for part, state in zip(p, states, strict=True)]
    return (
        HostArray(np.concatenate(p), dtype),
        host(np.concatenate([m for m, _ in moments])),
        host(np.concatenate([v for _, v in moments])),
    )


def split_tensors(items: Array, sizes: tuple[int, ...]) -> list[Array]:
    """Return the tensors that lie one after the other along the last axis."""
    return np.split(items, np.cumsum(sizes)[:-1], axis=-1)


def trajectory(p: HostArray, gradients: HostArray, sizes: tuple[int, ...], **options: Any) -> tuple[HostArray, ...]:
    """Return parameters and moments after all steps, with all states in place."""
    chosen, tensors = adamw_options(options), split_tensors(p.items, sizes)
    states = [initial_state(size, options["state_bits"]) for size in sizes]
    for row in gradients.items:
        for index, gradient in enumerate(split_tensors(row, sizes)):
            tensors[index], states[index] = one_step(tensors[index], gradient, states[index], chosen, p.dtype)
    return joined(tensors, states, p.dtype)


def _adamw_paged(
    p: HostArray, gradients: HostArray, *, sizes: tuple[int, ...], budget: int, **options: Any
) -> tuple[HostArray, ...]:
    sizes, chosen = tuple(sizes), adamw_options(options)
    tensors = split_tensors(p.items, sizes)
    states = {str(i): state_arrays(initial_state(size, options["state_bits"])) for i, size in enumerate(sizes)}
    bytes_of = {name: sum(array.nbytes for array in state.values()) for name, state in states.items()}
    most = max(bytes_of[str(i)] / size for i, size in enumerate(sizes))
    paged = page_states(states, max(int(budget * most), *bytes_of.values()))
    for row in gradients.items:
        for index, gradient in enumerate(split_tensors(row, sizes)):
            paged, arrays = fetch_state(paged, str(index))
            tensors[index], after = one_step(tensors[index], gradient, state_from_arrays(arrays), chosen, p.dtype)
            paged = store_state(paged, str(index), state_arrays(after))
    last: list[State] = []
    for index in range(len(sizes)):
        paged, arrays = fetch_state(paged, str(index))
        last.append(state_from_arrays(arrays))
    return *joined(tensors, last, p.dtype), *trajectory(p, gradients, sizes, **options)


def _adamw_resumed(p: HostArray, gradients: HostArray, *, split: int, **options: Any) -> tuple[HostArray, ...]:
    size, chosen = p.items.size, adamw_options(options)
    items, state = p.items, initial_state(p.items.size, options["state_bits"])
    for done, gradient in enumerate(gradients.items):
        if done == split:
            state = state_from_arrays(state_arrays(state))
        items, state = one_step(items, gradient, state, chosen, p.dtype)
    return *joined([items], [state], p.dtype), *trajectory(p, gradients, (size,), **options)


OPS: dict[str, Callable[..., Any]] = {
    "adamw_step": _adamw_step,
    "adamw8bit_step": _adamw8bit_step,
    "clip_by_norm": _clip_by_norm,
    "accumulate_gradients": _accumulate_gradients,
    "accumulated_step": _accumulated_step,
    "page_in": _page_in,
    "adamw_paged": _adamw_paged,
    "adamw_resumed": _adamw_resumed,
}
