"""Optimizers that are wrong on one of their paths: late steps, tails, chunks, narrow formats, short last blocks."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from qloracle.formats import Array
from qloracle.optim.options import bias_correction
from qloracle.rounding import decode, encode
from qloracle_conformance.adapters.reference.optimizers import OPS
from qloracle_conformance.arrays import HostArray, host
from qloracle_conformance.mutants.adamw_kernel import Kernel, Storage, Values, adamw8bit_with, adamw_with
from qloracle_conformance.mutants.mutant import Mutant, Op
from qloracle_conformance.mutants.two_paths import Arguments, from_place, if_element, odd_last, places, with_changed

KERNEL = Kernel()
PARTS = ("p", "m", "v")


def _narrow(values: Array, fmt: str) -> Array:
    return decode(encode(np.asarray(values), fmt), fmt)


def _decay_by_square(x: Values, update: Array) -> Array:
    return x.p * (1 - x.o.lr**2 * x.o.weight_decay) - x.o.lr * update


def _late_step(x: Values) -> Values:
    """Count from 0 after the tenth step."""
    return replace(x, step=x.step - 1 if x.step > 10 else x.step)


def _corrections_in_float32(x: Values) -> Array:
    beta = np.float32(x.o.beta2)
    return np.asarray(np.sqrt(x.v / float(np.float32(1) - beta ** np.float32(x.step))) + x.o.eps)


def _eps_in_half(x: Values) -> Array:
    """Let eps pass through float16, where 1e-8 is 0."""
    root = np.sqrt(x.v / bias_correction(x.o.beta2, x.step))
    return np.asarray(root + np.where(root == 0, x.o.eps, float(np.float16(x.o.eps))))


def _update_in_dtype(**arguments: Any) -> Any:
    """Round lr·m̂/(√v̂ + ε) to the format of the parameter before it is subtracted."""
    dtype = arguments["p"].dtype

    def combined(x: Values, update: Array) -> Array:
        return x.p * (1 - x.o.lr * x.o.weight_decay) - _narrow(x.o.lr * update, dtype)

    return adamw_with(Kernel(combined=combined))(**arguments)


def _decayed_in_dtype(**arguments: Any) -> Any:
    """Round the decayed parameter to its format before the update."""
    dtype = arguments["p"].dtype

    def combined(x: Values, update: Array) -> Array:
        return _narrow(x.p * (1 - x.o.lr * x.o.weight_decay), dtype) - x.o.lr * update

    return adamw_with(Kernel(combined=combined))(**arguments)


def _nothing_done(**arguments: Any) -> tuple[HostArray, ...]:
    return arguments["p"], arguments["m"], arguments["v"]


def _odd_half(shape: tuple[int, ...], arguments: Arguments) -> Array:
    narrow = arguments["p"].dtype != "float32"
    marked: Array = odd_last(shape, arguments) & narrow
    return marked


def _one_step_on(**arguments: Any) -> Any:
    return OPS["adamw_step"](**{**arguments, "step": arguments["step"] + 1})


def _skipped_in_fours(x: Values, new: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
    """Look at the first gradient of each vector of 4 only."""
    flat = x.g.reshape(-1)
    seen = flat[np.arange(flat.size) // 4 * 4].reshape(x.g.shape)
    return KERNEL.regardless(replace(x, g=seen), new)


def _one_word_for_tails(random_bits: HostArray, arguments: Arguments) -> HostArray:
    items = np.array(random_bits.items)
    flat = items.reshape(-1)
    flat[flat.size - flat.size % 4 :] = flat[:1]
    return host(items)


def _last_block_old(**arguments: Any) -> Any:
    """Make the codes of a short last block with the absmax before the step."""
    size, elements = arguments["block_size"], arguments["p"].items.size

    def scale(new: Array, old: Array) -> Array:
        stale = (np.arange(new.size) == new.size - 1) & (elements % size != 0) & (old > 0)
        return np.where(stale, old, new)

    return adamw8bit_with(Storage(scale=scale))(**arguments)


def _zero_block_one(**arguments: Any) -> Any:
    """Store 1 as the absmax of moments that are all zero."""
    p, codes_m, absmax_m, codes_v, absmax_v = OPS["adamw8bit_step"](**arguments)
    ones = [host(np.where(a.items == 0, np.float32(1), a.items)) for a in (absmax_m, absmax_v)]
    return p, codes_m, ones[0], codes_v, ones[1]


def _factor_in_dtype(*, first: HostArray, second: HostArray, max_norm: float) -> tuple[HostArray, ...]:
    """Round the factor to the format of the gradients."""
    with np.errstate(all="ignore"):
        tensors = [first.real(), second.real()]
        norm = np.sqrt(sum(np.sum(np.square(t)) for t in tensors))
        factor = _narrow(np.asarray(max_norm / norm), first.dtype) if np.isfinite(norm) and norm > max_norm else 1.0
        return tuple(host(np.asarray(encode(t * factor, first.dtype)), first.dtype) for t in tensors)


def _first_256_of_norm(*, first: HostArray, second: HostArray, max_norm: float) -> tuple[HostArray, ...]:
    """Add up the squares of the first 256 elements of each tensor."""
    with np.errstate(all="ignore"):
        tensors = [first.real(), second.real()]
        norm = np.sqrt(sum(np.sum(np.square(t.reshape(-1)[:256])) for t in tensors))
        factor = max_norm / norm if np.isfinite(norm) and norm > max_norm else 1.0
        right: tuple[HostArray, ...] = OPS["clip_by_norm"](first=first, second=second, max_norm=max_norm)
        if max(t.size for t in tensors) <= 256:
            return right
        return tuple(host(np.asarray(encode(t * factor, first.dtype)), first.dtype) for t in tensors)


def _first_batches(count: int) -> Callable[..., HostArray]:
    """Return an accumulation of the first micro-batches alone, divided by the tokens of all."""

    def accumulate(*, gradients: HostArray, counts: HostArray, reduction: str) -> HostArray:
        items = np.array(gradients.items)
        items[count:] = 0
        return OPS["accumulate_gradients"](  # type: ignore[no-any-return]
            gradients=HostArray(items, gradients.dtype), counts=counts, reduction=reduction
        )

    return accumulate


def _counts_in_half(*, gradients: HostArray, counts: HostArray, reduction: str) -> HostArray:
    """Add the numbers of tokens up in float16."""
    right = OPS["accumulate_gradients"](gradients=gradients, counts=counts, reduction=reduction)
    total = int(counts.items.sum())
    with np.errstate(over="ignore"):
        narrow = np.add.reduce(counts.items.astype(np.float16), dtype=np.float16)
    if not total or not np.isfinite(narrow) or float(narrow) == total:
        return right  # type: ignore[no-any-return]
    with np.errstate(all="ignore"):
        return host(np.asarray(encode(right.real() * total / float(narrow), gradients.dtype)), gradients.dtype)


def path_optimizer_faults() -> list[Mutant]:
    """Return the mutants."""
    steps: dict[str, tuple[str, Op, tuple[str, ...]]] = {
        "decay-lr-squared": ("the decay is multiplied by lr squared", adamw_with(Kernel(combined=_decay_by_square)),
                             ("p",)),
        "late-steps": ("steps after the tenth count from 0", adamw_with(Kernel(prepare=_late_step)), ("p",)),
        "correction-float32": ("the second correction is computed in float32",
                               adamw_with(Kernel(denominator=_corrections_in_float32)), ("p",)),
        "eps-half": ("eps passes through float16", adamw_with(Kernel(denominator=_eps_in_half)), ("p",)),
        "update-in-dtype": ("the update is rounded to the format of the parameter", _update_in_dtype, ("p",)),
        "decayed-in-dtype": ("the decayed parameter is rounded to its format", _decayed_in_dtype, ("p",)),
        "odd-last-half": ("the last of an odd number of 16-bit parameters is not updated",
                          if_element("adamw_step", _odd_half, _nothing_done), PARTS),
        "second-chunk": ("elements from 4096 on are updated as in the next step",
                         if_element("adamw_step", from_place(4096), _one_step_on), ("p",)),
        "third-lane": ("lane 2 of each vector of 4 is updated as in the next step",
                       if_element("adamw_step", lambda s, a: places(s) % 4 == 2, _one_step_on), ("p",)),
    }  # fmt: skip
    bits = with_changed("adamw_step", random_bits=_one_word_for_tails)
    states = ("absmax_m", "codes_m", "absmax_v", "codes_v")
    accumulations: dict[str, tuple[str, Op]] = {
        "eight-batches": ("micro-batches after the eighth are lost", _first_batches(8)),
        "counts-half": ("numbers of tokens are added up in float16", _counts_in_half),
    }
    return [
        *(Mutant(f"adamw-{name}", fault, {"adamw_step": op}, stages, operations="adamw.step")
          for name, (fault, op, stages) in steps.items()),
        Mutant("adamw-skipped-in-fours", "the first gradient of four decides whether they are skipped",
               {"adamw_step": adamw_with(Kernel(regardless=_skipped_in_fours))}, PARTS, operations="adamw.nonfinite"),
        Mutant("update-stochastic-tail", "the tail after the last vector of 4 uses the first random word",
               {"adamw_step": bits}, ("p",), operations="adamw.stochastic"),
        Mutant("adamw8bit-last-block-old", "codes of a short last block are made with the absmax before the step",
               {"adamw8bit_step": _last_block_old}, states),
        Mutant("adamw8bit-zero-block-one", "the absmax of zero moments is 1", {"adamw8bit_step": _zero_block_one},
               states),
        Mutant("clip-factor-in-dtype", "the factor is rounded to the format of the gradients",
               {"clip_by_norm": _factor_in_dtype}, ("first", "second")),
        Mutant("clip-first-256", "the norm covers the first 256 elements of each tensor",
               {"clip_by_norm": _first_256_of_norm}, ("first", "second")),
        *(Mutant(f"accumulate-{name}", fault, {"accumulate_gradients": op}, ("gradient",))
          for name, (fault, op) in accumulations.items()),
    ]  # fmt: skip
