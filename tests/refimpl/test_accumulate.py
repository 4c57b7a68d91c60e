"""[accumulate.mean], [accumulate.step], [bounds.accumulate]: micro-batches against the one big batch."""

from fractions import Fraction
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from qloracle.errors import ArgumentTypeError, ArgumentValueError
from qloracle.formats import Array
from qloracle.optim.accumulate import accumulate_gradients, accumulate_gradients_bound, accumulated_step
from qloracle.optim.adamw import AdamwState, adamw_init, adamw_step
from qloracle.optim.options import AdamwOptions
from qloracle.tracking.roundings import Roundings

from .evaluations import ORDERS, ROUNDINGS, total
from .rationals import exact

COUNTS = np.array([3, 13, 1, 200])


def gradients(seed: int, count: int = 4, size: int = 20) -> Array:
    rng = np.random.default_rng([251, seed])
    return np.ldexp(rng.standard_normal((count, size)), rng.integers(-10, 11, (count, size))).astype(np.float32)


@pytest.mark.proof("accumulate.mean", by="exact rationals")
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_gradient_is_weighted_by_tokens_and_divided_by_all_of_them(reduction: str) -> None:
    g = gradients(1)
    got = accumulate_gradients(g, COUNTS, reduction=reduction)
    for j in range(g.shape[1]):
        terms = [exact(g[i, j]) * (int(COUNTS[i]) if reduction == "mean" else 1) for i in range(4)]
        real, size = sum(terms, Fraction(0)) / 217, sum(map(abs, terms), Fraction(0)) / 217
        assert abs(exact(got[j]) - real) <= 6 * size / 2**53


def batches(torch: ModuleType) -> tuple[Any, Any, list[Any]]:
    """A linear model, its weight, and micro-batches of 3, 13 and 5 tokens in float64."""
    generator = torch.Generator().manual_seed(7)
    weight = torch.randn(6, generator=generator, dtype=torch.float64, requires_grad=True)
    parts = [torch.randn(n, 6, generator=generator, dtype=torch.float64) for n in (3, 13, 5)]
    return weight, parts, [(part @ weight).tanh() for part in parts]


@pytest.mark.proof("accumulate.mean", by="torch autograd of the whole batch")
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_micro_batches_give_the_gradient_of_the_whole_batch(torch: ModuleType, reduction: str) -> None:
    weight, _, losses = batches(torch)
    (whole,) = torch.autograd.grad(torch.cat(losses).mean(), weight, retain_graph=True)
    each = [torch.autograd.grad(getattr(loss, reduction)(), weight, retain_graph=True)[0] for loss in losses]
    single = np.stack([part.numpy() for part in each]).astype(np.float32)
    got = accumulate_gradients(single, np.array([3, 13, 5]), reduction=reduction)
    # The micro-gradients were rounded to float32 on the way.
    assert np.all(np.abs(got - whole.numpy()) <= 2.0**-23 * (1 + np.abs(whole.numpy())))


def state_of(size: int) -> AdamwState:
    rng = np.random.default_rng(252)
    return AdamwState(rng.standard_normal(size).astype(np.float32), rng.random(size).astype(np.float32), 6)


@pytest.mark.proof("accumulate.step", by="one step with the big batch")
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_n_micro_batches_are_one_step(reduction: str) -> None:
    # Integers times powers of two: the gradient of the big batch is exact, so the steps agree bit for bit.
    rng, counts = np.random.default_rng(253), np.array([3, 13])
    whole = rng.integers(-9, 10, 20).astype(np.float32)
    shift = rng.integers(-3, 4, 20).astype(np.float32)
    means, sums = (whole + 13 * shift, whole - 3 * shift), (shift, 16 * whole - shift)
    parts = np.stack(means if reduction == "mean" else sums)
    p, chosen, state = rng.standard_normal(20).astype(np.float32), AdamwOptions(lr=0.1, weight_decay=0.1), state_of(20)
    gradient, new, after = accumulated_step(p, parts, counts, state, chosen, reduction=reduction)
    expected, big = adamw_step(p, whole, state, chosen)
    assert np.array_equal(gradient, whole)
    assert np.array_equal(new, expected)
    assert np.array_equal(after.m, big.m)
    assert np.array_equal(after.v, big.v)
    assert after.step == 7


