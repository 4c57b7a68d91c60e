"""Worst evaluations of optimizer steps, of clipping and accumulation, and of merges into quantized weights."""

from collections.abc import Callable
from fractions import Fraction
from functools import partial

import numpy as np

from qloracle import dequantize_blockwise, lora_merge, lora_unmerge, quantize_blockwise, quantize_like
from qloracle.bounds import (
    Interval,
    absmax_bound,
    adamw_moments_bound,
    adamw_parameter_bound,
    code_bound,
    merged_values_bound,
    requantize_cycles_bound,
)
from qloracle.bounds.requantize import code_positions
from qloracle.formats import Array
from qloracle.optim.accumulate import accumulate_gradients_bound
from qloracle.optim.clipping import clip_by_norm_bound
from qloracle.optim.options import AdamwOptions

from . import rational_adamw as exactly
from .adamw_evaluations import PLANS, Hyperparameters, moments, parameter
from .evaluations import to_float32
from .rational_adamw import root
from .rationals import exact
from .worst_cases import LONG, Worst, nudges, uniform
from .worst_merges import SUM, running

COUNT = 20000
H = Hyperparameters(0.3, 0.55, 0.57, 0.7)
OPTIONS = AdamwOptions(H.lr, H.beta1, H.beta2, H.eps)


def step(which: str) -> Worst:
    """One step of AdamW by many forms, from operands of one binade."""
    g, m, v = uniform(31, COUNT), uniform(32, COUNT), uniform(33, COUNT)
    p, wide = 0 * g, [part.astype(np.float64) for part in (g, m, v)]
    plans = [plan for plan in PLANS if plan.scalars == "double"][::2]
    bounds = adamw_moments_bound(g, m, v, OPTIONS)
    if which in "mv":
        index = "mv".index(which)
        got = [moments(*wide, H, plan, to_float32)[index] for plan in plans]
        real = lambda i: exactly.moments(exact(g[i]), exact(m[i]), exact(v[i]), H)[index]  # noqa: E731
        return Worst(bounds[index], got, real)
    interval = adamw_parameter_bound(p, m, v, OPTIONS, step=2)
    got = [parameter(p.astype(np.float64), *wide[1:], H, 2, plan, to_float32) for plan in plans]
    return Worst(interval, got, lambda i: exactly.parameter(Fraction(0), exact(m[i]), exact(v[i]), H, 2))


def clipped(long: bool) -> Worst:
    if long:
        values = nudges(LONG, np.float32(2.0**-12 * (1 + 2.0**-20)))
        square = running(to_float32(values.astype(np.float64) ** 2)[:, np.newaxis])
        norm = root(sum((exact(x) ** 2 for x in values), Fraction(0)))
        (interval,) = clip_by_norm_bound([values], 0.7)
        limit = to_float32(np.array(0.7))
        got = to_float32(to_float32(limit / to_float32(np.sqrt(square))) * values)
        return Worst(interval, [got], lambda i: exact(0.7) / norm * exact(values[i]))
    best: list[Worst] = []
    for seed in range(60):
        values = uniform(100 + seed, 2)
        (interval,) = clip_by_norm_bound([values], 0.7)
        wide = values.astype(np.float64)
        size = to_float32(np.sqrt(to_float32(to_float32(wide[0] ** 2) + to_float32(wide[1] ** 2))))
        got = to_float32(to_float32(to_float32(np.array(0.7)) / size) * wide)
        norm = root(sum((exact(x) ** 2 for x in values), Fraction(0)))
        best.append(Worst(interval, [got], lambda i, v=values, n=norm: exact(0.7) / n * exact(v[i])))  # type: ignore[misc]
    return min(best, key=Worst.factor)


