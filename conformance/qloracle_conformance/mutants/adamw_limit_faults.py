"""Faults of AdamW steps that round stochastically, or whose update has a limited norm."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np

from qloracle.formats import Array, format_named
from qloracle.rounding import decode, encode
from qloracle_conformance.mutants.adamw_kernel import Kernel, Values, adamw_with
from qloracle_conformance.mutants.mutant import Mutant

KERNEL = Kernel()


def _stochastic(values: Array, fmt: str, bits: Array, up: Callable[[Array, Array], Array]) -> Array:
    """Round down in magnitude, and up where `up` of the part of the way and the bits is true."""
    named = format_named(fmt)
    exponent = np.maximum(np.frexp(values)[1] - 1, named.minimum_exponent)
    steps = np.ldexp(np.abs(values), named.mantissa_bits - exponent)
    whole = np.floor(steps)
    whole = whole + up(steps - whole, bits.astype(np.float64))
    return np.asarray(encode(np.copysign(np.ldexp(whole, exponent - named.mantissa_bits), values), fmt))


def _towards_above(values: Array, fmt: str, bits: Array) -> Array:
    """Add the bits to the value, not to the magnitude: negative numbers go the wrong way."""
    turned = np.where(values < 0, ~bits, bits).astype(np.uint32)
    return _stochastic(values, fmt, turned, lambda part, r: r < part * 2.0**32)


STOCHASTIC: dict[str, tuple[str, Callable[[Array, Array], Array]]] = {
    "or-equal": ("the magnitude goes up for R <= frac, so that exact values move", lambda part, r: r <= part * 2.0**32),
    "low-half": ("the low 16 of the random bits decide", lambda part, r: np.mod(r, 65536.0) < part * 65536),
    "scaled-65535": ("frac is scaled by 65535", lambda part, r: np.floor(r / 65536) < np.floor(part * 65535)),
    "inverted": ("the magnitude goes up for R >= frac", lambda part, r: r >= part * 2.0**32),
    "8-bits": ("eight random bits decide", lambda part, r: np.floor(r / 2.0**24) < np.floor(part * 256)),
    "ignored": ("the random bits are ignored, ties go up", lambda part, r: part >= 0.5),
}


def _limit(norm: Callable[[Values, Array], float], limit: Callable[[Values], float]) -> Kernel:
    def limited(x: Values, update: Array) -> Array:
        if x.o.max_update_norm is None:
            return update
        size, most = norm(x, update), x.o.max_update_norm * limit(x)
        return update * (most / size) if size > most else update

    return Kernel(limited=limited)


def _norm(values: Array) -> float:
    return float(np.sqrt(np.sum(np.square(values))))


def _half_norm(values: Array) -> float:
    with np.errstate(over="ignore"):
        return float(np.sqrt(np.sum(np.square(values.astype(np.float16)), dtype=np.float16)))


def _row_limited(x: Values, update: Array) -> Array:
    rows = update.reshape(-1, update.shape[-1]) if update.ndim else update.reshape(1, 1)
    parameters = x.p.reshape(rows.shape)
    parts = [KERNEL.limited(replace(x, p=p), row) for p, row in zip(parameters, rows, strict=True)]
    return np.array(parts).reshape(update.shape)


def _unguarded(x: Values, update: Array) -> Array:
    """Multiply by min(1, limit/norm) even where a norm is not finite."""
    if x.o.max_update_norm is None:
        return update
    size = _norm(update)
    factor = np.minimum(1.0, np.divide(x.o.max_update_norm * _norm(x.p), size)) if size else 1.0
    return update * factor


def _limits() -> dict[str, tuple[str, Kernel]]:
    plain = partial(_limit, limit=lambda x: _norm(x.p))

    def decay_too(x: Values, update: Array) -> Array:
        """Scale the whole change of the parameter, its decay included."""
        size, most = _norm(update), (x.o.max_update_norm or np.inf) * _norm(x.p)
        factor = min(1.0, most / size) if size else 1.0
        return x.p - factor * x.o.lr * (x.o.weight_decay * x.p + update)

    return {
        "absolute": ("the limit ignores the norm of the parameter", _limit(lambda x, u: _norm(u), lambda x: 1.0)),
        "squared": ("the norm lacks its root", plain(lambda x, u: _norm(u) ** 2)),
        "times-lr": ("the norm is that of lr times the update", plain(lambda x, u: x.o.lr * _norm(u))),
        "in-half": ("the norm is accumulated in float16", plain(lambda x, u: _half_norm(u))),
        "mean-square": ("the norm is a root mean square", plain(lambda x, u: _norm(u) / max(u.size, 1) ** 0.5)),
        "without-last": ("the last element is left out of the norm", plain(lambda x, u: _norm(u.reshape(-1)[:-1]))),
        "after-decay": ("the limit is that of the decayed parameter", _limit(
            lambda x, u: _norm(u), lambda x: _norm(x.p * (1 - x.o.lr * x.o.weight_decay)))),
        "by-row": ("every row has a limit of its own", Kernel(limited=_row_limited)),
        "decay-too": ("the limit scales the decay too", Kernel(limited=lambda x, u: u, combined=decay_too)),
        "unguarded": ("a norm that is NaN makes every element NaN", Kernel(limited=_unguarded)),
        "missing": ("the limit is ignored", Kernel(limited=lambda x, u: u)),
        "squared-factor": ("the factor is applied twice", Kernel(
            limited=lambda x, u: KERNEL.limited(x, u) ** 2 / np.where(u == 0, 1, u))),
    }  # fmt: skip


def _nearest(values: Array, fmt: str, bits: Array) -> Array:
    return KERNEL.nearest(values, fmt)


def _twice(values: Array, fmt: str, bits: Array) -> Array:
    return KERNEL.stochastic(decode(encode(values, fmt), fmt), fmt, bits)


def adamw_limit_faults() -> list[Mutant]:
    """Return the faults of stochastic rounding and of limits on the norm."""
    rounding: dict[str, tuple[str, Callable[[Array, str, Array], Array]]] = {
        name: (fault, partial(_stochastic, up=up)) for name, (fault, up) in STOCHASTIC.items()
    }
    rounding |= {
        "towards-above": ("negative numbers are rounded by the inverted bits", _towards_above),
        "stagnates": (
            "the parameter is rounded to nearest whatever the bits",
            lambda values, fmt, bits: KERNEL.nearest(values, fmt),
        ),
        "twice": ("the parameter is rounded to nearest first, then stochastically", _twice),
    }
    return [
        *(Mutant(f"update-limit-{name}", fault, {"adamw_step": adamw_with(kernel)}, ("p",), operations="adamw.limited")
          for name, (fault, kernel) in _limits().items()),
        *(Mutant(f"update-stochastic-{name}", fault, {"adamw_step": adamw_with(Kernel(stochastic=wrong))}, ("p",),
                 operations="adamw.stochastic") for name, (fault, wrong) in rounding.items()),
    ]  # fmt: skip
