"""[bounds.sum], [bounds.lora] are sharp: there are right evaluations that use nearly all of them.

NUDGE is a little above half a unit in the last place of numbers from 1 to 2: sequential addition rounds it up to a
whole unit each time, so n additions are wrong by n·(2^−23 − NUDGE), which is n·u but for 2^−23 of it.
"""

from fractions import Fraction

import numpy as np
import pytest

from qloracle.bounds import Interval, Roundings, lora_backward_bound, lora_forward_bound
from qloracle.formats import Array

from .bound_cases import NUDGE
from .rationals import exact

K = 1000
ONE = np.ones((1, 1), np.float32)


def nudges(count: int) -> Array:
    """[1, NUDGE, NUDGE, …]."""
    values = np.full((1, count), NUDGE)
    values[0, 0] = 1
    return values


def running(start: float, addends: Array) -> Fraction:
    """Add float32 numbers one after the other in float32."""
    total = np.float32(start)
    for addend in addends.reshape(-1):
        total = np.float32(total + addend)
    return exact(total)


def require_used(interval: Interval, got: Fraction, real: Fraction, least: Fraction) -> None:
    """The result is inside, and its error takes at least the given part of the half width."""
    lo, hi = exact(interval.lo.reshape(-1)[0]), exact(interval.hi.reshape(-1)[0])
    assert interval.judged.all(), "a sum near 1 must be judged"
    assert lo <= got <= hi, f"{float(got)} is a right result, but not in [{float(lo)!r}, {float(hi)!r}]"
    part = abs(got - real) / ((hi - lo) / 2)
    assert part >= least, f"the worst evaluation uses only {float(part):.4f} of the bound, at least {float(least):.4f}"


def test_the_base_alone_uses_k_of_its_k_and_r_roundings() -> None:
    x, zero = nudges(K), np.zeros((1, 1), np.float32)
    interval = lora_forward_bound(x, np.ones((1, K), np.float32), np.zeros((1, K), np.float32), zero, alpha=1)
    got, real = running(1, x[0, 1:]), sum(map(exact, x[0]), Fraction(0))
    # K − 1 roundings out of K for x Wᵀ and one more for the join with r = 1; second-order terms are below 1/1000.
    require_used(interval, got, real, Fraction(K - 1, K + 1) * Fraction(999, 1000))


def test_a_base_accumulated_onto_the_adapter_uses_both_sums() -> None:
    # hidden = 1 + (K − 1)·NUDGE, B = 1; the base adds K more nudges in the same register.
    x, weight = nudges(K), np.ones((1, K), np.float32)
    weight[0, 0] = NUDGE
    interval = lora_forward_bound(x, weight, np.ones((1, K), np.float32), ONE, alpha=1)
    hidden = running(1, x[0, 1:])
    got = running(float(hidden), np.full(K, NUDGE))
    real = 1 + (2 * K - 1) * exact(NUDGE)
    # 2K − 1 roundings; the bound counts 2K + r + 4 for the adapter, whose magnitude is nearly all of M.
    require_used(interval, got, real, Fraction(2 * K - 1, 2 * K + 5) * Fraction(999, 1000))


@pytest.mark.parametrize(("intermediate", "step"), [("bfloat16", 2.0**-8), ("float16", 2.0**-11)])
def test_the_declared_rounding_between_is_used_up_by_a_tie(intermediate: str, step: float) -> None:
    x = np.array([[1 + step]], np.float32)  # halfway between 1 and the next number: ties to 1
    roundings = Roundings(intermediate=intermediate)
    interval = lora_forward_bound(x, 0 * ONE, ONE, ONE, alpha=1, roundings=roundings)
    # An error of u on a magnitude of 1 + u, and nine float32 roundings beside it.
    require_used(interval, Fraction(1), exact(x[0, 0]), Fraction(98, 100))


def test_without_a_declared_rounding_between_none_is_allowed() -> None:
    x = np.array([[1 + 2.0**-8]], np.float32)
    interval = lora_forward_bound(x, 0 * ONE, ONE, ONE, alpha=1)
    assert interval.lo[0, 0] > 1, f"bfloat16 hidden values must be outside the default bound, lo = {interval.lo[0, 0]}"


def test_the_bias_gradient_of_n_rows_uses_n_minus_1_additions() -> None:
    dy = nudges(K).T
    interval = lora_backward_bound(dy, np.zeros((K, 1), np.float32), ONE, ONE, ONE, alpha=1)["bias"]
    real = sum(map(exact, dy[:, 0]), Fraction(0))
    require_used(interval, running(1, dy[1:]), real, Fraction(999, 1000))


def test_the_bias_gradient_of_one_row_is_exact() -> None:
    dy = np.array([[0.1, 1e-45, 3e38]], np.float32)
    bound = lora_backward_bound(dy, ONE, np.ones((3, 1), np.float32), ONE, np.ones((3, 1), np.float32), alpha=1)["bias"]
    assert bound.lo.tolist() == bound.hi.tolist() == dy[0].tolist(), "a sum of one number has no rounding"


@pytest.mark.parametrize("name", ["lora_a", "lora_b"])
def test_an_adapter_gradient_of_n_rows_uses_n_minus_1_additions(name: str) -> None:
    dy, x = nudges(K).T, np.ones((K, 1), np.float32)
    interval = lora_backward_bound(dy, x, ONE, ONE, ONE, alpha=1)[name]
    real = sum(map(exact, dy[:, 0]), Fraction(0))
    # The bound counts K for the sum, one for the inner product of length 1, and four for s.
    require_used(interval, running(1, dy[1:]), real, Fraction(K - 1, K + 5) * Fraction(999, 1000))


def test_a_subnormal_product_uses_its_underflow_term() -> None:
    # 2^-100 · 2^-50·(1 + 2^-20) lies above half of the smallest subnormal and becomes all of it.
    x, weight = np.array([[2.0**-100]], np.float32), np.array([[2.0**-50 * (1 + 2.0**-20)]], np.float32)
    interval = lora_forward_bound(x, weight, ONE, 0 * ONE, alpha=1)
    got, real = exact(x[0, 0] * weight[0, 0]), exact(x[0, 0]) * exact(weight[0, 0])
    assert got == Fraction(1, 2**149), f"the product must round to 2^-149, got {float(got)}"
    require_used(interval, got, real, Fraction(999, 1000))


def test_with_lora_b_zero_nothing_is_added_to_the_bound_of_the_base_but_its_addend() -> None:
    x = np.array([[2.0**-149]], np.float32)
    interval = lora_forward_bound(x, 0 * ONE, ONE, 0 * ONE, alpha=1)
    assert interval.lo.tolist() == interval.hi.tolist() == [[0.0]], f"0 + 0 is exactly 0, got {interval}"


@pytest.mark.parametrize("terms", [16, 256, 4096])
def test_the_bound_is_blind_to_no_more_than_it_says(terms: int) -> None:
    x, weight = np.ones((1, terms), np.float32), np.ones((1, terms), np.float32)
    interval = lora_forward_bound(x, weight, np.zeros((1, terms), np.float32), 0 * ONE, alpha=1)
    half = exact(interval.hi[0, 0] - interval.lo[0, 0]) / 2
    # M = K and K + 1 roundings: the half width is (K + 1)·K·2^-24, but for second order.
    expected = Fraction(terms * (terms + 1), 2**24)
    assert expected <= half <= expected * Fraction(1001, 1000), f"K = {terms}: half width {float(half)}"
