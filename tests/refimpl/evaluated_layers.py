"""A LoRA layer, forward and backward, by a plan of `evaluations`; and what the tests of the bounds do with it."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from qloracle.bounds import Interval, Roundings, lora_backward_bound, lora_forward_bound
from qloracle.formats import Array

from .evaluations import ROUNDINGS, Addends, Plan, join, low_keep, low_scale, products, total


@dataclass(frozen=True)
class Case:
    """Operands (float32) and options of a layer."""

    x: Array
    weight: Array
    lora_a: Array
    lora_b: Array
    dy: Array
    alpha: float = 1.0
    bias: Array | None = None
    mask: Array | None = None
    dropout: float = 0.0
    rank_stabilized: bool = False

    @property
    def operands(self) -> tuple[Array, Array, Array, Array]:
        return self.x, self.weight, self.lora_a, self.lora_b

    @property
    def options(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("alpha", "mask", "dropout", "rank_stabilized")}


def forward_interval(case: Case, roundings: Roundings) -> Interval:
    return lora_forward_bound(*case.operands, bias=case.bias, roundings=roundings, **case.options)


def backward_intervals(case: Case, roundings: Roundings) -> dict[str, Interval]:
    return lora_backward_bound(case.dy, *case.operands, roundings=roundings, **case.options)


class Steps:
    """Operands in float64 and the factors of a plan, each rounded."""

    def __init__(self, case: Case, plan: Plan, roundings: Roundings) -> None:
        self.rnd, self.cut = ROUNDINGS[roundings.accumulate], ROUNDINGS[roundings.intermediate]
        self.plan, self.case = plan, case
        self.x, self.w, self.a, self.b = (operand.astype(np.float64) for operand in case.operands)
        self.dy = case.dy.astype(np.float64)
        self.bias = None if case.bias is None else case.bias.astype(np.float64)
        self.mask = np.ones(case.x.shape) if case.mask is None else case.mask.astype(np.float64)
        self.s = low_scale(plan, case.alpha, len(self.a), case.rank_stabilized, self.rnd)
        self.kept, rest = low_keep(self.x, self.mask, case.dropout, plan, self.rnd)
        self.s = self.rnd(self.s * rest)

    def at(self, place: str, values: Array) -> Array:
        """Values times s where the plan multiplies it, else unchanged."""
        return self.rnd(values * self.s) if self.plan.scale_in == place else values

    def sum(self, addends: Addends) -> Array:
        return total(addends, self.plan.order, self.rnd, fused=self.plan.fused)

    def dropped(self, values: Array) -> Array:
        """Values times mask/(1 − p), unless that factor is a part of s."""
        return low_keep(values, self.mask, self.case.dropout, self.plan, self.rnd)[0]


def forward(case: Case, plan: Plan, roundings: Roundings) -> Array:
    do = Steps(case, plan, roundings)
    hidden = do.sum(products(do.at("x", do.kept), do.at("a", do.a).T))
    hidden = do.cut(do.at("hidden", hidden))
    adapter = products(hidden, do.at("b", do.b).T)
    return join((products(do.x, do.w.T), adapter), do.bias, plan, do.rnd, lambda v: do.at("end", v))


def backward(case: Case, plan: Plan, roundings: Roundings) -> dict[str, Array]:
    do = Steps(case, plan, roundings)
    scaled_dy = do.at("dy", do.dy)
    back = do.cut(do.at("back", do.sum(products(scaled_dy, do.b))))
    hidden = do.cut(do.at("back", do.sum(products(do.kept, do.a.T))))
    return {
        "x": input_gradient(do, back),
        "lora_a": do.at("end", do.sum(products(back.T, do.at("other", do.kept)))),
        "lora_b": do.at("end", do.sum(products(scaled_dy.T, do.at("other", hidden)))),
        "bias": do.sum([(row, np.ones(())) for row in do.dy]),
    }


def input_gradient(do: Steps, back: Array) -> Array:
    adapter = products(back, do.at("other", do.a))
    if do.plan.join == "base first" and (do.plan.dropout_by == "with s" or do.case.dropout in (0, 1)):
        keep = do.mask if do.case.dropout != 1 else 0 * do.mask
        adapter = [(left * keep, right) for left, right in adapter]
        return join((products(do.dy, do.w), adapter), None, do.plan, do.rnd, lambda v: do.at("end", v))
    plan = do.plan if do.plan.join == "adapter first" else Plan(*{**do.plan.__dict__, "join": "separate"}.values())

    def finish(values: Array) -> Array:
        return do.dropped(do.at("end", values))

    return join((products(do.dy, do.w), adapter), None, plan, do.rnd, finish)


def require_inside(interval: Interval, got: Array, what: str) -> None:
    """Fail with the first judged element outside the interval."""
    assert interval.judged.all(), f"{what}: {np.count_nonzero(~interval.judged)} elements are not judged"
    outside = np.argwhere(~((interval.lo <= got) & (got <= interval.hi)))
    if outside.size:
        index = tuple(outside[0])
        raise AssertionError(
            f"{what}: {len(outside)} of {got.size} right results are outside their bound; first at {index}: "
            f"{got[index]!r} is not in [{interval.lo[index]!r}, {interval.hi[index]!r}]"
        )


def used_part(interval: Interval, got: Array, exact: Array) -> float:
    """The largest part of the half width that an error takes."""
    return float(np.max(np.abs(got - exact) / ((interval.hi - interval.lo) / 2)))
