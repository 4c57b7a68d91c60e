"""What layers with adapters refuse, and merging them into their weights."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import qloracle_gpu.torch as backend
from qloracle.errors import ArgumentTypeError, ArgumentValueError
from qloracle_gpu.torch.modules import (
    LoRAEmbedding,
    LoRALinear,
    LoraOptions,
    MergeStateError,
    QLoRALinear,
    QuantizationConfig,
)

from .adapted_layers import CONFIGS, LLM_INT8, float_layer, quantized_layer, rough_operands
from .layers import (
    D_OUT,
    as_tensors,
    lattice,
    small_integers,
)


def test_training_without_a_compute_dtype_is_refused_before_anything_is_computed() -> None:
    operands = rough_operands()
    x = torch.from_numpy(operands["x"])
    for config in (QuantizationConfig(), QuantizationConfig("int8"), QuantizationConfig("int8", threshold=6.0)):
        layer = quantized_layer(operands, config)
        with pytest.raises(ArgumentValueError, match=r"^compute_dtype must be given to train through a quantized base"):
            layer(x)
        assert layer.eval()(x).shape == (6, 12)
        with pytest.raises(ArgumentValueError, match=r"^compute_dtype must be given"):
            layer(x.clone().requires_grad_())


def test_a_second_derivative_is_refused_and_not_left_out() -> None:
    operands = rough_operands()
    layer, x = float_layer(operands), torch.from_numpy(operands["x"]).requires_grad_()
    (first,) = torch.autograd.grad(layer(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LoRALinear(nn.Linear(4, 4), LoraOptions(rank=5)), "^rank must be from 1 to 4, the smaller side"),
        (lambda: LoRALinear(nn.Linear(4, 4).double(), LoraOptions(rank=2)), "^weight must be float32, float16 or bf"),
        (lambda: LoRALinear(nn.ReLU(), LoraOptions()), "^base must be a module with a weight that is a parameter, g"),
        (lambda: QLoRALinear(nn.Linear(4, 4), LoraOptions()), "^base must be QuantizedLinear, got Linear$"),
        (lambda: LoRAEmbedding(nn.Linear(4, 4), LoraOptions()), "^base must be an nn.Embedding, got Linear$"),
        (
            lambda: LoRAEmbedding(nn.Embedding(4, 4), LoraOptions(2, use_dora=True)),
            "^use_dora must be False for an emb",
        ),
        (lambda: LoRAEmbedding(nn.Embedding(4, 4), LoraOptions(2, dropout=0.1)), "^dropout must be 0 for an embedding"),
        (lambda: LoRAEmbedding(nn.Embedding(4, 4, max_norm=1.0), LoraOptions(2)), "^max_norm must be None in an emb"),
        (
            lambda: quantized_layer(rough_operands(), LLM_INT8, use_dora=True),
            "^use_dora must be False with a threshold",
        ),
        (lambda: LoraOptions(rank=0), "^rank must be a positive integer, got 0$"),
        (lambda: LoraOptions(dropout=1.5), "^dropout must be a probability from 0 to 1, got 1.5$"),
        (lambda: LoraOptions(bias="some"), "^bias must be one of none, all, lora_only, got 'some'$"),
        (lambda: LoraOptions(init="pissa"), "^init must be one of kaiming, gaussian, empty, got 'pissa'$"),
        (lambda: LoraOptions(use_dora=1), "^use_dora must be True or False, got 1$"),  # type: ignore[arg-type]
        (lambda: QuantizationConfig("3bit"), "^kind must be one of 4bit, int8, got '3bit'$"),
        (lambda: QuantizationConfig(codebook="dynamic_signed"), "^codebook must be a table of 16 entries for 4 bits"),
        (lambda: QuantizationConfig(block_size=0), "^block_size must be a positive integer, got 0$"),
        (lambda: QuantizationConfig(storage="int8"), "^storage must be one of uint8, float16, bfloat16, float32"),
        (lambda: QuantizationConfig(compute_dtype="float64"), "^compute_dtype must be one of "),
        (lambda: QuantizationConfig(threshold=6.0), "^threshold must be None for kind '4bit', got 6.0$"),
        (lambda: QuantizationConfig("int8", threshold=-1.0), "^threshold must be a number of at least 0, got -1.0$"),
        (lambda: QuantizationConfig("int8", double_quant=True), "^double_quant must be left as it is for kind 'int8'"),
        (lambda: QuantizationConfig("int8", granularity="column", threshold=6.0), "^granularity must be 'row' for LLM"),
    ],
)
def test_what_no_layer_can_have_is_refused_by_name(make: Callable[[], Any], message: str) -> None:
    with pytest.raises((ArgumentValueError, ArgumentTypeError), match=message):
        make()


def test_a_weight_that_was_made_trainable_is_refused() -> None:
    layer = float_layer(rough_operands())
    layer.weight.requires_grad_(True)
    with pytest.raises(ArgumentValueError, match=r"^weight must be frozen"):
        layer(torch.ones(1, 20))


def test_a_merged_layer_computes_with_its_weight_and_does_not_train() -> None:
    operands = lattice()
    layer = float_layer(operands, lora_bias=True)
    with torch.no_grad():
        layer.adapter.lora_bias.copy_(torch.from_numpy(small_integers(20, D_OUT)))
    x, before = torch.from_numpy(operands["x"]), layer.weight.clone()
    y = layer(x)
    layer.merge()
    assert torch.equal(layer.weight, torch.from_numpy(operands["weight"] + 2 * operands["lora_b"] @ operands["lora_a"]))
    assert torch.equal(layer.eval()(x), y)
    with pytest.raises(MergeStateError, match=r"^LoRALinear is merged: call unmerge\(\) before"):
        layer.train()(x)
    with pytest.raises(MergeStateError, match=r"^LoRALinear is merged"):
        layer.merge()
    layer.unmerge()
    assert torch.equal(layer.weight, before)
    assert torch.equal(layer.train()(x), y)
    with pytest.raises(MergeStateError, match=r"^LoRALinear is not merged"):
        layer.unmerge()


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("name", CONFIGS)
def test_unmerging_a_quantized_layer_brings_back_every_bit(name: str, dora: bool) -> None:
    layer = quantized_layer(rough_operands(), CONFIGS[name], use_dora=dora)
    before, y = copy.deepcopy(layer.weight.state_dict()), layer(torch.ones(1, 20))
    layer.merge()
    assert (
        not torch.equal(layer.weight.record().absmax.codes, before["absmax_codes"])
        if "absmax_codes" in before
        else (not torch.equal(layer.weight.record().absmax, before["absmax"]))
    )
    layer.unmerge()
    assert all(torch.equal(tensor, before[key]) for key, tensor in layer.weight.state_dict().items())
    assert torch.equal(layer(torch.ones(1, 20)), y)


def test_a_merged_quantized_layer_has_the_bits_of_the_function() -> None:
    operands = rough_operands()
    layer = quantized_layer(operands, CONFIGS["NF4"])
    tensors = as_tensors(operands)
    expected = backend.merge_requantize(layer.weight.record(), tensors["lora_a"], tensors["lora_b"], alpha=8.0)
    layer.merge()
    got = layer.weight.record()
    assert torch.equal(got.data, expected.data)
    assert torch.equal(got.absmax, expected.absmax)


def test_a_safe_merge_that_fails_leaves_everything_as_it_was() -> None:
    operands = rough_operands()
    operands["lora_b"][3, 1] = np.inf
    for layer in (
        float_layer(operands),
        float_layer(operands, use_dora=True),
        quantized_layer(operands, CONFIGS["NF4"]),
    ):
        before = copy.deepcopy(layer.state_dict())
        with pytest.raises(ArgumentValueError, match=r"^the merged weight must be finite"):
            layer.merge(safe=True)
        assert not layer.merged
        assert all(torch.equal(tensor, before[key]) for key, tensor in layer.state_dict().items())
