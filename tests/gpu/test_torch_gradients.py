"""Clipping and accumulating gradients: inside the reference's bounds, exact where nothing but the last step rounds."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import qloracle
import qloracle_gpu.torch as backend
from qloracle.errors import ArgumentTypeError, ArgumentValueError
from qloracle.optim.accumulate import accumulate_gradients_bound
from qloracle.optim.clipping import clip_by_norm_bound

from .step_judging import FORMATS, host, judged_step, native, require_inside, require_same_bits


def numbers(seed: int, *shape: int) -> Any:
    return np.random.default_rng(seed).standard_normal(shape)


@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize("share", [0.999999, 0.3, 1.000001])
def test_clipping_stays_inside_its_bound_just_below_and_just_above_the_norm(fmt: str, share: float) -> None:
    given = [native(numbers(seed, *shape), fmt) for seed, shape in enumerate([(300,), (7, 5), ()])]
    norm = float(np.sqrt(sum((tensor.double() ** 2).sum().item() for tensor in given)))
    found = backend.clip_by_norm(given, share * norm)
    allowed = clip_by_norm_bound([host(tensor) for tensor in given], share * norm, fmt=fmt)
    for got, tensor, interval in zip(found, given, allowed, strict=True):
        assert got.dtype == tensor.dtype
        assert require_inside(got, interval, f"{share} of the norm") == tensor.numel()
        if share > 1:
            require_same_bits(got, tensor, "what is within the limit")


@pytest.mark.parametrize("fmt", FORMATS)
def test_a_norm_of_exactly_the_limit_changes_nothing_and_twice_that_halves(fmt: str) -> None:
    given = [native(np.array([3.0, 0.0]), fmt), native(np.array([[4.0]]), fmt)]
    same, half = backend.clip_by_norm(given, 5.0), backend.clip_by_norm(given, 2.5)
    assert [part.tolist() for part in same] == [[3.0, 0.0], [[4.0]]]
    assert [part.tolist() for part in half] == [[1.5, 0.0], [[2.0]]]


@pytest.mark.parametrize(("large", "half"), [(3e38, 1.5e38), (1e-45, 0.0)])  # half the smallest subnormal is a tie
def test_no_square_overflows_or_vanishes(large: float, half: float) -> None:
    four = [torch.full((4,), large)]
    require_same_bits(backend.clip_by_norm(four, four[0][0].item())[0], torch.full((4,), half), "at half its norm")
    require_same_bits(backend.clip_by_norm(four, 2.5 * large)[0], four[0], "within the limit")


@pytest.mark.parametrize("lost", [torch.nan, torch.inf])
def test_nothing_is_scaled_where_an_element_is_not_finite(lost: float) -> None:
    given = [torch.tensor([lost, 100.0]), torch.tensor([200.0])]
    for got, tensor in zip(backend.clip_by_norm(given, 1.0), given, strict=True):
        require_same_bits(got, tensor, "a tensor")
    assert backend.clip_by_norm([], 1.0) == []


@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_accumulating_stays_inside_its_bound(fmt: str, reduction: str) -> None:
    gradients, counts = native(numbers(1, 5, 30, 7), fmt), torch.tensor([3, 13, 0, 1, 7], dtype=torch.int32)
    gradients[2] = torch.nan  # a micro-batch without tokens
    found = backend.accumulate_gradients(gradients, counts, reduction=reduction)
    allowed = accumulate_gradients_bound(host(gradients), counts.numpy(), reduction=reduction, fmt=fmt)
    assert require_inside(found, allowed, f"{reduction} of {fmt}") == 210
    real = qloracle.accumulate_gradients(host(gradients), counts.numpy(), reduction=reduction, fmt=fmt)
    require_same_bits(found, native(real, fmt), "what is rounded once from the real mean")


def test_a_micro_batch_weighs_as_much_as_its_tokens() -> None:
    found = backend.accumulate_gradients(torch.tensor([[1.0], [5.0]]), torch.tensor([3, 13]))
    assert found.tolist() == [4.25]


@pytest.mark.parametrize("fmt", FORMATS)
def test_micro_batches_are_one_step(fmt: str) -> None:
    p, state = native(numbers(0, 40), fmt), backend.adamw_init((40,))
    gradients, counts = native(numbers(1, 4, 40), fmt), torch.tensor([2, 5, 1, 8])
    options = backend.AdamwOptions(lr=0.1, beta1=0.7, beta2=0.8, eps=1e-4, weight_decay=0.2)
    gradient, new, after = backend.accumulated_step(p, gradients, counts, state, options)
    require_same_bits(gradient, backend.accumulate_gradients(gradients, counts), "gradient")
    expected, plain, _ = judged_step(p, gradient, state, options)
    require_same_bits(new, expected, "p")
    require_same_bits(after.m, plain.m, "m")
    assert after.step == 1


ROWS, TWO = torch.ones(2, 3), torch.tensor([1, 1])
REFUSED: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: backend.clip_by_norm(ROWS, 1.0), ArgumentTypeError, "values must be a list or tuple of tensors, got Tens"),  # type: ignore[arg-type]
    (lambda: backend.clip_by_norm([ROWS.double()], 1.0), ArgumentTypeError, "values must be float32, float16 or"),
    (lambda: backend.clip_by_norm([ROWS], 0.0), ArgumentValueError, "max_norm must be positive and finite, got 0.0"),
    (lambda: backend.clip_by_norm([ROWS], torch.inf), ArgumentValueError, "max_norm must be positive and finite"),
    (lambda: backend.accumulate_gradients(ROWS, TWO.float()), ArgumentTypeError, "counts must be a tensor of integers"),
    (lambda: backend.accumulate_gradients(ROWS, TWO[:1]), ArgumentValueError, r"counts must be of shape \(2,\)"),
    (lambda: backend.accumulate_gradients(ROWS, -TWO), ArgumentValueError, "counts must be numbers of tokens"),
    (lambda: backend.accumulate_gradients(ROWS, 0 * TWO), ArgumentValueError, "not all 0, got \\[0, 0\\]"),
    (lambda: backend.accumulate_gradients(ROWS, TWO, reduction="max"), ArgumentValueError, "reduction must be one of"),
    (lambda: backend.accumulate_gradients(ROWS.long(), TWO), ArgumentTypeError, "gradients must be float32, float"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "message"), REFUSED, ids=[case[2] for case in REFUSED])
def test_what_does_not_fit_is_refused_by_name(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
