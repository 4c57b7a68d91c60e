"""Layers with adapters compute what the reference says."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

import qloracle
import qloracle_gpu.torch as backend
from qloracle.bounds import lora_backward_bound, lora_forward_bound
from qloracle.qlora import qlora_weight
from qloracle_gpu.torch.modules import (
    LoRAEmbedding,
    LoRALinear,
    LoraOptions,
    QuantizationConfig,
    QuantizedLinear,
)

from .adapted_layers import CONFIGS, LLM_INT8, fill, float_layer, linear, quantized_layer, rough_operands
from .layers import (
    FORMATS,
    RANK,
    as_tensors,
    lattice,
    random_operands,
    reference_record,
    require_inside,
    require_number,
    small_integers,
)


@pytest.mark.parametrize("rslora", [False, True])
@pytest.mark.parametrize("dtype", FORMATS)
def test_a_layer_computes_what_the_reference_says(dtype: str, rslora: bool) -> None:
    operands = lattice()
    expected = qloracle.lora_forward(**operands, alpha=8, rank_stabilized=rslora)
    x = torch.from_numpy(operands["x"]).to(getattr(torch, dtype))
    require_number(float_layer(operands, use_rslora=rslora)(x), expected, dtype, f"LoRALinear in {dtype}")


@pytest.mark.parametrize("name", CONFIGS)
def test_a_quantized_base_stays_within_the_bounds_of_its_dequantized_weight(name: str) -> None:
    operands = rough_operands()
    layer = quantized_layer(operands, CONFIGS[name])
    operands["weight"] = qlora_weight(reference_record(layer.weight.record()))
    x = torch.from_numpy(operands["x"]).requires_grad_()
    y = layer(x)
    require_inside(y, lora_forward_bound(**operands, alpha=8), f"y on {name}")
    dy = random_operands(2, dy=(6, 12))["dy"]
    y.backward(torch.from_numpy(dy))
    del operands["bias"]
    allowed = lora_backward_bound(dy, **operands, alpha=8)
    for part, parameter in (("x", x), ("lora_a", layer.adapter.lora_a), ("lora_b", layer.adapter.lora_b)):
        require_inside(parameter.grad, allowed[part], f"gradient of {part} on {name}")


@pytest.mark.parametrize("compute_dtype", FORMATS)
def test_x_and_the_weight_are_rounded_to_the_compute_dtype_and_the_result_to_that_of_x(compute_dtype: str) -> None:
    operands = rough_operands()
    layer = quantized_layer(operands, QuantizationConfig(compute_dtype=compute_dtype))
    x = torch.from_numpy(operands["x"])
    y = layer(x)
    rounded = x.to(getattr(torch, compute_dtype)).to(torch.float32).numpy()
    weight = qlora_weight(reference_record(layer.weight.record()), weight_rounding=compute_dtype)
    assert y.dtype == torch.float32
    require_inside(y, lora_forward_bound(**operands | {"x": rounded, "weight": weight}, alpha=8), "y")


def test_an_adapter_on_llm_int8_adds_its_share_to_the_reference() -> None:
    # Codes of x and of the weight are the numbers themselves: every product and sum is exact.
    operands = lattice() | {"x": np.float32([[127, 1, 2, 512, 3], [4, -127, 5, 256, 6]])}
    operands["weight"][:, 0] = 127
    layer = quantized_layer(operands, QuantizationConfig("int8", threshold=256.0, compute_dtype="float32"))
    record = reference_record(layer.weight.record())
    base = qloracle.llm_int8_forward(operands["x"], record, threshold=256, outlier_weight="dequantized")
    share = 2 * (operands["x"] @ operands["lora_a"].T) @ operands["lora_b"].T
    require_number(layer(torch.from_numpy(operands["x"])), base + share + operands["bias"], "float32", "y")


def test_a_quantized_layer_without_an_adapter_multiplies_with_its_weight() -> None:
    for config in (*CONFIGS.values(), LLM_INT8):
        layer = QuantizedLinear(linear(rough_operands()), config)
        x = torch.eye(20).mul_(1 if config.threshold is None else 6).requires_grad_()
        y = layer(x)
        if config.threshold is None:
            assert torch.equal(y, layer.dequantized().T + layer.bias)
        y.backward(torch.eye(20, 12))
        assert torch.equal(x.grad[:12], layer.dequantized()), str(config)


@pytest.mark.parametrize("dora", [False, True])
def test_a_new_adapter_leaves_the_layer_as_its_base(dora: bool) -> None:
    base = linear(rough_operands())
    x = torch.from_numpy(rough_operands()["x"])
    layer = LoRALinear(copy.deepcopy(base), LoraOptions(rank=3, use_dora=dora))
    plain = LoRALinear(base, LoraOptions(rank=3))
    plain.adapter.enabled = False
    assert torch.equal(layer(x), plain(x))


def test_dora_of_a_layer_is_dora_of_the_functions() -> None:
    operands = rough_operands() | random_operands(3, magnitude=(12,))
    x = torch.from_numpy(operands["x"])
    layer = float_layer(operands, use_dora=True)
    assert torch.equal(layer(x), backend.dora_forward(**as_tensors(operands), alpha=8.0))
    quantized = quantized_layer(operands, CONFIGS["NF4"], use_dora=True)
    arguments = as_tensors(operands) | {"weight": quantized.weight.record(), "alpha": 8.0}
    assert torch.equal(quantized(x), backend.qdora_forward(**arguments))
    for each in (layer, quantized):
        each(x).sum().backward()
        assert each.adapter.magnitude.grad.ne(0).any()


def test_a_weight_that_is_stored_transposed_gives_the_same_layer() -> None:
    operands = lattice()
    turned = linear(operands)
    turned.weight = nn.Parameter(turned.weight.detach().T.contiguous())
    layer = fill(LoRALinear(turned, LoraOptions(rank=RANK, alpha=8.0), fan_in_fan_out=True), operands)
    x = torch.from_numpy(operands["x"])
    assert torch.equal(layer(x), float_layer(operands)(x))
    config = CONFIGS["INT8 by row"]
    stored = QuantizedLinear(turned, config, fan_in_fan_out=True)
    assert torch.equal(stored.dequantized(), QuantizedLinear(linear(operands), config).dequantized())


def test_an_embedding_is_the_reference_and_so_are_its_gradients() -> None:
    ids = torch.tensor([[3, 0, 3], [8, 3, 1]])
    weight, a, b = small_integers(1, 9, 5), small_integers(2, 4, 9), small_integers(3, 5, 4)
    base = nn.Embedding(9, 5, _weight=torch.from_numpy(weight))
    layer = fill(LoRAEmbedding(base, LoraOptions(rank=4, alpha=8.0)), {"lora_a": a, "lora_b": b})
    y = layer(ids)
    require_number(y, qloracle.embedding_lora_forward(ids.numpy(), weight, a, b, alpha=8), "float32", "rows")
    dy = small_integers(4, 2, 3, 5)
    y.backward(torch.from_numpy(dy))
    expected = qloracle.embedding_lora_backward(dy, ids.numpy(), weight, a, b, alpha=8)
    require_number(layer.adapter.lora_a.grad, expected.lora_a, "float32", "gradient of A")
    require_number(layer.adapter.lora_b.grad, expected.lora_b, "float32", "gradient of B")
