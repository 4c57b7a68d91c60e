"""LoRA of an embedding on tensors, and what adapters start from."""

import numpy as np
import pytest
import torch

import qloracle
import qloracle_gpu.torch as backend
from qloracle.bounds import embedding_lora_backward_bound, embedding_lora_forward_bound
from qloracle.errors import ArgumentTypeError, ArgumentValueError

from .layers import FORMATS, as_tensors, random_operands, require_inside, require_number, small_integers
from .words import require_same

IDS = np.array([[3, 0, 3], [8, 3, 1]])


def lattice() -> dict[str, np.ndarray]:
    return {"weight": small_integers(1, 9, 5), "lora_a": small_integers(2, 4, 9), "lora_b": small_integers(3, 5, 4)}


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("stabilized", [False, True])
def test_rows_are_exact_on_small_integers(stabilized: bool, dtype: str) -> None:
    how = {"alpha": 8, "rank_stabilized": stabilized}
    expected = qloracle.embedding_lora_forward(IDS, **lattice(), **how)
    got = backend.embedding_lora_forward(torch.from_numpy(IDS), **as_tensors(lattice(), dtype), **how)
    require_number(got, expected, dtype, f"rows in {dtype}")


@pytest.mark.parametrize("dtype", FORMATS)
def test_gradients_are_exact_on_small_integers_and_add_up_repeated_indices(dtype: str) -> None:
    dy = small_integers(4, *IDS.shape, 5)
    expected = qloracle.embedding_lora_backward(dy, IDS, **lattice(), alpha=8)
    tensors = as_tensors({"dy": dy, **lattice()}, dtype)
    got = backend.embedding_lora_backward(tensors.pop("dy"), torch.from_numpy(IDS), **tensors, alpha=8)
    for name, real in vars(expected).items():
        require_number(getattr(got, name), real, dtype, f"gradient of {name} in {dtype}")


def test_random_operands_stay_within_the_bounds_of_the_reference() -> None:
    operands = random_operands(5, weight=(50, 40), lora_a=(8, 50), lora_b=(40, 8))
    ids, dy = np.random.default_rng(6).integers(0, 50, 200), random_operands(7, dy=(200, 40))["dy"]
    y = backend.embedding_lora_forward(torch.from_numpy(ids), **as_tensors(operands), alpha=3.7)
    require_inside(y, embedding_lora_forward_bound(ids, **operands, alpha=3.7), "rows")
    gradients = backend.embedding_lora_backward(
        torch.from_numpy(dy), torch.from_numpy(ids), **as_tensors(operands), alpha=3.7
    )
    for name, allowed in embedding_lora_backward_bound(dy, ids, **operands, alpha=3.7).items():
        require_inside(getattr(gradients, name), allowed, f"gradient of {name}")


@pytest.mark.parametrize("wrong", [-1, 9])
def test_an_index_outside_the_table_is_named(wrong: int) -> None:
    with pytest.raises(
        ArgumentValueError, match=f"^ids must be indices from 0 to 8 for a table of 9 rows, got {wrong}$"
    ):
        backend.embedding_lora_forward(torch.tensor([0, wrong]), **as_tensors(lattice()), alpha=1)


def test_indices_that_are_no_integers_are_refused() -> None:
    with pytest.raises(ArgumentTypeError, match=r"^ids must be an integer tensor, got torch\.float32$"):
        backend.embedding_lora_forward(torch.ones(2), **as_tensors(lattice()), alpha=1)


def test_no_index_and_one_index_agree_with_the_reference() -> None:
    for ids in (np.zeros((2, 0), np.int64), np.array(4)):
        expected = qloracle.embedding_lora_forward(ids, **lattice(), alpha=8)
        got = backend.embedding_lora_forward(torch.from_numpy(np.asarray(ids)), **as_tensors(lattice()), alpha=8)
        require_number(got, expected, "float32", f"rows of {ids.shape}")


def draws(initialization: str) -> np.ndarray:
    """Random numbers, and such as a float32 product rounds twice where it is not taken exactly."""
    rng = np.random.default_rng(8)
    if initialization == "gaussian":
        return np.concatenate([rng.standard_normal((5, 300)), rng.standard_normal((1, 300)) * 1e-30]).astype(np.float32)
    return (rng.integers(0, 2**24, (6, 300)) / 2**24).astype(np.float32)


@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize(("initialization", "std"), [("kaiming", None), ("gaussian", None), ("gaussian", 0.0123)])
def test_adapters_start_with_the_bits_of_the_reference(initialization: str, std: float | None, fmt: str) -> None:
    numbers = draws(initialization)
    expected = qloracle.lora_init(numbers, 70, initialization=initialization, std=std, fmt=fmt)
    got = backend.lora_init(torch.from_numpy(numbers), 70, initialization=initialization, std=std, fmt=fmt)
    require_same(got.lora_a, expected.lora_a, fmt, "A")
    require_same(got.lora_b, expected.lora_b, fmt, "B")


@pytest.mark.parametrize("fmt", FORMATS)
def test_adapters_of_embeddings_start_with_the_bits_of_the_reference(fmt: str) -> None:
    numbers = np.ascontiguousarray(draws("gaussian").T)
    expected = qloracle.embedding_init(numbers, 70, fmt=fmt)
    got = backend.embedding_init(torch.from_numpy(numbers), 70, fmt=fmt)
    require_same(got.lora_a, expected.lora_a, fmt, "A")
    require_same(got.lora_b, expected.lora_b, fmt, "B")
