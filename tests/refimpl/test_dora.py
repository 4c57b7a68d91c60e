"""[dora.norm], [dora.forward], [dora.backward] equal exact rationals where the norms are rational numbers."""

from collections.abc import Callable
from fractions import Fraction
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from qloracle import dora_backward, dora_forward, dora_norm, lora_forward
from qloracle.errors import ArgumentTypeError, ArgumentValueError
from qloracle.formats import Array

from .rational_dora import Dora, derivative, forward, norms_of
from .rational_layers import kept_matrix, matrix, require_equal

# Rows whose norms are whole numbers: 5, 7, 9, 3, 2, 4, 13, and the zero row.
ROWS = [
    (3, 4, 0, 0, 0),
    (2, 3, 6, 0, 0),
    (1, 4, 0, 8, 0),
    (2, 0, 2, 1, 0),
    (1, 1, 1, 0, 1),
    (0, 0, 4, 0, 0),
    (0, 5, 0, 12, 0),
    (0, 0, 0, 0, 0),
]
GAINS = np.array([1, 2, 0.5, -1, 1.5, 0, -0.25, 3])
D_IN, D_OUT = 5, 8
SCALES = [
    (2.0, 2, False, Fraction(1)),
    (8.0, 4, False, Fraction(2)),
    (3.0, 4, True, Fraction(3, 2)),
    (-2.0, 2, False, Fraction(-1)),
]


def layer(seed: int, rank: int, scale: Fraction, leading: tuple[int, ...] = (3,)) -> dict[str, Array]:
    """Small integers and halves with V as above: every operation of the reference is exact."""
    rng = np.random.default_rng([141, seed])
    a, b = rng.integers(-2, 3, (rank, D_IN)), rng.integers(-2, 3, (D_OUT, rank))
    signs = rng.choice([-1, 1], (D_OUT, D_IN))
    v = np.array(ROWS) * signs
    arrays = {
        "x": rng.integers(-4, 5, (*leading, D_IN)),
        "weight": v - float(scale) * (b @ a),
        "lora_a": a,
        "lora_b": b,
        "magnitude": np.sqrt((v * v).sum(axis=1)) * GAINS + (np.abs(v).sum(axis=1) == 0) * 7,
        "bias": rng.integers(-4, 5, D_OUT) / 4,
        "dy": rng.integers(-4, 5, (*leading, D_OUT)),
    }
    return {
        **{n: np.asarray(values, np.float32) for n, values in arrays.items()},
        "mask": rng.random((*leading, D_IN)) < 0.6,
    }


def rational(arrays: dict[str, Array], scale: Fraction, dropout: Fraction | None = None) -> Dora:
    x = arrays["x"].reshape(-1, D_IN)
    kept = kept_matrix(None if dropout is None else arrays["mask"], dropout or Fraction(0), x.shape)
    weight, a, b = (matrix(arrays[name]) for name in ("weight", "lora_a", "lora_b"))
    rows = (matrix(arrays[name].reshape(1, -1)) for name in ("magnitude", "bias"))
    return Dora(matrix(x), weight, a, b, *rows, scale, kept, norms_of(weight, a, b, scale))


def operands(arrays: dict[str, Array]) -> tuple[Array, ...]:
    return tuple(arrays[n] for n in ("x", "weight", "lora_a", "lora_b", "magnitude"))


def require_layer(arrays: dict[str, Array], expected: Dora, **options: Any) -> None:
    """Forward and all gradients are exactly the rational ones, but for a quotient by n that float64 rounds once."""
    y = dora_forward(*operands(arrays), bias=arrays["bias"], **options)
    require_equal(y.reshape(-1, D_OUT), forward(expected), "y")
    gradients = dora_backward(arrays["dy"], *operands(arrays), **options)
    dy = matrix(arrays["dy"].reshape(-1, D_OUT))
    require_equal(gradients.x.reshape(-1, D_IN), derivative(expected, dy, "x"), "dx")
    require_equal(gradients.lora_a, derivative(expected, dy, "lora_a"), "dA")
    require_equal(gradients.lora_b, derivative(expected, dy, "lora_b"), "dB")
    require_equal(gradients.bias.reshape(1, -1), derivative(expected, dy, "bias"), "db")
    rounded = [[Fraction(float(value)) for value in row] for row in derivative(expected, dy, "magnitude")]
    require_equal(gradients.magnitude.reshape(1, -1), rounded, "dm")


