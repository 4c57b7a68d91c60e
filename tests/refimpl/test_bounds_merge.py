"""[bounds.merge], [bounds.merge_cycles], [bounds.combine] hold for every evaluation, and are used up by some."""

from fractions import Fraction

import numpy as np
import pytest

from qloracle import LoraAdapter, decode, encode, lora_merge, lora_unmerge
from qloracle.bounds.combine import combine_bound, concatenate_bound
from qloracle.bounds.cycles import merge_cycles_bound
from qloracle.bounds.merge import lora_merge_bound, merge_bias_bound
from qloracle.formats import Array
from qloracle.tracking.interval import Interval
from qloracle.tracking.roundings import Roundings

from .bound_cases import NUDGE
from .evaluated_layers import require_inside
from .evaluated_merges import PLANS, cases, evaluations, low_factor, merged, rational_merge
from .evaluations import ROUNDINGS
from .rationals import exact

ONE = np.ones((1, 1), np.float32)
KINDS = ["ordinary", "wide", "cancelling", "subnormal", "one rank"]


def require_contains(interval: Interval, real: list[list[Fraction]], what: str) -> None:
    for index in np.ndindex(interval.lo.shape):
        value = real[index[0]][index[1]]
        assert exact(interval.lo[index]) <= value <= exact(interval.hi[index]), f"{what}: the real value is outside"


def half_width(interval: Interval) -> Fraction:
    return (exact(interval.hi.reshape(-1)[0]) - exact(interval.lo.reshape(-1)[0])) / 2


@pytest.mark.proof("bounds.merge", by="exact rationals")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(3))
def test_the_real_merge_is_inside(kind: str, seed: int) -> None:
    weight, a, b = cases(seed)[kind]
    for alpha in (2.5, -0.3):
        scale = Fraction(alpha) / len(a)
        for unmerge, sign in ((False, 1), (True, -1)):
            interval = lora_merge_bound(weight, a, b, alpha=alpha, unmerge=unmerge)
            require_contains(interval, rational_merge(weight, a, b, sign * scale), f"{kind}, unmerge={unmerge}")


@pytest.mark.proof("bounds.merge", by="low-precision evaluations")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("alpha", "stabilized"), [(2.5, False), (-0.3, False), (7.7, True)])
def test_every_order_of_evaluation_is_inside(kind: str, alpha: float, stabilized: bool) -> None:
    for seed in range(3):
        weight, a, b = cases(seed)[kind]
        for adapter in ("", "bfloat16", "float16"):
            if adapter == "float16" and kind in ("wide", "cancelling"):
                continue  # beyond its range
            roundings = Roundings(adapter=adapter or "float32")
            interval = lora_merge_bound(weight, a, b, alpha=alpha, rank_stabilized=stabilized, roundings=roundings)
            for plan, got in evaluations(weight, a, b, alpha, rank_stabilized=stabilized, adapter=adapter):
                require_inside(interval, got, f"{kind}, {plan}, adapter in {adapter or 'float32'}")


@pytest.mark.proof("bounds.merge", by="counted roundings")
@pytest.mark.parametrize(
    ("rank", "stabilized", "weight", "roundings"),
    [
        (1, False, 0.0, 1 + 4 + 1),  # the product, s, the addend of the weight
        (1, True, 0.0, 1 + 5 + 1),
        (8, False, 0.0, 8 + 4 + 1),
        (1, False, 1.0, 6 + 1),  # and one for the weight itself
        (8, False, 1.0, 13 + 8),
    ],
)
def test_the_bound_counts_these_roundings(rank: int, stabilized: bool, weight: float, roundings: int) -> None:
    a, b = np.ones((rank, 1), np.float32), np.full((1, rank), 1 / rank, np.float32)
    alpha = np.sqrt(rank) if stabilized else rank
    interval = lora_merge_bound(np.float32(weight) * ONE, a, b, alpha=float(alpha), rank_stabilized=stabilized)
    half = half_width(interval) * 2**24
    assert roundings <= half <= roundings * (1 + Fraction(1, 10**5)), f"{float(half)} roundings, expected {roundings}"


