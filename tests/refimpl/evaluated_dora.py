"""A DoRA layer, forward and backward, in low precision: many orders, many ways to the norm and to g."""

from dataclasses import dataclass
from itertools import product

import numpy as np

from qloracle.bounds import Interval, Roundings, dora_backward_bound, dora_forward_bound
from qloracle.formats import Array

from .evaluated_layers import Case
from .evaluations import ORDERS, ROUNDINGS, Addends, Rounding, products, total

STYLES = ("terms", "merged", "gain in weight", "difference")


@dataclass(frozen=True)
class DoraPlan:
    """One way to evaluate a DoRA layer."""

    order: str
    fused: bool
    norm: str  # "plain": the root of the sum of squares; "largest": divided by the largest element before
    gain: str  # "quotient": m/n; "reciprocal": m · (1/n)
    style: str  # how the three terms come together; all but "terms" without dropout


PLANS = [
    DoraPlan(*choice)
    for choice in product(ORDERS, (False, True), ("plain", "largest"), ("quotient", "reciprocal"), STYLES)
]


class Steps:
    """Operands of a case in float64, s and mask/(1 − p) rounded, and g by a plan."""

    def __init__(self, case: Case, magnitude: Array, plan: DoraPlan, declared: Roundings) -> None:
        self.plan, self.rnd = plan, ROUNDINGS[declared.accumulate]
        self.cuts: dict[str, Rounding] = {name: ROUNDINGS.get(fmt, np.asarray) for name, fmt in vars(declared).items()}
        self.x, self.w, self.a, self.b = (operand.astype(np.float64) for operand in case.operands)
        self.dy, self.m = case.dy.astype(np.float64), magnitude.astype(np.float64)
        self.bias = np.zeros(len(self.w)) if case.bias is None else case.bias.astype(np.float64)
        rank = float(len(self.a))
        root = self.rnd(np.array(np.sqrt(rank))) if case.rank_stabilized else np.array(rank)
        self.s = self.rnd(self.rnd(np.array(case.alpha)) / root)
        keep = np.zeros(()) if case.dropout == 1 else self.rnd(1 / self.rnd(1 - self.rnd(np.array(case.dropout))))
        self.keep = np.ones(()) if case.mask is None else case.mask * keep
        self.dropped = self.cuts["dropped"](self.rnd(self.x * self.keep))
        change = self.adapter(self.s * self.adapter(self.sum(products(self.b, self.a))))
        self.merged = self.cuts["norm"](self.rnd(self.w + change))
        self.n = self.cuts["norm"](self.norms())
        self.g = self.cuts["norm"](self.over_norm(self.m))
        self.less_one = self.cuts["norm"](self.rnd(self.g - 1))

    def sum(self, addends: Addends) -> Array:
        return total(addends, self.plan.order, self.rnd, fused=self.plan.fused)

    def norms(self) -> Array:
        v = self.merged
        if self.plan.norm == "plain":
            return self.rnd(np.sqrt(self.sum([(c, c) for c in v.T])))
        largest = np.max(np.abs(v), axis=1)
        v = self.rnd(v / np.where(largest == 0, 1, largest)[:, np.newaxis])
        return self.rnd(largest * self.rnd(np.sqrt(self.sum([(c, c) for c in v.T]))))

    def over_norm(self, values: Array) -> Array:
        n = np.where(self.n == 0, np.inf, self.n)
        if self.plan.gain == "quotient":
            return self.rnd(values / n)
        return self.rnd(values * self.rnd(1 / n))

    def low(self) -> Array:
        hidden = self.cuts["intermediate"](self.sum(products(self.dropped, self.a.T)))
        return self.adapter(self.s * self.adapter(self.sum(products(hidden, self.b.T))))

    def adapter(self, values: Array) -> Array:
        return self.cuts["adapter"](self.rnd(values))

    def base(self, values: Array) -> Array:
        return self.cuts["base"](self.rnd(values))


def forward(case: Case, magnitude: Array, plan: DoraPlan, declared: Roundings) -> Array:
    do = Steps(case, magnitude, plan, declared)
    narrow = (declared.base, declared.adapter, declared.norm) != ("float32",) * 3
    style = "terms" if case.mask is not None or narrow else plan.style
    if style == "merged":
        return do.rnd(do.rnd(do.g * do.sum(products(do.x, do.merged.T))) + do.bias)
    if style == "gain in weight":
        return do.rnd(do.sum(products(do.x, do.rnd(do.g[:, np.newaxis] * do.merged).T)) + do.bias)
    base, own = do.sum(products(do.x, do.w.T)), do.base(do.sum(products(do.dropped, do.w.T)))
    low = do.adapter(do.g * do.low())
    if style == "difference":
        parts = do.rnd(do.rnd(do.g * own) + low)
        return do.rnd(do.rnd(do.rnd(base - own) + parts) + do.bias)
    return do.rnd(do.base(base + do.bias) + do.adapter(do.adapter(do.less_one * own) + low))


def backward(case: Case, magnitude: Array, plan: DoraPlan, declared: Roundings) -> dict[str, Array]:
    do = Steps(case, magnitude, plan, declared)
    gained, lessened = do.adapter(do.dy * do.g), do.adapter(do.dy * do.less_one)
    hidden = do.cuts["intermediate"](do.sum(products(do.dropped, do.a.T)))
    back = do.cuts["intermediate"](do.sum(products(gained, do.b)))
    low = do.adapter(do.s * do.sum(products(back, do.a)))
    own = do.base(do.sum(products(lessened, do.w)))
    through = do.adapter(do.keep * do.adapter(own + low))
    merged = do.adapter(do.base(do.sum(products(do.dropped, do.w.T))) + do.low())
    one = np.ones(())
    return {
        "x": do.rnd(do.base(do.sum(products(do.dy, do.w))) + through),
        "lora_a": do.rnd(do.s * do.sum(products(back.T, do.dropped))),
        "lora_b": do.sum(products(do.adapter(do.s * gained).T, hidden)),
        "magnitude": do.adapter(do.over_norm(do.adapter(do.sum([(row, one) for row in do.adapter(do.dy * merged)])))),
        "bias": do.sum([(row, one) for row in do.dy]),
    }


def forward_interval(case: Case, magnitude: Array, roundings: Roundings) -> Interval:
    return dora_forward_bound(*case.operands, magnitude, bias=case.bias, roundings=roundings, **case.options)


def backward_intervals(case: Case, magnitude: Array, roundings: Roundings) -> dict[str, Interval]:
    return dora_backward_bound(case.dy, *case.operands, magnitude, roundings=roundings, **case.options)
