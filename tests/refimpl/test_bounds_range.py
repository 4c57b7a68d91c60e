"""Right evaluations at the ends of the range of a format, which bounds once accused: inside now, or without verdict.

Each case is the smallest of what random operands over the whole exponent range found.
"""

import numpy as np
import pytest

from qloracle import LoraAdapter, QuantizedInt8, decompose
from qloracle.bounds import (
    Interval,
    Roundings,
    adamw_moments_bound,
    adamw_parameter_bound,
    combine_bound,
    concatenate_bound,
    dora_backward_bound,
    dora_forward_bound,
    dora_merge_bound,
    dora_unmerge_bound,
    embedding_lora_forward_bound,
    llm_int8_forward_bound,
    lora_backward_bound,
    lora_forward_bound,
    scale_int8_matmul_bound,
)
from qloracle.dora_merging import MergedDora
from qloracle.formats import Array
from qloracle.optim.options import AdamwOptions

from .evaluations import to_bfloat16, to_float16, to_float32

ONE = np.ones((1, 1), np.float32)
HALF = Roundings(accumulate="float16")


def require_right(interval: Interval, got: float, what: str) -> None:
    """A right result is inside, or not judged."""
    lo, hi = interval.lo.item(), interval.hi.item()
    assert not interval.judged.item() or lo <= got <= hi, f"{what}: {got!r} is right, but not in [{lo!r}, {hi!r}]"


def require_unjudged(interval: Interval, what: str) -> None:
    assert not interval.judged.any(), f"{what} may overflow: no verdict, got {interval}"


@pytest.mark.parametrize("value", [1.5 * 2.0**-25, 1.25 * 2.0**-24, 5.4 * 2.0**-24])
def test_a_dora_row_that_a_declared_norm_format_holds_as_a_subnormal(value: float) -> None:
    w, m = np.float32([[value]]), np.float32([2.0**-14])
    v = to_float16(w.astype(np.float64))
    n = to_float16(to_float32(np.sqrt(to_float32(v * v))))
    got = to_float32(to_float16(to_float32(m / n)) * v)
    merged, norms = dora_merge_bound(w, 0 * ONE, 0 * ONE, m, alpha=1, roundings=Roundings(norm="float16"))
    require_right(norms, n.item(), "n in float16")
    require_right(merged, got.item(), "g·V in float16")
    y = dora_forward_bound(ONE, w, 0 * ONE, 0 * ONE, m, alpha=1, roundings=Roundings(norm="float16"))
    require_right(y, got.item(), "y of a row in float16")


@pytest.mark.parametrize("value", [1e5, 7e4])
def test_a_dora_row_beyond_its_declared_norm_format(value: float) -> None:
    w, how = np.float32([[value]]), Roundings(norm="float16")
    merged, norms = dora_merge_bound(w, 0 * ONE, 0 * ONE, ONE[0], alpha=1, roundings=how)
    require_unjudged(merged, "V in float16")
    require_unjudged(norms, "n in float16")
    require_unjudged(dora_forward_bound(ONE, w, 0 * ONE, 0 * ONE, ONE[0], alpha=1, roundings=how), "V in float16")


def test_a_dora_gain_that_overflows_before_it_meets_a_small_row() -> None:
    w, m = np.float32([[2.0**-60]]), np.float32([2.0**100])
    require_unjudged(dora_merge_bound(w, 0 * ONE, 0 * ONE, m, alpha=1)[0], "g = m/n")


@pytest.mark.parametrize(("size", "m"), [((2.0**-80, 2.0**30), 2.0**60), ((2.0**-100, 2.0**-40), 2.0**-60)])
def test_the_magnitude_may_come_last_or_first(size: tuple[float, float], m: float) -> None:
    w, magnitude = np.float32([size]), np.float32([m])
    interval, _ = dora_merge_bound(w, np.zeros((1, 2), np.float32), 0 * ONE, magnitude, alpha=1)
    n = np.float32(size[1])
    for got in ((w / n) * magnitude, (w * magnitude) / n):
        inside = (interval.lo <= got) & (got <= interval.hi)
        assert np.all(inside | ~interval.judged), f"{got} is right, but not in {interval}"


def test_a_ratio_of_norms_that_loses_half_of_itself_is_not_undone() -> None:
    w, n, m = np.float32([[1]]), np.float32([2.0**-10]), np.float32([2.0**-34])
    state = MergedDora(w, n)
    interval = dora_unmerge_bound(state, 0 * ONE, 0 * ONE, m, alpha=1, roundings=Roundings(norm="float16"))
    require_unjudged(interval, "m/n = 2^-24 in float16, and its reciprocal")


def test_the_sum_of_products_of_codes_beyond_a_float16_accumulator() -> None:
    count, how = 8, Roundings(accumulate="float16")
    weight = QuantizedInt8(np.full((1, count), 127, np.int8), np.float32([1]), "row", None, "float32")
    for size, judged in ((4, True), (8, False)):
        x = np.concatenate([np.ones(size), np.zeros(count - size)])[np.newaxis].astype(np.float32)
        bound = llm_int8_forward_bound(x, weight, decompose(x, 0.0), x, roundings=how)
        assert bound.judged.item() is judged, f"{size}·127² against 65504, got {bound}"