@pytest.mark.proof("accumulate.step", by="torch.optim.AdamW after four backward passes")
def test_the_parameter_moves_once_as_pytorchs_does(torch: ModuleType) -> None:
    parameter = torch.nn.Parameter(torch.ones(4, dtype=torch.float64))
    optimizer = torch.optim.AdamW([parameter], lr=0.25, weight_decay=0.5, eps=0.5)
    parts = np.array([[1, 2, 3, -4], [2, 2, 2, 2], [-1, 0, 1, 4], [6, 4, 2, 2]], np.float32)
    for part in parts:
        loss = (parameter * torch.tensor(part.astype(np.float64))).sum() / 4
        loss.backward()
    optimizer.step()
    chosen = AdamwOptions(lr=0.25, weight_decay=0.5, eps=0.5)
    gradient, new, state = accumulated_step(
        np.ones(4, np.float32), parts, np.ones(4, np.int64), adamw_init((4,)), chosen
    )
    assert gradient.tolist() == [2, 2, 2, 1]
    assert np.all(np.abs(new - parameter.detach().numpy()) <= 2.0**-22), "one step, up to float32 moments"
    assert state.step == 1


def accumulated(g: Array, counts: Array, reduction: str, how: str, order: str, name: str) -> Array:
    """One evaluation in low precision, numbers held in float64."""
    rnd, wide = ROUNDINGS[name], g.astype(np.float64)
    number = float(counts.sum())
    weights = counts.astype(np.float64) if reduction == "mean" else np.ones(len(counts))
    if how == "weights first":
        return total(
            [(row, rnd(np.array(weight / number))) for row, weight in zip(wide, weights, strict=True)], order, rnd
        )
    sums = total([(row, rnd(np.array(weight))) for row, weight in zip(wide, weights, strict=True)], order, rnd)
    if how == "quotient":
        return rnd(sums / rnd(np.array(number)))
    return rnd(sums * rnd(np.array(1 / number)))


@pytest.mark.proof("bounds.accumulate", by="evaluations in low precision")
@pytest.mark.parametrize("name", ["float32", "bfloat16"])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("how", ["weights first", "quotient", "reciprocal"])
def test_every_order_and_form_lies_inside(name: str, reduction: str, how: str) -> None:
    for seed in range(6):
        count = (1, 2, 4, 17, 64, 3)[seed]
        counts = np.random.default_rng(seed).integers(1, 3000, count)
        g = np.asarray(ROUNDINGS[name](gradients(seed, count))).astype(np.float32)
        bound = accumulate_gradients_bound(g, counts, reduction=reduction, roundings=Roundings(accumulate=name))
        assert bound.judged.all()
        for order in ORDERS:
            got = accumulated(g, counts, reduction, how, order, name)
            assert np.all((bound.lo <= got) & (got <= bound.hi)), f"{count} micro-batches, {order}, {how}"


@pytest.mark.proof("bounds.accumulate", by="exact rationals: a sum that rounds one way")
def test_a_sum_that_always_rounds_up_uses_nearly_all_of_the_bound() -> None:
    count = 1000
    g = np.full((count, 1), np.float32(2.0**-24 * (1 + 2.0**-23)))
    g[0] = 1
    running = np.float32(0)
    for value in g[:, 0]:
        running = np.float32(running + value)
    got = exact(np.float32(running / np.float32(count)))
    bound = accumulate_gradients_bound(g, np.ones(count, np.int64), reduction="sum")
    real = sum(map(exact, g[:, 0]), Fraction(0)) / count
    lo, hi = exact(bound.lo[0]), exact(bound.hi[0])
    assert lo <= got <= hi
    assert abs(got - real) / ((hi - lo) / 2) >= Fraction(98, 100)