@pytest.mark.proof("bounds.merge", by="worst cases")
def test_a_weight_that_the_sum_starts_from_uses_r_of_its_roundings() -> None:
    # W = 1 and r nudges of a little over half a unit: each addition rounds up by a whole one.
    rank = 500
    a, b = np.full((rank, 1), NUDGE), np.ones((1, rank), np.float32)
    interval = lora_merge_bound(ONE, a, b, alpha=float(rank))
    got = np.float32(1)
    for nudge in a[:, 0]:
        got = np.float32(got + nudge)
    real = 1 + rank * exact(NUDGE)
    part = abs(exact(got) - real) / half_width(interval)
    assert exact(interval.lo[0, 0]) <= exact(got) <= exact(interval.hi[0, 0])
    assert part >= Fraction(999, 1000), f"only {float(part)} of the bound is used"


@pytest.mark.proof("bounds.merge", by="counted roundings")
def test_a_bias_is_rounded_once_and_its_addend_scaled() -> None:
    one = np.ones(1, np.float32)
    for bias, added, roundings in ((1.0, 0.0, 1), (0.0, 1.0, 5), (1.0, 1.0, 6)):
        interval = merge_bias_bound(np.float32(bias) * one, np.float32(added) * one, alpha=4, rank=4)
        half = half_width(interval) * 2**24
        assert roundings <= half <= roundings * (1 + Fraction(1, 10**5)), f"{float(half)}, expected {roundings}"


def test_what_may_overflow_on_the_way_is_not_judged() -> None:
    big = np.float32(2.0**127)
    assert not lora_merge_bound(ONE, big * ONE, 4 * ONE, alpha=0.25).judged.any(), "B A overflows float32"
    assert lora_merge_bound(ONE, ONE, 4 * ONE, alpha=0.25).judged.all()
    nan = lora_merge_bound(np.float32(np.nan) * ONE, ONE, ONE, alpha=1)
    assert nan.judged.all(), "every evaluation gives NaN"
    assert np.isnan(nan.lo).all()
    assert np.isnan(nan.hi).all()


def cycled(weight: Array, a: Array, b: Array, fmt: str, cycles: int) -> Array:
    state = encode(weight, fmt)
    for _ in range(cycles):
        state = encode(decode(lora_merge(state, a, b, alpha=2.5, fmt=fmt), fmt), fmt)
        state = encode(decode(lora_unmerge(state, a, b, alpha=2.5, fmt=fmt), fmt), fmt)
    return decode(state, fmt)


def by_plans(start: Array, a: Array, b: Array, fmt: str, cycles: int, first: int) -> Array:
    """Cycles whose every step is another evaluation in float32, rounded to the format."""
    state, rnd = start, ROUNDINGS["float32"]
    a64, b64 = a.astype(np.float64), b.astype(np.float64)
    for step in range(2 * cycles):
        factor = low_factor(2.5 if step % 2 == 0 else -2.5, len(a), False, rnd)
        plan = PLANS[(first + step) % len(PLANS)]
        state = ROUNDINGS[fmt](merged(state, a64, b64, plan, factor, rnd, rnd))
    return state


