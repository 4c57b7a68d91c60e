"""[embedding.forward], [embedding.backward] equal exact rationals and torch's embedding on small integers."""

from collections.abc import Callable
from fractions import Fraction
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from qloracle import embedding_lora_backward, embedding_lora_forward
from qloracle.errors import ArgumentTypeError, ArgumentValueError
from qloracle.formats import Array

from .rational_layers import Matrix, matrix, require_equal

COUNT, DIMENSION = 7, 4
SCALES = [
    (16.0, 8, False, 2.0),
    (8.0, 16, False, 0.5),
    (3.0, 4, True, 1.5),
    (-6.0, 2, False, -3.0),
    (0.0, 2, False, 0.0),
]


def embedding(seed: int, rank: int, shape: tuple[int, ...] = (9,)) -> dict[str, Array]:
    rng = np.random.default_rng([151, seed])
    shapes = {
        "weight": (COUNT, DIMENSION),
        "lora_a": (rank, COUNT),
        "lora_b": (DIMENSION, rank),
        "dy": (*shape, DIMENSION),
    }
    arrays = {name: rng.integers(-9, 10, size).astype(np.float32) for name, size in shapes.items()}
    return {**arrays, "ids": rng.integers(0, COUNT - 1, shape)}  # the last row is never looked up


def operands(arrays: dict[str, Array]) -> tuple[Array, Array, Array, Array]:
    return arrays["ids"], arrays["weight"], arrays["lora_a"], arrays["lora_b"]


def looked_up(arrays: dict[str, Array], scale: Fraction) -> Matrix:
    weight, a, b = (matrix(arrays[name]) for name in ("weight", "lora_a", "lora_b"))
    return [
        [
            weight[i][d] + scale * sum((line[i] * b[d][j] for j, line in enumerate(a)), Fraction(0))
            for d in range(DIMENSION)
        ]
        for i in arrays["ids"].reshape(-1).tolist()
    ]


def loss(arrays: dict[str, Array], scale: Fraction) -> Fraction:
    dy = matrix(arrays["dy"].reshape(-1, DIMENSION))
    pairs = zip(dy, looked_up(arrays, scale), strict=True)
    return sum((d * y for drow, yrow in pairs for d, y in zip(drow, yrow, strict=True)), Fraction(0))


def derivative(arrays: dict[str, Array], scale: Fraction, name: str) -> Matrix:
    """The derivative of L = Σ dy·y by every entry of a matrix that y is affine in, as an exact difference."""
    base, result = loss(arrays, scale), np.empty(arrays[name].shape, object)
    for place in np.ndindex(arrays[name].shape):
        moved = {**arrays, name: arrays[name].copy()}
        moved[name][place] += 1
        result[place] = loss(moved, scale) - base
    return result.tolist()  # type: ignore[no-any-return]


@pytest.mark.proof("embedding.forward", by="exact rationals")
@pytest.mark.proof("embedding.backward", by="exact rational differences")
@pytest.mark.parametrize(("alpha", "rank", "rank_stabilized", "scale"), SCALES)
def test_rows_and_gradients_are_exact_for_every_scale(
    alpha: float, rank: int, rank_stabilized: bool, scale: float
) -> None:
    arrays, options = embedding(1, rank), {"alpha": alpha, "rank_stabilized": rank_stabilized}
    y = embedding_lora_forward(*operands(arrays), **options)  # type: ignore[arg-type]
    require_equal(y, looked_up(arrays, Fraction(scale)), "y")
    gradients = embedding_lora_backward(arrays["dy"], *operands(arrays), **options)  # type: ignore[arg-type]
    require_equal(gradients.lora_a, derivative(arrays, Fraction(scale), "lora_a"), "dA")
    require_equal(gradients.lora_b, derivative(arrays, Fraction(scale), "lora_b"), "dB")