@pytest.mark.proof("dora.norm", by="exact rationals")
@pytest.mark.parametrize(("alpha", "rank", "rank_stabilized", "scale"), SCALES)
def test_norms_are_the_roots_of_the_sums_of_squares_of_the_merged_rows(
    alpha: float, rank: int, rank_stabilized: bool, scale: Fraction
) -> None:
    arrays = layer(1, rank, scale)
    got = dora_norm(*operands(arrays)[1:4], alpha=alpha, rank_stabilized=rank_stabilized)
    require_equal(got.reshape(1, -1), [list(rational(arrays, scale).norms)], "n")


@pytest.mark.proof("dora.norm", by="closed forms")
@pytest.mark.parametrize("exponent", [-148, -130, -100, -60, 0, 60, 100, 126])
def test_norms_neither_overflow_nor_underflow(exponent: int) -> None:
    weight = np.ldexp(np.array([[3, 4], [0, -2], [0, 0]], np.float32), np.int32(exponent - 1)).astype(np.float32)
    got = dora_norm(weight, np.zeros((1, 2), np.float32), np.zeros((3, 1), np.float32), alpha=1)
    expected = (
        [2.5 * 2.0**exponent, 2.0**exponent, 0.0]
        if exponent > -148
        else [np.hypot(*weight[0].astype(float)), 2.0**exponent, 0]
    )
    assert got.tolist() == expected, f"norms of [1.5, 2], [0, -1], [0, 0] times 2^{exponent}, got {got}"


@pytest.mark.proof("dora.forward", by="exact rationals")
@pytest.mark.proof("dora.backward", by="exact rational differences")
@pytest.mark.parametrize(("alpha", "rank", "rank_stabilized", "scale"), SCALES)
def test_forward_and_backward_are_exact_for_every_scale(
    alpha: float, rank: int, rank_stabilized: bool, scale: Fraction
) -> None:
    arrays = layer(2, rank, scale)
    require_layer(arrays, rational(arrays, scale), alpha=alpha, rank_stabilized=rank_stabilized)


@pytest.mark.proof("dora.forward", by="exact rationals")
@pytest.mark.proof("dora.backward", by="exact rational differences")
@pytest.mark.parametrize("dropout", [0.0, 0.5, 0.75, 1.0])
def test_only_the_share_of_the_adapter_is_dropped(dropout: float) -> None:
    arrays = layer(3, 2, Fraction(1))
    require_layer(
        arrays, rational(arrays, Fraction(1), Fraction(dropout)), alpha=2, mask=arrays["mask"], dropout=dropout
    )


@pytest.mark.parametrize("leading", [(), (1,), (0,), (2, 3), (2, 0, 3)])
def test_any_number_of_leading_axes_is_a_batch(leading: tuple[int, ...]) -> None:
    arrays = layer(4, 2, Fraction(1), leading)
    require_layer(arrays, rational(arrays, Fraction(1)), alpha=2)
    assert dora_forward(*operands(arrays), alpha=2).shape == (*leading, D_OUT)  # type: ignore[arg-type]