@pytest.mark.proof("bounds.merge_cycles", by="low-precision evaluations")
@pytest.mark.parametrize("fmt", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("kind", ["ordinary", "cancelling", "one rank"])
def test_ten_cycles_of_any_evaluation_stay_inside(kind: str, fmt: str) -> None:
    weight, a, b = cases(5)[kind]
    start = decode(encode(weight, fmt), fmt)
    for cycles in (1, 2, 10):
        stored = encode(weight, fmt)
        bound = merge_cycles_bound(stored, a, b, alpha=2.5, cycles=cycles, fmt=fmt)
        require_inside(bound, cycled(weight, a, b, fmt, cycles), f"{kind}, {cycles} cycles in {fmt}")
        for first in range(0, len(PLANS), 9):
            state = by_plans(start, a, b, fmt, cycles, first)
            require_inside(bound, state, f"{kind}, {cycles} cycles in {fmt}, evaluations from {first} on")


@pytest.mark.proof("bounds.merge_cycles", by="Knuth's theorem on a ⊕ b ⊖ b")
@pytest.mark.parametrize("fmt", ["float32", "float16", "bfloat16"])
def test_after_the_first_cycle_nothing_moves_if_the_change_is_a_number_of_the_format(fmt: str) -> None:
    rng = np.random.default_rng(17)
    weight = encode(rng.standard_normal((64, 1)) * 2.0 ** rng.integers(-12, 3, (64, 1)), fmt)
    change = decode(encode(rng.standard_normal((64, 1)), fmt), fmt).astype(np.float32)
    one = np.ones((1, 1), np.float32)
    states = [weight]
    for _ in range(3):
        inside = lora_merge(states[-1], one, change, alpha=1, fmt=fmt)
        states.append(lora_unmerge(inside, one, change, alpha=1, fmt=fmt))
    decoded = [decode(s, fmt) for s in states]
    assert not np.array_equal(decoded[0], decoded[1]), "the first cycle must lose something here"
    assert np.array_equal(decoded[1], decoded[2])
    assert np.array_equal(decoded[1], decoded[3])


@pytest.mark.proof("bounds.merge_cycles", by="Knuth's theorem on a ⊕ b ⊖ b")
def test_a_cycle_moves_no_more_than_its_roundings() -> None:
    # W = 1 and Δ = 2^k: RN(1 + 2^k + lower) loses half a unit of 2^k at most, and so does the way back.
    for power in (0, 4, 12, 22):
        change = np.float32(2.0**power) * ONE
        bound = merge_cycles_bound((1 + 2.0**-23) * ONE, ONE, change, alpha=1, cycles=1)
        assert float(bound.hi[0, 0] - bound.lo[0, 0]) <= 64 * 2.0 ** (power - 23), f"drift at 2^{power}"
        none = merge_cycles_bound(ONE, ONE, change, alpha=1, cycles=0)
        assert none.lo[0, 0] == none.hi[0, 0] == 1, "no cycle, no drift"


@pytest.mark.proof("bounds.combine", by="exact rationals")
@pytest.mark.proof("bounds.combine", by="low-precision evaluations")
@pytest.mark.parametrize("kind", KINDS)
def test_a_combination_in_float32_is_inside(kind: str) -> None:
    first, second = cases(7)[kind][1:], cases(8)[kind][1:]
    adapters = [LoraAdapter(*first, alpha=3.3), LoraAdapter(*second, alpha=0.7, rank_stabilized=True)]
    weights = [0.9, -1.7]
    interval, stacked = combine_bound(adapters, weights), concatenate_bound(adapters, weights)
    rnd = ROUNDINGS["float32"]
    total = np.zeros(interval.lo.shape)
    for adapter, weight in zip(adapters, weights, strict=True):
        a, b = (m.astype(np.float64) for m in (adapter.lora_a, adapter.lora_b))
        root = rnd(np.sqrt(np.float64(len(a)))) if adapter.rank_stabilized else np.float64(len(a))
        factor = rnd(rnd(np.float64(weight)) * rnd(rnd(np.float64(adapter.alpha)) / root))
        for k in range(len(a)):
            total = rnd(total + rnd(b[:, k : k + 1] * rnd(factor * a[k : k + 1])))
    require_inside(interval, total, f"{kind}, accumulated in float32")
    scale = Fraction(0.9) * Fraction(3.3) / len(first[0])
    real = rational_merge(np.zeros_like(interval.lo, np.float32), *first, scale)
    require_contains(combine_bound(adapters[:1], weights[:1]), real, kind)
    rows = rnd(rnd(np.float64(0.9)) * rnd(rnd(np.float64(3.3)) / len(first[0]))) * first[0].astype(np.float64)
    assert ((stacked.lo[: len(rows)] <= rnd(rows)) & (rnd(rows) <= stacked.hi[: len(rows)])).all(), kind


@pytest.mark.proof("bounds.combine", by="worst cases")
def test_a_combination_counts_the_additions_of_all_adapters() -> None:
    adapters = [
        LoraAdapter(ONE, ONE, alpha=1),
        LoraAdapter(np.zeros((9, 1), np.float32), np.zeros((1, 9), np.float32), 1),
    ]
    half = half_width(combine_bound(adapters, [1.0, 1.0])) * 2**24
    assert 1 + 6 + 9 <= half <= 16 * (1 + Fraction(1, 10**5)), f"{float(half)} roundings are counted, expected 16"
    assert 6 <= half_width(concatenate_bound(adapters, [1, 1])) * 2**24 <= 6 * (1 + Fraction(1, 10**5))