def test_a_scale_that_overflows_makes_nan_of_an_accumulator_of_zero() -> None:
    huge = np.float32([3e38])
    require_unjudged(scale_int8_matmul_bound(np.zeros((1, 1), np.int32), huge, huge), "row · column / 127²")


def test_one_minus_beta_below_the_normal_range_of_the_accumulation() -> None:
    # 1 − β = 10^−6 is 17 of the smallest subnormals, 1.3 % too much.
    g, zero, beta = np.float32([100]), np.zeros(1, np.float32), 0.999999
    rest = to_float16(np.array(1 - beta))
    _, square = adamw_moments_bound(g, zero, zero, AdamwOptions(beta2=beta), roundings=HALF)
    require_right(square, to_float16(to_float16(rest * 100) * 100).item(), "(1 − β)·g² in float16")
    v = to_float16(np.array([0.01])).astype(np.float32)
    options = AdamwOptions(lr=1.0, beta1=0, beta2=beta, eps=0.5)
    p = adamw_parameter_bound(zero, v / v, v, options, step=1, roundings=HALF)
    below = to_float16(to_float16(np.sqrt(to_float16(v / rest))) + 0.5)
    require_right(p, -to_float16(1 / below).item(), "p' in float16")


def test_an_eps_that_float16_loses_is_little_beside_a_root_of_one() -> None:
    one = np.ones(1, np.float32)
    bound = adamw_parameter_bound(0 * one, one, one, AdamwOptions(lr=1.0), step=10**6, roundings=HALF)
    assert bound.judged.all(), f"√v̂ = 1 and eps = 1e-8: judged, got {bound}"
    assert bound.hi.item() - bound.lo.item() < 40 * 2.0**-11, f"some twenty roundings either side, got {bound}"
    require_unjudged(
        adamw_parameter_bound(one, one, 0 * one, AdamwOptions(lr=1.0), step=1, roundings=HALF), "1/(0 + eps) in float16"
    )


BIG = np.float32([[2.0**100]])


@pytest.mark.parametrize("name", ["x", "lora_a", "lora_b", "lora_bias"])
def test_a_gradient_that_overflows_before_a_tiny_scale_at_the_end(name: str) -> None:
    # alpha = 2^-80: s·(2^100·2^100) fits, 2^100·2^100 does not.
    operands = {
        "x": (ONE, ONE, ONE, BIG, BIG), "lora_a": (BIG, BIG, ONE, ONE, ONE), "lora_b": (BIG, BIG, ONE, ONE, ONE),
        "lora_bias": (np.full((2, 1), 3e38, np.float32), np.ones((2, 1), np.float32), ONE, ONE, ONE),
    }[name]  # fmt: skip
    require_unjudged(lora_backward_bound(*operands, alpha=2.0**-80)[name], f"the gradient of {name} before s")
    if name != "lora_bias":
        found = dora_backward_bound(*operands, ONE[0] * operands[2].item(), alpha=2.0**-80)
        require_unjudged(found[name], f"the gradient of {name} of DoRA before s")


def test_every_inner_result_of_a_dora_gradient_counts_not_only_the_last_of_a_format() -> None:
    # x_d Aᵀ overflows; that the others fit must not hide it.
    large = np.float32([[2.0**70]])
    found = dora_backward_bound(ONE, large, ONE, large, 2.0**-120 * ONE, ONE[0], alpha=2.0**-100)
    require_unjudged(found["lora_b"], "x_d Aᵀ")


@pytest.mark.parametrize("alpha", [1e5, 3e4])
def test_factors_that_the_accumulation_format_cannot_hold(alpha: float) -> None:
    kept = {"mask": ONE > 0, "dropout": 0.9} if alpha < 65504 else {}
    small = np.float32(2.0**-20) * ONE
    interval = lora_forward_bound(small, ONE, small, 0 * ONE, alpha=alpha, roundings=HALF, **kept)  # type: ignore[arg-type]
    require_unjudged(interval, f"alpha = {alpha}, or s/(1 − p), in float16")


def test_a_product_with_merged_rows_that_overflows_before_a_small_gain() -> None:
    # x·W and x·(s B A) fit, x·V does not; g = m/n is 0 in float32.
    x, m = np.float32([[1.2 * 2.0**126]]), np.float32([2.0**-149])
    require_unjudged(dora_forward_bound(x, ONE, np.float32([[3.1]]), ONE, m, alpha=1), "x Vᵀ")


def test_an_adapter_that_underflows_in_its_declared_format_before_a_large_scale() -> None:
    b, alpha = np.float32([[1.5 * 2.0**-25]]), 2.0**20
    low = to_float16(b.astype(np.float64))
    got = to_float16(alpha * low) if alpha * low.item() < 65504 else low
    interval = lora_forward_bound(0 * ONE + 1, 0 * ONE, ONE, b, alpha=alpha, roundings=Roundings(adapter="float16"))
    require_right(interval, got.item(), "s·RN((x Aᵀ) Bᵀ) in float16")


