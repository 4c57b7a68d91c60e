"""Worst evaluations of merges and combinations, and what the other sums share with them."""

from collections.abc import Callable
from fractions import Fraction
from functools import partial

import numpy as np

from qloracle import LoraAdapter
from qloracle.bounds import (
    Interval,
    combine_bound,
    concatenate_bound,
    dora_merge_bound,
    dora_unmerge_bound,
    lora_merge_bound,
    merge_bias_bound,
    merge_cycles_bound,
    merged_values_bound,
)
from qloracle.dora_merging import MergedDora
from qloracle.formats import Array

from .evaluated_merges import evaluations
from .evaluations import to_float32
from .rational_adamw import root
from .rationals import exact
from .worst_cases import LONG, SHORT, Worst, nudges, ones, rational, uniform

Cases = dict[str, Callable[[], Worst]]
THIRD = Fraction(0.7) / 3


def running(addends: Array) -> Array:
    """Add rows up in float32, one after the other."""
    return to_float32(np.add.accumulate(addends, axis=0, dtype=np.float32)[-1])


def first(value: Fraction) -> Callable[[tuple[int, ...]], Fraction]:
    return lambda _: value


def nudged(interval: Interval, real: Fraction) -> Worst:
    got = running(nudges(LONG)[:, np.newaxis])
    return Worst(interval, [got.reshape(interval.lo.shape)], first(real))


SUM = sum(map(exact, nudges(LONG)), Fraction(0))


def merge_long(unmerge: bool = False) -> Worst:
    a, b = nudges(LONG + 1)[1:, np.newaxis], ones(1, LONG)
    interval = lora_merge_bound(ones(1, 1), a if not unmerge else -a, b, alpha=LONG, unmerge=unmerge)
    start = np.concatenate([ones(1, 1), a])
    return Worst(interval, [running(start).reshape(1, 1)], first(1 + LONG * exact(a[0, 0])))


def merge_parts() -> tuple[Array, Array, Array]:
    return uniform(15, SHORT, SHORT), uniform(16, 1, SHORT), uniform(17, SHORT, 1)


def merge_short(quantized: bool = False) -> Worst:
    w, a, b = merge_parts()
    w = w * np.float32(2.0**-9)
    got = [values for _, values in list(evaluations(w, a, b, 0.7))[::6]]
    real = lambda i: exact(w[i]) + exact(0.7) * exact(b[i[0], 0]) * exact(a[0, i[1]])  # noqa: E731
    if quantized:
        return Worst(merged_values_bound(w, a, b, alpha=0.7, fmt="float32"), got, real)
    return Worst(lora_merge_bound(w, a, b, alpha=0.7), got, real)


def bias_short() -> Worst:
    b, added = uniform(18, SHORT**2) * np.float32(2.0**-9), uniform(19, SHORT**2)
    s = to_float32(to_float32(np.array(0.7)) * to_float32(np.array(1 / 3)))
    got = to_float32(b + to_float32(s * added.astype(np.float64)))
    return Worst(merge_bias_bound(b, added, alpha=0.7, rank=3), [got], lambda i: exact(b[i]) + THIRD * exact(added[i]))


def cycles_short() -> Worst:
    w, a, b = merge_parts()
    state, s = w.astype(np.float64), to_float32(np.array(0.7))
    delta = to_float32(s * to_float32(b.astype(np.float64) * a))
    for _ in range(2):
        state = to_float32(to_float32(state + delta) - to_float32(to_float32(s * b) * a))
    return Worst(merge_cycles_bound(w, a, b, alpha=0.7, cycles=2), [state], lambda i: exact(w[i]))


