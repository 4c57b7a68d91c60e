"""[adapters.count], [adapters.biases]: integers that match the arrays they count."""

from types import ModuleType

import numpy as np
import pytest

from qloracle import count_parameters, embedding_init, lora_init, trainable_biases
from qloracle.errors import ArgumentTypeError, ArgumentValueError


@pytest.mark.proof("adapters.count", by="closed forms")
def test_the_course_example_trains_five_million_of_forty_thousand_million() -> None:
    found = count_parameters(np.array([[400000, 100000]]), np.array([10]))
    assert (found.trainable, int(found.base.sum())) == (5_000_000, 40_000_000_000)
    assert found.total == 40_005_000_000
    assert found.fewer_percent == 99.9875


@pytest.mark.proof("adapters.count", by="sizes of arrays")
def test_counts_are_the_sizes_of_the_arrays_that_are_made() -> None:
    rng = np.random.default_rng(3)
    for _ in range(50):
        d_out, d_in = (int(v) for v in rng.integers(1, 30, 2))
        rank = int(rng.integers(1, min(d_out, d_in) + 1))
        start = lora_init(rng.random((rank, d_in), dtype=np.float32), d_out)
        shape = np.array([[d_out, d_in]])
        size = start.lora_a.size + start.lora_b.size
        assert count_parameters(shape, np.array([rank])).trainable == size
        with_all = count_parameters(shape, np.array([rank]), dora=True, lora_bias=True)
        assert with_all.trainable == size + 2 * d_out
        table = embedding_init(rng.standard_normal((d_out, rank)).astype(np.float32), d_in)
        assert count_parameters(shape, np.array([rank])).trainable == table.lora_a.size + table.lora_b.size


@pytest.mark.proof("adapters.count", by="PyTorch")
@pytest.mark.proof("adapters.biases", by="PyTorch")
@pytest.mark.parametrize("bias", ["none", "all", "lora_only"])
def test_counts_are_those_of_torch_modules(torch: ModuleType, bias: str) -> None:
    shapes, has = [(8, 4), (4, 8), (5, 5), (3, 7)], [True, False, True, True]
    ranks = [2, 3, 0, 1]
    total = trained = 0
    for (d_out, d_in), own, rank in zip(shapes, has, ranks, strict=True):
        layer = torch.nn.Linear(d_in, d_out, bias=own)
        total += sum(p.numel() for p in layer.parameters())
        if rank:
            pair = torch.nn.Sequential(
                torch.nn.Linear(d_in, rank, bias=False), torch.nn.Linear(rank, d_out, bias=False)
            )
            trained += sum(p.numel() for p in pair.parameters())
        if own and (bias == "all" or (bias == "lora_only" and rank)):
            trained += layer.bias.numel()
    found = count_parameters(np.array(shapes), np.array(ranks), biases=np.array(has), bias=bias)
    assert found.trainable == trained
    assert int(found.base.sum()) == total


@pytest.mark.proof("adapters.biases", by="all combinations")
def test_the_modes_say_which_biases_train() -> None:
    has, adapted = np.array([True, True, False, False]), np.array([True, False, True, False])
    assert trainable_biases(has, adapted, "none").tolist() == [False] * 4
    assert trainable_biases(has, adapted, "all").tolist() == [True, True, False, False]
    assert trainable_biases(has, adapted, "lora_only").tolist() == [True, False, False, False]
    assert trainable_biases(has, adapted).dtype == np.bool_


def test_counts_do_not_overflow_and_layers_without_adapter_count_nothing() -> None:
    found = count_parameters(
        np.array([[2**31, 2**31 - 8], [5, 5]]), np.array([2**31 - 8, 0]), dora=True, lora_bias=True
    )
    assert found.base.tolist() == [2**31 * (2**31 - 8), 25]
    assert found.adapter.tolist() == [(2**31 - 8) * (2**32 - 8) + 2 * 2**31, 0]
    assert count_parameters(np.zeros((0, 2), np.int64), np.zeros(0, np.int64)).fewer_percent == 0.0


def test_bad_arguments_are_named() -> None:
    shape, rank = np.array([[4, 6]]), np.array([2])
    for arguments, options, kind, message in [
        ((shape.astype(float), rank), {}, ArgumentTypeError, "shapes must be an array of integers"),
        ((shape[0], rank), {}, ArgumentValueError, r"shapes must be of shape \(n, 2\)"),
        (([[4, 6]], rank), {}, ArgumentTypeError, "shapes must be an array of integers"),
        ((-shape, rank), {}, ArgumentValueError, "shapes must be sizes of 0 or more"),
        ((np.array([[2**40, 2**40]]), rank), {}, ArgumentValueError, "shapes must be sizes of 0 or more"),
        (
            (shape, np.array([5])),
            {},
            ArgumentValueError,
            "rank must be from 0 to 4, the smaller side of matrix 0, got 5",
        ),
        ((shape, np.array([-1])), {}, ArgumentValueError, "rank must be from 0 to 4"),
        ((shape, np.array([2, 2])), {}, ArgumentValueError, r"ranks must be of shape \(1,\)"),
        ((shape, np.array([2.0])), {}, ArgumentTypeError, "ranks must be an array of integers"),
        ((shape, rank), {"bias": "some"}, ArgumentValueError, "bias must be one of"),
        ((shape, rank), {"biases": np.array([1])}, ArgumentTypeError, "biases must be a 1-d array of bool"),
        ((shape, rank), {"biases": np.array([True, True])}, ArgumentValueError, "adapted must be of shape"),
    ]:
        with pytest.raises(kind, match=message):
            count_parameters(*arguments, **options)  # type: ignore[arg-type]