@pytest.mark.parametrize("alpha", [2.0**-30, 1.3])
def test_a_gradient_times_s_that_underflows_in_the_format_of_the_adapter(alpha: float) -> None:
    dy, x = np.float32([[1.37 * 2.0**-24]]), np.float32([[2.0**20]])
    got = to_float32(to_float16(to_float32(alpha * dy.astype(np.float64))) * x)
    how = Roundings(adapter="float16")
    require_right(lora_backward_bound(dy, x, ONE, ONE, ONE, alpha=alpha, roundings=how)["lora_b"], got.item(), "dB")
    require_right(
        dora_backward_bound(dy, x, ONE, ONE, 0 * ONE, ONE[0], alpha=alpha, roundings=how)["lora_b"], got.item(), "dB"
    )


def test_a_rank_that_the_accumulation_format_cannot_hold_costs_a_rounding() -> None:
    rank = 257
    a, b = np.zeros((rank, 1), np.float32), np.ones((1, rank), np.float32)
    a[0] = 1
    widths = []
    for count in (256, rank):
        how = Roundings(accumulate="bfloat16")
        y = lora_forward_bound(ONE, 0 * ONE, a[:count], b[:, :count], alpha=count, roundings=how)
        widths.append(np.log1p((y.hi - y.lo).item() / 2) * 2**8 - count)
    assert widths[1] - widths[0] > 0.9, f"1/257 in bfloat16 rounds 257 first, counted {widths}"


def test_an_embedding_beyond_the_declared_format_of_the_base() -> None:
    how = Roundings(base="float16")
    ids = np.zeros(1, np.int64)
    require_unjudged(embedding_lora_forward_bound(ids, 1e5 * ONE, ONE, 0 * ONE, alpha=1, roundings=how), "W[i]")


def combination(weight: float, alpha: float, a: Array) -> tuple[tuple[list[LoraAdapter], list[float]], float]:
    """Operands in float16 and s·A, then w times it, there."""
    made = to_float16(to_float16(np.array(weight)) * to_float16(to_float16(np.array(alpha)) * a))
    return ([LoraAdapter(a, ONE, alpha=alpha)], [weight]), made.item()


@pytest.mark.parametrize(("weight", "alpha"), [(15464.0, 3.2e-4), (2715.0, 5.76e-5), (1e-7, 2.0**14)])
def test_parts_of_a_combination_that_underflow_before_a_large_factor(weight: float, alpha: float) -> None:
    given, got = combination(weight, alpha, np.float32([[1.37 * 2.0**-12]]))
    require_right(concatenate_bound(*given, roundings=HALF), got, "w·(s·A)")
    require_right(combine_bound(*given, roundings=HALF), got, "w·(s·A)·B")


def test_a_factor_of_a_combination_that_overflows_in_one_operand() -> None:
    given = ([LoraAdapter(BIG, np.float32([[2.0**-100]]), alpha=2.0**40)], [1.0])
    require_unjudged(combine_bound(*given), "s·A")


def test_bfloat16_keeps_the_range_of_float32() -> None:
    w = np.float32([[2.0**100]])
    merged, _ = dora_merge_bound(w, 0 * ONE, 0 * ONE, ONE[0], alpha=1, roundings=Roundings(norm="bfloat16"))
    assert not merged.judged.any(), "n² = 2^200 overflows the accumulation"
    y = lora_forward_bound(ONE, w, 0 * ONE, 0 * ONE, alpha=1, roundings=Roundings(base="bfloat16"))
    require_right(y, to_bfloat16(w.astype(np.float64)).item(), "2^100 in bfloat16")
    assert y.judged.all(), "and judged"


@pytest.mark.parametrize(("old", "g", "beta"), [(np.inf, 1, 0.9), (np.inf, np.inf, 0.9), (1, np.inf, 0.25)])
def test_an_infinity_that_meets_itself_in_a_difference_of_moments(old: float, g: float, beta: float) -> None:
    before, new = np.float32([old]), np.float32([g])
    for bound in adamw_moments_bound(new, before, before, AdamwOptions(beta1=beta, beta2=beta)):
        require_unjudged(bound, "m + (1 − β)·(g − m), or g − β·(g − m), which is NaN")


def test_an_infinite_gradient_has_one_answer_where_every_form_gives_it() -> None:
    one, g = np.ones(1, np.float32), np.float32([-np.inf])
    mean, square = adamw_moments_bound(g, one, one, AdamwOptions())
    assert (mean.lo.item(), mean.judged.item(), square.lo.item(), square.judged.item()) == (-np.inf, True, np.inf, True)


def test_an_infinite_parameter_that_decays_may_meet_itself() -> None:
    p, one = np.float32([np.inf]), np.ones(1, np.float32)
    require_unjudged(adamw_parameter_bound(p, one, one, AdamwOptions(weight_decay=0.1), step=1), "p − lr·wd·p")
    assert adamw_parameter_bound(p, one, one, AdamwOptions(), step=1).judged.all(), "without decay it stays infinite"
