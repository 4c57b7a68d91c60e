"""Legitimate evaluations of an AdamW step in float32: many forms, each operation rounded on its own."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import numpy as np

from qloracle.formats import Array

from .evaluations import to_bfloat16, to_float32

Rounding = Callable[[Array], Array]
ROUNDINGS: dict[str, Rounding] = {"float32": to_float32, "bfloat16": to_bfloat16}


@dataclass(frozen=True)
class Hyperparameters:
    lr: float
    beta1: float
    beta2: float
    eps: float
    weight_decay: float = 0.0


@dataclass(frozen=True)
class Plan:
    """One way to evaluate a step."""

    moments: (
        str  # "sum": β·m + (1 − β)·g; "lerp": m + (1 − β)·(g − m) or from g; "fused": a fused multiply-add in the sum
    )
    square: str  # "square first": (1 − β)·(g·g); "weight first": ((1 − β)·g)·g
    corrections: str  # "moments": m̂ and v̂; "roots": lr/c₁ and √v/√c₂; "folded": into lr and eps
    division: str  # "quotient" or "reciprocal" of the denominator
    decay: str  # "factor": p·(1 − lr·wd); "difference": p − lr·wd·p
    scalars: str  # "double": 1 − β and its powers in float64; "single": from the rounded β, in float32


PLANS = [
    Plan(*choice)
    for choice in product(
        ("sum", "lerp", "fused"),
        ("square first", "weight first"),
        ("moments", "roots", "folded"),
        ("quotient", "reciprocal"),
        ("factor", "difference"),
        ("double", "single"),
    )
]


def weights(beta: float, step: int, plan: Plan, rnd: Rounding) -> tuple[Array, Array, Array]:
    """β, 1 − β and 1 − β^t as scalars of the working format."""
    if plan.scalars == "double":
        return rnd(np.array(beta)), rnd(np.array(1 - beta)), rnd(np.array(1 - beta**step))
    b = power = rnd(np.array(beta))
    for _ in range(step - 1):
        power = rnd(power * b)
    return b, rnd(1 - b), rnd(1 - power)


def average(old: Array, new: Array, beta: Array, rest: Array, plan: Plan, rnd: Rounding) -> Array:
    if plan.moments == "lerp":
        if rest < 0.5:
            return rnd(old + rnd(rest * rnd(new - old)))
        return rnd(new - rnd(rnd(1 - rest) * rnd(new - old)))
    if plan.moments == "fused":
        return rnd(beta * old + rnd(rest * new))
    return rnd(rnd(beta * old) + rnd(rest * new))


def moments(g: Array, m: Array, v: Array, h: Hyperparameters, plan: Plan, rnd: Rounding) -> tuple[Array, Array]:
    """m' and v' in low precision, held in float64."""
    beta1, rest1, _ = weights(h.beta1, 1, plan, rnd)
    beta2, rest2, _ = weights(h.beta2, 1, plan, rnd)
    new_m = average(m, g, beta1, rest1, plan, rnd)
    if plan.square == "weight first" and plan.moments != "lerp":
        return new_m, rnd(rnd(beta2 * v) + rnd(rnd(rest2 * g) * g))
    return new_m, average(v, rnd(g * g), beta2, rest2, plan, rnd)


def parameter(p: Array, m: Array, v: Array, h: Hyperparameters, step: int, plan: Plan, rnd: Rounding) -> Array:
    """p' in low precision, before any rounding to the parameter's format."""
    lr, eps, decay = (rnd(np.array(value)) for value in (h.lr, h.eps, h.weight_decay))
    c1, c2 = weights(h.beta1, step, plan, rnd)[2], weights(h.beta2, step, plan, rnd)[2]
    if plan.corrections == "moments":
        top, scale, below = rnd(m / c1), lr, rnd(rnd(np.sqrt(rnd(v / c2))) + eps)
    elif plan.corrections == "roots":
        top, scale, below = m, rnd(lr / c1), rnd(rnd(rnd(np.sqrt(v)) / rnd(np.sqrt(c2))) + eps)
    else:
        root = rnd(np.sqrt(c2))
        top, scale, below = m, rnd(rnd(lr * root) / c1), rnd(rnd(np.sqrt(v)) + rnd(eps * root))
    quotient = rnd(top / below) if plan.division == "quotient" else rnd(top * rnd(1 / below))
    update = rnd(scale * quotient)
    rate = rnd(lr * decay)
    rest = rnd(p * rnd(1 - rate)) if plan.decay == "factor" else rnd(p - rnd(rate * p))
    return rnd(rest - update)
