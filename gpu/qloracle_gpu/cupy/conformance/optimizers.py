"""Optimizers of the suite by means of the public functions of the backend."""

from collections.abc import Callable
from typing import Any

import numpy as np

import qloracle_gpu.cupy as q
from qloracle_gpu.cupy.conformance.layers import NAMES
from qloracle_gpu.cupy.conformance.operations import Native, native
from qloracle_gpu.cupy.launcher import Array, Operation, operation

State = q.AdamwState | q.Adamw8bitState


def _adamw_step(
    p: Native, gradient: Native, m: Native, v: Native, random_bits: Native | None, *, step: int, **options: Any
) -> tuple[Native, ...]:
    bits, state = None if random_bits is None else random_bits.array, q.AdamwState(m.array, v.array, step - 1)
    new, after = q.adamw_step(
        p.array, gradient.array, state, q.AdamwOptions(**options), fmt=NAMES[p.dtype], random_bits=bits
    )
    return Native(new, p.dtype), native(after.m), native(after.v)


def _adamw8bit_step(
    p: Native, gradient: Native, codes_m: Native, absmax_m: Native, codes_v: Native, absmax_v: Native, *, step: int,
    block_size: int, **options: Any,
) -> tuple[Native, ...]:  # fmt: skip
    parts = (codes_m.array, absmax_m.array, codes_v.array, absmax_v.array)
    state = q.Adamw8bitState(*parts, step=step - 1, block_size=block_size)
    new, after = q.adamw8bit_step(p.array, gradient.array, state, q.AdamwOptions(**options), fmt=NAMES[p.dtype])
    made = (after.codes_m, after.absmax_m, after.codes_v, after.absmax_v)
    return Native(new, p.dtype), *(native(part) for part in made)


def _clip_by_norm(first: Native, second: Native, *, max_norm: float) -> tuple[Native, ...]:
    clipped = q.clip_by_norm([first.array, second.array], max_norm, fmt=NAMES[first.dtype])
    return tuple(Native(tensor, first.dtype) for tensor in clipped)


def _accumulate_gradients(gradients: Native, counts: Native, *, reduction: str) -> Native:
    fmt = NAMES[gradients.dtype]
    made = q.accumulate_gradients(gradients.array, counts.array, reduction=reduction, fmt=fmt)
    return Native(made, gradients.dtype)


def _accumulated_step(
    p: Native, gradients: Native, counts: Native, m: Native, v: Native, *, reduction: str, step: int, **options: Any
) -> tuple[Native, ...]:
    state = q.AdamwState(m.array, v.array, step - 1)
    gradient, new, after = q.accumulated_step(
        p.array, gradients.array, counts.array, state, q.AdamwOptions(**options), reduction=reduction,
        fmt=NAMES[p.dtype],
    )  # fmt: skip
    return Native(gradient, p.dtype), Native(new, p.dtype), native(after.m), native(after.v)


def _page_in(sizes: Native, accesses: Native, *, budget: int) -> Native:
    plan = q.page_plan({str(i): size for i, size in enumerate(sizes.array.tolist())}, budget)
    resident = np.zeros((accesses.array.size, sizes.array.size), np.bool_)
    for row, access in zip(resident, accesses.array.tolist(), strict=True):
        plan, _ = q.page_in(plan, str(access))
        row[[int(name) for name in plan.resident]] = True
    with operation("page_in") as run:
        return native(run.from_host(resident))


def _initial_state(size: int, state_bits: int) -> State:
    return q.adamw_init((size,)) if state_bits == 32 else q.adamw8bit_init((size,))


def _one_step(p: Array, gradient: Array, state: State, options: q.AdamwOptions, fmt: str | None) -> tuple[Array, State]:
    if isinstance(state, q.AdamwState):
        return q.adamw_step(p, gradient, state, options, fmt=fmt)
    return q.adamw8bit_step(p, gradient, state, options, fmt=fmt)


