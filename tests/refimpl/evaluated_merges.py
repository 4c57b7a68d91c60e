"""Legitimate evaluations of merges in low precision: many orders, W first or last, the scale folded in anywhere."""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import product
from math import sqrt

import numpy as np

from qloracle.formats import Array

from .evaluations import ORDERS, ROUNDINGS, Addends, Rounding, total
from .rationals import exact

ONE = np.ones((1, 1))


@dataclass(frozen=True)
class MergePlan:
    """One way to evaluate W + s B A."""

    order: str
    fused: bool
    scale_in: str  # "a", "b" or "end"
    weight: str  # "first": where the accumulation starts; "last"; "after": added to the finished change


PLANS = [
    MergePlan(*choice)
    for choice in product(ORDERS, (False, True), ("a", "b", "end"), ("first", "last", "after"))
    if not (choice[2] == "end" and choice[3] != "after")
]


def low_factor(alpha: float, rank: int, rank_stabilized: bool, rnd: Rounding) -> Array:
    """s in low precision, by the longest way."""
    root = rnd(np.array(sqrt(rank))) if rank_stabilized else np.array(float(rank))
    return rnd(rnd(np.array(alpha)) * rnd(1 / root))


def merged(
    weight: Array, lora_a: Array, lora_b: Array, plan: MergePlan, factor: Array, rnd: Rounding, adapter: Rounding
) -> Array:
    """W + factor·B A in low precision; the operands as float64."""
    a, b = (rnd(factor * lora_a) if plan.scale_in == "a" else lora_a), lora_b
    b = rnd(factor * b) if plan.scale_in == "b" else b
    addends: Addends = [(b[:, k : k + 1], a[k : k + 1]) for k in range(len(a))]
    if plan.weight != "after":
        own = [(weight, np.ones((1, weight.shape[1])))]
        return total(
            [*own, *addends] if plan.weight == "first" else [*addends, *own], plan.order, rnd, fused=plan.fused
        )
    change = adapter(total(addends, plan.order, rnd, fused=plan.fused))
    change = adapter(rnd(factor * change)) if plan.scale_in == "end" else adapter(change)
    return rnd(weight + change)


def evaluations(
    weight: Array, lora_a: Array, lora_b: Array, alpha: float, *, rank_stabilized: bool = False, adapter: str = ""
) -> Iterator[tuple[str, Array]]:
    """Every plan in float32; with a declared rounding of the adapter only those that have one."""
    rnd = ROUNDINGS["float32"]
    w, a, b = (np.asarray(m, np.float64) for m in (weight, lora_a, lora_b))
    factor = low_factor(alpha, len(a), rank_stabilized, rnd)
    for plan in PLANS:
        if not adapter or plan.weight == "after":
            between = ROUNDINGS[adapter] if adapter else rnd
            yield str(plan), merged(w, a, b, plan, factor, rnd, between)


def rational_merge(weight: Array, lora_a: Array, lora_b: Array, scale: Fraction) -> list[list[Fraction]]:
    """W + s B A, index by index."""
    return [
        [
            exact(w)
            + scale * sum((exact(b) * exact(a[k]) for b, a in zip(lora_b[o], lora_a, strict=True)), Fraction(0))
            for k, w in enumerate(row)
        ]
        for o, row in enumerate(weight)
    ]


def cases(seed: int) -> dict[str, tuple[Array, Array, Array]]:
    """Operands that press on a bound: ordinary, wide, cancelling, subnormal."""
    rng = np.random.default_rng([71, seed])

    def normal(*shape: int) -> Array:
        return rng.standard_normal(shape).astype(np.float32)

    def stretched(values: Array, lowest: int, highest: int) -> Array:
        return np.ldexp(values, rng.integers(lowest, highest, values.shape)).astype(np.float32)

    w, a, b = normal(5, 7), normal(6, 7), normal(5, 6)
    close = (-(np.float64(3.0) * b.astype(np.float64) @ a.astype(np.float64))).astype(np.float32)
    return {
        "ordinary": (w, a, b),
        "wide": tuple(stretched(m, -20, 21) for m in (w, a, b)),
        "cancelling": (close, a, b),
        "subnormal": (w * np.float32(2.0**-140), a * np.float32(2.0**-75), b * np.float32(2.0**-70)),
        "one rank": (w, a[:1], b[:, :1]),
    }  # type: ignore[return-value]
