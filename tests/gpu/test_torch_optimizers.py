"""The optimizer classes: trajectories of the functions, bit for bit, however states are paged, saved or copied."""

import copy
import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import Parameter

import qloracle_gpu.torch as backend
from qloracle_gpu.torch.optim import AdamW, AdamW8bit, PagedAdamW, PagedAdamW8bit

from .step_judging import FORMATS, native, require_same_bits

SHAPES = ((40, 16), (7,), (), (0, 3), (300,))
HOW: dict[str, Any] = {"lr": 0.03, "betas": (0.8, 0.93), "eps": 1e-5, "weight_decay": 0.2}
OPTIONS = backend.AdamwOptions(lr=0.03, beta1=0.8, beta2=0.93, eps=1e-5, weight_decay=0.2)
LARGEST = 8 * 640  # bytes of the largest state in 32 bits
EIGHT: dict[str, Any] = {"min_8bit_size": 300, "block_size": 64}
STEPS = 6


def numbers(seed: int, shape: tuple[int, ...], fmt: str) -> torch.Tensor:
    return native(np.random.default_rng(seed).standard_normal(shape), fmt)


def parameters(fmt: str) -> list[Parameter]:
    """Parameters of several shapes; the first one lies transposed in memory."""
    found = [Parameter(numbers(index, shape, fmt)) for index, shape in enumerate(SHAPES)]
    found[0] = Parameter(numbers(0, SHAPES[0][::-1], fmt).T)
    return found


def give_gradients(tensors: list[Parameter], step: int) -> None:
    for index, p in enumerate(tensors):
        p.grad = numbers(100 * (step + 1) + index, tuple(p.shape), str(p.dtype).removeprefix("torch."))


def train(optimizer: torch.optim.Optimizer, tensors: list[Parameter], steps: range) -> list[torch.Tensor]:
    for step in steps:
        give_gradients(tensors, step)
        optimizer.step()
    return [p.detach().clone() for p in tensors]


def require_same_states(first: torch.optim.Optimizer, second: torch.optim.Optimizer) -> None:
    left, right = first.state_dict()["state"], second.state_dict()["state"]
    assert left.keys() == right.keys()
    for index, state in left.items():
        assert state.keys() == right[index].keys(), f"state of parameter {index}"
        for key, value in state.items():
            other = right[index][key]
            if isinstance(value, torch.Tensor):
                require_same_bits(value.cpu(), other.cpu(), f"{key} of parameter {index}")
            else:
                assert value == other, f"{key} of parameter {index}"


def require_same(found: list[torch.Tensor], expected: list[torch.Tensor]) -> None:
    for index, (got, wanted) in enumerate(zip(found, expected, strict=True)):
        require_same_bits(got, wanted, f"parameter {index}")


@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize("bits", [32, 8])
def test_an_optimizer_steps_as_the_functions_do(fmt: str, bits: int) -> None:
    tensors = parameters(fmt)
    optimizer = AdamW(tensors, **HOW) if bits == 32 else AdamW8bit(tensors, **HOW, **EIGHT)
    expected = [p.detach().clone() for p in tensors]
    states: list[Any] = [
        backend.adamw8bit_init(shape, block_size=64) if bits == 8 and p.numel() >= 300 else backend.adamw_init(shape)
        for p, shape in zip(tensors, SHAPES, strict=True)
    ]
    assert [isinstance(state, backend.Adamw8bitState) for state in states] == [
        bits == 8 and index in (0, 4) for index in range(5)
    ]
    for step in range(STEPS):
        give_gradients(tensors, step)
        optimizer.step()
        for index, p in enumerate(tensors):
            call: Any = backend.adamw_step if isinstance(states[index], backend.AdamwState) else backend.adamw8bit_step
            expected[index], states[index] = call(expected[index], p.grad, states[index], OPTIONS)
    require_same([p.detach() for p in tensors], expected)
    for p, state in zip(tensors, states, strict=True):
        for key, tensor in backend.state_arrays(state).items():
            held = optimizer.state[p][key]
            require_same_bits(held if isinstance(held, torch.Tensor) else torch.tensor(held), tensor, key)
    assert not tensors[0].is_contiguous(), "the layout of a parameter is its own"


def test_other_options_reach_the_step() -> None:
    tensors, options = parameters("bfloat16"), backend.AdamwOptions(nonfinite="skip", max_update_norm=0.1)
    optimizer = AdamW(tensors, nonfinite="skip", max_update_norm=0.1, weight_decay=0)
    expected = [
        backend.adamw_step(p.detach(), -p.detach() / 0.0, backend.adamw_init(tuple(p.shape)), options)[0]
        for p in tensors
    ]
    for p in tensors:
        p.grad = -p.detach() / 0.0
    optimizer.step()
    require_same([p.detach() for p in tensors], expected)


