"""[lora.forward], [lora.backward] equal torch's autograd in float64: on halves of integers every operation is exact."""

from types import ModuleType
from typing import Any

import numpy as np
import pytest

from qloracle import lora_backward, lora_forward, qlora_backward, qlora_forward, quantize_blockwise, quantize_double
from qloracle.formats import Array
from qloracle.qlora import QuantizedWeight

NAMES = ("x", "lora_a", "lora_b", "bias", "lora_bias")


def lattice(seed: int, shape: tuple[int, ...]) -> Array:
    return np.random.default_rng([81, seed]).integers(-8, 9, shape).astype(np.float32) / np.float32(2)


def layer(leading: tuple[int, ...], rank: int) -> dict[str, Array]:
    return {
        "x": lattice(1, (*leading, 7)),
        "weight": lattice(2, (6, 7)),
        "lora_a": lattice(3, (rank, 7)),
        "lora_b": lattice(4, (6, rank)),
        "bias": lattice(5, (6,)),
        "lora_bias": lattice(7, (6,)),
        "dy": lattice(6, (*leading, 6)),
    }


def autograd(torch: ModuleType, arrays: dict[str, Array], scale: float, factor: Array) -> dict[str, Array]:
    """The output and the gradients that torch computes; the weight needs no gradient."""
    leaves: dict[str, Any] = {name: torch.tensor(array, dtype=torch.float64) for name, array in arrays.items()}
    for name in NAMES:
        leaves[name].requires_grad_()
    dropped = leaves["x"] * torch.tensor(factor, dtype=torch.float64)
    linear = torch.nn.functional.linear
    adapter = linear(linear(dropped, leaves["lora_a"]), leaves["lora_b"], leaves["lora_bias"])
    y = linear(leaves["x"], leaves["weight"], leaves["bias"]) + scale * adapter
    y.backward(leaves["dy"])
    assert leaves["weight"].grad is None, "the frozen weight must get no gradient"
    return {"y": y.detach().numpy(), **{name: leaves[name].grad.numpy() for name in NAMES}}


def require_equal(got: Array, expected: Array, what: str) -> None:
    wrong = np.argwhere(got != expected)
    assert not wrong.size, f"{what} differs from torch at {wrong[0].tolist()}: {got[tuple(wrong[0])]!r}"


@pytest.mark.proof("lora.forward", by="torch")
@pytest.mark.proof("lora.backward", by="torch autograd")
@pytest.mark.proof("lora.bias", by="torch autograd")
@pytest.mark.proof("lora.dropout", by="torch autograd")
@pytest.mark.parametrize("leading", [(5,), (2, 3), ()])
@pytest.mark.parametrize(
    ("options", "rank", "scale"),
    [
        ({"alpha": 16.0}, 8, 2.0),
        ({"alpha": 3.0, "rank_stabilized": True}, 4, 1.5),
        ({"alpha": 2.0}, 2, 1.0),
    ],
)
@pytest.mark.parametrize("dropout", [0.0, 0.5, 1.0])
def test_output_and_gradients_are_those_of_autograd(
    torch: ModuleType, leading: tuple[int, ...], options: dict[str, Any], rank: int, scale: float, dropout: float
) -> None:
    arrays = layer(leading, rank)
    mask = np.random.default_rng(82).random((*leading, 7)) < 0.5
    factor = mask * (0.0 if dropout == 1 else 1 / (1 - dropout))
    options = {**options, "mask": mask, "dropout": dropout}
    expected = autograd(torch, arrays, scale, factor)
    operands = (arrays["x"], arrays["weight"], arrays["lora_a"], arrays["lora_b"])
    biases = {name: arrays[name] for name in ("bias", "lora_bias")}
    require_equal(lora_forward(*operands, **biases, **options), expected["y"], "y")
    gradients = lora_backward(arrays["dy"], *operands, **options)
    for name in NAMES:
        require_equal(getattr(gradients, name), expected[name], f"the gradient of {name}")


def nf4_lattice() -> Array:
    """Weights of codes -1, 0, 1 with a power of two as absmax, 8 to a block: dequantization is exact."""
    codes = np.random.default_rng(83).integers(-1, 2, 42).astype(np.float32)
    codes[0::8] = 1
    return (codes * 2.0 ** np.repeat([0, 1, -1, 2, 3, -2], 8)[:42]).astype(np.float32).reshape(6, 7)


@pytest.mark.proof("qlora.forward", by="torch autograd")
@pytest.mark.proof("qlora.backward", by="torch autograd")
@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("rounding", ["float32", "bfloat16", "float16"])
def test_qlora_is_lora_with_the_dequantized_weight(torch: ModuleType, rounding: str, double: bool) -> None:
    arrays = layer((5,), 4)
    arrays["weight"] = np.sign(nf4_lattice()) if double else nf4_lattice()  # equal absmax survive the second time
    quantize = quantize_double if double else quantize_blockwise
    weight: QuantizedWeight = quantize(arrays["weight"], block_size=8)
    expected = autograd(torch, arrays, 2.0, np.ones((5, 7)))
    operands = (arrays["x"], weight, arrays["lora_a"], arrays["lora_b"])
    biases = {name: arrays[name] for name in ("bias", "lora_bias")}
    y = qlora_forward(*operands, alpha=8, **biases, weight_rounding=rounding)
    require_equal(y, expected["y"], "y")
    gradients = qlora_backward(arrays["dy"], *operands, alpha=8, weight_rounding=rounding)
    for name in NAMES:
        require_equal(getattr(gradients, name), expected[name], f"the gradient of {name}")
