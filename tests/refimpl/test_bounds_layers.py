"""[bounds.lora]: every legitimate evaluation lies inside, whatever its order and wherever its factors are applied."""

import numpy as np
import pytest

from qloracle.bounds import Roundings

from .bound_cases import KINDS
from .evaluated_layers import Case, backward, backward_intervals, forward, forward_interval, require_inside
from .evaluations import BACKWARD_PLANS, FORWARD_PLANS, Plan
from .rational_layers import Layer, derivative, kept_matrix, matrix
from .rational_layers import forward as rational_forward
from .rationals import exact

ROUNDINGS = [
    Roundings(),
    Roundings(intermediate="bfloat16"),
    Roundings(intermediate="float16"),
    Roundings(accumulate="bfloat16", intermediate="bfloat16"),
    Roundings(accumulate="float16", intermediate="float16"),
]
IDS = ["float32", "bfloat16 between", "float16 between", "all bfloat16", "all float16"]


def narrowed(case: Case, roundings: Roundings) -> Case:
    """The case, with operands that cannot overflow what it is evaluated in."""
    if "float16" not in (roundings.accumulate, roundings.intermediate):
        return case
    parts = {}
    for name in ("x", "weight", "lora_a", "lora_b", "dy"):
        values = getattr(case, name)
        parts[name] = (values / np.abs(values).max()).astype(np.float16).astype(np.float32)
    bias = None if case.bias is None else case.bias.astype(np.float16).astype(np.float32)
    return Case(**parts, bias=bias, **case.options)


def chosen(plans: list[Plan], seed: int, count: int) -> list[Plan]:
    picks = np.random.default_rng([111, seed]).choice(len(plans), count, replace=False)
    return [plans[i] for i in picks]


@pytest.mark.proof("bounds.lora", by="evaluations in low precision")
@pytest.mark.proof("bounds.sum", by="evaluations in low precision")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("roundings", ROUNDINGS, ids=IDS)
def test_every_forward_evaluation_is_inside(kind: str, roundings: Roundings) -> None:
    for seed in range(3):
        case = narrowed(KINDS[kind](seed), roundings)
        interval = forward_interval(case, roundings)
        for plan in chosen(FORWARD_PLANS, seed, 80):
            require_inside(interval, forward(case, plan, roundings), f"y, {kind} operands, {roundings}, {plan}")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("roundings", ROUNDINGS, ids=IDS)
def test_every_backward_evaluation_is_inside(kind: str, roundings: Roundings) -> None:
    for seed in range(3):
        case = narrowed(KINDS[kind](seed), roundings)
        intervals = backward_intervals(case, roundings)
        for plan in chosen(BACKWARD_PLANS, seed, 60):
            for name, got in backward(case, plan, roundings).items():
                require_inside(intervals[name], got, f"gradient of {name}, {kind} operands, {roundings}, {plan}")


@pytest.mark.proof("bounds.lora", by="exact rationals")
@pytest.mark.proof("bounds.sum", by="exact rationals")
@pytest.mark.parametrize("kind", ["ordinary", "wide", "cancelling", "subnormal"])
def test_the_exact_rational_result_is_inside(kind: str) -> None:
    case = KINDS[kind](0)
    if case.rank_stabilized:
        case = Case(*case.operands, case.dy, alpha=0.3, mask=case.mask, dropout=case.dropout)
    scale = exact(case.alpha) / len(case.lora_a)
    bias = np.zeros(len(case.weight)) if case.bias is None else case.bias
    kept = kept_matrix(case.mask, exact(case.dropout), (len(case.x), case.x.shape[1]))
    layer = Layer(*(matrix(operand) for operand in case.operands), scale, matrix(bias.reshape(1, -1)), kept)
    dy = matrix(case.dy)
    expected = {"y": rational_forward(layer), "lora_b": derivative(layer, dy, "lora_b")}
    intervals = {"y": forward_interval(case, Roundings()), "lora_b": backward_intervals(case, Roundings())["lora_b"]}
    for name, interval in intervals.items():
        for (i, k), lo in np.ndenumerate(interval.lo):
            inside = exact(lo) <= expected[name][i][k] <= exact(interval.hi[i, k])
            assert inside, f"{kind}: the exact {name}[{i}, {k}] = {float(expected[name][i][k])} is outside its bound"