BUDGETS = {  # of states in 32 and in 8 bits
    "one state at a time": {32: LARGEST, 8: 2 * (640 + 4 * 10)},
    "all": {32: 2**20, 8: 2**20},
    "default": {32: None, 8: None},
}


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("bits", [32, 8])
def test_paging_changes_no_bit(bits: int, budget: str, mapped: bool, tmp_path: Path) -> None:
    plain, other, most = parameters("bfloat16"), parameters("bfloat16"), BUDGETS[budget][bits]
    how: dict[str, Any] = {**HOW, "page_budget": most, "page_folder": tmp_path if mapped else None}
    if bits == 32:
        first, second = AdamW(plain, **HOW), PagedAdamW(other, **how)
    else:
        first, second = AdamW8bit(plain, **HOW, **EIGHT), PagedAdamW8bit(other, **EIGHT, **how)
    require_same(train(second, other, range(STEPS)), train(first, plain, range(STEPS)))
    require_same_states(second, first)
    assert second._pager is not None
    used = sum(second._pager.resident.values())
    assert used <= (most or 2**30)
    everything = sum(t.nbytes for state in first.state.values() for t in state.values() if isinstance(t, torch.Tensor))
    assert (used < everything) == (budget == "one state at a time")


@pytest.mark.parametrize("stochastic", [False, True])
@pytest.mark.parametrize("kind", [AdamW, AdamW8bit, PagedAdamW, PagedAdamW8bit])
def test_training_goes_on_from_a_file_with_the_same_bits(kind: Any, stochastic: bool) -> None:
    how = {**HOW, **(EIGHT if "8bit" in kind.__name__ else {}), "stochastic_rounding": stochastic, "seed": 5}
    how |= {"page_budget": LARGEST} if "Paged" in kind.__name__ else {}
    whole, tensors = parameters("float16"), parameters("float16")
    expected = train(kind(whole, **how), whole, range(STEPS))
    first = kind(tensors, **how)
    train(first, tensors, range(2))
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second = kind(tensors, **{**how, "lr": 9.0, "seed": 0})
    second.load_state_dict(torch.load(file, weights_only=True))
    assert second.param_groups[0]["lr"] == HOW["lr"], "groups come from the file"
    for state in second.state.values():  # nothing is cast to the format of the parameters
        held = {value.dtype for value in state.values() if isinstance(value, torch.Tensor)}
        assert held <= {torch.float32, torch.uint8}
    require_same(train(second, tensors, range(2, STEPS)), expected)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))])  # noqa: S301
@pytest.mark.parametrize("kind", [AdamW8bit, PagedAdamW8bit])
def test_a_copy_goes_its_own_way_with_the_same_bits(kind: Any, duplicate: Callable[[Any], Any]) -> None:
    tensors = parameters("bfloat16")
    optimizer = kind(tensors, **HOW, **EIGHT)
    train(optimizer, tensors, range(2))
    others, other = duplicate((tensors, optimizer))
    first, second = train(optimizer, tensors, range(2, 4)), train(other, others, range(2, 4))
    require_same(second, first)
    require_same_states(other, optimizer)
    assert not {id(p) for p in others} & {id(p) for p in tensors}


def test_a_state_of_another_class_goes_on_where_it_fits() -> None:
    tensors, others, more = parameters("float32"), parameters("float32"), parameters("float32")
    plain, paged, eight = AdamW(tensors, **HOW), PagedAdamW(others, page_budget=LARGEST), AdamW8bit(more, **EIGHT)
    train(plain, tensors, range(2))
    for optimizer, copies in ((paged, others), (eight, more)):
        for p, original in zip(copies, tensors, strict=True):
            p.data.copy_(original)
        optimizer.load_state_dict(plain.state_dict())
    assert eight.param_groups[0]["block_size"] == EIGHT["block_size"], "a matter of the class"
    expected = train(plain, tensors, range(2, 4))
    require_same(train(paged, others, range(2, 4)), expected)
    require_same(train(eight, more, range(2, 4)), expected)  # its states stay in 32 bits
    small = AdamW8bit(tensors, min_8bit_size=10**6)
    small.load_state_dict(plain.state_dict())
    plain.load_state_dict(small.state_dict())
    assert "min_8bit_size" not in plain.param_groups[0]


def test_random_bits_depend_on_seed_parameter_and_step() -> None:
    found = []
    for seed in (0, 0, 1):
        tensors = [Parameter(torch.ones(64, dtype=torch.bfloat16)) for _ in range(2)]
        optimizer = AdamW(tensors, lr=1e-3, stochastic_rounding=True, seed=seed)
        for _ in range(2):
            for p in tensors:
                p.grad = torch.ones_like(p)
            optimizer.step()
            found.append([p.detach().tolist() for p in tensors])
    same, again, other = found[0:2], found[2:4], found[4:6]
    assert same == again
    assert same != other
    assert same[0][0] != same[0][1], "two parameters draw alike"
    assert {1.0, 1 - 2**-8} == set(same[0][0])


