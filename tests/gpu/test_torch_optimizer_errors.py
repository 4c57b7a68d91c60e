"""What the optimizer classes refuse: by name, and before anything has changed."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn import Parameter

from qloracle.errors import ArgumentTypeError, ArgumentValueError
from qloracle_gpu.torch.optim import AdamW, AdamW8bit, PagedAdamW, PagedAdamW8bit

EIGHT: dict[str, Any] = {"min_8bit_size": 300, "block_size": 64}


def train(optimizer: torch.optim.Optimizer, tensors: list[Parameter], steps: range) -> None:
    for step in steps:
        for p in tensors:
            p.grad = torch.linspace(-1, step + 1, p.numel()).view(p.shape)
        optimizer.step()


def one(**how: Any) -> Callable[[], Any]:
    return lambda: AdamW8bit([Parameter(torch.ones(3))], **how)


def paged(**how: Any) -> Callable[[], Any]:
    return lambda: PagedAdamW([Parameter(torch.ones(3))], **how)


REFUSED: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (one(lr=-1.0), ArgumentValueError, "lr must be 0 or from 2\\^-126 to"),
    (one(lr="fast"), ArgumentTypeError, "lr must be a number, got 'fast'"),
    (one(betas=(0.9, 1.0)), ArgumentValueError, "beta2 must be 0 or from"),
    (one(betas=0.9), ArgumentTypeError, "betas must be a pair, got 0.9"),
    (one(betas=(0.9,)), ArgumentValueError, "betas must be a pair, got 1 items"),
    (one(eps=0), ArgumentValueError, "eps must be from 2\\^-126 to"),
    (one(weight_decay=torch.inf), ArgumentValueError, "weight_decay must be"),
    (one(nonfinite="no"), ArgumentValueError, "nonfinite must be one of propagate, skip, reset, got 'no'"),
    (one(max_update_norm=0.0), ArgumentValueError, "max_update_norm must be from"),
    (one(stochastic_rounding=1), ArgumentTypeError, "stochastic_rounding must be True or False, got 1"),
    (one(seed=0.5), ArgumentTypeError, "seed must be an integer, got 0.5"),
    (one(min_8bit_size=-1), ArgumentValueError, "min_8bit_size must be a number of elements, 0 or more, got -1"),
    (one(block_size=0), ArgumentValueError, "block_size must be a positive integer, got 0"),
    (paged(page_budget=23), ArgumentValueError, "page_budget must be at least the 24 bytes of the state"),
    (paged(page_budget=-1), ArgumentValueError, "page_budget must be a number of bytes, 0 or more, got -1"),
    (paged(page_budget=1.5), ArgumentTypeError, "page_budget must be a number of bytes, 0 or more, got 1.5"),
    (paged(page_folder="/no/such/folder"), ArgumentValueError, "page_folder must be an existing folder, got"),
    (paged(page_folder=3), ArgumentTypeError, "page_folder must be a path or None, got int"),
    (lambda: AdamW([Parameter(torch.ones(3).double())]), ArgumentTypeError,
     "parameter 0 of the group must be dense, of float32, float16 or bfloat16, got torch.float64"),
    (lambda: AdamW([Parameter(torch.ones(3).to_sparse())]), ArgumentTypeError, "got torch.sparse_coo"),
    (lambda: AdamW([{"params": {Parameter(torch.ones(3))}}]), ArgumentTypeError, "params must be in an order that"),
    (lambda: AdamW([{"lr": 1.0}]), ArgumentTypeError, "param_group must be a dictionary with params"),
    (lambda: AdamW([1.0]), ArgumentTypeError, "parameter 0 of the group must be a tensor, got float"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "message"), REFUSED, ids=[case[2] for case in REFUSED])
def test_what_does_not_fit_is_refused_by_name(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_a_group_that_is_refused_is_not_added() -> None:
    optimizer = AdamW([Parameter(torch.ones(3))])
    with pytest.raises(ArgumentValueError, match="eps must be"):
        optimizer.add_param_group({"params": [Parameter(torch.ones(3))], "eps": -1.0})
    assert len(optimizer.param_groups) == 1


def sparse(p: Parameter) -> None:
    p.grad = torch.ones(3).to_sparse()


def of_other_format(p: Parameter) -> None:
    p.grad_dtype = None
    p.grad = torch.ones(3, dtype=torch.bfloat16)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [(sparse, r"gradient must be a dense tensor, got torch.sparse_coo \(parameter 1\)"),
     (of_other_format, r"gradient must be of the format of p, float32, got torch.bfloat16 \(parameter 1\)")],
)  # fmt: skip
def test_no_parameter_moves_where_a_gradient_does_not_fit(spoil: Callable[[Parameter], None], message: str) -> None:
    tensors = [Parameter(torch.ones(3)) for _ in range(2)]
    optimizer = AdamW(tensors)
    tensors[0].grad = torch.ones(3)
    spoil(tensors[1])
    with pytest.raises(ArgumentTypeError, match=message):
        optimizer.step()
    assert tensors[0].tolist() == [1.0] * 3
    assert not optimizer.state


def test_no_parameter_moves_where_a_hyperparameter_went_out_of_its_range() -> None:
    p = Parameter(torch.ones(3))
    optimizer = AdamW([p])
    p.grad = torch.ones(3)
    optimizer.param_groups[0]["lr"] = torch.nan
    with pytest.raises(ArgumentValueError, match="lr must be 0 or from"):
        optimizer.step()
    assert p.tolist() == [1.0] * 3


def changed(path: tuple[Any, ...], value: Any) -> Callable[[dict[str, Any]], None]:
    def change(saved: dict[str, Any]) -> None:
        *way, last = path
        part = saved
        for key in way:
            part = part[key]
        if value is None:
            del part[last]
        else:
            part[last] = value

    return change


BYTES = torch.zeros(300, dtype=torch.uint8)
TAMPERED: list[tuple[Callable[[dict[str, Any]], None], type[Exception], str]] = [
    (changed(("state",), None), ArgumentValueError, "state_dict must be with state and param_groups"),
    (changed(("param_groups", 0, "eps"), None), ArgumentValueError, "param group must be one with 'eps'"),
    (changed(("param_groups", 0, "eps"), -1.0), ArgumentValueError, "eps must be from"),
    (changed(("state", 7), {}), ArgumentValueError, r"state must be of parameters \[0\], got \[7\]"),
    (changed(("state", 0, "codes_v"), None), ArgumentValueError, "state of parameter 0 must be named m, v, step; or"),
    (changed(("state", 0, "codes_v"), BYTES.float()), ArgumentTypeError, "codes_v of parameter 0 must be a tensor of"),
    (changed(("state", 0, "codes_v"), BYTES[1:]), ArgumentValueError, r"codes_v of parameter 0 must be of shape"),
    (changed(("state", 0, "block_size"), 100), ArgumentValueError, r"absmax_m of parameter 0 must be of shape \(3,\)"),
    (changed(("state", 0, "step"), -1), ArgumentValueError, "step must be a number of steps, 0 or more, got -1"),
]  # fmt: skip


@pytest.mark.parametrize(("tamper", "error", "message"), TAMPERED, ids=[case[2] for case in TAMPERED])
def test_a_state_that_does_not_fit_is_refused_and_changes_nothing(
    tamper: Callable[[dict[str, Any]], None], error: type[Exception], message: str
) -> None:
    tensors = [Parameter(torch.ones(300))]
    optimizer = PagedAdamW8bit(tensors, **EIGHT)
    train(optimizer, tensors, range(2))
    before, saved = copy.deepcopy(optimizer.state_dict()), copy.deepcopy(optimizer.state_dict())
    tamper(saved)
    with pytest.raises(error, match=message):
        optimizer.load_state_dict(saved)
    after = optimizer.state_dict()
    assert after["param_groups"] == before["param_groups"]
    for key, value in before["state"][0].items():
        assert torch.equal(torch.as_tensor(after["state"][0][key]), torch.as_tensor(value)), key
    train(optimizer, tensors, range(2, 3))


def test_a_state_of_other_parameters_or_another_kind_is_refused() -> None:
    tensors = [Parameter(torch.ones(300))]
    eight, plain = AdamW8bit(tensors, **EIGHT), AdamW(tensors)
    train(eight, tensors, range(1))
    with pytest.raises(ArgumentValueError, match="state of parameter 0 must be named m, v, step, got codes_m"):
        plain.load_state_dict(eight.state_dict())
    with pytest.raises(ArgumentValueError, match=r"param_groups must be 1 groups of \[2\] parameters, got \[1\]"):
        AdamW([Parameter(torch.ones(300)), Parameter(torch.ones(1))]).load_state_dict(plain.state_dict())
    with pytest.raises(ArgumentTypeError, match="state_dict must be a dictionary, got list"):
        plain.load_state_dict([])  # type: ignore[arg-type]
