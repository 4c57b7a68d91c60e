"""Faults before and around the step: limits on the norm of a gradient, and accumulation."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from qloracle.formats import Array
from qloracle.rounding import decode, encode
from qloracle_conformance.adapters.reference.optimizers import OPS, rounded_once
from qloracle_conformance.arrays import HostArray, host
from qloracle_conformance.mutants.mutant import Mutant

Norm = Callable[[Sequence[Array]], float]
TENSORS, PARTS = ("first", "second"), ("p", "m", "v")


def _joint(tensors: Sequence[Array]) -> Array:
    return np.concatenate([tensor.reshape(-1) for tensor in tensors])


def _norm(tensors: Sequence[Array]) -> float:
    with np.errstate(over="ignore"):
        return float(np.sqrt(np.sum(np.square(_joint(tensors)))))


def _clip_with(factor: Callable[[Sequence[Array], float], Sequence[float]]) -> Callable[..., Any]:
    """Return ``clip_by_norm`` with these factors."""

    def clip(first: HostArray, second: HostArray, *, max_norm: float) -> tuple[HostArray, ...]:
        tensors = [first.real(), second.real()]
        with np.errstate(all="ignore"):
            clipped = [tensor * f for tensor, f in zip(tensors, factor(tensors, max_norm), strict=True)]
        return tuple(rounded_once(tensor, first.dtype) for tensor in clipped)

    return clip


def _by(norm: Norm, eps: float = 0.0, always: bool = False, power: float = 1.0) -> Callable[..., Any]:
    def factor(tensors: Sequence[Array], most: float) -> Sequence[float]:
        size = norm(tensors)
        usual = np.isfinite(size) and (always or size + eps > most) and size > 0
        return [(most / (size + eps)) ** power if usual else 1.0] * len(tensors)

    return _clip_with(factor)


def _narrow_norm(fmt: str) -> Norm:
    def norm(tensors: Sequence[Array]) -> float:
        total = np.zeros((), np.float64)
        for square in np.square(_joint(tensors)):
            total = decode(encode(np.asarray(total + square), fmt), fmt)
        return float(np.sqrt(total))

    return norm


def _without_last(tensors: Sequence[Array]) -> float:
    return float(np.sqrt(sum(np.sum(np.square(tensor.reshape(-1)[:-1])) for tensor in tensors)))


def _clip_faults() -> dict[str, tuple[str, Callable[..., Any]]]:
    return {
        "by-tensor": ("every tensor has a norm of its own", _clip_with(
            lambda tensors, most: [min(1.0, most / _norm([t])) if _norm([t]) > 0 and np.isfinite(_norm([t])) else 1.0
                                   for t in tensors])),
        "first-tensor": ("the norm is that of the first tensor", _by(lambda tensors: _norm(tensors[:1]))),
        "last-tensor": ("the norm is that of the last tensor", _by(lambda tensors: _norm(tensors[1:]))),
        "sum-of-norms": ("the norms of the tensors are added", _by(lambda tensors: sum(_norm([t]) for t in tensors))),
        "rootless": ("the norm lacks its root", _by(lambda tensors: _norm(tensors) ** 2)),
        "largest": ("the norm is the largest magnitude", _by(lambda tensors: float(np.max(np.abs(_joint(tensors)))))),
        "sum-of-magnitudes": ("the norm adds magnitudes", _by(lambda tensors: float(np.sum(np.abs(_joint(tensors)))))),
        "root-mean-square": ("the norm is a root mean square", _by(
            lambda tensors: _norm(tensors) / len(_joint(tensors)) ** 0.5)),
        "in-half": ("the norm is accumulated in float16", _by(_narrow_norm("float16"))),
        "in-bfloat16": ("the norm is accumulated in bfloat16", _by(_narrow_norm("bfloat16"))),
        "eps": ("1e-6 is added to the norm", _by(_norm, eps=1e-6)),
        "always": ("smaller gradients are scaled up to the limit", _by(_norm, always=True)),
        "squared-factor": ("the factor is applied twice", _by(_norm, power=2.0)),
        "last-element-missing": ("the last element of every tensor is left out of the norm", _by(_without_last)),
        "each-element": ("elements are clipped, not the norm", _clip_elements),
    }  # fmt: skip


def _clip_elements(first: HostArray, second: HostArray, *, max_norm: float) -> tuple[HostArray, ...]:
    return tuple(rounded_once(np.clip(t.real(), -max_norm, max_norm), t.dtype) for t in (first, second))


def _weighted(weights: Callable[[Array, str], Array]) -> Callable[..., Any]:
    """Return ``accumulate_gradients`` with these weights of the micro-batches."""

    def accumulate(gradients: HostArray, counts: HostArray, *, reduction: str) -> HostArray:
        real, numbers = gradients.real(), counts.items.astype(np.float64)
        used = numbers > 0
        factors = weights(numbers[used], reduction).reshape(-1, *[1] * (real.ndim - 1))
        with np.errstate(all="ignore"):
            return rounded_once(np.sum(real[used] * factors, axis=0), gradients.dtype)

    return accumulate


def _right(counts: Array, reduction: str) -> Array:
    return np.asarray((counts if reduction == "mean" else np.ones_like(counts)) / counts.sum())


def _running_in(fmt: str) -> Callable[..., Any]:
    """Keep the gradient buffer in a narrow format between micro-batches."""

    def accumulate(gradients: HostArray, counts: HostArray, *, reduction: str) -> HostArray:
        weights = _right(counts.items.astype(np.float64), reduction)
        total = np.zeros(gradients.shape[1:])
        with np.errstate(all="ignore"):
            for gradient, weight in zip(gradients.real(), weights, strict=True):
                if weight:
                    total = decode(encode(total + gradient * weight, fmt), fmt)
        return rounded_once(total, gradients.dtype)

    return accumulate


def _empty_counted(gradients: HostArray, counts: HostArray, *, reduction: str) -> HostArray:
    weights = _right(counts.items.astype(np.float64), reduction).reshape(-1, *[1] * (gradients.items.ndim - 1))
    with np.errstate(all="ignore"):
        return rounded_once(np.sum(gradients.real() * weights, axis=0), gradients.dtype)


def _factored(factor: Callable[[Array], Array]) -> Callable[..., Any]:
    """Return ``accumulate_gradients`` whose right weights are multiplied by a function of the counts."""
    return _weighted(lambda n, r: _right(n, r) * factor(n))


def _equal(reduction: str) -> Callable[..., Any]:
    """Return ``accumulate_gradients`` that weighs all micro-batches alike where their gradients are of this kind."""
    return _weighted(lambda n, r: np.full_like(n, 1 / n.size) if r == reduction else _right(n, r))


def _accumulate_faults() -> dict[str, tuple[str, Callable[..., Any]]]:
    return {
        "mean-of-means": ("micro-batches have equal weights", _equal("mean")),
        "sum-over-batches": ("sums are divided by the number of micro-batches", _equal("sum")),
        "not-divided": ("the sum is not divided", _factored(lambda n: n.sum() + 0 * n)),
        "last-count": ("the sum is divided by the last count", _factored(lambda n: n.sum() / n[-1] + 0 * n)),
        "last-batch": ("only the last micro-batch counts", _factored(lambda n: np.arange(n.size) == n.size - 1)),
        "first-batch-lost": ("the first micro-batch is lost", _factored(lambda n: np.arange(n.size) > 0)),
        "last-batch-lost": ("the last micro-batch is lost", _factored(lambda n: np.arange(n.size) < n.size - 1)),
        "divided-again": ("the mean is divided by the number of micro-batches too", _factored(
            lambda n: 0 * n + 1 / n.size)),
        "reductions-exchanged": ("means are added like sums", _weighted(
            lambda n, r: _right(n, "sum" if r == "mean" else "mean"))),
        "in-bfloat16": ("the buffer is bfloat16", _running_in("bfloat16")),
        "in-half": ("the buffer is float16", _running_in("float16")),
        "empty-counted": ("a micro-batch without tokens is multiplied by 0", _empty_counted),
    }  # fmt: skip


def stepping(plan: Callable[[HostArray, HostArray], list[tuple[HostArray, HostArray]]]) -> Callable[..., Any]:
    """Return ``accumulated_step`` that makes a step after each part of the micro-batches; none for an empty plan."""

    def step(
        p: HostArray, gradients: HostArray, counts: HostArray, m: HostArray, v: HostArray, **options: Any
    ) -> tuple[HostArray, ...]:
        reduction, number = options.pop("reduction"), options.pop("step")
        gradient = OPS["accumulate_gradients"](gradients, counts, reduction=reduction)
        state = (p, m, v)
        for part, numbers in plan(gradients, counts):
            own = OPS["accumulate_gradients"](part, numbers, reduction=reduction)
            state = OPS["adamw_step"](state[0], own, *state[1:], None, step=number, **options)
            number += 1
        return gradient, *state

    return step


def _each(gradients: HostArray, counts: HostArray) -> list[tuple[HostArray, HostArray]]:
    used = [i for i, count in enumerate(counts.items) if count]
    return [(HostArray(gradients.items[i : i + 1], gradients.dtype), host(counts.items[i : i + 1])) for i in used]


def _parameter_alone(**arguments: Any) -> tuple[HostArray, ...]:
    """Step the parameter and forget the moments."""
    gradient, p, _, _ = OPS["accumulated_step"](**arguments)
    return gradient, p, arguments["m"], arguments["v"]


def _moments_alone(**arguments: Any) -> tuple[HostArray, ...]:
    gradient, _, m, v = OPS["accumulated_step"](**arguments)
    return gradient, arguments["p"], m, v


def _counted_steps(**arguments: Any) -> tuple[HostArray, ...]:
    """Count every micro-batch as a step in the bias corrections."""
    more = arguments["counts"].items.size - 1
    return OPS["accumulated_step"](**{**arguments, "step": arguments["step"] + more})  # type: ignore[no-any-return]


def _step_faults() -> dict[str, tuple[str, Callable[..., Any], tuple[str, ...]]]:
    return {
        "never": ("the step never comes", stepping(lambda gradients, counts: []), PARTS),
        "each": ("every micro-batch is a step", stepping(_each), PARTS),
        "last-alone": ("the step uses the last micro-batch alone", stepping(lambda g, n: _each(g, n)[-1:]), PARTS),
        "first-alone": ("the step comes after the first micro-batch", stepping(lambda g, n: _each(g, n)[:1]), PARTS),
        "moments-forgotten": ("the moments are not stored", _parameter_alone, PARTS),
        "parameter-forgotten": ("the parameter is not stored", _moments_alone, PARTS),
        "steps-counted": ("every micro-batch counts as a step", _counted_steps, PARTS),
        "twice": ("the step is made twice", stepping(lambda g, n: [(g, n), (g, n)]), PARTS),
    }


def gradient_faults() -> list[Mutant]:
    """Return the faults of limits and accumulation."""
    return [
        *(Mutant(f"clip-{name}", fault, {"clip_by_norm": op}, TENSORS) for name, (fault, op) in _clip_faults().items()),
        *(Mutant(f"accumulate-{name}", fault, {"accumulate_gradients": op}, ("gradient",))
          for name, (fault, op) in _accumulate_faults().items()),
        *(Mutant(f"accumulated-step-{name}", fault, {"accumulated_step": op}, stages)
          for name, (fault, op, stages) in _step_faults().items()),
    ]  # fmt: skip