def test_float32_parameters_are_not_rounded_stochastically() -> None:
    results = []
    for stochastic in (False, True):
        tensors = parameters("float32")
        results.append(train(AdamW(tensors, **HOW, stochastic_rounding=stochastic), tensors, range(2)))
    require_same(*results)


def test_a_closure_is_called_with_gradients_on_and_its_loss_is_returned() -> None:
    p = Parameter(torch.ones(3))
    optimizer = AdamW([p], lr=0.125, weight_decay=0)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = (p * p).sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 3.0
    assert p.tolist() == [0.875] * 3


def test_a_parameter_without_gradient_stays_and_has_no_state() -> None:
    moved, frozen = Parameter(torch.ones(2)), Parameter(torch.ones(2))
    optimizer = PagedAdamW([moved, frozen])
    moved.grad = torch.ones(2)
    optimizer.step()
    assert frozen.tolist() == [1.0, 1.0]
    assert list(optimizer.state) == [moved]


def test_groups_have_options_of_their_own_and_may_come_later() -> None:
    first, second = Parameter(torch.ones(5000)), Parameter(torch.ones(5000))
    optimizer = AdamW8bit([{"params": [first], "lr": 0.5}], lr=0.25, weight_decay=0)
    optimizer.add_param_group({"params": second, "min_8bit_size": 10**6, "betas": (0.0, 0.0)})
    for p in (first, second):
        p.grad = torch.ones(5000)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: 0.5**epoch)
    optimizer.step()
    scheduler.step()
    assert (first[0].item(), second[0].item()) == (0.5, 0.75)
    assert ("codes_m" in optimizer.state[first], "m" in optimizer.state[second]) == (True, True)
    assert [group["lr"] for group in optimizer.param_groups] == [0.25, 0.125]


def test_named_parameters_and_hooks_work_as_in_torch() -> None:
    layer = torch.nn.Linear(3, 2)
    optimizer, calls = AdamW(layer.named_parameters()), []
    optimizer.register_step_post_hook(lambda *_: calls.append("step"))
    optimizer.register_load_state_dict_post_hook(lambda o: calls.append(f"{len(o.state)} states"))
    layer(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    saved = copy.deepcopy(optimizer.state_dict())
    assert saved["param_groups"][0]["param_names"] == ["weight", "bias"]
    saved["param_groups"][0]["lr"] = 0.5

    def halve(_: Any, given: dict[str, Any]) -> dict[str, Any]:
        state = {**given["state"][0], "m": given["state"][0]["m"] / 2}
        return {**given, "state": {**given["state"], 0: state}}

    optimizer.register_load_state_dict_pre_hook(halve)
    optimizer.load_state_dict(saved)
    assert calls == ["step", "2 states"]
    require_same_bits(optimizer.state[layer.weight]["m"], saved["state"][0]["m"] / 2, "m after a hook that halves it")
    assert optimizer.param_groups[0]["lr"] == 0.5


def test_a_step_is_a_change_that_autograd_sees() -> None:
    p = Parameter(torch.ones(3))
    loss = (p * p).sum()
    optimizer = AdamW8bit([p], min_8bit_size=0)
    p.grad = torch.ones(3)
    optimizer.step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_a_scaler_of_gradients_skips_a_step_that_overflowed() -> None:
    p = Parameter(torch.ones(3))
    optimizer, scaler = AdamW([p], lr=0.125, weight_decay=0), torch.amp.GradScaler("cpu", init_scale=4.0)
    for factor in (torch.inf, 1.0):
        optimizer.zero_grad()
        scaler.scale((p * factor).sum()).backward()
        scaler.step(optimizer)
        scaler.update()
    assert p.tolist() == [0.875] * 3
    assert optimizer.state[p]["step"] == 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="NOT RUN: no CUDA device")
@pytest.mark.parametrize("kind", [AdamW, AdamW8bit, PagedAdamW, PagedAdamW8bit])
def test_a_cuda_device_gives_the_bits_of_the_cpu(kind: Any) -> None:
    on_host = parameters("bfloat16")
    on_device = [Parameter(p.detach().cuda()) for p in parameters("bfloat16")]
    how = {**HOW, **(EIGHT if "8bit" in kind.__name__ else {})}
    expected = train(kind(on_host, **how), on_host, range(STEPS))
    optimizer = kind(on_device, **how, **({"page_budget": LARGEST} if "Paged" in kind.__name__ else {}))
    for step in range(STEPS):
        for index, p in enumerate(on_device):
            p.grad = numbers(100 * (step + 1) + index, tuple(p.shape), "bfloat16").cuda()
        optimizer.step()
    require_same([p.detach().cpu() for p in on_device], expected)