@pytest.mark.proof("dora.forward", by="torch")
@pytest.mark.proof("dora.backward", by="torch autograd")
@pytest.mark.proof("dora.norm", by="torch")
@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize(("alpha", "rank", "rank_stabilized", "scale"), SCALES)
def test_output_and_gradients_are_those_of_autograd(
    torch: ModuleType, alpha: float, rank: int, rank_stabilized: bool, scale: Fraction, dropout: float
) -> None:
    arrays = layer(5, rank, scale)
    names = ("x", "lora_a", "lora_b", "magnitude", "bias")
    t: dict[str, Any] = {n: torch.tensor(v, dtype=torch.float64) for n, v in arrays.items()}
    for name in names:
        t[name].requires_grad_()
    linear, s = torch.nn.functional.linear, float(scale)
    dropped = t["x"] * t["mask"] / (1 - dropout) if dropout else t["x"]
    norm = (t["weight"] + s * t["lora_b"] @ t["lora_a"]).norm(dim=1).detach()
    gain = torch.where(norm == 0, torch.zeros(()).double(), t["magnitude"] / torch.where(norm == 0, 1.0, norm))
    own, low = linear(dropped, t["weight"]), linear(linear(dropped, t["lora_a"]), t["lora_b"]) * s
    y = linear(t["x"], t["weight"], t["bias"]) + (gain - 1) * own + gain * low
    y.backward(t["dy"])
    options: dict[str, Any] = {"alpha": alpha, "rank_stabilized": rank_stabilized}
    options |= {"mask": arrays["mask"], "dropout": dropout} if dropout else {}
    got = dora_norm(*operands(arrays)[1:4], alpha=alpha, rank_stabilized=rank_stabilized)
    assert got.tolist() == norm.tolist(), f"norms: torch {norm}, got {got}"
    assert dora_forward(*operands(arrays), bias=arrays["bias"], **options).tolist() == y.tolist(), (
        "y differs from torch"
    )
    gradients = dora_backward(arrays["dy"], *operands(arrays), **options)
    for name in set(names) - {"magnitude"}:
        assert getattr(gradients, name).tolist() == t[name].grad.tolist(), f"the gradient of {name} differs from torch"
    ulps = np.abs(gradients.magnitude - t["magnitude"].grad.numpy()) / np.spacing(np.abs(gradients.magnitude) + 1e-300)
    assert np.all(ulps <= 4), f"the gradient of the magnitude is {ulps.max()} ulp from torch's, whose order is another"


def test_with_magnitudes_equal_to_the_norms_the_layer_is_a_lora_layer() -> None:
    arrays = layer(6, 2, Fraction(1))
    norms = dora_norm(*operands(arrays)[1:4], alpha=2).astype(np.float32)
    y = dora_forward(*operands(arrays)[:4], norms, alpha=2)
    expected = lora_forward(*operands(arrays)[:4], alpha=2)
    assert y[:, :-1].tolist() == expected[:, :-1].tolist(), "g = 1 leaves W + s B A"


@pytest.mark.proof("dora.forward", by="closed forms")
@pytest.mark.proof("dora.backward", by="closed forms")
def test_a_zero_row_passes_what_is_not_dropped_and_has_no_gradient_of_its_magnitude() -> None:
    # V = W + BA is 0 though W is not: y = x Wᵀ − x_d Wᵀ, which is 0 without dropout.
    x, w, one = np.array([[2, 3]], np.float32), np.array([[5, -7]], np.float32), np.ones((1, 1), np.float32)
    y = dora_forward(x, w, -w, one, 4 * one[0], alpha=1)
    half = dora_forward(x, w, -w, one, 4 * one[0], alpha=1, mask=np.array([[True, False]]), dropout=0.5)
    g = dora_backward(one, x, w, -w, one, 4 * one[0], alpha=1)
    assert (y.tolist(), half.tolist()) == ([[0.0]], [[2 * 5 - 3 * 7 - 4 * 5]]), f"got {y}, {half}"
    assert (g.x.tolist(), g.magnitude.tolist(), g.lora_a.any(), g.lora_b.any()) == ([[0.0, 0.0]], [0.0], False, False)


@pytest.mark.parametrize("size", [1e-45, 1e-38, 1e-30, 1e30, 3e38])
@pytest.mark.parametrize("magnitude", [0.0, 1.0, 1e-45, 3e38])
def test_finite_operands_never_give_nan(size: float, magnitude: float) -> None:
    x, w = np.array([[1, -1], [0, 3e38]], np.float32), np.array([[size, size], [0, size], [0, 0]], np.float32)
    a, b = np.full((1, 2), size, np.float32), np.array([[1], [-1], [0]], np.float32)
    m, dy = np.full(3, magnitude, np.float32), np.ones((2, 3), np.float32)
    parts = vars(dora_backward(dy, x, w, a, b, m, alpha=1)).values()
    for values in (dora_forward(x, w, a, b, m, alpha=1), *parts):
        assert not np.isnan(values).any(), f"NaN from rows of {size} and magnitudes of {magnitude}: {values}"