def dora_merged(which: str, long: bool) -> Worst:
    """Rows brought to magnitudes, where the norm is a sum of squares that rounds up."""
    if long:
        w = nudges(LONG, np.float32(2.0**-12 * (1 + 2.0**-20)))[np.newaxis]
        a, b, m = 0 * w, 0 * ones(1, 1), ones(1)
        square = running(to_float32(w.astype(np.float64) ** 2).T)
        ways = [(to_float32(np.sqrt(square)), w.astype(np.float64))]
        v = rational(w)
    else:
        w, a, b = (part if i else 0 * part[:, :1] for i, part in enumerate(merge_parts()))
        a, m = a[:, :1], uniform(20, SHORT)
        s = to_float32(np.array(0.7))
        rows = [to_float32(s * to_float32(b.astype(np.float64) * a)), to_float32(to_float32(s * b) * a)]
        ways = [(to_float32(np.sqrt(to_float32(v[:, 0] ** 2))), v) for v in rows]
        v = rational(w) + exact(0.7) * (rational(b) @ rational(a))
    merged, norms = dora_merge_bound(w, a, b, m, alpha=0.7)
    n = [root(sum(row * row)) for row in v]
    if which == "norms":
        return Worst(norms, [size for size, _ in ways], lambda i: n[i[0]])
    got = []
    for sizes, rows_of in ways:
        size = sizes[:, np.newaxis]
        g, inverse = to_float32(m[:, np.newaxis] / size), to_float32(1 / size)
        got += [to_float32(g * rows_of), to_float32(to_float32(m[:, np.newaxis] * inverse) * rows_of)]
        got.append(to_float32(to_float32(rows_of / size) * m[:, np.newaxis]))
    return Worst(merged, got, lambda i: exact(m[i[0]]) / n[i[0]] * v[i])


def dora_unmerged() -> Worst:
    w, a, b = merge_parts()
    m, n = uniform(21, SHORT), uniform(22, SHORT)
    g = to_float32(m / n.astype(np.float64))[:, np.newaxis]
    change = to_float32(to_float32(np.array(0.7)) * to_float32(b.astype(np.float64) * a))
    got = [to_float32(to_float32(w / g) - change), to_float32(to_float32(w * to_float32(1 / g)) - change)]
    real = lambda i: exact(n[i[0]]) / exact(m[i[0]]) * exact(w[i]) - exact(0.7) * exact(b[i[0], 0]) * exact(a[0, i[1]])  # noqa: E731
    return Worst(dora_unmerge_bound(MergedDora(w, n), a, b, m, alpha=0.7), got, real)


def combined(which: str, long: bool) -> Worst:
    if long:
        adapter = LoraAdapter(nudges(LONG)[:, np.newaxis], ones(1, LONG), alpha=float(LONG))
        return nudged(combine_bound([adapter], [1.0]), SUM)
    _, a, b = merge_parts()
    adapter, w64 = LoraAdapter(a, b, alpha=0.7), to_float32(np.array(0.9))
    f = to_float32(w64 * to_float32(np.array(0.7)))
    if which == "concatenate":
        got = [to_float32(f * a), to_float32(w64 * to_float32(to_float32(np.array(0.7)) * a))]
        return Worst(concatenate_bound([adapter], [0.9]), got, lambda i: exact(0.9) * exact(0.7) * exact(a[i]))
    got = [to_float32(f * to_float32(b.astype(np.float64) * a)), to_float32(to_float32(f * b) * a)]
    real = lambda i: exact(0.9) * exact(0.7) * exact(b[i[0], 0]) * exact(a[0, i[1]])  # noqa: E731
    return Worst(combine_bound([adapter], [0.9]), got, real)


MERGES: dict[str, Cases] = {
    "lora_merge_bound": {"long": merge_long, "short": merge_short},
    "merged_values_bound": {"short": partial(merge_short, True)},
    "merge_bias_bound": {"short": bias_short},
    "merge_cycles_bound": {"short": cycles_short},
    "dora_merge_bound[0]": {
        "long": partial(dora_merged, "weight", True),
        "short": partial(dora_merged, "weight", False),
    },
    "dora_merge_bound[1]": {"long": partial(dora_merged, "norms", True), "short": partial(dora_merged, "norms", False)},
    "dora_unmerge_bound": {"short": dora_unmerged},
    "combine_bound": {"long": partial(combined, "combine", True), "short": partial(combined, "combine", False)},
    "concatenate_bound": {"short": partial(combined, "concatenate", False)},
}