def _joined(tensors: list[Array], states: list[State], dtype: str) -> tuple[Native, ...]:
    """Return parameters and moments of all tensors one after the other."""
    plain = [
        state if isinstance(state, q.AdamwState) else q.dequantize_moments(state, part.shape)
        for part, state in zip(tensors, states, strict=True)
    ]
    with operation("joined") as run:
        moments = ([state.m for state in plain], [state.v for state in plain])
        return Native(_concatenated(run, tensors), dtype), *(native(_concatenated(run, parts)) for parts in moments)


def _concatenated(run: Operation, parts: list[Array]) -> Array:
    made, first = run.empty(sum(part.size for part in parts), parts[0].dtype), 0
    for part in parts:
        made[first : first + part.size] = part
        first += part.size
    return made


def _split(array: Array, sizes: tuple[int, ...]) -> list[Array]:
    """Return the tensors that lie one after the other along the last axis."""
    ends = np.cumsum(sizes).tolist()
    return [array[..., end - size : end] for size, end in zip(sizes, ends, strict=True)]


def _trajectory(p: Native, gradients: Native, sizes: tuple[int, ...], state_bits: int, **numbers: Any) -> Any:
    """Return parameters and moments after all steps, with all states in place."""
    options, tensors = q.AdamwOptions(**numbers), _split(p.array, sizes)
    states = [_initial_state(size, state_bits) for size in sizes]
    for row in gradients.array:
        for index, gradient in enumerate(_split(row, sizes)):
            tensors[index], states[index] = _one_step(tensors[index], gradient, states[index], options, NAMES[p.dtype])
    return _joined(tensors, states, p.dtype)


def _adamw_paged(
    p: Native, gradients: Native, *, sizes: tuple[int, ...], budget: int, state_bits: int, **numbers: Any
) -> tuple[Native, ...]:
    options, tensors = q.AdamwOptions(**numbers), _split(p.array, sizes)
    states = {str(i): q.state_arrays(_initial_state(size, state_bits)) for i, size in enumerate(sizes)}
    bytes_of = {name: sum(array.nbytes for array in state.values()) for name, state in states.items()}
    most = max(bytes_of[str(i)] / size for i, size in enumerate(sizes))
    paged = q.page_states(states, max(int(budget * most), *bytes_of.values()))
    for row in gradients.array:
        for index, gradient in enumerate(_split(row, sizes)):
            paged, arrays = q.fetch_state(paged, str(index))
            state = q.state_from_arrays(arrays)
            tensors[index], after = _one_step(tensors[index], gradient, state, options, NAMES[p.dtype])
            paged = q.store_state(paged, str(index), q.state_arrays(after))
    last = []
    for index in range(len(sizes)):
        paged, arrays = q.fetch_state(paged, str(index))
        last.append(q.state_from_arrays(arrays))
    return *_joined(tensors, last, p.dtype), *_trajectory(p, gradients, sizes, state_bits, **numbers)


def _adamw_resumed(p: Native, gradients: Native, *, split: int, state_bits: int, **numbers: Any) -> tuple[Native, ...]:
    options, items, size = q.AdamwOptions(**numbers), p.array, p.array.size
    state = _initial_state(size, state_bits)
    for done, gradient in enumerate(gradients.array):
        if done == split:
            state = q.state_from_arrays(q.state_arrays(state))
        items, state = _one_step(items, gradient, state, options, NAMES[p.dtype])
    return *_joined([items], [state], p.dtype), *_trajectory(p, gradients, (size,), state_bits, **numbers)


OPTIMIZERS: dict[str, Callable[..., Any]] = {
    "adamw_step": _adamw_step,
    "adamw8bit_step": _adamw8bit_step,
    "clip_by_norm": _clip_by_norm,
    "accumulate_gradients": _accumulate_gradients,
    "accumulated_step": _accumulated_step,
    "page_in": _page_in,
    "adamw_paged": _adamw_paged,
    "adamw_resumed": _adamw_resumed,
}
