"""LoRA and QLoRA on tensors: bit for bit where every partial sum is exact, within the bound elsewhere."""

from dataclasses import astuple
from typing import Any

import numpy as np
import pytest
import torch

import qloracle
import qloracle_gpu.torch as backend
from qloracle.bounds import lora_backward_bound, lora_forward_bound
from qloracle.errors import ArgumentValueError
from qloracle.formats import Array

from .words import hexadecimal, require_same

FORMATS = ("float32", "float16", "bfloat16")
ROWS, D_IN, D_OUT, RANK = (2, 3), 5, 7, 4
SHAPES = {
    "x": (*ROWS, D_IN),
    "weight": (D_OUT, D_IN),
    "lora_a": (RANK, D_IN),
    "lora_b": (D_OUT, RANK),
    "bias": (D_OUT,),
}


def small_integers(seed: int, *shape: int) -> Array:
    """Numbers from −2 to 2: every partial sum is exact in float32, whatever its order."""
    return np.random.default_rng(seed).integers(-2, 3, shape).astype(np.float32)


def lattice() -> dict[str, Array]:
    return {name: small_integers(seed, *shape) for seed, (name, shape) in enumerate(SHAPES.items())}


def as_tensors(arrays: dict[str, Array], dtype: str = "float32") -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(array).to(getattr(torch, dtype)) for name, array in arrays.items()}


def require_number(got: torch.Tensor, real: Array, dtype: str, rule: str) -> None:
    """Compare with the real numbers rounded to a format; the sign of a zero sum is left open."""
    require_same(got + 0.0, qloracle.encode(real + 0.0, dtype), dtype, rule)


def variants() -> list[dict[str, Any]]:
    mask = np.random.default_rng(10).random(SHAPES["x"]) < 0.5
    options: list[dict[str, Any]] = [{"alpha": 8}, {"alpha": 8, "rank_stabilized": True}, {"alpha": -2}, {"alpha": 0}]
    return [*options, *({"alpha": 8, "mask": mask, "dropout": p} for p in (0.0, 0.5, 0.75, 1.0))]


def option_names(options: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in options.items() if name != "mask")


def native(options: dict[str, Any]) -> dict[str, Any]:
    return {name: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for name, v in options.items()}


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("options", variants(), ids=option_names)
def test_forward_is_exact_on_small_integers(options: dict[str, Any], dtype: str) -> None:
    expected = qloracle.lora_forward(**lattice(), **options)
    got = backend.lora_forward(**as_tensors(lattice(), dtype), **native(options))
    require_number(got, expected, dtype, f"forward in {dtype}")


@pytest.mark.parametrize("square", [False, True])
def test_a_bias_of_the_adapter_and_a_transposed_weight_agree_with_the_reference(square: bool) -> None:
    arrays = {**lattice(), "lora_bias": small_integers(12, D_OUT)}
    if square:
        arrays |= {name: arrays[name][:D_IN] for name in ("weight", "lora_b", "bias", "lora_bias")}
    arrays["weight"] = arrays["weight"].T.copy()
    expected = qloracle.lora_forward(**arrays, alpha=8, fan_in_fan_out=True)
    got = backend.lora_forward(**as_tensors(arrays), alpha=8, fan_in_fan_out=True)
    require_number(got, expected, "float32", "a weight that is stored transposed, and a bias of the adapter")


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("options", variants(), ids=option_names)
def test_backward_is_exact_on_small_integers(options: dict[str, Any], dtype: str) -> None:
    operands = lattice()
    del operands["bias"]
    dy = small_integers(11, *ROWS, D_OUT)
    expected = qloracle.lora_backward(dy, **operands, **options)
    tensors = as_tensors(operands | {"dy": dy}, dtype)
    got = backend.lora_backward(**tensors, **native(options))
    for name, real in vars(expected).items():
        fmt = "float32" if "bias" in name else dtype
        require_number(getattr(got, name), real, fmt, f"gradient of {name} for {dtype}")


def test_operands_of_different_formats_give_gradients_of_their_own_format() -> None:
    tensors = {name: t.to(dtype) for (name, t), dtype in zip(as_tensors(lattice()).items(), [
        torch.float16, torch.bfloat16, torch.float32, torch.bfloat16, torch.float32], strict=True)}  # fmt: skip
    y = backend.lora_forward(**tensors, alpha=8)
    del tensors["bias"]
    gradients = backend.lora_backward(y.to(torch.bfloat16), **tensors, alpha=8)
    dtypes = [torch.float16, torch.float32, torch.bfloat16, torch.float32, torch.float32]
    assert (y.dtype, [g.dtype for g in astuple(gradients)]) == (torch.float16, dtypes)


def test_gradients_of_biases_are_sums_in_float32_whatever_the_format_of_dy() -> None:
    # 1 + 2^-8 is no bfloat16 number; its double, the gradient of the adapter's bias, is none either.
    dy = torch.tensor([[1.0], [2**-8]], dtype=torch.bfloat16)
    two, one = torch.zeros(2, 1, dtype=torch.bfloat16), torch.ones(1, 1)
    stored = backend.quantize_blockwise(one)
    for gradients in (
        backend.lora_backward(dy, two, one, one, one, alpha=2),
        backend.qlora_backward(dy, two, stored, one, one, alpha=2),
    ):
        assert [hexadecimal(each) for each in (gradients.bias, gradients.lora_bias)] == ["3f808000", "40008000"]
    assert hexadecimal(backend.dora_backward(dy, two, one, one, one, one[0], alpha=2).bias) == "3f808000"