def test_a_micro_batch_without_tokens_is_left_out() -> None:
    g = np.array([[1], [np.nan], [3]], np.float32)
    assert accumulate_gradients(g, np.array([1, 0, 1])).tolist() == [2]
    assert np.isnan(accumulate_gradients(g, np.array([1, 1, 1]))).all()


def test_bfloat16_gradients_round_once_at_the_end() -> None:
    words = np.array([[0x3F80], [0x3F81], [0x3F81]], np.uint16)
    _, new, _ = accumulated_step(
        np.array([0x3F80], np.uint16), words, np.array([1, 1, 1]), adamw_init((1,)), AdamwOptions(), fmt="bfloat16"
    )
    assert new.dtype == np.uint16


def test_bad_arguments_are_rejected_by_name() -> None:
    g: Any = np.ones((2, 3), np.float32)
    for name, values, counts, reduction, error in (
        ("gradients", g.astype(np.float64), [1, 1], "mean", ArgumentTypeError),
        ("counts", g, [1.0, 1.0], "mean", ArgumentTypeError),
        ("counts", g, [1], "mean", ArgumentValueError),
        ("counts", g, [1, -1], "mean", ArgumentValueError),
        ("counts", g, [0, 0], "mean", ArgumentValueError),
        ("counts", np.float32(1), [1], "mean", ArgumentValueError),
        ("reduction", g, [1, 1], "none", ArgumentValueError),
    ):
        with pytest.raises(error, match=f"^{name} must be "):
            accumulate_gradients(values, np.array(counts), reduction=reduction)


@pytest.mark.parametrize("count", [16385, 36336, 40001, 56194, 57168])
def test_a_reciprocal_of_the_tokens_that_underflows_is_multiplied_by_the_whole_sum(count: int) -> None:
    rnd, counts = ROUNDINGS["float16"], np.array([count])
    for size in (1.0009765625, 0.88, 0.7, 0.663, 0.013):
        g = rnd(np.array([[size]])).astype(np.float32)
        bound = accumulate_gradients_bound(g, counts, roundings=Roundings(accumulate="float16"))
        number, wide = rnd(np.array(float(count))), g[0].astype(np.float64)
        inverse = rnd(1 / number)
        results = {"sum · 1/n": rnd(rnd(wide * number) * inverse), "g · (n · 1/n)": rnd(wide * rnd(number * inverse))}
        for form, got in results.items():
            inside = (bound.lo <= got) & (got <= bound.hi)
            assert np.all(inside | ~bound.judged), f"{form} of {count} tokens: {got} not in {bound}"


def test_a_number_of_all_tokens_that_the_format_cannot_hold_costs_a_rounding() -> None:
    def roundings(*counts: int) -> float:
        g = np.ones((len(counts), 1), np.float32)
        bound = accumulate_gradients_bound(g, np.array(counts), reduction="sum")
        return float((bound.hi - bound.lo)[0] / 2 * sum(counts) / len(counts) * 2**24)

    assert round(roundings(2**23, 2**23), 3) == 4, "N + 2"
    assert round(roundings(2**23, 2**23 + 1), 3) == 5, "N + 3: 2^24 + 1 is no float32 number"
    assert round(roundings(1, 2**24 + 1), 3) == 6, "N + 4: nor is the count"


def test_more_tokens_than_an_int64_holds_do_not_wrap_around() -> None:
    assert accumulate_gradients(np.ones((2, 1), np.float32), np.array([2**62, 2**62])).tolist() == [1.0]


def test_more_tokens_than_the_format_reaches_are_not_judged() -> None:
    half = Roundings(accumulate="float16")
    assert not accumulate_gradients_bound(np.zeros((1, 1), np.float32), np.array([70000]), roundings=half).judged.any()
