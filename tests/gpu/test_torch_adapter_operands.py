"""Operands of layers with an adapter that do not belong together are refused before any work."""

from typing import Any

import pytest
import torch

import qloracle_gpu.torch as backend
from qloracle.errors import ArgumentValueError

OPERANDS = {"x": (3, 4), "weight": (2, 4), "lora_a": (1, 4), "lora_b": (2, 1)}


def operands(**others: Any) -> dict[str, Any]:
    return {**{name: torch.ones(shape) for name, shape in OPERANDS.items()}, "alpha": 1, **others}


@pytest.mark.parametrize("name", ["weight", "lora_a", "lora_b", "mask"])
def test_an_operand_on_another_device_is_refused(name: str) -> None:
    shape = OPERANDS.get(name, OPERANDS["x"])
    elsewhere = torch.ones(shape, device="meta", dtype=torch.bool if name == "mask" else torch.float32)
    for call in (backend.lora_forward, lambda **given: backend.lora_backward(torch.ones(3, 2), **given)):
        with pytest.raises(ArgumentValueError, match=f"^{name} must be on cpu"):
            call(**operands(**{name: elsewhere}))


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ({"lora_b": torch.ones(2, 3)}, r"^lora_b must be of shape \(2, 1\)"),
        ({"lora_a": torch.ones(1, 5)}, r"^lora_a must be of shape \(1, 4\)"),
        ({"mask": torch.ones(3, 5, dtype=torch.bool)}, "^mask must be of the shape of x"),
        ({"dropout": 0.5}, "^mask must be given when dropout is positive"),
    ],
)
def test_a_quantized_layer_checks_its_operands_as_another_does(others: dict[str, Any], message: str) -> None:
    weight = backend.quantize_blockwise(torch.ones(OPERANDS["weight"]))
    with pytest.raises(ArgumentValueError, match=message):
        backend.qlora_forward(**operands(weight=weight, **others))
    with pytest.raises(ArgumentValueError, match=message):
        backend.qlora_backward(torch.ones(3, 2), **operands(weight=weight, **others))
