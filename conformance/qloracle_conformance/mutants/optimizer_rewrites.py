"""Right optimizers in other arithmetic: float32 throughout, other forms of moments and corrections, another pager."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np

from qloracle.formats import Array
from qloracle.rounding import encode
from qloracle_conformance.arrays import HostArray, host
from qloracle_conformance.mutants import gradient_faults as around
from qloracle_conformance.mutants import trajectory_faults as trajectories
from qloracle_conformance.mutants.adamw_kernel import Kernel, Storage, Values, adamw8bit_with, adamw_with
from qloracle_conformance.mutants.mutant import Rewrite
from qloracle_conformance.mutants.paging_faults import oldest, planned


def _single(value: Any) -> Array:
    return np.asarray(value, np.float64).astype(np.float32)


def _sum(old: Array, new: Array, beta: float) -> Array:
    return np.asarray(_single(beta) * _single(old) + _single(1 - beta) * _single(new))


def _lerp(old: Array, new: Array, beta: float) -> Array:
    """Interpolate from the nearer end, as PyTorch does."""
    weight, difference = _single(1 - beta), _single(new) - _single(old)
    if weight < np.float32(0.5):
        return np.asarray(_single(old) + weight * difference)
    return np.asarray(_single(new) - difference * (np.float32(1) - weight))


def _fused(old: Array, new: Array, beta: float) -> Array:
    product = _single(_single(1 - beta) * _single(new))
    return _single(float(_single(beta)) * old + product.astype(np.float64))


def _corrections(x: Values) -> tuple[Array, Array]:
    return _single(1 - x.o.beta1**x.step), _single(1 - x.o.beta2**x.step)


def _scaled(x: Values, update: Array) -> Array:
    """Return the update under the limit, in float32."""
    if x.o.max_update_norm is None:
        return update
    with np.errstate(all="ignore"):
        norm, size = (np.sqrt(np.sum(np.square(_single(a)), dtype=np.float32)) for a in (update, x.p))
        limit = _single(x.o.max_update_norm) * size
        return update * (limit / norm) if norm > limit else update


def _moments_corrected(x: Values) -> tuple[Array, Array, Array]:
    first, second = _corrections(x)
    return _single(x.m) / first, _single(x.o.lr), np.sqrt(_single(x.v) / second) + _single(x.o.eps)


def _roots_corrected(x: Values) -> tuple[Array, Array, Array]:
    first, second = _corrections(x)
    return _single(x.m), _single(x.o.lr) / first, np.sqrt(_single(x.v)) / np.sqrt(second) + _single(x.o.eps)


def _folded(x: Values) -> tuple[Array, Array, Array]:
    first, second = _corrections(x)
    root = np.sqrt(second)
    return _single(x.m), _single(x.o.lr) * root / first, np.sqrt(_single(x.v)) + _single(x.o.eps) * root


Average = Callable[[Array, Array, float], Array]
Form = Callable[[Values], tuple[Array, Array, Array]]


def _kernel(
    average: Callable[[Array, Array, float], Array], form: Form, *, decay: str, reciprocal: bool = False
) -> Kernel:
    """Return a kernel in float32; what it passes on between its parts is float32 held in float64."""

    def square(x: Values) -> Array:
        return average(x.v, (_single(x.g) * _single(x.g)).astype(np.float64), x.o.beta2)

    def denominator(x: Values) -> Array:
        return form(x)[2]

    def numerator(x: Values) -> Array:
        top, scale, below = form(x)
        quotient = top * (np.float32(1) / below) if reciprocal else top / below
        # The kernel divides once more: what it takes back here is exact in float64 but for 2^-53.
        return (scale * quotient).astype(np.float64) / float(x.o.lr or 1.0) * below.astype(np.float64)

    def combined(x: Values, update: Array) -> Array:
        step, p = _single(update * x.o.lr), _single(x.p)
        rate = _single(x.o.lr) * _single(x.o.weight_decay)
        kept = p * (np.float32(1) - rate) if decay == "factor" else p - rate * p
        return (kept - step).astype(np.float64)

    return Kernel(
        mean=lambda x: average(x.m, x.g, x.o.beta1), square=square, numerator=numerator,
        denominator=lambda x: denominator(x).astype(np.float64), combined=combined, limited=_scaled,
    )  # fmt: skip


def _clipped_in_float32(first: HostArray, second: HostArray, *, max_norm: float) -> tuple[HostArray, ...]:
    """Add squares up in float32, tensor by tensor, and take a root of the sum."""
    with np.errstate(all="ignore"):
        squares = [np.sum(np.square(tensor.single()), dtype=np.float32) for tensor in (first, second)]
        norm = np.sqrt(squares[0] + squares[1])
        usual = np.isfinite(norm) and norm > np.float32(max_norm)
        factor = np.float32(max_norm) / norm if usual else np.float32(1)
        return tuple(host(np.asarray(encode(t.single() * factor, t.dtype)), t.dtype) for t in (first, second))


def _accumulated_backwards(gradients: HostArray, counts: HostArray, *, reduction: str) -> HostArray:
    """Add weighted gradients up in float32, the last one first."""
    single, total = gradients.single(), np.float32(counts.items.sum())
    acc = np.zeros(single.shape[1:], np.float32)
    with np.errstate(all="ignore"):
        for gradient, count in zip(single[::-1], counts.items[::-1], strict=True):
            if count:
                acc = acc + gradient * (np.float32(count) if reduction == "mean" else np.float32(1))
        return host(np.asarray(encode(acc / total, gradients.dtype)), gradients.dtype)


def _add_and_truncate(values: Array, fmt: str, bits: Array) -> Array:
    """Round float32 to bfloat16 stochastically by adding 16 bits and cutting off; other formats as ever."""
    if fmt != "bfloat16":
        return np.asarray(encode(values, fmt, rounding="stochastic", random_bits=bits))
    words = _single(values).view(np.uint32)
    addend = np.uint32(0xFFFF) - (bits >> np.uint32(16))
    return ((words + addend) >> np.uint32(16)).astype(np.uint16)


def optimizer_rewrites() -> list[Rewrite]:
    """Return the right rewrites of optimizers."""
    forms = {
        "moments": _kernel(_sum, _moments_corrected, decay="factor"),
        "roots-lerp": _kernel(_lerp, _roots_corrected, decay="factor"),
        "folded-fused": _kernel(_fused, _folded, decay="difference"),
        "reciprocal": _kernel(_sum, _roots_corrected, decay="difference", reciprocal=True),
    }
    stochastic = replace(forms["roots-lerp"], stochastic=_add_and_truncate)
    return [
        *(Rewrite(f"adamw-{name}", f"AdamW in float32, {name}", {"adamw_step": adamw_with(kernel)}, {})
          for name, kernel in forms.items()),
        *(Rewrite(f"adamw8bit-{name}", f"8-bit AdamW in float32, {name}",
                  {"adamw8bit_step": adamw8bit_with(Storage(), kernel)}, {}) for name, kernel in forms.items()),
        Rewrite("adamw-add-and-truncate", "stochastic rounding by adding the upper random bits",
                {"adamw_step": adamw_with(stochastic)}, {}),
        Rewrite("clip-in-float32", "the norm in float32, tensor by tensor", {"clip_by_norm": _clipped_in_float32}, {}),
        Rewrite("accumulate-backwards", "gradients added in float32 from the last to the first",
                {"accumulate_gradients": _accumulated_backwards}, {}),
        Rewrite("accumulated-step-plain", "accumulation, then one step",
                {"accumulated_step": around.stepping(lambda g, n: [(g, n)])}, {}),
        Rewrite("paging-by-list", "a list in order of use", {"page_in": planned(oldest)}, {}),
        Rewrite("paged-by-dict", "a pager of its own",
                {"adamw_paged": trajectories.paged_with(lambda state, waiting, index: state)}, {}),
        Rewrite("resume-copied", "a checkpoint of copies",
                {"adamw_resumed": trajectories.resumed_with(deepcopy)}, {}),
    ]  # fmt: skip