def test_a_nan_or_an_infinity_in_a_row_reaches_that_output_alone() -> None:
    arrays = layer(7, 2, Fraction(1))
    for value in (np.nan, np.inf):
        arrays["weight"][2, 1] = value
        y = dora_forward(*operands(arrays), alpha=2)
        assert np.isnan(y).any(axis=0).tolist() == [o == 2 for o in range(D_OUT)], f"W[2, 1] = {value}: {y}"


@pytest.mark.proof("lora.fan_in_fan_out", by="closed forms")
def test_a_transposed_weight_is_read_as_declared_and_its_norms_are_taken_over_the_inputs() -> None:
    arrays = layer(8, 2, Fraction(1))
    stored = np.ascontiguousarray(arrays["weight"].T)
    x, _, a, b, m = operands(arrays)
    turned = dora_forward(x, stored, a, b, m, alpha=2, fan_in_fan_out=True)
    assert turned.tolist() == dora_forward(*operands(arrays), alpha=2).tolist(), "the same layer, stored the other way"
    norms = dora_norm(stored, a, b, alpha=2, fan_in_fan_out=True)
    assert norms.tolist() == dora_norm(*operands(arrays)[1:4], alpha=2).tolist(), "norms over the inputs"


def test_the_arguments_are_left_as_they_were() -> None:
    arrays = layer(9, 2, Fraction(1))
    before = {name: array.tobytes() for name, array in arrays.items()}
    for array in arrays.values():
        array.setflags(write=False)
    require_layer(arrays, rational(arrays, Fraction(1), Fraction(1, 2)), alpha=2, mask=arrays["mask"], dropout=0.5)
    changed = [name for name, array in arrays.items() if array.tobytes() != before[name]]
    assert not changed, f"the layer changed {changed}"


def changed(**changes: object) -> Callable[[], object]:
    one = np.ones((1, 1), np.float32)
    arguments = {"x": one, "weight": one, "lora_a": one, "lora_b": one, "magnitude": one[0], "alpha": 1.0, **changes}
    return lambda: dora_forward(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            changed(magnitude=np.ones(2, np.float32)),
            ArgumentValueError,
            r"^magnitude must be of shape \(1,\), got \(2,\)$",
        ),
        (changed(magnitude=np.ones(1)), ArgumentTypeError, "^magnitude must be .*, got float64$"),
        (changed(magnitude=[1.0]), ArgumentTypeError, "^magnitude must be a NumPy array, got list$"),
        (changed(fan_in_fan_out="yes"), ArgumentTypeError, "^fan_in_fan_out must be a bool, got 'yes'$"),
        (changed(weight=np.ones((1, 2), np.float32)), ArgumentValueError, "^weight must be of shape"),
        (changed(alpha=np.nan), ArgumentValueError, "^alpha must be finite"),
    ],
)
def test_a_rejected_argument_is_named_with_its_rule_and_value(
    call: Callable[[], object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        call()


def test_with_every_element_dropped_nothing_of_an_infinite_x_reaches_the_adapter() -> None:
    one, mask = np.ones((1, 1), np.float32), np.ones((1, 1), np.bool_)
    options = {"alpha": 1.0, "mask": mask, "dropout": 1.0}
    x, size = one * np.float32(np.inf), np.ones(1, np.float32)
    assert dora_forward(x, one, one, one, size, **options).tolist() == [[np.inf]]  # type: ignore[arg-type]
    gradients = dora_backward(one, x, one, one, one, size, **options)  # type: ignore[arg-type]
    found = [part.tolist() for part in (gradients.x, gradients.lora_a, gradients.lora_b, gradients.magnitude)]
    assert found == [[[1]], [[0]], [[0]], [0]]
