"""A step of AdamW as kernels compute it, cut into parts, so that a fault can replace one of them."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from qloracle.blocks import block_absmax
from qloracle.blockwise import dequantize_codes
from qloracle.formats import Array
from qloracle.nearest import quantize_codes
from qloracle.optim.adamw8bit import CODEBOOKS_OF_MOMENTS
from qloracle.optim.options import AdamwOptions, bias_correction
from qloracle.rounding import encode
from qloracle_conformance.arrays import HostArray, host
from qloracle_conformance.operations.adamw import adamw_options


@dataclass(frozen=True)
class Values:
    """What a step works on, as real numbers."""

    p: Array
    g: Array
    m: Array
    v: Array
    o: AdamwOptions
    step: int


Part = Callable[[Values], Array]


def _mean(x: Values) -> Array:
    return x.o.beta1 * x.m + (1 - x.o.beta1) * x.g


def _square(x: Values) -> Array:
    return x.o.beta2 * x.v + (1 - x.o.beta2) * x.g * x.g


def _numerator(x: Values) -> Array:
    return x.m / bias_correction(x.o.beta1, x.step)


def _denominator(x: Values) -> Array:
    return np.asarray(np.sqrt(x.v / bias_correction(x.o.beta2, x.step)) + x.o.eps)


def _combined(x: Values, update: Array) -> Array:
    return x.p * (1 - x.o.lr * x.o.weight_decay) - x.o.lr * update


def _stored(values: Array, dtype: str) -> Array:
    return np.asarray(encode(values, dtype))


def _limited(x: Values, update: Array) -> Array:
    if x.o.max_update_norm is None:
        return update
    norm, limit = np.sqrt(np.sum(update**2)), x.o.max_update_norm * np.sqrt(np.sum(x.p**2))
    return update * (limit / norm) if norm > limit else update


def _regardless(x: Values, new: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
    """Treat gradients that are not finite as the option says."""
    if x.o.nonfinite == "propagate":
        return new
    kept = (x.p, x.m, x.v) if x.o.nonfinite == "skip" else (x.p, np.zeros(x.p.shape), np.zeros(x.p.shape))
    p, m, v = (np.where(np.isfinite(x.g), n, k) for n, k in zip(new, kept, strict=True))
    return p, m, v


def stochastic(values: Array, dtype: str, bits: Array) -> Array:
    """Return values rounded up in magnitude where the random bits say so."""
    return np.asarray(encode(values, dtype, rounding="stochastic", random_bits=bits))


@dataclass(frozen=True)
class Kernel:
    """The parts of a step; a right kernel has these."""

    prepare: Callable[[Values], Values] = lambda x: x
    mean: Part = _mean
    square: Part = _square
    numerator: Part = _numerator
    denominator: Part = _denominator
    combined: Callable[[Values, Array], Array] = _combined
    limited: Callable[[Values, Array], Array] = _limited
    regardless: Callable[..., tuple[Array, Array, Array]] = _regardless
    nearest: Callable[[Array, str], Array] = _stored
    stochastic: Callable[[Array, str, Array], Array] = stochastic
    moment: Callable[[Array], Array] = lambda values: values.astype(np.float32)


def parts_of(kernel: Kernel, given: Values) -> tuple[Array, Array, Array]:
    """Return p' as a real number, and both moments rounded to float32."""
    with np.errstate(all="ignore"):
        x = kernel.prepare(given)
        m, v = kernel.moment(kernel.mean(x)), kernel.moment(kernel.square(x))
        after = replace(x, m=m.astype(np.float64), v=v.astype(np.float64))
        update = kernel.limited(x, kernel.numerator(after) / kernel.denominator(after))
        return kernel.regardless(x, (kernel.combined(x, update), m, v))


def values_of(p: HostArray, gradient: HostArray, m: Array, v: Array, options: dict[str, Any]) -> Values:
    """Return the operands of a step as real numbers."""
    with np.errstate(invalid="ignore"):
        moments = (m.astype(np.float64), v.astype(np.float64))
    return Values(p.real(), gradient.real(), *moments, adamw_options(options), options["step"])


def adamw_with(kernel: Kernel) -> Callable[..., Any]:
    """Return ``adamw_step`` with these parts."""

    def step(
        p: HostArray, gradient: HostArray, m: HostArray, v: HostArray, random_bits: HostArray | None, **options: Any
    ) -> tuple[HostArray, ...]:
        new, mean, square = parts_of(kernel, values_of(p, gradient, m.items, v.items, options))
        bits = None if random_bits is None else random_bits.items
        words = kernel.nearest(new, p.dtype) if bits is None else kernel.stochastic(new, p.dtype, bits)
        singles = (host(np.asarray(part).astype(np.float32)) for part in (mean, square))
        return host(words, p.dtype), *singles

    return step


@dataclass(frozen=True)
class Storage:
    """How 8-bit states are kept; a right kernel has these."""

    books: Callable[[str], Any] = CODEBOOKS_OF_MOMENTS.__getitem__
    block: Callable[[int], int] = lambda block_size: block_size
    absmax: Callable[[Array, Array, int], Array] = lambda moment, old, size: block_absmax(moment, size)
    scale: Callable[[Array, Array], Array] = lambda new, old: new  # by which codes are made
    read: Callable[[Array], Array] = lambda absmax: absmax
    late: bool = False  # the parameter is computed from the moments as they were stored


def adamw8bit_with(storage: Storage, kernel: Kernel = Kernel()) -> Callable[..., Any]:
    """Return ``adamw8bit_step`` with these parts."""

    def step(
        p: HostArray, gradient: HostArray, codes_m: HostArray, absmax_m: HostArray, codes_v: HostArray,
        absmax_v: HostArray, **options: Any,
    ) -> tuple[HostArray, ...]:  # fmt: skip
        size = options["block_size"]
        old = {"m": (codes_m.items, absmax_m.items), "v": (codes_v.items, absmax_v.items)}
        state = {
            n: dequantize_codes(c, storage.read(a), storage.books(n), size, "float32").reshape(p.shape)
            for n, (c, a) in old.items()
        }
        x = values_of(p, gradient, state["m"], state["v"], options)
        new, *moments = parts_of(kernel, x)
        outputs, seen = [], {}
        block = storage.block(size)
        for name, moment in zip("mv", moments, strict=True):
            single = np.asarray(moment).astype(np.float32)
            with np.errstate(all="ignore"):
                absmax = storage.absmax(single, old[name][1], block)
                scale = storage.scale(absmax, old[name][1])
                codes = quantize_codes(single, scale, storage.books(name), block)
                seen[name] = dequantize_codes(codes, absmax, storage.books(name), block, "float32").reshape(p.shape)
            outputs += [host(codes), host(absmax)]
        if storage.late:
            x = replace(x, m=seen["m"].astype(np.float64), v=seen["v"].astype(np.float64))
            with np.errstate(all="ignore"):
                new = kernel.combined(x, kernel.numerator(x) / kernel.denominator(x))
        return host(kernel.nearest(new, p.dtype), p.dtype), *outputs

    return step
