"""[lora.forward], [lora.backward] equal exact rationals: on small integers every float64 operation is exact too."""

from fractions import Fraction
from types import ModuleType

import numpy as np
import pytest

from qloracle import lora_backward, lora_forward
from qloracle.errors import ArgumentTypeError, ArgumentValueError
from qloracle.formats import Array
from qloracle.lora import lora_scale

from .rational_layers import Layer, derivative, forward, kept_matrix, matrix, require_equal
from .rationals import decode_word

Arrays = dict[str, Array]

# alpha, rank, rsLoRA, s; every factor differs from 1 and from the others.
SCALES = [
    (16.0, 8, False, Fraction(2)),
    (8.0, 16, False, Fraction(1, 2)),
    (3.0, 4, True, Fraction(3, 2)),
    (16.0, 16, True, Fraction(4)),
    (-6.0, 2, False, Fraction(-3)),
    (0.0, 2, False, Fraction(0)),
]


def small_integers(seed: int, rank: int, leading: tuple[int, ...] = (3,)) -> Arrays:
    """Operands of a non-square layer, 5 inputs and 4 outputs, whose every sum is exact in float64."""
    rng = np.random.default_rng([71, seed])
    shapes = {"x": (*leading, 5), "weight": (4, 5), "lora_a": (rank, 5), "lora_b": (4, rank), "dy": (*leading, 4)}
    arrays = {name: rng.integers(-9, 10, shape).astype(np.float32) for name, shape in shapes.items()}
    arrays["bias"] = rng.integers(-9, 10, 4).astype(np.float32) / 4
    arrays["lora_bias"] = rng.integers(-9, 10, 4).astype(np.float32)
    arrays["mask"] = rng.random((*leading, 5)) < 0.6
    return arrays


def rational(arrays: Arrays, scale: Fraction, dropout: Fraction | None = None) -> Layer:
    x = arrays["x"].reshape(-1, 5)
    kept = kept_matrix(None if dropout is None else arrays["mask"], dropout or Fraction(0), (len(x), 5))
    parts = (matrix(arrays[name]) for name in ("weight", "lora_a", "lora_b"))
    biases = (matrix(arrays[name].reshape(1, 4)) for name in ("bias", "lora_bias"))
    return Layer(matrix(x), *parts, scale, next(biases), kept, next(biases))


def operands(arrays: Arrays) -> tuple[Array, Array, Array, Array]:
    return arrays["x"], arrays["weight"], arrays["lora_a"], arrays["lora_b"]


def require_layer(arrays: Arrays, layer: Layer, **options: object) -> None:
    """Forward and all five gradients are exactly the rational ones."""
    biases = {name: arrays[name] for name in ("bias", "lora_bias")}
    y = lora_forward(*operands(arrays), **biases, **options)  # type: ignore[arg-type]
    require_equal(y.reshape(-1, 4), forward(layer), "y")
    gradients = lora_backward(arrays["dy"], *operands(arrays), **options)  # type: ignore[arg-type]
    dy = matrix(arrays["dy"].reshape(-1, 4))
    require_equal(gradients.x.reshape(-1, 5), derivative(layer, dy, "x"), "dx")
    require_equal(gradients.lora_a, derivative(layer, dy, "lora_a"), "dA")
    require_equal(gradients.lora_b, derivative(layer, dy, "lora_b"), "dB")
    require_equal(gradients.bias.reshape(1, -1), derivative(layer, dy, "bias"), "db")
    require_equal(gradients.lora_bias.reshape(1, -1), derivative(layer, dy, "lora_bias"), "db_B")


@pytest.mark.proof("lora.forward", by="exact rationals")
@pytest.mark.proof("lora.bias", by="exact rationals")
@pytest.mark.proof("lora.backward", by="exact rational differences")
@pytest.mark.proof("lora.scale", by="exact rationals")
@pytest.mark.parametrize(("alpha", "rank", "rank_stabilized", "scale"), SCALES)
def test_forward_and_backward_are_exact_for_every_scale(
    alpha: float, rank: int, rank_stabilized: bool, scale: Fraction
) -> None:
    arrays = small_integers(1, rank)
    require_layer(arrays, rational(arrays, scale), alpha=alpha, rank_stabilized=rank_stabilized)


