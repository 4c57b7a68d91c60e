"""Merges, unmerges, cycles and combinations of adapters, for the test of containment."""

from collections.abc import Callable

import numpy as np

from qloracle import LoraAdapter, dequantize_blockwise, quantize_blockwise, quantize_like
from qloracle.bounds import (
    Interval,
    Roundings,
    absmax_bound,
    code_bound,
    combine_bound,
    concatenate_bound,
    dora_merge_bound,
    dora_unmerge_bound,
    lora_merge_bound,
    merge_bias_bound,
    merge_cycles_bound,
    merged_values_bound,
    requantize_cycles_bound,
)
from qloracle.bounds.requantize import code_positions
from qloracle.dora_merging import MergedDora

from .contained_draws import Judged, drawer
from .evaluated_merges import PLANS as MERGE_PLANS
from .evaluated_merges import low_factor, merged
from .evaluations import ORDERS, ROUNDINGS, products, to_float32, total


def merging(rng: np.random.Generator, fmt: str, lattice: bool) -> Judged:
    draw, how, rnd = drawer(rng, fmt, lattice), Roundings(accumulate=fmt), ROUNDINGS[fmt]
    w, a, b, m = draw(120, 120), draw(4, 120), draw(120, 4), draw(120)
    interval = lora_merge_bound(w, a, b, alpha=8.0, roundings=how)
    dora_weight, norms = dora_merge_bound(w, a, b, m, alpha=8.0, roundings=how)
    wide = [part.astype(np.float64) for part in (w, a, b)]
    if lattice:
        yield "weight", interval, wide[0] + 2 * (wide[2] @ wide[1])
    factor = low_factor(8.0, 4, False, rnd)
    for place in rng.choice(len(MERGE_PLANS), 6):
        plan = MERGE_PLANS[place]
        rows = merged(*wide, plan, factor, rnd, rnd)
        yield "weight", interval, rows
        n = rnd(np.sqrt(total([(column, column) for column in rows.T], plan.order, rnd)))
        yield "norms", norms, n
        g = rnd(m / np.where(n == 0, np.inf, n))[:, np.newaxis]
        yield "dora", dora_weight, rnd(g * rows)
        yield "dora", dora_weight, rnd(rnd(rows / np.where(n == 0, np.inf, n)[:, np.newaxis]) * m[:, np.newaxis])
    many = draw(30000, 3)
    zero = np.zeros((1, 3), np.float32), np.zeros((30000, 1), np.float32)
    _, norms = dora_merge_bound(many, *zero, draw(30000), alpha=1, roundings=how)
    for order in ORDERS:
        yield "norms", norms, rnd(np.sqrt(total([(c, c) for c in many.T.astype(np.float64)], order, rnd)))


def undone(rng: np.random.Generator, fmt: str, lattice: bool) -> Judged:
    """A DoRA adapter taken out again, a bias, and cycles of a merge."""
    draw, how, rnd = drawer(rng, fmt, lattice), Roundings(accumulate=fmt), ROUNDINGS[fmt]
    w, a, b, m, n = draw(120, 120), draw(4, 120), draw(120, 4), draw(120), np.abs(draw(120))
    m = np.where(m == 0, np.float32(1), m)
    interval = dora_unmerge_bound(MergedDora(w, n), a, b, m, alpha=8.0, roundings=how)
    wide, factor = [part.astype(np.float64) for part in (w, a, b)], low_factor(8.0, 4, False, rnd)
    g = rnd(m / np.where(n == 0, np.inf, n.astype(np.float64)))[:, np.newaxis]
    gone = (n == 0)[:, np.newaxis]
    for plan in (MERGE_PLANS[place] for place in rng.choice(len(MERGE_PLANS), 3)):
        change = merged(np.zeros_like(wide[0]), *wide[1:], plan, factor, rnd, rnd)
        for rows in (rnd(wide[0] / np.where(gone, 1, g)), rnd(wide[0] * rnd(1 / np.where(gone, 1, g)))):
            yield "unmerged", interval, rnd(np.where(gone, 0, rows) - change)
    bias, added = draw(30000), draw(30000)
    for unmerge, sign in ((False, 1.0), (True, -1.0)):
        bound = merge_bias_bound(bias, added, alpha=8.0, rank=4, unmerge=unmerge, roundings=how)
        yield "bias", bound, rnd(bias + rnd(sign * factor * added.astype(np.float64)))
    bound, state = merge_cycles_bound(w, a, b, alpha=8.0, cycles=2, roundings=how), wide[0]
    for sign in (1, -1) * 2:
        plan = MERGE_PLANS[rng.integers(len(MERGE_PLANS))]
        state = to_float32(merged(state, *wide[1:], plan, sign * factor, rnd, rnd))
    yield "cycles", bound, state


