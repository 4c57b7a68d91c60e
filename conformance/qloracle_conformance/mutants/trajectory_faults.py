"""Faults that only a sequence shows: states that are moved, and states that are saved and loaded."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from qloracle.formats import Array
from qloracle.optim.adamw import AdamwState
from qloracle.optim.state import state_arrays, state_from_arrays
from qloracle_conformance.adapters.reference.optimizers import (
    State,
    initial_state,
    joined,
    one_step,
    split_tensors,
    trajectory,
)
from qloracle_conformance.arrays import HostArray
from qloracle_conformance.mutants.mutant import Mutant
from qloracle_conformance.operations.adamw import adamw_options

PARTS = ("p", "m", "v")
Move = Callable[[State, State, int], State]  # (state on the device, state that waits, tensor) → what is read back


def paged_with(back: Callable[..., State], prefetch: bool = False) -> Callable[..., Any]:
    """Return ``adamw_paged`` with a pager of its own, whose states come back through `back`."""

    def paged(
        p: HostArray, gradients: HostArray, *, sizes: tuple[int, ...], budget: int, **options: Any
    ) -> tuple[HostArray, ...]:
        chosen, tensors = adamw_options(options), split_tensors(p.items, tuple(sizes))
        waiting = {i: initial_state(size, options["state_bits"]) for i, size in enumerate(sizes)}
        device: dict[int, State] = {}

        def fetch(index: int) -> State:
            if index not in device:
                while device and sum(sizes[i] for i in device) + sizes[index] > budget:
                    oldest = next(iter(device))
                    waiting[oldest] = back(device.pop(oldest), waiting, oldest)
                device[index] = waiting[index]
            return device[index]

        order = range(len(sizes))
        for row in gradients.items:
            parts = split_tensors(row, tuple(sizes))
            early = [fetch(i) for i in order] if prefetch else None
            for i in order:
                state = fetch(i) if early is None else early[i]
                tensors[i], after = one_step(tensors[i], parts[i], state, chosen, p.dtype)
                fetch(i)
                device[i] = after if early is None or budget >= sum(sizes) else device[i]
                device[i] = device.pop(i)
        last = [device[i] if i in device else waiting[i] for i in order]
        return *joined(tensors, last, p.dtype), *trajectory(p, gradients, tuple(sizes), **options)

    return paged


def _through_half(state: State) -> State:
    def half(values: Array) -> Array:
        with np.errstate(over="ignore"):
            return values.astype(np.float16).astype(np.float32)

    if isinstance(state, AdamwState):
        return replace(state, m=half(state.m), v=half(state.v))
    return replace(state, absmax_m=half(state.absmax_m), absmax_v=half(state.absmax_v))


def _fresh(state: State) -> State:
    size = state.m.size if isinstance(state, AdamwState) else state.codes_m.size
    return initial_state(size, 32 if isinstance(state, AdamwState) else 8)


def _whole_chunks(state: State, old: State) -> State:
    """Copy whole chunks of 16 bytes alone: the tail stays as it was."""
    arrays, before = state_arrays(state), state_arrays(old)
    for name, array in arrays.items():
        if array.ndim:
            done = array.nbytes // 16 * 16 // array.itemsize
            arrays[name] = np.concatenate([array[:done], before[name][done:]])
    return state_from_arrays(arrays)


def _only(state: State, old: State, kept: str) -> State:
    """Bring back one of the moments; the other is the one before."""
    arrays, before = state_arrays(state), state_arrays(old)
    names = {n for n in arrays if n.endswith(kept) or n in ("step", "block_size")}
    return state_from_arrays({n: a if n in names else before[n] for n, a in arrays.items()})


def _paging() -> dict[str, tuple[str, Callable[..., Any]]]:
    return {
        "not-written-back": ("a state that moves out is not written", paged_with(lambda s, waiting, i: waiting[i])),
        "zeroed": ("a state that comes back is fresh", paged_with(lambda s, waiting, i: _fresh(s))),
        "in-half": ("states wait in float16", paged_with(lambda s, waiting, i: _through_half(s))),
        "tail-not-copied": ("copies stop at the last whole 16 bytes",
                            paged_with(lambda s, waiting, i: _whole_chunks(s, waiting[i]))),
        "mean-alone": ("the second moment is not written back",
                       paged_with(lambda s, waiting, i: _only(s, waiting[i], "m"))),
        "square-alone": ("the first moment is not written back",
                         paged_with(lambda s, waiting, i: _only(s, waiting[i], "v"))),
        "step-lost": ("the step number starts again", paged_with(lambda s, waiting, i: replace(s, step=0))),
        "step-behind": ("the step number is one behind",
                        paged_with(lambda s, waiting, i: replace(s, step=max(0, s.step - 1)))),
        "prefetch-stale": ("states are prefetched before the last ones are written back",
                           paged_with(lambda s, waiting, i: s, prefetch=True)),
    }  # fmt: skip


def resumed_with(load: Callable[[dict[str, Array]], dict[str, Array]]) -> Callable[..., Any]:
    """Return ``adamw_resumed`` whose checkpoint goes through `load`."""

    def resumed(p: HostArray, gradients: HostArray, *, split: int, **options: Any) -> tuple[HostArray, ...]:
        chosen, items = adamw_options(options), p.items
        state = initial_state(p.items.size, options["state_bits"])
        for done, gradient in enumerate(gradients.items):
            if done == split:
                state = state_from_arrays(load(state_arrays(state)))
            items, state = one_step(items, gradient, state, chosen, p.dtype)
        return *joined([items], [state], p.dtype), *trajectory(p, gradients, (p.items.size,), **options)

    return resumed


def _changed(**changes: Callable[[Array], Array]) -> Callable[[dict[str, Array]], dict[str, Array]]:
    def load(arrays: dict[str, Array]) -> dict[str, Array]:
        return {n: changes[n](a) if n in changes else a for n, a in arrays.items()}

    return load


def _half(values: Array) -> Array:
    with np.errstate(over="ignore"):
        return values.astype(np.float16).astype(np.float32)


def _bfloat16(values: Array) -> Array:
    return (values.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)


def _backwards(values: Array) -> Array:
    return values[::-1].copy()


def _exchanged(arrays: dict[str, Array]) -> dict[str, Array]:
    if "m" in arrays:
        return {**arrays, "m": arrays["v"], "v": np.abs(arrays["m"])}
    return {**arrays, "absmax_m": arrays["absmax_v"], "absmax_v": arrays["absmax_m"]}


def _blocks_lost(arrays: dict[str, Array]) -> dict[str, Array]:
    """Keep the absmax of the first block for all of them."""
    names = ("absmax_m", "absmax_v")
    return {n: np.full_like(a, a[0]) if n in names else a for n, a in arrays.items()}


def _saving() -> dict[str, tuple[str, Callable[[dict[str, Array]], dict[str, Array]]]]:
    none = np.zeros_like
    return {
        "step-lost": ("the step number is not saved", _changed(step=none)),
        "step-one-more": ("the step number is saved after it was raised", _changed(step=lambda a: a + 1)),
        "mean-lost": ("the first moment is not saved", _changed(m=none, absmax_m=none)),
        "square-lost": ("the second moment is not saved", _changed(v=none, absmax_v=none)),
        "in-half": ("moments are saved in float16", _changed(m=_half, v=_half, absmax_m=_half, absmax_v=_half)),
        "in-bfloat16": ("moments are saved in bfloat16",
                        _changed(m=_bfloat16, v=_bfloat16, absmax_m=_bfloat16, absmax_v=_bfloat16)),
        "exchanged": ("the two moments are exchanged", _exchanged),
        "reversed": ("moments are loaded in reverse order", _changed(m=_backwards, codes_m=_backwards)),
    }  # fmt: skip


def trajectory_faults() -> list[Mutant]:
    """Return the faults of paging and saving."""
    return [
        *(Mutant(f"paged-{name}", fault, {"adamw_paged": op}, PARTS) for name, (fault, op) in _paging().items()),
        *(Mutant(f"resume-{name}", fault, {"adamw_resumed": resumed_with(load)}, PARTS)
          for name, (fault, load) in _saving().items()),
        Mutant("resume-blocks-lost", "one absmax is saved for all blocks",
               {"adamw_resumed": resumed_with(_blocks_lost)}, PARTS),
    ]  # fmt: skip
