"""Faults of the gradients of DoRA layers: parts that miss g, the norm, the mask, or have one too many."""

from collections.abc import Callable
from typing import Any

import numpy as np

from qloracle.formats import Array
from qloracle_conformance.mutants.adapter_operands import Single, backward_as
from qloracle_conformance.mutants.mutant import Mutant


def merged(o: Single) -> Array:
    """Return V."""
    v: Array = o.weight + o.scale * (o.lora_b @ o.lora_a)
    return v


def norms(o: Single, v: Array) -> Array:
    """Return the row norms as the rule has them."""
    n: Array = np.sqrt(np.sum(v * v, axis=1))
    return n


def gain_of(o: Single, n: Array) -> Array:
    """Return g, 0 where n = 0."""
    return np.where(n == 0, 0.0, o.magnitude / np.where(n == 0, 1.0, n))


def right_gain(o: Single) -> Array:
    """Return g as the rule has it."""
    return gain_of(o, norms(o, merged(o)))


def gradients(o: Single) -> tuple[Array, ...]:
    """Return the gradients as the rule has them."""
    return wrong_gradients(o)


def wrong_gradients(
    o: Single, *, gain_a: Any = None, gain_b: Any = None, through: Any = None, less: float = 1.0, drop: bool = True,
    inverse: Any = None, seen: Any = None,
) -> tuple[Array, ...]:  # fmt: skip
    """Return gradients with some parts replaced."""
    v, dropped = merged(o), o.x * o.keep
    n, g = norms(o, v), right_gain(o)
    over = np.where(n == 0, 0.0, 1 / np.where(n == 0, 1.0, n)) if inverse is None else inverse
    by_a, by_b, by_x = (g if part is None else part for part in (gain_a, gain_b, through))
    keep = o.keep if drop else 1.0
    inner = (o.dy * (g - less)) @ o.weight + o.scale * ((o.dy * by_x) @ o.lora_b @ o.lora_a)
    return (
        o.dy @ o.weight + keep * inner,
        o.scale * ((o.dy * by_a) @ o.lora_b).T @ dropped,
        o.scale * (o.dy * by_b).T @ (dropped @ o.lora_a.T),
        np.sum(o.dy * ((dropped if seen is None else seen) @ v.T), axis=0) * over,
        o.dy.sum(axis=0),
    )


def _not_detached(o: Single) -> tuple[Array, ...]:
    """Differentiate the norm too."""
    v, dropped = merged(o), o.x * o.keep
    n, g = norms(o, v), right_gain(o)
    safe = np.where(n == 0, 1.0, n)
    # dg/dV = −(m/n²)·V/n, and L depends on g through dy∘(x_d Vᵀ).
    pull = -(np.sum(o.dy * (dropped @ v.T), axis=0) * g / safe)[:, np.newaxis] * v / safe[:, np.newaxis]
    x, a, b, m, bias = gradients(o)
    return x, a + o.scale * o.lora_b.T @ pull, b + o.scale * pull @ o.lora_a.T, m, bias


def _magnitude_of_base(o: Single) -> tuple[Array, ...]:
    """Leave the adapter out of the gradient of the magnitude."""
    x, a, b, _, bias = gradients(o)
    n = norms(o, merged(o))
    over = np.where(n == 0, 0.0, 1 / np.where(n == 0, 1.0, n))
    return x, a, b, np.sum(o.dy * ((o.x * o.keep) @ o.weight.T), axis=0) * over, bias


def _one_for_zero(o: Single) -> Array:
    return np.where(norms(o, merged(o)) == 0, 1.0, right_gain(o))


def _bias_in_float16(o: Single) -> tuple[Array, ...]:
    total = np.zeros(o.dy.shape[1], np.float16)
    for row in o.dy.astype(np.float16):
        total += row
    return (*gradients(o)[:4], total.astype(np.float64))


def dora_gradient_faults() -> list[Mutant]:
    """Return the mutants of the gradients of DoRA layers."""
    backward: list[tuple[str, str, Callable[[Single], tuple[Array, ...]], tuple[str, ...]]] = [
        ("not-detached", "the norm is differentiated", _not_detached, ("lora_a", "lora_b")),
        ("a-ungained", "the gradient of A lacks g", lambda o: wrong_gradients(o, gain_a=1.0), ("lora_a",)),
        ("b-ungained", "the gradient of B lacks g", lambda o: wrong_gradients(o, gain_b=1.0), ("lora_b",)),
        ("x-ungained", "the adapter's part of dx lacks g", lambda o: wrong_gradients(o, through=1.0), ("x",)),
        ("x-base-twice", "dx has dy W and its multiple by g", lambda o: wrong_gradients(o, less=0.0), ("x",)),
        ("x-undropped", "dx lacks the mask", lambda o: wrong_gradients(o, drop=False), ("x",)),
        ("m-undivided", "dm is not divided by n", lambda o: wrong_gradients(o, inverse=1.0), ("magnitude",)),
        ("m-unguarded", "dm of a row of zeros divides by zero",
         lambda o: wrong_gradients(o, inverse=1 / norms(o, merged(o))), ("magnitude",)),
        ("m-undropped", "dm sees the undropped x", lambda o: wrong_gradients(o, seen=o.x), ("magnitude",)),
        ("m-of-base", "dm leaves the adapter out", _magnitude_of_base, ("magnitude",)),
        ("zero-row-one", "gradients of a row of zeros take g as 1",
         lambda o: wrong_gradients(o, gain_a=_one_for_zero(o), gain_b=_one_for_zero(o)), ("lora_a", "lora_b")),
        ("bias-in-float16", "db is added up in float16", _bias_in_float16, ("bias",)),
    ]  # fmt: skip
    return [
        *(Mutant(f"dora-{n}", f, {"dora_backward": backward_as(formula, "exact")}, stages)
          for n, f, formula, stages in backward),
        Mutant("qdora-not-detached", "the norm is differentiated",
               {"qdora_backward": backward_as(_not_detached, "exact")}, ("lora_a", "lora_b")),
    ]  # fmt: skip