def accumulated(long: bool) -> Worst:
    if long:
        g = nudges(LONG)[:, np.newaxis]
        interval = accumulate_gradients_bound(g, np.ones(LONG, np.int64), reduction="sum")
        return Worst(interval, [to_float32(running(g) / LONG)], lambda _: SUM / LONG)
    g, counts = uniform(35, 2, COUNT), np.array([3, 4])
    interval, wide = accumulate_gradients_bound(g, counts), g.astype(np.float64)
    seventh = to_float32(np.array(1 / 7))
    got = [
        to_float32(to_float32(to_float32(3 * wide[0]) + to_float32(4 * wide[1])) * seventh),
        to_float32(to_float32(to_float32(3 * seventh) * wide[0]) + to_float32(to_float32(4 * seventh) * wide[1])),
    ]
    return Worst(interval, got, lambda i: (3 * exact(g[0, i[0]]) + 4 * exact(g[1, i[0]])) / 7)


def merged() -> tuple[Array, Array, Array, Interval]:
    w, a, b = uniform(36, 60, 60), uniform(37, 1, 60), uniform(38, 60, 1)
    return w, a, b, merged_values_bound(w, a, b, alpha=0.7, fmt="float32")


def absmax() -> Worst:
    """The largest of each block, from the evaluation of each of its elements that is farthest off."""
    w, a, b, values = merged()
    like = quantize_blockwise(w, block_size=4)
    s, wide = to_float32(np.array(0.7)), b.astype(np.float64)
    got = [
        to_float32(w + change)
        for change in (to_float32(s * to_float32(wide * a)), to_float32(to_float32(s * wide) * a))
    ]
    real = [[exact(w[o, k]) + exact(0.7) * exact(b[o, 0]) * exact(a[0, k]) for k in range(60)] for o in range(60)]
    flat = [v for row in real for v in row]
    largest = [np.abs(part).reshape(-1, 4).max(axis=1) for part in got]
    return Worst(absmax_bound(values, like), largest, lambda i: max(flat[4 * i[0] : 4 * i[0] + 4]))


def code_width() -> Fraction:
    """Codes that the bound allows over codes that numbers in the intervals have, for intervals of two steps."""
    lo = np.linspace(-1, 0.9, 400)[np.newaxis]
    values = Interval(lo, lo + 0.1, np.ones(lo.shape, np.bool_))
    own = quantize_blockwise(np.ones(lo.shape, np.float32), block_size=400)
    low, high = code_bound(values, own)
    found = [
        code_positions(quantize_like((lo + 0.1 * t).astype(np.float32), own, scales="kept"))
        for t in np.linspace(0, 1, 201)
    ]
    seen = np.max(found, axis=0) - np.min(found, axis=0)
    assert np.all(seen <= high - low)
    return Fraction(int((high - low + 1).sum()), int((seen + 1).sum()))


def requantized() -> Worst:
    """A cycle whose two quantizations both move an element by half of the widest gap."""
    w = np.ones((400, 2), np.float32)
    w[:, 1] = np.linspace(-1, -0.69, 400)
    base = quantize_blockwise(w, block_size=2)
    start = dequantize_blockwise(base)
    a, b = np.float32([[0, 1]]), np.linspace(-0.2, 0.2, 400).astype(np.float32)[:, np.newaxis]
    there = quantize_like(lora_merge(start, a, b, alpha=1), base)
    back = quantize_like(lora_unmerge(dequantize_blockwise(there), a, b, alpha=1), base)
    interval = requantize_cycles_bound(base, a, b, alpha=1, cycles=1)
    return Worst(interval, [dequantize_blockwise(back).astype(np.float64)], lambda i: exact(start[i]))


STEPS: dict[str, dict[str, Callable[[], Worst]]] = {
    "adamw_moments_bound[0]": {"short": partial(step, "m")},
    "adamw_moments_bound[1]": {"short": partial(step, "v")},
    "adamw_parameter_bound": {"short": partial(step, "p")},
    "clip_by_norm_bound": {"long": partial(clipped, True), "short": partial(clipped, False)},
    "accumulate_gradients_bound": {"long": partial(accumulated, True), "short": partial(accumulated, False)},
    "absmax_bound": {"short": absmax},
    "requantize_cycles_bound": {"short": requantized},
}
