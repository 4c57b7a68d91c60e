"""[bounds.lora]: what s = alpha/r and 1/(1 − p) cost an implementation that computes them in float32."""

from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from qloracle.bounds import Roundings, lora_forward_bound

from .evaluated_layers import Case, forward, forward_interval, require_inside
from .evaluations import FORWARD_PLANS
from .rationals import exact

ONE = np.ones((1, 1), np.float32)
KEPT = np.ones((1, 1), np.bool_)


@pytest.mark.parametrize(
    ("options", "scale", "roundings"),
    [
        # One for x·A, one for ·B, four or five for s, one for the addend of the base.
        ({"alpha": 1.0}, Fraction(1), Fraction(7)),
        ({"alpha": 1.0, "rank_stabilized": True}, Fraction(1), Fraction(8)),
        ({"alpha": -3.0}, Fraction(-3), Fraction(7)),
        ({"alpha": 1.0, "bias": np.zeros(1, np.float32)}, Fraction(1), Fraction(8)),
        ({"alpha": 1.0, "mask": KEPT, "dropout": 0.0}, Fraction(1), Fraction(7)),
        ({"alpha": 1.0, "mask": KEPT, "dropout": 0.5}, Fraction(2), Fraction(10)),
        # 0.9 is no float32: its rounding is magnified by 2·0.9/0.1.
        ({"alpha": 1.0, "mask": KEPT, "dropout": 0.9}, Fraction(10), Fraction(28)),
    ],
)
def test_the_bound_counts_these_roundings(options: dict[str, Any], scale: Fraction, roundings: Fraction) -> None:
    interval = lora_forward_bound(ONE, 0 * ONE, ONE, ONE, **options)
    half = (exact(interval.hi.item()) - exact(interval.lo.item())) / 2
    expected = abs(scale) * roundings / 2**24
    # Second order terms and the factor 1 + 2^-20 add less than 10^-5 of it.
    assert expected <= half <= expected * (1 + Fraction(1, 10**5)), (
        f"{options}: {float(half / abs(scale) * 2**24):.4f} roundings are counted, expected {float(roundings)}"
    )


@pytest.mark.parametrize("dropout", [0.05, 0.1, 0.25, 0.3, 0.5, 0.75, 0.9, 0.99, 0.999])
@pytest.mark.parametrize(("alpha", "rank", "rank_stabilized"), [(16.0, 3, False), (0.1, 7, False), (0.1, 7, True)])
def test_every_way_to_the_factors_is_inside_where_little_else_is_rounded(
    dropout: float, alpha: float, rank: int, rank_stabilized: bool
) -> None:
    rng = np.random.default_rng(131)
    x, lora_a = rng.random((50, 1)).astype(np.float32), rng.random((rank, 1)).astype(np.float32)
    lora_b, zero = rng.random((1, rank)).astype(np.float32), np.zeros((1, 1), np.float32)
    mask = np.ones(x.shape, np.bool_)
    case = Case(x, zero, lora_a, lora_b, zero, alpha, None, mask, dropout, rank_stabilized)
    interval = forward_interval(case, Roundings())
    for plan in FORWARD_PLANS[::7]:
        require_inside(
            interval, forward(case, plan, Roundings()), f"p = {dropout}, alpha = {alpha}, r = {rank}, {plan}"
        )


def test_a_factor_below_the_normal_range_is_inside() -> None:
    hidden = np.float32(2.0**60)
    case = Case(hidden * ONE, 0 * ONE, ONE, hidden * ONE, ONE, alpha=1e-41)
    interval = forward_interval(case, Roundings())
    for plan in FORWARD_PLANS[::11]:
        require_inside(interval, forward(case, plan, Roundings()), f"alpha = 1e-41 rounds to a subnormal s, {plan}")