@pytest.mark.proof("lora.dropout", by="exact rationals")
@pytest.mark.parametrize("dropout", [0.0, 0.5, 0.75, 1.0])
def test_forward_and_backward_use_the_same_mask(dropout: float) -> None:
    arrays = small_integers(2, 3)
    layer = rational(arrays, Fraction(2), Fraction(dropout))
    require_layer(arrays, layer, alpha=6, mask=arrays["mask"], dropout=dropout)


@pytest.mark.parametrize("leading", [(), (1,), (0,), (2, 3), (2, 0, 3), (1, 2, 1, 2)])
def test_any_number_of_leading_axes_is_a_batch(leading: tuple[int, ...]) -> None:
    arrays = small_integers(3, 2, leading)
    layer = rational(arrays, Fraction(3, 2), Fraction(1, 2))
    require_layer(arrays, layer, alpha=3, mask=arrays["mask"], dropout=0.5)
    y = lora_forward(*operands(arrays), alpha=3)
    dx = lora_backward(arrays["dy"], *operands(arrays), alpha=3).x
    assert (y.shape, dx.shape) == ((*leading, 4), (*leading, 5)), f"x {(*leading, 5)}: y {y.shape}, dx {dx.shape}"


def test_with_p_1_the_adapter_is_silent_and_the_base_is_not() -> None:
    arrays = small_integers(4, 2)
    options = {"alpha": 2.0, "mask": np.ones((3, 5), np.bool_), "dropout": 1.0}
    y = lora_forward(*operands(arrays), **options)  # type: ignore[arg-type]
    gradients = lora_backward(arrays["dy"], *operands(arrays), **options)  # type: ignore[arg-type]
    assert y.tolist() == (arrays["x"].astype(float) @ arrays["weight"].T).tolist(), "p = 1 must leave x Wᵀ"
    assert gradients.x.tolist() == (arrays["dy"].astype(float) @ arrays["weight"]).tolist(), "p = 1 must leave dy W"
    assert not gradients.lora_a.any(), "p = 1: x_d = 0, so dA = 0"
    assert not gradients.lora_b.any(), "p = 1: x_d = 0, so dB = 0"


def test_with_lora_b_zero_the_layer_is_the_base() -> None:
    arrays = small_integers(5, 2)
    arrays["lora_b"][...] = 0
    y = lora_forward(*operands(arrays), alpha=16, bias=arrays["bias"])
    base = arrays["x"].astype(np.float64) @ arrays["weight"].T + arrays["bias"]
    assert y.tolist() == base.tolist(), "B = 0: y must be x Wᵀ + b"


def test_a_zero_row_of_x_gives_the_bias_and_trains_nothing() -> None:
    arrays = small_integers(6, 2, (1,))
    arrays["x"][...] = 0
    y = lora_forward(*operands(arrays), alpha=2, bias=arrays["bias"])
    gradients = lora_backward(arrays["dy"], *operands(arrays), alpha=2)
    assert y.tolist() == [arrays["bias"].tolist()], f"x = 0: y is the bias, got {y}"
    assert not gradients.lora_a.any(), f"x = 0: dA = 0, got {gradients.lora_a}"
    assert not gradients.lora_b.any(), f"x = 0: dB = 0, got {gradients.lora_b}"
    assert gradients.bias.tolist() == arrays["dy"][0].tolist(), "db of one row is dy"


