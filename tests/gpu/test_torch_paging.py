"""Paged states: plans as the reference's, bytes that come back as they went, in host memory and in a mapped file."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import qloracle
import qloracle_gpu.torch as backend
from qloracle.errors import ArgumentTypeError, ArgumentValueError
from qloracle_gpu.torch.optim.pager import Paging, StatePager

from .step_judging import require_same_bits

NAMES = tuple("abcdef")


def accesses(seed: int) -> list[str]:
    """Random, cyclic, and again and again to the oldest."""
    random = np.random.default_rng(seed)
    return [*random.choice(NAMES, 40).tolist(), *(NAMES * 3), *("a", "b", "a", "c", "a", "d", "a", "e")]


@pytest.mark.parametrize("budget", [9, 12, 20, 27])
def test_plans_and_moves_are_those_of_the_reference(budget: int) -> None:
    sizes = dict(zip(NAMES, (3, 4, 2, 9, 9, 0), strict=True))
    mine, theirs = backend.page_plan(sizes, budget), qloracle.page_plan(sizes, budget)
    for name in accesses(budget):
        mine, moves = backend.page_in(mine, name)
        theirs, expected = qloracle.page_in(theirs, name)
        assert [vars(move) for move in moves] == [vars(move) for move in expected]
        assert vars(mine) == vars(theirs)
        assert mine.used <= budget


def random_states() -> dict[str, dict[str, torch.Tensor]]:
    """States whose arrays have odd lengths, several types, no elements and no axes, and bits that are NaN."""
    words = np.random.default_rng(3).integers(0, 2**32, 60, dtype=np.uint32)
    bits = torch.from_numpy(words.view(np.int32))
    return {
        name: {
            "codes": bits[:15].view(torch.uint8)[: 7 + index],
            "absmax": bits[index : index + 3].view(torch.float32),
            "m": bits[::2][index : index + 4].view(torch.float32),
            "half": bits[10:12].view(torch.bfloat16),
            "step": torch.tensor(2**40 + index),
            "none": torch.empty(0),
        }
        for index, name in enumerate(NAMES)
    }


def bytes_of(state: dict[str, torch.Tensor]) -> int:
    return sum(tensor.numel() * tensor.itemsize for tensor in state.values())


@pytest.mark.parametrize("mapped", [False, True])
def test_fetched_states_hold_what_was_stored_last(mapped: bool, tmp_path: Path) -> None:
    states = random_states()
    largest = max(map(bytes_of, states.values()))
    waiting = {
        name: torch.from_file(str(tmp_path / name), shared=True, size=bytes_of(state), dtype=torch.uint8)
        for name, state in states.items()
    } if mapped else None  # fmt: skip
    paged = backend.page_states(states, 2 * largest, waiting)
    for count, name in enumerate(accesses(1)):
        paged, found = backend.fetch_state(paged, name)
        for key, tensor in found.items():
            require_same_bits(tensor, states[name][key].contiguous(), f"{key} of {name} after {count} accesses")
        states[name] = {**states[name], "step": states[name]["step"] + 1}
        paged = backend.store_state(paged, name, states[name])
        found["codes"].zero_()  # a copy: no record changes
        assert paged.plan.used == sum(bytes_of(dict(paged.device[resident])) for resident in paged.plan.resident)


def test_a_plan_that_breaks_its_budget_is_refused() -> None:
    with pytest.raises(ArgumentValueError, match="resident must be names of states that fit the budget together"):
        backend.PagePlan({"a": 3, "b": 4}, 5, ("a", "b"))


@pytest.mark.parametrize("mapped", [False, True])
def test_the_pager_of_the_optimizers_moves_what_the_plan_says(mapped: bool, tmp_path: Path) -> None:
    states: dict[str, dict[str, Any]] = {name: {**state, "number": 5} for name, state in random_states().items()}
    sizes = {name: bytes_of(state) for name, state in random_states().items()}
    expected = {name: {key: t.clone() for key, t in state.items()} for name, state in random_states().items()}
    budget = 2 * max(sizes.values())
    pager, plan = StatePager(Paging(budget, str(tmp_path) if mapped else None)), qloracle.page_plan(sizes, budget)
    for name, state in states.items():
        pager.adopt(name, state, torch.device("cpu"))
    waiting = {name: state["m"].data_ptr() for name, state in states.items()}
    for name in accesses(2):
        pager.fetch(name)
        plan, _ = qloracle.page_in(plan, name)
        assert tuple(pager.resident) == plan.resident
        away = [other for other, state in states.items() if state["m"].data_ptr() == waiting[other]]
        assert set(away) == set(NAMES) - set(plan.resident)
        states[name]["m"].view(torch.int32).add_(1)
        expected[name]["m"].view(torch.int32).add_(1)
        for other, state in states.items():
            assert state["number"] == 5
            for key, tensor in expected[other].items():
                require_same_bits(state[key], tensor, f"{key} of {other}")
    assert list(tmp_path.iterdir()) == [], "the mapped file has no name"


STATE = {"m": torch.ones(2)}
PAGED = backend.page_states({"a": STATE, "b": STATE}, 8)
REFUSED: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: backend.page_plan({"a": 3}, 2), ArgumentValueError, "budget must be at least the 3 bytes of the state of"),
    (lambda: backend.page_plan({"a": -1}, 2), ArgumentValueError, r"sizes\['a'\] must be a number of bytes, 0 or more"),
    (lambda: backend.page_plan({"a": 1.5}, 2), ArgumentTypeError, "must be a number of bytes, 0 or more, got 1.5"),  # type: ignore[dict-item]
    (lambda: backend.page_in(backend.page_plan({"a": 1}, 2), "b"), ArgumentValueError, "name must be one of a, got"),
    (lambda: backend.page_in({"a": 1}, "a"), ArgumentTypeError, "plan must be PagePlan, got dict"),  # type: ignore[arg-type]
    (lambda: backend.page_states({"a": STATE}, 7), ArgumentValueError, "at least the 8 bytes of the state"),
    (lambda: backend.page_states({"a": [1]}, 8), ArgumentTypeError, "state of 'a' must be a mapping"),  # type: ignore[dict-item]
    (lambda: backend.page_states({"a": {"m": 1}}, 8), ArgumentTypeError, "'m' of 'a' must be a torch tensor, got int"),  # type: ignore[dict-item]
    (lambda: backend.page_states({"a": STATE}, 8, {}), ArgumentTypeError, r"waiting\['a'\] must be a tensor of uint8"),
    (lambda: backend.page_states({"a": STATE}, 8, {"a": torch.zeros(7, dtype=torch.uint8)}), ArgumentValueError,
     r"waiting\['a'\] must be of shape \(8,\), the bytes of the state, got \(7,\)"),
    (lambda: backend.fetch_state(PAGED, "c"), ArgumentValueError, "name must be one of a, b, got 'c'"),
    (lambda: backend.store_state(PAGED, "a", STATE), ArgumentValueError, "name must be on the device: nothing"),
    (lambda: backend.store_state(backend.fetch_state(PAGED, "a")[0], "a", {"m": torch.ones(3)}), ArgumentValueError,
     "state must be of arrays"),
    (lambda: replace(PAGED, waiting={}), ArgumentValueError, "waiting must be of the states"),
    (lambda: replace(PAGED, device={"a": STATE}), ArgumentValueError, "device must be of the resident states"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("call", "error", "message"), REFUSED, ids=[f"{i} {case[2]}" for i, case in enumerate(REFUSED)]
)
def test_what_does_not_fit_is_refused_by_name(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("bits", [32, 8])
def test_a_state_is_taken_apart_and_put_together_again(bits: int) -> None:
    p, options = torch.linspace(-1, 1, 300), backend.AdamwOptions(lr=0.1, beta1=0.7)
    step, start = (backend.adamw_step, backend.adamw_init) if bits == 32 else (
        backend.adamw8bit_step, backend.adamw8bit_init)  # fmt: skip
    state: Any = start((300,))
    for _ in range(3):
        p, state = step(p, p.square(), state, options)  # type: ignore[arg-type]
    arrays = backend.state_arrays(state)
    reference = qloracle.state_arrays(qloracle.adamw_init((300,)) if bits == 32 else qloracle.adamw8bit_init((300,)))
    kinds = {name: f"torch.{array.dtype}" for name, array in reference.items()}
    assert {name: str(tensor.dtype) for name, tensor in arrays.items()} == kinds
    again: Any = backend.state_from_arrays(arrays)
    first, second = step(p, p, again, options), step(p, p, state, options)
    require_same_bits(first[0], second[0], "p")
    for key, tensor in backend.state_arrays(first[1]).items():
        require_same_bits(tensor, backend.state_arrays(second[1])[key], key)


ONE = torch.ones(1)
ARRAYS = backend.state_arrays(backend.adamw_init((2,)))
TAKEN: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: backend.state_arrays({}), ArgumentTypeError, "state must be AdamwState or Adamw8bitState, got dict"),  # type: ignore[arg-type]
    (lambda: backend.state_arrays(backend.AdamwState(ONE, ONE, -1)), ArgumentValueError, "step must"),
    (lambda: backend.state_from_arrays({"m": torch.ones(1)}), ArgumentValueError, "arrays must be those of one state"),
    (lambda: backend.state_from_arrays({**ARRAYS, "v": torch.ones(2).half()}), ArgumentTypeError, "v must be float32"),
    (lambda: backend.state_from_arrays({**ARRAYS, "step": ONE.long()}), ArgumentValueError, "step must be a number"),
    (lambda: backend.state_bytes([1], "sgd"), ArgumentValueError, "optimizer must be one of adamw_32bit"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "message"), TAKEN, ids=[case[2] for case in TAKEN])
def test_no_other_state_is_taken(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("optimizer", ["adamw_32bit", "adamw_8bit", "paged_adamw_32bit", "paged_adamw_8bit"])
def test_states_take_as_many_bytes_as_the_reference_counts(optimizer: str) -> None:
    sizes = [1, 255, 256, 257, 4096, 0]
    assert backend.state_bytes(sizes, optimizer) == qloracle.state_bytes(sizes, optimizer)
    held = sum(sum(t.nbytes for t in backend.adamw8bit_init((size,)).tensors) for size in sizes)
    assert backend.state_bytes(sizes, "adamw_8bit") == held + 2 * 1024