def test_the_output_is_rounded_once_from_float32() -> None:
    x, weight, zero = torch.tensor([[1.0, 2**-8, 2**-20]]), torch.ones(1, 3), torch.zeros(1, 3)
    arguments = (x.to(torch.bfloat16), weight, zero, torch.zeros(1, 1))
    y = [backend.lora_forward(*arguments, alpha=1, out_dtype=dtype) for dtype in (None, "bfloat16", "float32")]
    assert [hexadecimal(each) for each in y] == ["3f81", "3f81", "3f808008"]


def test_a_dropped_infinity_stays_visible() -> None:
    x, one = torch.tensor([[float("inf"), 1.0]]), torch.ones(1, 2)
    mask = torch.tensor([[False, True]])
    y = backend.lora_forward(x, one * 0 + torch.tensor([0.0, 1.0]), one, one[:, :1], alpha=1, mask=mask, dropout=0.5)
    assert y.isnan().all()


@pytest.mark.parametrize("shape", [(D_IN,), (0, D_IN), (3, 0), (2, 0, D_IN)])
def test_a_single_row_and_empty_operands_agree_with_the_reference(shape: tuple[int, ...]) -> None:
    d_in = shape[-1]
    arrays = {"x": small_integers(1, *shape), "weight": small_integers(2, D_OUT, d_in)}
    arrays |= {"lora_a": small_integers(3, RANK, d_in), "lora_b": small_integers(4, D_OUT, RANK)}
    expected = qloracle.lora_forward(**arrays, alpha=8)
    require_number(backend.lora_forward(**as_tensors(arrays), alpha=8), expected, "float32", "y")
    dy = small_integers(5, *shape[:-1], D_OUT)
    gradients = backend.lora_backward(torch.from_numpy(dy), **as_tensors(arrays), alpha=8)
    for name, real in vars(qloracle.lora_backward(dy, **arrays, alpha=8)).items():
        require_number(getattr(gradients, name), real, "float32", f"gradient of {name}")


def test_random_operands_stay_within_the_bounds_of_the_reference() -> None:
    rng = np.random.default_rng(12)
    shapes = {"x": (9, 300), "weight": (40, 300), "lora_a": (8, 300), "lora_b": (40, 8)}
    arrays = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    options = {"alpha": 3.7, "mask": rng.random((9, 300)) < 0.7, "dropout": 0.3, "rank_stabilized": True}
    allowed = {"y": lora_forward_bound(**arrays, **options)}
    results = {"y": backend.lora_forward(**as_tensors(arrays), **native(options))}
    dy = rng.standard_normal((9, 40)).astype(np.float32)
    allowed |= lora_backward_bound(dy, **arrays, **options)
    results |= vars(backend.lora_backward(torch.from_numpy(dy), **as_tensors(arrays), **native(options)))
    for name, interval in allowed.items():
        y = results[name].numpy()
        inside = (interval.lo <= y) & (y <= interval.hi)
        assert inside.all(), f"{name}: {np.count_nonzero(~inside)} of {y.size} outside the bound"


@pytest.mark.parametrize("double", [False, True], ids=["quantized", "double quantized"])
@pytest.mark.parametrize("weight_rounding", FORMATS)
def test_qlora_multiplies_with_the_dequantized_weight(weight_rounding: str, double: bool) -> None:
    # One nonzero in each row of x, and no adapter: y is that weight, to the last bit.
    weight = torch.from_numpy(np.random.default_rng(13).standard_normal((6, 20)).astype(np.float32))
    quantized = (backend.quantize_double if double else backend.quantize_blockwise)(weight, block_size=8)
    arguments = (torch.zeros(2, 20), torch.zeros(6, 2))
    y = backend.qlora_forward(torch.eye(20), quantized, *arguments, alpha=1, weight_rounding=weight_rounding)
    restore = backend.dequantize_double if double else backend.dequantize_blockwise
    values = restore(quantized, dtype=weight_rounding).float()
    assert torch.equal(y.T, values)
    gradients = backend.qlora_backward(
        torch.eye(6), torch.zeros(6, 20), quantized, *arguments, alpha=1, weight_rounding=weight_rounding
    )
    assert torch.equal(gradients.x, values)


def test_qlora_is_exact_on_a_lattice() -> None:
    # Codes of −1, 0 and 1 with absmax 2: NF4 holds these weights exactly.
    arrays = lattice()
    arrays["weight"] = np.sign(arrays["weight"]) * 2
    arrays["weight"][0, 0] = 2
    quantized = qloracle.quantize_blockwise(arrays["weight"], block_size=64)
    stored = backend.quantize_blockwise(torch.from_numpy(arrays["weight"]), block_size=64)
    expected = qloracle.qlora_forward(**arrays | {"weight": quantized}, alpha=8)
    got = backend.qlora_forward(**as_tensors(arrays) | {"weight": stored}, alpha=8)
    require_number(got, expected, "float32", "QLoRA forward")


def test_with_every_element_dropped_nothing_of_an_infinite_x_reaches_the_adapter() -> None:
    one, mask = torch.ones(1, 1), torch.tensor([[True]])
    x = one * float("inf")
    assert backend.lora_forward(x, one, one, one, alpha=1, mask=mask, dropout=1.0).tolist() == [[float("inf")]]
    gradients = backend.lora_backward(one, x, one, one, one, alpha=1, mask=mask, dropout=1.0)
    assert [part.tolist() for part in (gradients.x, gradients.lora_a, gradients.lora_b)] == [[[1]], [[0]], [[0]]]


def test_a_scale_that_float32_cannot_hold_is_refused() -> None:
    with pytest.raises(ArgumentValueError, match=r"^alpha must be such that the scale is at most 3.40.*, got 1e\+300$"):
        backend.lora_forward(*[torch.ones(1, 1)] * 4, alpha=1e300)
