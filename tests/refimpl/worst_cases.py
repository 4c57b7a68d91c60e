"""Evaluations that are as wrong as right ones can be: sums that round one way, and searched operands of short ones.

Each case is an interval, what evaluations gave, and the exact value of an element as a rational number.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np

from qloracle.bounds import Interval, Roundings
from qloracle.formats import Array

from .bound_cases import NUDGE
from .evaluated_dora import PLANS as DORA_PLANS
from .evaluated_dora import backward as dora_backward
from .evaluated_dora import backward_intervals as dora_intervals
from .evaluated_dora import forward as dora_forward
from .evaluated_dora import forward_interval as dora_interval
from .evaluated_layers import Case, backward, backward_intervals, forward, forward_interval
from .evaluations import BACKWARD_PLANS, FORWARD_PLANS, to_float32
from .rational_adamw import root
from .rationals import exact

LONG, SHORT = 2048, 150
Exact = Callable[[tuple[int, ...]], Fraction]
STRICT = Roundings()


@dataclass(frozen=True)
class Worst:
    """An interval with evaluations inside it."""

    interval: Interval
    got: list[Array]
    real: Exact  # of the element at an index

    def factor(self) -> Fraction:
        """Return the half width over the largest error, of the element and evaluation where that is smallest."""
        lo, hi = self.interval.lo, self.interval.hi
        half, best = (hi - lo) / 2, Fraction(0)
        assert self.interval.judged.all(), "an ordinary sum must be judged"
        for got in self.got:
            outside = np.argwhere(~((lo <= got) & (got <= hi)))
            assert not outside.size, f"{got[tuple(outside[0])]!r} is right, but not in its interval"
            part = np.abs(got - (lo + hi) / 2) / np.where(half > 0, half, np.inf)
            index = tuple(int(i) for i in np.unravel_index(np.argmax(part), part.shape))
            used = abs(exact(got[index]) - self.real(index)) / ((exact(hi[index]) - exact(lo[index])) / 2)
            best = max(best, used)
        return 1 / best


def nudges(count: int, nudge: np.float32 = NUDGE) -> Array:
    """1 and numbers a little above half a unit in its last place: every sequential addition rounds up."""
    values = np.full(count, nudge)
    values[0] = 1
    return values


def uniform(seed: int, *shape: int) -> Array:
    return np.random.default_rng([361, seed]).uniform(1, 2, shape).astype(np.float32)


def rational(values: Array) -> Array:
    made = np.empty(values.shape, object)
    made.reshape(-1)[...] = [exact(v) for v in values.reshape(-1)]
    return made


def chosen(plans: Sequence[Any], count: int) -> list[Any]:
    picks = np.random.default_rng(362).choice(len(plans), count, replace=False)
    return [plans[i] for i in picks]


def ones(*shape: int) -> Array:
    return np.ones(shape, np.float32)


def long_case(name: str) -> Case:
    """A layer whose one output, or gradient, is a sum of nudges; alpha is 1 and so is the rank."""
    zero, column = 0 * ones(1, 1), nudges(LONG)[:, np.newaxis]
    if name == "y":
        return Case(column.T, ones(1, LONG), 0 * ones(1, LONG), zero, ones(1, 1))
    if name == "x":
        return Case(ones(1, 1), ones(LONG, 1), ones(1, 1), 0 * ones(LONG, 1), column.T)
    return Case(ones(LONG, 1), ones(1, 1), ones(1, 1), ones(1, 1), column)


def short_case(name: str) -> Case:
    """A layer of sums of one term each, with as many elements as a search needs."""
    n, draw = SHORT, uniform
    if name == "y":
        return Case(draw(1, n, 1), draw(2, n, 1), draw(3, 1, 1), draw(4, n, 1), draw(5, n, n), alpha=0.7)
    if name == "x":
        return Case(draw(1, n, n), draw(2, 1, n), draw(3, 1, n), draw(4, 1, 1), draw(5, n, 1), alpha=0.7)
    if name == "lora_a":
        return Case(draw(1, 1, n), draw(2, 1, n), draw(3, 1, n), draw(4, 1, 1), draw(5, 1, 1), alpha=0.7)
    return Case(draw(1, 2, 1), draw(2, n, 1), draw(3, 1, 1), draw(4, n, 1), draw(5, 2, n), alpha=0.7)


def layer_real(case: Case, name: str) -> Exact:
    """Return the exact output or gradient of a LoRA layer without dropout, as a function of the index."""
    x, w, a, b = (rational(part) for part in case.operands)
    dy, s = rational(case.dy), exact(case.alpha) / len(case.lora_a)
    made = {
        "y": lambda i: x[i[0]] @ w[i[1]] + s * ((a @ x[i[0]]) @ b[i[1]]),
        "x": lambda i: dy[i[0]] @ w[:, i[1]] + s * ((dy[i[0]] @ b) @ a[:, i[1]]),
        "lora_a": lambda i: s * ((dy @ b[:, i[0]]) @ x[:, i[1]]),
        "lora_b": lambda i: s * (dy[:, i[0]] @ (x @ a[i[1]])),
        "bias": lambda i: sum(dy[:, i[0]], Fraction(0)),
        "lora_bias": lambda i: s * sum(dy[:, i[0]], Fraction(0)),
    }
    return made[name]


def lora(name: str, case: Case, count: int) -> Worst:
    """Evaluations of a LoRA layer by several plans."""
    real = layer_real(case, name)
    if name == "y":
        return Worst(
            forward_interval(case, STRICT), [forward(case, p, STRICT) for p in chosen(FORWARD_PLANS, count)], real
        )
    found = backward_intervals(case, STRICT)[name]
    if name == "lora_bias":
        total = to_float32(np.add.accumulate(case.dy, axis=0, dtype=np.float32)[-1])
        s = to_float32(np.array(case.alpha / len(case.lora_a)))
        return Worst(found, [to_float32(total * s)], real)
    return Worst(found, [backward(case, p, STRICT)[name] for p in chosen(BACKWARD_PLANS, count)], real)


def dora_real(case: Case, m: Array, name: str) -> Exact:
    """Return the exact output or gradient of a DoRA layer without dropout; norms to 60 digits."""
    x, w, a, b = (rational(part) for part in case.operands)
    dy, s, size = rational(case.dy), exact(case.alpha) / len(case.lora_a), rational(m)
    v = w + s * (b @ a)
    n = np.array([root(sum(row * row)) for row in v], object)
    g = size / n
    made = {
        "y": lambda i: g[i[1]] * (x[i[0]] @ v[i[1]]),
        "x": lambda i: (dy[i[0]] * g) @ v[:, i[1]],
        "lora_a": lambda i: s * ((dy @ (g * b[:, i[0]])) @ x[:, i[1]]),
        "lora_b": lambda i: s * g[i[0]] * (dy[:, i[0]] @ (x @ a[i[1]])),
        "magnitude": lambda i: (dy[:, i[0]] @ (x @ v[i[0]])) / n[i[0]],
        "bias": lambda i: sum(dy[:, i[0]], Fraction(0)),
    }
    return made[name]


def dora(name: str, case: Case, count: int, m: Array) -> Worst:
    """Evaluations of a DoRA layer by several plans."""
    real = dora_real(case, m, name)
    plans = chosen(DORA_PLANS, count)
    if name == "y":
        return Worst(dora_interval(case, m, STRICT), [dora_forward(case, m, p, STRICT) for p in plans], real)
    return Worst(dora_intervals(case, m, STRICT)[name], [dora_backward(case, m, p, STRICT)[name] for p in plans], real)


def dora_cases(name: str) -> dict[str, Callable[[], Worst]]:
    long, short, gain, count = long_case(name), short_case(name), 1.5, 6
    if name == "y":  # a norm whose squares round up as the products do; g = −1, so that they do not cancel
        row = nudges(LONG, np.float32(2.0**-12 * (1 + 2.0**-20)))[np.newaxis]
        long, gain, count = replace(long, x=row, weight=row), -1.0, 24
    return {
        "long": partial(dora, name, long, count, ones(len(long.weight)) * np.float32(gain)),
        "short": partial(dora, name, short, 24, uniform(6, len(short.weight))),
    }


def lora_cases(name: str) -> dict[str, Callable[[], Worst]]:
    return {"long": partial(lora, name, long_case(name), 12), "short": partial(lora, name, short_case(name), 60)}


LAYERS: dict[str, dict[str, Callable[[], Worst]]] = {
    "lora_forward_bound": lora_cases("y"),
    **{f"lora_backward_bound[{n}]": lora_cases(n) for n in ("x", "lora_a", "lora_b", "bias", "lora_bias")},
    "dora_forward_bound": dora_cases("y"),
    **{f"dora_backward_bound[{n}]": dora_cases(n) for n in ("x", "lora_a", "lora_b", "magnitude", "bias")},
}