@pytest.mark.parametrize(("batch", "d_in", "d_out"), [(0, 2, 3), (2, 0, 3), (2, 3, 0)])
def test_empty_dimensions_are_legal(batch: int, d_in: int, d_out: int) -> None:
    x, weight = np.ones((batch, d_in), np.float32), np.ones((d_out, d_in), np.float32)
    a, b, dy = np.ones((2, d_in), np.float32), np.ones((d_out, 2), np.float32), np.ones((batch, d_out), np.float32)
    y = lora_forward(x, weight, a, b, alpha=4)
    assert y.tolist() == [[d_in + 4 * d_in] * d_out] * batch, f"sums of ones, got {y}"
    g = lora_backward(dy, x, weight, a, b, alpha=4)
    assert g.x.tolist() == [[d_out * 5] * d_in] * batch, f"dx of ones, got {g.x}"
    assert g.lora_a.tolist() == [[2 * d_out * batch] * d_in] * 2, f"dA of ones, got {g.lora_a}"
    assert g.lora_b.tolist() == [[2 * d_in * batch] * 2] * d_out, f"dB of ones, got {g.lora_b}"
    assert g.bias.tolist() == [batch] * d_out, f"db of ones, got {g.bias}"


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_operands_of_16_bit_are_the_same_numbers(dtype: str) -> None:
    arrays = small_integers(7, 2)
    cast = [operand.astype(dtype) for operand in operands(arrays)]
    y = lora_forward(*cast, alpha=2)  # type: ignore[arg-type]
    assert y.tolist() == lora_forward(*operands(arrays), alpha=2).tolist(), f"small integers in {dtype} give another y"


def test_bfloat16_operands_of_ml_dtypes_are_the_same_numbers(ml_dtypes: ModuleType) -> None:
    arrays = small_integers(7, 2)
    cast = [operand.astype(ml_dtypes.bfloat16) for operand in operands(arrays)]
    y = lora_forward(*cast, alpha=2)  # type: ignore[arg-type]
    assert y.tolist() == lora_forward(*operands(arrays), alpha=2).tolist(), "small integers in bfloat16 give another y"


def test_the_arguments_are_left_as_they_were() -> None:
    arrays = small_integers(8, 2)
    before = {name: array.copy() for name, array in arrays.items()}
    for array in arrays.values():
        array.setflags(write=False)
    require_layer(arrays, rational(arrays, Fraction(1), Fraction(1, 2)), alpha=2, mask=arrays["mask"], dropout=0.5)
    changed = [name for name, array in arrays.items() if array.tobytes() != before[name].tobytes()]
    assert not changed, f"the layer changed {changed}"


def test_a_transposed_weight_is_read_by_its_strides() -> None:
    arrays = small_integers(9, 2)
    strided = np.asfortranarray(arrays["weight"])
    y = lora_forward(arrays["x"], strided, arrays["lora_a"], arrays["lora_b"], alpha=2)
    assert y.tolist() == lora_forward(*operands(arrays), alpha=2).tolist(), "Fortran order changed y"


@pytest.mark.parametrize("word", [0x7F800000, 0xFF800000, 0x7FC00000, 0x7F800001])
@pytest.mark.parametrize("name", ["x", "weight", "lora_a", "lora_b"])
def test_a_non_finite_entry_never_gives_a_finite_output(name: str, word: int) -> None:
    arrays = {key: np.ones_like(array) for key, array in small_integers(10, 2).items() if key != "mask"}
    arrays[name][0, 1] = np.array([word], np.uint32).view(np.float32)[0]
    y = lora_forward(*operands(arrays), alpha=2)
    hurt = {"x": y[0], "weight": y[:, 0], "lora_a": y, "lora_b": y[:, 0]}[name]
    expected = float(decode_word(word, "float32"))  # type: ignore[arg-type]
    same = np.isnan(hurt).all() if np.isnan(expected) else (hurt == expected).all()
    assert same, f"{name}[0, 1] = {expected} among ones must give {expected}, got {hurt}"


@pytest.mark.proof("lora.scale", by="closed forms")
@pytest.mark.parametrize(
    ("alpha", "rank", "rank_stabilized", "expected"),
    [(16, 8, False, 2.0), (8, 16, False, 0.5), (16, 16, True, 4.0), (1, 3, False, 1 / 3), (2, 2, True, 2 / 2**0.5)],
)
def test_the_scale_is_alpha_over_rank_or_over_its_root(
    alpha: float, rank: int, rank_stabilized: bool, expected: float
) -> None:
    got = lora_scale(alpha, rank, rank_stabilized=rank_stabilized)
    assert got == expected, f"alpha {alpha}, rank {rank}, rsLoRA {rank_stabilized}: {expected}, got {got}"


