"""[bounds.dora]: every legitimate evaluation of a DoRA layer lies inside; where g is unbounded only NaN is wrong."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from qloracle.bounds import Roundings, dora_backward_bound, dora_forward_bound
from qloracle.dora import dora_backward, dora_forward, dora_norm
from qloracle.formats import Array
from qloracle.int8 import QuantizedInt8, dequantize_int8

from .bound_cases import KINDS
from .evaluated_dora import PLANS, DoraPlan, backward, backward_intervals, forward, forward_interval
from .evaluated_layers import Case, require_inside, used_part
from .rational_dora import Dora, norms_of
from .rational_dora import derivative as rational_derivative
from .rational_dora import forward as rational_forward
from .rational_layers import kept_matrix, matrix
from .rationals import exact

LIBRARY = Roundings(
    intermediate="bfloat16", dropped="bfloat16", base="bfloat16", adapter="bfloat16", norm="bfloat16"
)  # every operation rounds its result
ROUNDINGS = [Roundings(), Roundings(intermediate="bfloat16"), Roundings(norm="bfloat16"), LIBRARY]
IDS = ["float32", "bfloat16 between", "bfloat16 norms", "all results bfloat16"]
ONE = np.ones((1, 1), np.float32)


def magnitudes(case: Case, seed: int) -> Array:
    norms = dora_norm(*case.operands[1:], alpha=case.alpha, rank_stabilized=case.rank_stabilized)
    return (norms * np.random.default_rng([171, seed]).uniform(-2, 2, norms.shape)).astype(np.float32)


def chosen(seed: int, count: int) -> list[DoraPlan]:
    return [PLANS[i] for i in np.random.default_rng([172, seed]).choice(len(PLANS), count, replace=False)]


@pytest.mark.proof("bounds.dora", by="evaluations in low precision")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("roundings", ROUNDINGS, ids=IDS)
def test_every_evaluation_is_inside(kind: str, roundings: Roundings) -> None:
    for seed in range(3):
        case = KINDS[kind](seed)
        m = magnitudes(case, seed)
        interval, intervals = forward_interval(case, m, roundings), backward_intervals(case, m, roundings)
        for plan in chosen(seed, 24):
            what = f"{kind} operands, {roundings}, {plan}"
            require_inside(interval, forward(case, m, plan, roundings), f"y, {what}")
            for name, got in backward(case, m, plan, roundings).items():
                require_inside(intervals[name], got, f"gradient of {name}, {what}")


@pytest.mark.proof("bounds.dora", by="exact rationals")
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_the_exact_rational_result_is_inside_and_no_other_formula(dropout: float) -> None:
    rng = np.random.default_rng(173)
    x, dy = (rng.standard_normal(shape).astype(np.float32) for shape in ((3, 4), (3, 2)))
    weight = np.array([[1, 4, 8, 0], [0, 3, 0, -4]], np.float32)
    a, b = np.zeros((1, 4), np.float32), np.array([[0.3], [-0.7]], np.float32)
    m, mask = np.array([5.3, -0.1], np.float32), rng.random((3, 4)) < 0.5
    options = {"alpha": 1.0, "mask": mask, "dropout": dropout}
    kept = kept_matrix(mask, exact(dropout), (3, 4))
    parts = (matrix(x), matrix(weight), matrix(a), matrix(b), matrix(m.reshape(1, 2)), matrix(np.zeros((1, 2))))
    layer = Dora(*parts, Fraction(1), kept, norms_of(*parts[1:4], Fraction(1)))
    bound = dora_forward_bound(x, weight, a, b, m, **options)  # type: ignore[arg-type]
    bounds = dora_backward_bound(dy, x, weight, a, b, m, **options)  # type: ignore[arg-type]
    expected = {name: rational_derivative(layer, matrix(dy), name) for name in ("x", "lora_a", "lora_b", "magnitude")}
    for (i, k), lo in np.ndenumerate(bound.lo):
        y = rational_forward(layer)[i][k]
        assert exact(lo) <= y <= exact(bound.hi[i, k]), f"the exact y[{i}, {k}] = {float(y)} is outside its bound"
    for name, values in expected.items():
        for (i, k), lo in np.ndenumerate(np.atleast_2d(bounds[name].lo)):
            inside = exact(lo) <= values[i][k] <= exact(np.atleast_2d(bounds[name].hi)[i, k])
            assert inside, f"the exact gradient of {name}[{i}, {k}] = {float(values[i][k])} is outside its bound"
    wrong = dora_forward(x, weight, a, b, m * np.float32(1.0001), **options)  # type: ignore[arg-type]
    inside = np.mean((bound.lo <= wrong) & (wrong <= bound.hi))
    assert inside <= 1 / 3, f"magnitudes off by 10^-4 must be outside but for a row of x that is dropped, got {inside}"


def test_the_bound_is_tight_to_the_committed_factor() -> None:
    # The largest part of the half width that right evaluations of short sums take; a looser bound lowers it.
    rng, largest = np.random.default_rng(174), 0.0
    shapes = ((40, 1), (50, 1), (1, 1), (50, 1), (40, 50))
    case = Case(*(rng.uniform(1, 2, shape).astype(np.float32) for shape in shapes), alpha=0.7)
    m = rng.uniform(1, 2, 50).astype(np.float32)
    interval = forward_interval(case, m, Roundings())
    y = dora_forward(*case.operands, m, **case.options)
    for plan in PLANS:
        largest = max(largest, used_part(interval, forward(case, m, plan, Roundings()), y))
    assert LARGEST_USED <= largest <= 1, f"evaluations use {largest:.4f} of the bound, committed are {LARGEST_USED}"


LARGEST_USED = 0.13


def test_a_row_of_zeros_is_exact() -> None:
    case = replace(KINDS["ordinary"](0), mask=None, dropout=0.0, bias=None)
    case.weight[1] = case.lora_b[1] = 0
    m = np.ones(len(case.weight), np.float32)
    interval, gradients = forward_interval(case, m, Roundings()), backward_intervals(case, m, Roundings())
    assert not interval.lo[:, 1].any(), "a zero row gives 0, exactly"
    assert not interval.hi[:, 1].any(), "a zero row gives 0, exactly"
    got = (gradients["magnitude"].lo[1], gradients["magnitude"].hi[1], bool(gradients["magnitude"].judged[1]))
    assert got == (0.0, 0.0, True), f"the magnitude of a zero row has gradient 0, got {got}"


@pytest.mark.parametrize("size", [1e-45, 1e-30, 1e25, 3e38])
def test_where_squares_leave_the_range_any_number_is_allowed_but_nan(size: float) -> None:
    weight = np.array([[size, size], [3, 4]], np.float32)
    x, a, b, m = (
        np.ones((1, 2), np.float32) / 4,
        np.ones((1, 2), np.float32),
        np.zeros((2, 1), np.float32),
        ONE[0].repeat(2),
    )
    interval = dora_forward_bound(x / np.float32(max(size, 1)), weight, a, b, m, alpha=1)
    assert (interval.lo[0, 0], interval.hi[0, 0]) == (-np.inf, np.inf), f"rows of {size}: got {interval}"
    assert interval.judged.tolist() == [[True, True]], f"rows of {size}: NaN must be judged, got {interval}"
    assert 0 < interval.hi[0, 1] - interval.lo[0, 1] < 1e-4, "the other row has its ordinary bound"
    gradients = dora_backward_bound(np.ones((1, 2), np.float32), x, weight, a, b, m, alpha=1)
    assert gradients["magnitude"].judged.tolist() == [False, True], "the gradient of an unbounded row is not judged"
    assert gradients["lora_b"].judged.tolist() == [[False], [True]], "the gradient of an unbounded row is not judged"
    assert gradients["bias"].judged.all(), "db does not depend on the norms"


def test_a_row_that_may_cancel_to_zero_has_an_unbounded_g() -> None:
    # W + BA = 0.1 + 0.2 − 0.3 and the like: rounding noise alone.
    weight, a, b = np.full((1, 3), -0.3, np.float32), np.full((1, 3), 0.3, np.float32), ONE
    weight[0, 0] += np.float32(2.0**-25)
    interval = dora_forward_bound(np.ones((1, 3), np.float32), weight, a, b, ONE[0], alpha=1)
    assert (interval.lo.item(), interval.hi.item()) == (-np.inf, np.inf), (
        f"noise over noise is any number, got {interval}"
    )


@pytest.mark.parametrize(("value", "row"), [(np.nan, 0), (np.inf, 0)])
def test_what_is_not_finite_has_exactly_one_answer(value: float, row: int) -> None:
    weight = np.array([[1, value], [3, 4]], np.float32)
    x, a, b = np.ones((1, 2), np.float32), np.ones((1, 2), np.float32), np.zeros((2, 1), np.float32)
    interval = dora_forward_bound(x, weight, a, b, ONE[0].repeat(2), alpha=1)
    assert np.isnan(interval.lo[0, 0]), f"W[0, 1] = {value}: NaN, got {interval}"
    assert interval.judged.all(), f"W[0, 1] = {value}: judged, got {interval}"
    y = dora_backward(ONE.repeat(2, 1), x, weight, a, b, ONE[0].repeat(2), alpha=1).magnitude
    assert np.isnan(y[0]), "and so has the gradient of its magnitude"
    assert np.isfinite(y[1]), "and no other"


def test_the_scale_of_a_stored_weight_may_come_after_the_sum() -> None:
    # The second weight underflows to 0 where it is dequantized first.
    stored = QuantizedInt8(np.int8([[127, 1]]), np.float32([60 * 2.0**-149]), "row", None, "float32")
    weight, size = dequantize_int8(stored), np.float32(2.0**100)
    a, b, m = np.float32([[1, 0]]), ONE, ONE[0]
    got = size * stored.absmax / np.float32(127)
    assert (weight[0, 1], got.item() != 0) == (0, True), "the case"
    x = np.float32([[0, 1]]) * size
    layer = dora_forward_bound(x, weight, a, b, m, alpha=1, stored=stored)
    require_inside(layer, got[np.newaxis].astype(np.float64), "y of a stored weight")
    bounds = dora_backward_bound(ONE * size, x, weight, a, b, m, alpha=1, stored=stored)
    base = bounds["x"].lo[0, 1], bounds["x"].hi[0, 1], bounds["x"].judged[0, 1]
    assert base[0] <= got.item() <= base[1], f"dx of a stored weight: {got} is outside {base}"
    assert base[2], "dx is judged"


def test_where_products_with_bare_codes_could_overflow_a_layer_has_no_verdict() -> None:
    stored = QuantizedInt8(np.int8([[127, 127]]), np.float32([1e-3]), "row", None, "float32")
    a, b = np.float32([[1, 0]]), 0 * ONE
    for size, judged in ((1e33, True), (3e37, False)):
        x, dy = np.float32([[size, -size]]), np.float32([[size]])
        y = dora_forward_bound(x, dequantize_int8(stored), a, b, np.float32([1e-3]), alpha=1, stored=stored)
        assert y.judged.item() is judged, f"x = {size}: 127·x is summed up before the scale, got {y}"
        gradients = dora_backward_bound(
            dy, 0 * x, dequantize_int8(stored), a, b, np.float32([1e-3]), alpha=1, stored=stored
        )
        assert gradients["x"].judged.all() == judged, f"dy = {size}: 127·dy, got {gradients['x']}"