@pytest.mark.proof("embedding.forward", by="torch")
@pytest.mark.proof("embedding.backward", by="torch autograd")
@pytest.mark.parametrize("shape", [(9,), (2, 3), (), (0,), (2, 0)])
@pytest.mark.parametrize(("alpha", "rank", "rank_stabilized", "scale"), SCALES)
def test_rows_and_gradients_are_those_of_torch(
    torch: ModuleType, shape: tuple[int, ...], alpha: float, rank: int, rank_stabilized: bool, scale: float
) -> None:
    arrays = embedding(2, rank, shape)
    t: dict[str, Any] = {
        name: torch.tensor(array.astype(np.float64)) for name, array in arrays.items() if name != "ids"
    }
    ids = torch.tensor(arrays["ids"])
    t["lora_a"].requires_grad_()
    t["lora_b"].requires_grad_()
    functional = torch.nn.functional
    y = functional.embedding(ids, t["weight"]) + scale * functional.embedding(ids, t["lora_a"].T) @ t["lora_b"].T
    y.backward(t["dy"])
    got = embedding_lora_forward(*operands(arrays), alpha=alpha, rank_stabilized=rank_stabilized)
    assert (got.shape, got.tolist()) == (tuple(y.shape), y.tolist()), "y differs from torch"
    gradients = embedding_lora_backward(arrays["dy"], *operands(arrays), alpha=alpha, rank_stabilized=rank_stabilized)
    assert gradients.lora_a.tolist() == t["lora_a"].grad.tolist(), "the gradient of A differs from torch"
    assert gradients.lora_b.tolist() == t["lora_b"].grad.tolist(), "the gradient of B differs from torch"


def test_every_occurrence_of_an_index_adds_to_its_gradient_and_no_other() -> None:
    one = np.ones((1, 1), np.float32)
    ids, a = np.array([3, 3, 3, 1]), np.ones((1, 5), np.float32)
    gradients = embedding_lora_backward(np.ones((4, 1), np.float32), ids, one.repeat(5, 0), a, one, alpha=1)
    assert gradients.lora_a.tolist() == [[0, 1, 0, 3, 0]], f"three of index 3, one of index 1, got {gradients.lora_a}"


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "int64", "uint8", "uint64", ">i4"])
def test_indices_of_any_integer_type_are_the_same(dtype: str) -> None:
    arrays = embedding(3, 2)
    expected = embedding_lora_forward(*operands(arrays), alpha=2)
    arrays["ids"] = arrays["ids"].astype(dtype)
    got = embedding_lora_forward(*operands(arrays), alpha=2)
    assert got.tolist() == expected.tolist(), f"indices of {dtype}"


def test_the_arguments_are_left_as_they_were() -> None:
    arrays = embedding(4, 2)
    before = {name: array.tobytes() for name, array in arrays.items()}
    for array in arrays.values():
        array.setflags(write=False)
    embedding_lora_forward(*operands(arrays), alpha=2)
    embedding_lora_backward(arrays["dy"], *operands(arrays), alpha=2)
    assert {name: array.tobytes() for name, array in arrays.items()} == before, "an argument was changed"


def changed(**changes: object) -> Callable[[], object]:
    ids, one = np.zeros(2, np.int64), np.ones((1, 1), np.float32)
    arguments = {"ids": ids, "weight": one, "lora_a": one, "lora_b": one, "alpha": 1.0, **changes}
    return lambda: embedding_lora_forward(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (changed(ids=np.array([0, 1])), ArgumentValueError, "^ids must be indices from 0 to 0 .* 1 rows, got 1$"),
        (changed(ids=np.array([0, -1])), ArgumentValueError, "^ids must be indices from 0 to 0 .*, got -1$"),
        (
            changed(ids=np.array([2**64 - 1], np.uint64)),
            ArgumentValueError,
            "^ids must be .*, got 18446744073709551615$",
        ),
        (changed(ids=np.array([0.0])), ArgumentTypeError, "^ids must be an integer array, got float64$"),
        (changed(ids=np.array([True])), ArgumentTypeError, "^ids must be an integer array, got bool$"),
        (changed(ids=[0]), ArgumentTypeError, "^ids must be an integer array, got list$"),
        (changed(lora_a=np.ones((1, 2), np.float32)), ArgumentValueError, r"^lora_a must be of shape \(1, 1\)"),
        (changed(lora_b=np.ones((2, 1), np.float32)), ArgumentValueError, r"^lora_b must be of shape \(1, 1\)"),
        (changed(weight=np.ones((1, 1))), ArgumentTypeError, "^weight must be .*, got float64$"),
        (changed(weight=np.ones(1, np.float32)), ArgumentValueError, "^weight must be 2-d, got 1-d$"),
    ],
)
def test_a_rejected_argument_is_named_with_its_rule_and_value(
    call: Callable[[], object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        call()
