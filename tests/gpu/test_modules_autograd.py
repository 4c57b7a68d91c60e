"""Layers with adapters under autograd, autocast, dropout and checkpoints."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import qloracle
from qloracle.bounds import Roundings, lora_forward_bound
from qloracle.qlora import qlora_weight
from qloracle_gpu.torch.modules import (
    LoRAEmbedding,
    LoraOptions,
    QuantizationConfig,
)

from .adapted_layers import CONFIGS, float_layer, quantized_layer, rough_operands
from .layers import (
    D_IN,
    D_OUT,
    as_tensors,
    lattice,
    reference_record,
    require_inside,
    require_number,
    small_integers,
)


def test_gradients_by_autograd_are_those_of_the_reference() -> None:
    operands, dy = lattice(), small_integers(11, 2, 3, D_OUT)
    layer = float_layer(operands, bias="all", lora_bias=True)
    x = torch.from_numpy(operands["x"]).requires_grad_()
    layer(x).backward(torch.from_numpy(dy))
    del operands["bias"]
    expected = qloracle.lora_backward(dy, **operands, alpha=8)
    got = {"x": x, "lora_a": layer.adapter.lora_a, "lora_b": layer.adapter.lora_b}
    got |= {"bias": layer.bias, "lora_bias": layer.adapter.lora_bias}
    for name, parameter in got.items():
        require_number(parameter.grad, getattr(expected, name), "float32", f"gradient of {name}")
    assert layer.weight.grad is None


def test_a_bias_in_float32_gets_a_gradient_that_is_rounded_once() -> None:
    layer = float_layer(lattice(), bias="all")
    x = torch.zeros(2, D_IN, dtype=torch.bfloat16)
    # 1 + 2^-8 is no bfloat16 number.
    dy = torch.tensor([1.0, 2**-8], dtype=torch.bfloat16)[:, None].expand(2, D_OUT)
    layer(x).backward(dy)
    assert layer.bias.grad.tolist() == [1 + 2**-8] * D_OUT


def test_dropout_is_the_reference_with_the_mask_that_was_drawn() -> None:
    operands = lattice()
    layer = float_layer(operands, dropout=0.5)
    x = torch.from_numpy(operands["x"])
    torch.manual_seed(3)
    mask = layer.adapter.dropout_mask(x)
    assert mask is not None
    assert mask.any()
    assert not mask.all()
    torch.manual_seed(3)
    expected = qloracle.lora_forward(**operands, alpha=8, mask=mask.numpy(), dropout=0.5)
    require_number(layer(x), expected, "float32", "y in training")
    require_number(layer.eval()(x), qloracle.lora_forward(**operands, alpha=8), "float32", "y in evaluation")


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("make", [float_layer, lambda o, **k: quantized_layer(o, CONFIGS["NF4"], **k)])
def test_a_checkpointed_layer_draws_its_mask_again(make: Callable[..., Any], reentrant: bool) -> None:
    operands = rough_operands()
    layer = make(operands, dropout=0.5)
    gradients = []
    for run in (layer, lambda x: checkpoint(layer, x, use_reentrant=reentrant)):
        x = torch.from_numpy(operands["x"]).clone().requires_grad_()
        layer.zero_grad()
        torch.manual_seed(5)
        run(x).square().sum().backward()
        gradients.append([x.grad, layer.adapter.lora_a.grad.clone(), layer.adapter.lora_b.grad.clone()])
    assert all(torch.equal(plain, again) for plain, again in zip(*gradients, strict=True))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_rounds_the_operands_and_nothing_else(dtype: torch.dtype) -> None:
    operands = rough_operands()
    layer = float_layer(operands, bias="all")
    rounded = copy.deepcopy(layer).to(dtype)
    x, dy = torch.from_numpy(operands["x"]), torch.ones(6, 12, dtype=dtype)
    with torch.autocast("cpu", dtype):
        y = layer(x)
        y.backward(dy)  # under autocast too: the products of the backward pass keep float32
    expected = rounded(x.to(dtype))
    expected.backward(dy)
    assert y.dtype == dtype
    assert torch.equal(y, expected)
    for name, parameter in rounded.named_parameters():
        if parameter.requires_grad:
            assert torch.equal(dict(layer.named_parameters())[name].grad, parameter.grad.float()), name


def test_under_autocast_a_quantized_layer_computes_in_its_dtype_unless_it_has_one_of_its_own() -> None:
    operands = rough_operands()
    x = torch.from_numpy(operands["x"])
    for own, computed in ((None, "bfloat16"), ("float32", "float32")):
        layer = quantized_layer(operands, QuantizationConfig(compute_dtype=own))
        with torch.autocast("cpu", torch.bfloat16):
            y = layer(x)
        weight = qlora_weight(reference_record(layer.weight.record()), weight_rounding=computed)
        factors = {n: t.bfloat16().float().numpy() for n, t in as_tensors(operands).items() if n.startswith("lora")}
        changed = operands | factors | {"weight": weight, "x": x.to(getattr(torch, computed)).float().numpy()}
        changed["bias"] = torch.from_numpy(operands["bias"]).bfloat16().float().numpy()
        assert y.dtype == torch.bfloat16
        require_inside(y, lora_forward_bound(**changed, alpha=8, roundings=Roundings()), f"compute dtype {own}")


def test_no_call_reads_a_tensor_on_the_host() -> None:
    # Tensors on the meta device hold nothing: whatever reads one fails, as it would wait on a GPU.
    operands = rough_operands()
    layers = [float_layer(operands, dropout=0.5, bias="all"), float_layer(operands, use_dora=True)]
    layers += [quantized_layer(operands, CONFIGS[name], dropout=0.5) for name in ("NF4", "FP4, doubly quantized")]
    layers += [quantized_layer(operands, CONFIGS["INT8 by row"], use_dora=True)]
    for layer in layers:
        on_meta = layer.to("meta")
        x = torch.empty(6, 20, device="meta", requires_grad=True)
        on_meta(x).sum().backward()
        assert x.grad is not None
    table = LoRAEmbedding(nn.Embedding(9, 8), LoraOptions(rank=2)).to("meta")
    table(torch.zeros(4, dtype=torch.int64, device="meta")).sum().backward()
    with pytest.raises(RuntimeError, match="meta"):
        torch.ones(1, device="meta").item()


def test_torch_func_differentiates_a_layer() -> None:
    operands = rough_operands()
    layer, x = float_layer(operands), torch.from_numpy(operands["x"])
    parameters = {name: p.detach() for name, p in layer.named_parameters()}

    def loss(trained: dict[str, torch.Tensor]) -> torch.Tensor:
        y: torch.Tensor = torch.func.functional_call(layer, parameters | trained, (x,))
        return y.square().sum()

    wanted = {name: parameters[name] for name in ("adapter.lora_a", "adapter.lora_b")}
    got = torch.func.grad(loss)(wanted)
    layer(x).square().sum().backward()
    assert torch.equal(got["adapter.lora_a"], layer.adapter.lora_a.grad)
    assert torch.equal(got["adapter.lora_b"], layer.adapter.lora_b.grad)