@pytest.mark.proof("lora.fan_in_fan_out", by="exact rationals")
@pytest.mark.parametrize("square", [False, True])
def test_a_transposed_weight_is_read_as_declared_square_or_not(square: bool) -> None:
    arrays = small_integers(11, 2)
    if square:
        arrays |= {name: arrays[name][..., :4] for name in ("x", "weight", "lora_a", "mask")}
    x, a = (matrix(arrays[name]) for name in ("x", "lora_a"))
    weight, b, bias = matrix(arrays["weight"]), matrix(arrays["lora_b"]), matrix(arrays["bias"].reshape(1, 4))
    layer = Layer(x, weight, a, b, Fraction(1), bias, kept_matrix(None, Fraction(0), arrays["x"].shape))  # type: ignore[arg-type]
    stored = (arrays["x"], np.ascontiguousarray(arrays["weight"].T), arrays["lora_a"], arrays["lora_b"])
    y = lora_forward(*stored, alpha=2, bias=arrays["bias"], fan_in_fan_out=True)
    require_equal(y, forward(layer), "y")
    dx = lora_backward(arrays["dy"], *stored, alpha=2, fan_in_fan_out=True).x
    require_equal(dx, derivative(layer, matrix(arrays["dy"]), "x"), "dx")


@pytest.mark.proof("lora.bias", by="closed forms")
def test_the_bias_of_the_adapter_is_scaled_and_adds_up_with_the_bias_of_the_base() -> None:
    arrays = small_integers(12, 2)
    arrays["x"][...] = 0
    y = lora_forward(*operands(arrays), alpha=6, bias=arrays["bias"], lora_bias=arrays["lora_bias"])
    expected = [float(b + 3 * v) for b, v in zip(arrays["bias"], arrays["lora_bias"], strict=True)]
    assert y.tolist() == [expected] * 3, f"x = 0: y = b + s b_B, got {y}"
    gradient = lora_backward(arrays["dy"], *operands(arrays), alpha=6).lora_bias
    assert gradient.tolist() == [3 * sum(column) for column in arrays["dy"].T.tolist()], "db_B = s Σ dy"


@pytest.mark.parametrize("flag", ["no", 1, None, np.array([1, 0])], ids=repr)
def test_rank_stabilized_is_true_or_false(flag: object) -> None:
    with pytest.raises(ArgumentTypeError, match=r"^rank_stabilized must be True or False, got "):
        lora_scale(16, 8, rank_stabilized=flag)  # type: ignore[arg-type]


@pytest.mark.parametrize("bad", [np.inf, np.nan])
def test_with_every_element_dropped_nothing_of_x_reaches_the_adapter(bad: float) -> None:
    one, mask = np.ones((1, 1), np.float32), np.ones((1, 1), np.bool_)
    x = one * np.float32(bad)
    y = lora_forward(x, one, one, one, alpha=1, mask=mask, dropout=1.0)
    assert np.array_equal(y, [[bad]], equal_nan=True), f"y is the base {bad}, got {y}"
    gradients = lora_backward(one, x, one, one, one, alpha=1, mask=mask, dropout=1.0)
    assert (gradients.lora_a.tolist(), gradients.lora_b.tolist(), gradients.x.tolist()) == ([[0]], [[0]], [[1]])
    through = lora_backward(one, one, one, x, one, alpha=1, mask=mask, dropout=1.0).x
    assert through.tolist() == [[1]], f"nothing passes back through the adapter, got {through}"


@pytest.mark.parametrize(("alpha", "rank"), [(1e300, 1), (-1e39, 2), (3.5e38, 1)])
def test_a_scale_that_float32_cannot_hold_is_refused(alpha: float, rank: int) -> None:
    with pytest.raises(ArgumentValueError, match=r"^alpha must be such that the scale is at most 3.40.*, got "):
        lora_scale(alpha, rank)
    assert lora_scale(6e38, 2) == 3e38
