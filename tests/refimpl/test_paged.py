"""[paged.plan], [paged.states]: which states are where, and that it makes no difference."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qloracle.errors import ArgumentTypeError, ArgumentValueError
from qloracle.formats import Array
from qloracle.optim.adamw import adamw_init, adamw_step
from qloracle.optim.adamw8bit import adamw8bit_init, adamw8bit_step
from qloracle.optim.options import AdamwOptions
from qloracle.optim.paged import fetch_state, page_states, store_state
from qloracle.optim.paging import page_in, page_plan
from qloracle.optim.state import state_arrays, state_from_arrays

NAMES = ("a", "b", "c", "d", "e")


def accesses(seed: int) -> list[str]:
    return [NAMES[i] for i in np.random.default_rng([261, seed]).integers(0, len(NAMES), 200)]


@pytest.mark.proof("paged.plan", by="time stamps")
@pytest.mark.parametrize("seed", range(8))
def test_the_least_recently_used_states_move_out_and_the_budget_is_kept_at_every_move(seed: int) -> None:
    rng = np.random.default_rng([262, seed])
    sizes = dict(zip(NAMES, rng.integers(1, 30, 5).tolist(), strict=True))
    budget = int(rng.integers(max(sizes.values()), sum(sizes.values()) + 1))
    plan, stamps, used = page_plan(sizes, budget), dict[str, int](), 0
    for time, name in enumerate(accesses(seed)):
        plan, moves = page_in(plan, name)
        for move in moves:
            used += sizes[move.name] * (1 if move.direction == "in" else -1)
            assert 0 <= used <= budget, f"after {move} {used} of {budget} bytes are used"
            if move.direction == "out":
                assert stamps.pop(move.name) < min(stamps.values(), default=time), f"{move} is not the oldest"
        stamps[name] = time
        assert list(plan.resident) == sorted(stamps, key=lambda n: stamps[n])
        assert plan.used == used
        assert len([m for m in moves if m.direction == "in"]) == (1 if moves else 0)


@pytest.mark.proof("paged.plan", by="closed form: the k most recent distinct accesses")
@pytest.mark.parametrize("rooms", [1, 2, 3, 5])
def test_states_of_equal_size_on_the_device_are_the_most_recent_distinct_ones(rooms: int) -> None:
    plan, seen = page_plan(dict.fromkeys(NAMES, 4), 4 * rooms + 3), []
    for name in accesses(9):
        seen.append(name)
        plan, _ = page_in(plan, name)
        recent = list(dict.fromkeys(reversed(seen)))[:rooms]
        assert list(plan.resident) == recent[::-1]


def test_no_more_moves_out_than_has_to() -> None:
    plan = page_plan({"a": 2, "b": 3, "c": 4, "d": 5}, 9)
    for name in ("a", "b", "c"):
        plan, _ = page_in(plan, name)
    plan, moves = page_in(plan, "d")
    assert [(m.name, m.direction, m.size) for m in moves] == [("a", "out", 2), ("b", "out", 3), ("d", "in", 5)]


def trajectory(kind: str, budget: int | None, waiting: Mapping[str, Array] | None = None) -> list[Array]:
    """Four steps of three tensors; with a budget all states are paged."""
    rng, chosen = np.random.default_rng(263), AdamwOptions(lr=0.1, weight_decay=0.1)
    sizes = {"a": 300, "b": 7, "c": 256}
    p = {n: rng.standard_normal(size).astype(np.float32) for n, size in sizes.items()}
    step: Callable[..., Any] = adamw_step if kind == "adamw" else adamw8bit_step
    states = {n: adamw_init((size,)) if kind == "adamw" else adamw8bit_init((size,)) for n, size in sizes.items()}
    paged = None if budget is None else page_states({n: state_arrays(s) for n, s in states.items()}, budget, waiting)
    for _ in range(4):
        for name, size in sizes.items():
            gradient = rng.standard_normal(size).astype(np.float32)
            if paged is None:
                p[name], states[name] = step(p[name], gradient, states[name], chosen)
                continue
            paged, arrays = fetch_state(paged, name)
            p[name], after = step(p[name], gradient, state_from_arrays(arrays), chosen)
            paged = store_state(paged, name, state_arrays(after))
            assert sum(a.nbytes for s in paged.device.values() for a in s.values()) == paged.plan.used
            assert paged.plan.used <= paged.plan.budget
    found = list(p.values())
    for name in sizes:
        if paged is None:
            found += list(state_arrays(states[name]).values())
        else:
            paged, arrays = fetch_state(paged, name)
            found += list(arrays.values())
    return found


LEAST = {"adamw": 2408, "adamw8bit": 632}  # bytes of the largest state


@pytest.mark.proof("paged.states", by="the trajectory of states that stay in place")
@pytest.mark.parametrize("kind", ["adamw", "adamw8bit"])
@pytest.mark.parametrize("more", [0, 1, 64, 500, 3000, 10**6])
def test_the_trajectory_is_the_same_for_every_budget(kind: str, more: int) -> None:
    plain, paged = trajectory(kind, None), trajectory(kind, LEAST[kind] + more)
    for index, (a, b) in enumerate(zip(plain, paged, strict=True)):
        assert a.dtype == b.dtype
        assert np.array_equal(a, b), f"array {index} differs under a budget of {LEAST[kind] + more} bytes"


@pytest.mark.proof("paged.states", by="bytes of a memory-mapped file")
@pytest.mark.parametrize("kind", ["adamw", "adamw8bit"])
def test_states_may_wait_in_a_mapped_file(tmp_path: Path, kind: str) -> None:
    plain = trajectory(kind, None)
    sizes = {"adamw": {"a": 2408, "b": 64, "c": 2056}, "adamw8bit": {"a": 632, "b": 38, "c": 536}}[kind]
    mapped = np.memmap(tmp_path / "states", np.uint8, "w+", shape=(sum(sizes.values()),))
    ends = np.cumsum(list(sizes.values())).tolist()
    waiting = {n: mapped[end - size : end] for (n, size), end in zip(sizes.items(), ends, strict=True)}
    paged = trajectory(kind, LEAST[kind], waiting)
    assert all(np.array_equal(a, b) for a, b in zip(plain, paged, strict=True))
    mapped.flush()
    # The last state fetched is on the device; those before it were written back, array after array.
    arrays = paged[3 : 3 + len(state_arrays(adamw_init((1,)) if kind == "adamw" else adamw8bit_init((1,))))]
    assert (tmp_path / "states").read_bytes()[: sizes["a"]] == b"".join(a.tobytes() for a in arrays)


def test_arrays_that_are_given_are_not_written_to_and_later_changes_are_not_seen() -> None:
    m = np.ones(2, np.float32)
    paged = page_states({"a": {"m": m}}, 8)
    m[0] = 5
    paged, state = fetch_state(paged, "a")
    assert state["m"].tolist() == [1, 1]


def test_bad_arguments_are_rejected_by_name() -> None:
    one = {"m": np.ones(2, np.float32)}
    with pytest.raises(ArgumentValueError, match=r"^budget must be at least the 8 bytes of the state of 'a', got 7"):
        page_states({"a": one}, 7)
    with pytest.raises(ArgumentTypeError, match=r"^budget must be "):
        page_plan({"a": 1}, 1.5)  # type: ignore[arg-type]
    with pytest.raises(ArgumentValueError, match=r"^budget must be "):
        page_plan({}, -1)
    with pytest.raises(ArgumentValueError, match=r"^sizes\['a'\] must be "):
        page_plan({"a": -1}, 5)
    paged = page_states({"a": one, "b": one}, 8)
    with pytest.raises(ArgumentValueError, match=r"^name must be one of a, b, got 'c'"):
        fetch_state(paged, "c")
    with pytest.raises(ArgumentValueError, match=r"^name must be on the device"):
        store_state(paged, "a", one)
    paged, _ = fetch_state(paged, "a")
    with pytest.raises(ArgumentValueError, match=r"^state must be "):
        store_state(paged, "a", {"m": np.ones(3, np.float32)})
    with pytest.raises(ArgumentTypeError, match=r"^waiting\['a'\] must be "):
        page_states({"a": one}, 8, {})
    with pytest.raises(ArgumentValueError, match=r"^waiting\['a'\] must be "):
        page_states({"a": one}, 8, {"a": np.zeros(9, np.uint8)})


@pytest.mark.parametrize("budget", [4, 8])
def test_dtypes_of_other_packages_and_records_come_back_as_they_were(budget: int) -> None:
    bfloat16 = pytest.importorskip("ml_dtypes").bfloat16
    pair = np.array([(1, 2)], np.dtype([("low", np.int16), ("high", np.int16)]))
    states = {"a": {"m": np.array([1, -2.5], bfloat16)}, "b": {"m": pair}}
    paged = page_states(states, budget)
    for name in ("a", "b", "a", "b"):
        paged, state = fetch_state(paged, name)
        paged = store_state(paged, name, state)
        assert state["m"].dtype == states[name]["m"].dtype, f"{name} came back as {state['m'].dtype}"
        assert np.array_equal(state["m"], states[name]["m"])


def test_writing_to_arrays_that_were_fetched_or_stored_changes_no_record() -> None:
    paged, state = fetch_state(page_states({"a": {"m": np.ones(2, np.float32)}}, 8), "a")
    state["m"][0] = 5
    assert fetch_state(paged, "a")[1]["m"].tolist() == [1, 1], "what was fetched is a copy"
    paged = store_state(paged, "a", state)
    state["m"][0] = 7
    assert fetch_state(paged, "a")[1]["m"].tolist() == [5, 1], "what was stored is a copy"


def test_a_buffer_that_cannot_be_written_to_is_refused() -> None:
    buffer = np.zeros(8, np.uint8)
    buffer.flags.writeable = False
    with pytest.raises(ArgumentValueError, match=r"^waiting\['a'\] must be writable, got a read-only array$"):
        page_states({"a": {"m": np.ones(2, np.float32)}}, 8, {"a": buffer})
