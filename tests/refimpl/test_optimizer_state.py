"""[optim.state]: k steps are some of them, save, load, and the others."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qloracle.errors import ArgumentTypeError, ArgumentValueError
from qloracle.formats import Array
from qloracle.optim.adamw import adamw_init, adamw_step
from qloracle.optim.adamw8bit import adamw8bit_init, adamw8bit_step
from qloracle.optim.options import AdamwOptions
from qloracle.optim.state import state_arrays, state_from_arrays

KINDS = ("adamw", "adamw8bit")
STEPS, SIZE = 6, 300


def run(kind: str, split: int, through: Callable[[dict[str, Array]], dict[str, Array]]) -> list[Array]:
    rng, chosen = np.random.default_rng(271), AdamwOptions(lr=0.1, weight_decay=0.1)
    p, step = rng.standard_normal(SIZE).astype(np.float32), adamw_step if kind == "adamw" else adamw8bit_step
    state: Any = adamw_init((SIZE,)) if kind == "adamw" else adamw8bit_init((SIZE,))
    for done in range(STEPS):
        if done == split:
            state = state_from_arrays(through(state_arrays(state)))
        p, state = step(p, rng.standard_normal(SIZE).astype(np.float32), state, chosen)
    return [p, *state_arrays(state).values()]


@pytest.mark.proof("optim.state", by="the trajectory without a stop")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("split", range(STEPS))
def test_a_trajectory_goes_on_where_it_was(kind: str, split: int) -> None:
    plain, resumed = run(kind, -1, dict), run(kind, split, dict)
    assert all(np.array_equal(a, b) for a, b in zip(plain, resumed, strict=True))


@pytest.mark.proof("optim.state", by="a NumPy archive")
@pytest.mark.parametrize("kind", KINDS)
def test_states_survive_a_file(kind: str, tmp_path: Path) -> None:
    def through(arrays: dict[str, Array]) -> dict[str, Array]:
        np.savez(tmp_path / "state.npz", **arrays)  # type: ignore[arg-type]
        with np.load(tmp_path / "state.npz", allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}

    plain, resumed = run(kind, -1, dict), run(kind, 3, through)
    assert all(np.array_equal(a, b) for a, b in zip(plain, resumed, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_the_step_number_matters(kind: str) -> None:
    plain = run(kind, -1, dict)
    restarted = run(kind, 3, lambda arrays: {**arrays, "step": np.zeros_like(arrays["step"])})
    assert not np.array_equal(plain[0], restarted[0])


def test_copies_are_returned_both_ways() -> None:
    state = adamw_init((2,))
    arrays = state_arrays(state)
    arrays["m"][0] = 5
    assert state.m.tolist() == [0, 0]
    again: Any = state_from_arrays(arrays)
    arrays["m"][0] = 7
    assert again.m.tolist() == [5, 0]


def test_arrays_of_no_state_are_rejected_by_name() -> None:
    arrays = state_arrays(adamw_init((2,)))
    with pytest.raises(ArgumentTypeError, match=r"^state must be "):
        state_arrays(arrays)  # type: ignore[arg-type]
    with pytest.raises(ArgumentValueError, match=r"^arrays must be "):
        state_from_arrays({"m": arrays["m"], "v": arrays["v"]})
    with pytest.raises(ArgumentTypeError, match=r"^v must be float32"):
        state_from_arrays({**arrays, "v": arrays["v"].astype(np.float64)})
    with pytest.raises(ArgumentValueError, match=r"^step must be "):
        state_from_arrays({**arrays, "step": np.zeros(2, np.int64)})
