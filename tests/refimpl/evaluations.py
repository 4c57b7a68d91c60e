"""Legitimate evaluations of a LoRA layer in low precision: many orders, many places for the factors.

Numbers of the accumulation format are held in float64; one operation in float64 and one rounding after it is the
correctly rounded operation, because 53 ≥ 2·24 + 2 (Figueroa 1995). A fused multiply-add may be off by 2^−53 of itself.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from math import sqrt

import numpy as np

from qloracle.formats import Array

Rounding = Callable[[Array], Array]
Addends = list[tuple[Array, Array]]  # products left · right, to be added up


def to_float32(values: Array) -> Array:
    return np.asarray(values).astype(np.float32).astype(np.float64)


def to_float16(values: Array) -> Array:
    return np.asarray(values).astype(np.float16).astype(np.float64)


def to_bfloat16(values: Array) -> Array:
    words = np.asarray(values).astype(np.float32).view(np.uint32)
    words = (words + np.uint32(0x7FFF) + ((words >> np.uint32(16)) & np.uint32(1))) & np.uint32(0xFFFF0000)
    return words.view(np.float32).astype(np.float64)


ROUNDINGS: dict[str, Rounding] = {"float32": to_float32, "float16": to_float16, "bfloat16": to_bfloat16}
ORDERS = ("sequential", "reversed", "shuffled", "pairwise", "blocked")


def total(addends: Addends, order: str, rnd: Rounding, *, fused: bool = False) -> Array:
    """Add products up in one order."""
    if order == "reversed":
        addends = addends[::-1]
    if order == "shuffled":
        addends = [addends[i] for i in np.random.default_rng(len(addends)).permutation(len(addends))]
    if order == "pairwise":
        values = [rnd(left * right) for left, right in addends]
        while len(values) > 1:
            values = [rnd(sum(values[i + 1 : i + 2], values[i])) for i in range(0, len(values), 2)]
        return values[0]
    if order == "blocked":
        parts = [total(addends[i : i + 8], "sequential", rnd, fused=fused) for i in range(0, len(addends), 8)]
        return total([(part, np.ones(())) for part in parts], "sequential", rnd)
    result = rnd(addends[0][0] * addends[0][1])
    for left, right in addends[1:]:
        result = rnd(result + (left * right if fused else rnd(left * right)))
    return result


def products(left: Array, right: Array) -> Addends:
    """The addends of left @ right."""
    return [(left[:, k : k + 1], right[k : k + 1]) for k in range(left.shape[1])]


@dataclass(frozen=True)
class Plan:
    """One way to evaluate a layer."""

    order: str
    fused: bool
    scale_in: str  # where s is multiplied
    scale_by: str  # "quotient": alpha/r; "reciprocal": alpha · (1/r)
    dropout_by: str  # "product": x · 1/(1 − p); "quotient": x / (1 − p); "with s"
    join: str  # how base, adapter and bias come together


FORWARD_PLANS = [
    Plan(*choice)
    for choice in product(
        ORDERS,
        (False, True),
        ("x", "a", "hidden", "b", "end"),
        ("quotient", "reciprocal"),
        ("product", "quotient", "with s"),
        ("separate", "bias into base", "base first", "adapter first"),
    )
]
BACKWARD_PLANS = [
    Plan(*choice)
    for choice in product(
        ORDERS,
        (False, True),
        ("dy", "back", "other", "end"),
        ("quotient", "reciprocal"),
        ("product", "quotient", "with s"),
        ("separate", "base first", "adapter first"),
    )
]


def low_scale(plan: Plan, alpha: float, rank: int, rank_stabilized: bool, rnd: Rounding) -> Array:
    """s computed in low precision."""
    a, root = rnd(np.array(alpha)), rnd(np.array(sqrt(rank))) if rank_stabilized else np.array(float(rank))
    return rnd(a / root) if plan.scale_by == "quotient" else rnd(a * rnd(1 / root))


def low_keep(values: Array, mask: Array, dropout: float, plan: Plan, rnd: Rounding) -> tuple[Array, Array]:
    """Values with dropout applied, and what is left to multiply into s."""
    one = np.ones(())
    if dropout in (0, 1):
        return values * mask * (1 - dropout), one
    kept = rnd(1 - rnd(np.array(dropout)))
    if plan.dropout_by == "quotient":
        return rnd(values * mask / kept), one
    factor = rnd(1 / kept)
    return (rnd(values * mask * factor), one) if plan.dropout_by == "product" else (values * mask, factor)


def join(addends: tuple[Addends, Addends], bias: Array | None, plan: Plan, rnd: Rounding, finish: Rounding) -> Array:
    """Base, adapter and bias together; `finish` is what remains to be done to the adapter."""
    base, adapter = addends
    one, shift = np.ones(()), [] if bias is None else [(bias, np.ones(()))]
    if plan.join == "bias into base":
        return rnd(total([*shift, *base], plan.order, rnd, fused=plan.fused) + finish(total(adapter, plan.order, rnd)))
    if plan.join == "base first" and plan.scale_in != "end":
        return total([*base, *adapter, *shift], "sequential", rnd, fused=plan.fused)
    low_rank = finish(total(adapter, plan.order, rnd, fused=plan.fused))
    if plan.join == "adapter first":
        return total([(low_rank, one), *base, *shift], "sequential", rnd, fused=plan.fused)
    y = rnd(total(base, plan.order, rnd, fused=plan.fused) + low_rank)
    return y if bias is None else rnd(y + bias)