def combining(rng: np.random.Generator, fmt: str, lattice: bool) -> Judged:
    """Two adapters with weights; s = 2 and s = 1/2."""
    draw, how, rnd = drawer(rng, fmt, lattice), Roundings(accumulate=fmt), ROUNDINGS[fmt]
    adapters = [LoraAdapter(draw(4, 2000), draw(20, 4), alpha=8.0), LoraAdapter(draw(2, 2000), draw(20, 2), alpha=1.0)]
    weights, factors = [1.5, -0.7], [rnd(np.array(3.0)), rnd(rnd(np.array(-0.7)) * 0.5)]
    sums, stack = combine_bound(adapters, weights, roundings=how), concatenate_bound(adapters, weights, roundings=how)
    parts = [tuple(m.astype(np.float64) for m in (each.lora_a, each.lora_b)) for each in adapters]
    for order in ORDERS:
        made = [rnd(f * a) for f, (a, _) in zip(factors, parts, strict=True)]
        yield "stacked", stack, np.concatenate(made)
        addends = [p for scaled, (_, b) in zip(made, parts, strict=True) for p in products(b, scaled)]
        yield "combined", sums, total(addends, order, rnd)
        late = [rnd(f * total(products(b, a), order, rnd)) for f, (a, b) in zip(factors, parts, strict=True)]
        yield "combined", sums, rnd(late[0] + late[1])


def requantizing(rng: np.random.Generator, fmt: str, lattice: bool) -> Judged:
    """Merges into NF4: values, largest magnitudes, codes given those, and what two cycles leave."""
    size = float(np.exp2(rng.integers(-60, 60)))
    w, a, b = ((rng.standard_normal(s) * size ** (0.5 + (i == 0) / 2)).astype(np.float32)
               for i, s in enumerate(((120, 120), (4, 120), (120, 4))))  # fmt: skip
    base = quantize_blockwise(w, block_size=8)
    start, factor = dequantize_blockwise(base), low_factor(8.0, 4, False, to_float32)
    values = merged_values_bound(start, a, b, alpha=8.0, fmt="float32")
    wide = [part.astype(np.float64) for part in (a, b)]
    for place in rng.choice(len(MERGE_PLANS), 3):
        got = merged(start.astype(np.float64), *wide, MERGE_PLANS[place], factor, to_float32, to_float32)
        own = quantize_blockwise(got.astype(np.float32), block_size=8)
        yield "values", values, got
        yield "absmax", absmax_bound(values, own), own.absmax.astype(np.float64)
        lo, hi = code_bound(values, own)
        yield "codes", Interval(lo, hi, values.judged.reshape(-1)), code_positions(own)
    bound, state = requantize_cycles_bound(base, a, b, alpha=8.0, cycles=1), start.astype(np.float64)
    for sign in (1, -1):
        plan = MERGE_PLANS[rng.integers(len(MERGE_PLANS))]
        made = merged(state, *wide, plan, sign * factor, to_float32, to_float32).astype(np.float32)
        state = dequantize_blockwise(quantize_like(made, base)).astype(np.float64)
    yield "requantized", bound, state


MERGES: dict[str, tuple[Callable[..., Judged], tuple[str, ...]]] = {
    "merging": (merging, ("weight", "dora", "norms")),
    "undone": (undone, ("unmerged", "bias", "cycles")),
    "combining": (combining, ("combined", "stacked")),
    "requantizing": (requantizing, ("values", "absmax", "codes", "requantized")),
}
