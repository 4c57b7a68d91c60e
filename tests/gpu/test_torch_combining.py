"""Combining, selecting and counting adapters: the rules of the reference, to the last bit or inside of its bounds."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import qloracle
import qloracle_gpu.torch as backend
from qloracle.bounds.combine import combine_bound, concatenate_bound
from qloracle.errors import ArgumentTypeError, ArgumentValueError

from .layers import FORMATS, as_tensors, random_operands, require_inside, require_number, small_integers

RANKS, ALPHAS, STABILIZED = (4, 1, 2), (8.0, -0.5, 4.0), (True, False, False)
D_OUT, D_IN = 7, 5


def adapters(draw: Callable[..., Any], dtype: str = "float32") -> tuple[list[Any], list[Any]]:
    """The same adapters for the reference, in float32, and for this backend."""
    theirs, ours = [], []
    for seed, (rank, alpha, root) in enumerate(zip(RANKS, ALPHAS, STABILIZED, strict=True)):
        matrices = draw(seed, lora_a=(rank, D_IN), lora_b=(D_OUT, rank))
        tensors = as_tensors(matrices, dtype)
        exact = {name: tensor.float().numpy() for name, tensor in tensors.items()}
        theirs.append(qloracle.LoraAdapter(**exact, alpha=alpha, rank_stabilized=root))
        ours.append(backend.LoraAdapter(**tensors, alpha=alpha, rank_stabilized=root))
    return theirs, ours


def lattice(seed: int, **shapes: tuple[int, ...]) -> dict[str, Any]:
    """Small integers of named shapes."""
    return {name: small_integers(seed + 10 * index, *shape) for index, (name, shape) in enumerate(shapes.items())}


@pytest.mark.parametrize("dtype", FORMATS)
def test_small_integers_combine_exactly(dtype: str) -> None:
    theirs, ours = adapters(lattice, dtype)
    weights = [0.5, -2.0, 0.0]
    got = backend.combine_adapters(ours, weights, out_dtype=dtype)
    require_number(got, qloracle.combine_adapters(theirs, weights), dtype, "delta")
    made, expected = (
        backend.concatenate_adapters(ours, weights, fmt=dtype),
        qloracle.concatenate_adapters(theirs, weights),
    )
    require_number(made.lora_a, expected.lora_a, dtype, "A")
    require_number(made.lora_b, expected.lora_b, dtype, "B")
    assert (made.alpha, made.rank_stabilized, made.fmt) == (expected.alpha, expected.rank_stabilized, dtype)


@pytest.mark.parametrize("dtype", FORMATS)
def test_ordinary_numbers_combine_inside_the_bound(dtype: str) -> None:
    theirs, ours = adapters(random_operands, dtype)
    weights = [0.3, -1.7, 2.9]
    require_inside(backend.combine_adapters(ours, weights, out_dtype=dtype), combine_bound(theirs, weights), "delta")
    made = backend.concatenate_adapters(ours, weights, fmt=dtype)
    require_inside(made.lora_a, concatenate_bound(theirs, weights), "A")


def test_the_concatenated_adapter_makes_the_change_that_the_combination_is() -> None:
    _, ours = adapters(lattice)
    weights = [1.0, 2.0, -0.5]
    made = backend.concatenate_adapters(ours, weights)
    zeros = torch.zeros(D_OUT, D_IN)
    merged = backend.lora_merge(zeros, made.lora_a, made.lora_b, alpha=made.alpha)
    assert torch.equal(merged, backend.combine_adapters(ours, weights))


ONE = torch.ones(1, 1)
ADAPTER = backend.LoraAdapter(ONE, ONE, 1.0)
WRONG: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "no adapter": (lambda: backend.combine_adapters([], []), ArgumentValueError, "weights must be one for each of at"),
    "a weight missing": (
        lambda: backend.combine_adapters([ADAPTER], []),
        ArgumentValueError,
        "weights must be one for",
    ),
    "a weight of text": (
        lambda: backend.combine_adapters([ADAPTER], ["1"]),
        ArgumentTypeError,
        r"weights\[0\] must be a",
    ),
    "an infinite weight": (
        lambda: backend.combine_adapters([ADAPTER], [torch.inf]),
        ArgumentValueError,
        r"weights\[0\] must be finite, got inf",
    ),
    "a weight beyond float32": (
        lambda: backend.combine_adapters([ADAPTER], [1e39]),
        ArgumentValueError,
        r"weights\[0\] must be such that",
    ),
    "no record": (
        lambda: backend.combine_adapters([ONE], [1]),
        ArgumentTypeError,
        r"adapters\[0\] must be LoraAdapter",
    ),
    "another layer": (
        lambda: backend.combine_adapters([ADAPTER, backend.LoraAdapter(torch.ones(1, 2), ONE, 1.0)], [1, 1]),
        ArgumentValueError,
        r"adapters\[1\] must be of a layer of shape \(1, 1\), got \(1, 2\)",
    ),
    "B of another rank": (
        lambda: backend.combine_adapters([backend.LoraAdapter(ONE, torch.ones(1, 2), 1.0)], [1]),
        ArgumentValueError,
        r"adapters\[0\].lora_b must be of shape \(d_out, 1\), got \(1, 2\)",
    ),
    "float64": (
        lambda: backend.combine_adapters([backend.LoraAdapter(ONE.double(), ONE, 1.0)], [1]),
        ArgumentTypeError,
        r"adapters\[0\].lora_a must be float32, float16 or bfloat16",
    ),
    "a vector": (
        lambda: backend.combine_adapters([backend.LoraAdapter(ONE[0], ONE, 1.0)], [1]),
        ArgumentValueError,
        r"adapters\[0\].lora_a must be 2-d, got 1-d",
    ),
    "another device": (
        lambda: backend.combine_adapters([backend.LoraAdapter(ONE, ONE.to("meta"), 1.0)], [1]),
        ArgumentValueError,
        r"adapters\[0\].lora_b must be on cpu",
    ),
    "an unknown format of the sum": (
        lambda: backend.combine_adapters([ADAPTER], [1], out_dtype="int8"),
        ArgumentValueError,
        "out_dtype must be one of",
    ),
    "B that float16 cannot hold": (
        lambda: backend.concatenate_adapters([backend.LoraAdapter(ONE, 1e6 * ONE, 1.0)], [1], fmt="float16"),
        ArgumentValueError,
        "fmt must be a format that holds every element of lora_b, got 'float16'",
    ),
    "a matrix of another format than was said": (
        lambda: backend.LoraAdapter(ONE, ONE, 1.0, fmt="float16"),
        ArgumentValueError,
        "fmt must be torch.float32",
    ),
    "a matrix that is no tensor": (
        lambda: backend.LoraAdapter(np.ones((1, 1)), ONE, 1.0),
        ArgumentTypeError,
        "lora_a must be a torch tensor",
    ),
    "alpha of text": (lambda: backend.LoraAdapter(ONE, ONE, "1"), ArgumentTypeError, "alpha must be a number"),
    "a flag of text": (
        lambda: backend.LoraAdapter(ONE, ONE, 1.0, "yes"),
        ArgumentTypeError,
        "rank_stabilized must be True or False",
    ),
    "marks that are too few": (
        lambda: backend.select_targets(["a", "b"], "all-linear", linear=[True]),
        ArgumentTypeError,
        "linear must be 2 bools",
    ),
    "marks that are numbers": (
        lambda: backend.select_targets(["a"], "all-linear", linear=torch.ones(1)),
        ArgumentTypeError,
        "linear must be 1 bools",
    ),
    "a name for names": (lambda: backend.select_targets("ab", ["a"]), ArgumentTypeError, "names must be a sequence of"),
    "nothing selected": (lambda: backend.select_targets(["a"], ["b"]), ArgumentValueError, "targets must be such that"),
    "a rank of 0": (
        lambda: backend.adapter_settings(["a"], rank=0, alpha=1),
        ArgumentValueError,
        "rank must be a positive integer",
    ),
    "a rank beyond int64": (
        lambda: backend.adapter_settings(["a"], rank=2**63, alpha=1),
        ArgumentValueError,
        r"rank must be below 2\^63",
    ),
    "sizes of floats": (
        lambda: backend.count_parameters(torch.ones(1, 2), torch.ones(1).long()),
        ArgumentTypeError,
        "shapes must be a tensor of",
    ),
    "sizes of three": (
        lambda: backend.count_parameters(torch.ones(1, 3).long(), torch.ones(1).long()),
        ArgumentValueError,
        r"shapes must be of shape \(n, 2\)",
    ),
    "a rank above the matrix": (
        lambda: backend.count_parameters(torch.tensor([[9, 9], [2, 3]]), torch.tensor([1, 3])),
        ArgumentValueError,
        "rank must be from 0 to 2, the smaller side of matrix 1, got 3",
    ),
    "a count beyond int64": (
        lambda: backend.count_parameters(torch.tensor([[2**32, 2**32]]), torch.tensor([1])),
        ArgumentValueError,
        "shapes must be sizes of 0 or more whose counts fit int64",
    ),
    "an unknown mode": (
        lambda: backend.trainable_biases(torch.tensor([True]), torch.tensor([True]), "some"),
        ArgumentValueError,
        "bias must be one",
    ),
    "biases of numbers": (
        lambda: backend.trainable_biases(torch.ones(1), torch.tensor([True])),
        ArgumentTypeError,
        "biases must be a 1-d tensor of",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_refused_by_name(name: str) -> None:
    call, kind, message = WRONG[name]
    with pytest.raises(kind, match=message):
        call()


@pytest.mark.parametrize("bias", ["none", "all", "lora_only"])
@pytest.mark.parametrize("extra", [{}, {"dora": True}, {"lora_bias": True}, {"dora": True, "lora_bias": True}])
def test_counts_are_those_of_the_reference(bias: str, extra: dict[str, bool]) -> None:
    rng = np.random.default_rng(7)
    shapes = np.array([[400000, 100000], [0, 5], [1, 1], [3, 70], [4096, 11008]])
    ranks, biases = np.array([10, 0, 1, 0, 64]), rng.integers(0, 2, 5).astype(np.bool_)
    expected = qloracle.count_parameters(shapes, ranks, biases=biases, bias=bias, **extra)
    got = backend.count_parameters(
        torch.from_numpy(shapes), torch.from_numpy(ranks), biases=torch.from_numpy(biases), bias=bias, **extra
    )
    for name, values in vars(expected).items():
        assert getattr(got, name).tolist() == values.tolist(), name
    assert (got.trainable, got.total, got.fewer_percent) == (expected.trainable, expected.total, expected.fewer_percent)


def test_the_layer_of_the_paper_trains_five_million_parameters() -> None:
    found = backend.count_parameters(torch.tensor([[400000, 100000]]), torch.tensor([10]))
    assert (found.trainable, found.base.item(), found.fewer_percent) == (5_000_000, 40_000_000_000, 99.9875)


def test_settings_are_those_of_the_reference() -> None:
    names, options = ["h.0.q", "h.1.q", "h.1.v"], {"rank": 8, "alpha": 3.5, "rank_pattern": {r"1\.q": 5}}
    marks = [True, True, False]
    for extra in ({}, {"rank_stabilized": True}, {"alpha_pattern": {"v": 1.0}}):
        expected = qloracle.adapter_settings(names, **options, **extra, selected=marks)
        for selected in (marks, torch.tensor(marks)):
            got = backend.adapter_settings(names, **options, **extra, selected=selected)
            assert {n: v.tolist() for n, v in vars(got).items()} == {n: v.tolist() for n, v in vars(expected).items()}


def test_marks_of_linear_layers_may_be_a_tensor() -> None:
    marks = [False, True]
    expected = qloracle.select_targets(["a", "b"], "all-linear", linear=marks).tolist()
    assert backend.select_targets(["a", "b"], "all-linear", linear=torch.tensor(marks)).tolist() == expected
