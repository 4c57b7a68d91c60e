"""Faults of observers: minimum and maximum, percentiles, moving ranges."""

from collections.abc import Callable
from typing import Any

import numpy as np

from qloracle.formats import Array
from qloracle.groups import reduce_groups
from qloracle_conformance.adapters.reference import OPS
from qloracle_conformance.arrays import HostArray, host
from qloracle_conformance.mutants.mutant import Mutant, Op

F = np.float32
KNOWN = ("tensor", "row", "column", "group")


def ends_by(smallest: Callable[[Array], Array], largest: Callable[[Array], Array]) -> Op:
    """Return an observer with other reductions over the rows of a matrix."""

    def observe(x: HostArray, *, granularity: str, group_size: int | None) -> Any:
        found = []
        for end in (smallest, largest):

            def reduced(groups: Array, end: Callable[[Array], Array] = end) -> Array:
                return end(groups) + F(0) if groups.shape[1] else np.zeros(len(groups), np.float32)

            with np.errstate(all="ignore"):
                found.append(np.asarray(reduce_groups(x.single(), granularity, group_size, KNOWN, reduced), np.float32))
        return host(found[0]), host(found[1])

    return observe


def _poisoned(groups: Array, found: Array) -> Array:
    return np.where(np.isfinite(groups).all(axis=1), found, F(np.nan))


def percentile_by(pick: Callable[[Array, float], Array]) -> Op:
    """Return an observer of percentiles, given the sorted rows of a matrix and p."""

    def observe(x: HostArray, *, lower: float, upper: float, granularity: str, group_size: int | None) -> Any:
        found = []
        for percent in (lower, upper):

            def reduced(groups: Array, percent: float = percent) -> Array:
                if not groups.size:
                    return np.zeros(len(groups), np.float32)
                return _poisoned(groups, pick(np.sort(groups, axis=1), percent).astype(np.float32) + F(0))

            with np.errstate(all="ignore"):
                found.append(np.asarray(reduce_groups(x.single(), granularity, group_size, KNOWN, reduced), np.float32))
        return host(found[0]), host(found[1])

    return observe


def _between(rows: Array, place: float, dtype: type = np.float64) -> Array:
    below = int(np.clip(np.floor(place), 0, rows.shape[1] - 1))
    low: Array = rows[:, below].astype(dtype)
    high: Array = rows[:, min(below + 1, rows.shape[1] - 1)].astype(dtype)
    between: Array = low + dtype(place - below) * (high - low)
    return between


def moved_by(formula: Callable[[Array, Array, float], Array]) -> Op:
    """Return a moving observer of another formula for each end."""

    def move(
        previous_lo: HostArray, previous_hi: HostArray, current_lo: HostArray, current_hi: HostArray, *, weight: float
    ) -> Any:
        right = OPS["moving_range"](previous_lo, previous_hi, current_lo, current_hi, weight=weight)
        pairs = ((previous_lo, current_lo), (previous_hi, current_hi))
        with np.errstate(all="ignore"):
            found = [np.asarray(formula(a.items, b.items, weight), np.float32) + F(0) for a, b in pairs]
        return tuple(host(np.where(np.isnan(r.items), r.items, f)) for r, f in zip(right, found, strict=True))

    return move


def _nan_skipped(
    previous_lo: HostArray, previous_hi: HostArray, current_lo: HostArray, current_hi: HostArray, **how: Any
) -> Any:
    """Keep the previous range where the current one is poisoned."""
    kept = [
        np.where(np.isnan(b.items), a.items, b.items) for a, b in ((previous_lo, current_lo), (previous_hi, current_hi))
    ]
    return OPS["moving_range"](previous_lo, previous_hi, host(kept[0]), host(kept[1]), **how)


def observer_faults() -> list[Mutant]:
    """Return the mutants of observers."""
    ends: list[tuple[str, str, Op]] = [
        ("minmax-from-zero", "the reductions begin with 0",
         ends_by(lambda g: _poisoned(g, np.minimum(g.min(axis=1), F(0))),
                 lambda g: _poisoned(g, np.maximum(g.max(axis=1), F(0))))),
        ("minmax-nan-ignored", "a NaN does not reach the ends",
         ends_by(lambda g: np.fmin.reduce(g, axis=1), lambda g: np.fmax.reduce(g, axis=1))),
        ("minmax-infinite", "an infinity is an end",
         ends_by(lambda g: g.min(axis=1), lambda g: g.max(axis=1))),
        ("minmax-last-missing", "the last element of longer groups is not looked at",
         ends_by(lambda g: _poisoned(g, g[:, : max(1, g.shape[1] - (g.shape[1] > 64))].min(axis=1)),
                 lambda g: _poisoned(g, g.max(axis=1)))),
        ("minmax-mirrored", "the range is symmetric", ends_by(lambda g: _poisoned(g, -np.abs(g).max(axis=1)),
                                                             lambda g: _poisoned(g, np.abs(g).max(axis=1)))),
    ]  # fmt: skip
    percents: list[tuple[str, str, Op]] = [
        ("percentile-nearest", "the nearest order statistic is taken",
         percentile_by(lambda rows, p: rows[:, int(np.rint(p / 100 * (rows.shape[1] - 1)))])),
        ("percentile-lower", "the order statistic below is taken",
         percentile_by(lambda rows, p: rows[:, int(p / 100 * (rows.shape[1] - 1))])),
        ("percentile-of-n", "the position is p/100·n",
         percentile_by(lambda rows, p: _between(rows, p / 100 * rows.shape[1]))),
        ("percentile-in-float32", "position and interpolation are in float32",
         percentile_by(lambda rows, p: _between(rows, float(F(p) / F(100) * F(rows.shape[1] - 1)), np.float32))),
        ("percentile-in-float64", "position and interpolation are in float64 and rounded on the way",
         percentile_by(lambda rows, p: _between(rows, p / 100 * (rows.shape[1] - 1)))),
    ]  # fmt: skip
    moves: list[tuple[str, str, Op]] = [
        ("moving-in-float32", "the range moves in float32", moved_by(lambda a, b, w: a + F(w) * (b - a))),
        ("moving-backwards", "the weight belongs to the previous range",
         moved_by(lambda a, b, w: b + w * (a.astype(float) - b))),
        ("moving-nan-skipped", "a poisoned range leaves the previous one", _nan_skipped),
    ]  # fmt: skip
    return [
        *(Mutant(name, fault, {"minmax_range": op}, ("lo", "hi")) for name, fault, op in ends),
        *(Mutant(name, fault, {"percentile_range": op}, ("lo", "hi")) for name, fault, op in percents),
        *(Mutant(name, fault, {"moving_range": op}, ("lo", "hi")) for name, fault, op in moves),
    ]
