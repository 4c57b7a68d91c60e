"""DoRA on tensors: bit for bit where every partial sum is exact, within the bound elsewhere."""

from typing import Any

import numpy as np
import pytest
import torch

import qloracle
import qloracle_gpu.torch as backend
from qloracle.bounds import dora_backward_bound, dora_forward_bound
from qloracle.qlora import qlora_weight

from .layers import (
    D_OUT,
    FORMATS,
    ROWS,
    SHAPES,
    as_tensors,
    dora_lattice,
    native,
    quantizers,
    random_operands,
    reference_record,
    require_inside,
    require_number,
    small_integers,
)

MASK = np.random.default_rng(10).random(SHAPES["x"]) < 0.5
OPTIONS: list[dict[str, Any]] = [{}, *({"mask": MASK, "dropout": p} for p in (0.0, 0.5, 0.75, 1.0))]


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: f"dropout {o.get('dropout')}")
def test_forward_is_exact_on_a_lattice_of_exact_norms(options: dict[str, Any], dtype: str) -> None:
    operands = dora_lattice() | {"bias": small_integers(20, D_OUT)}
    expected = qloracle.dora_forward(**operands, alpha=8, **options)
    got = backend.dora_forward(**as_tensors(operands, dtype), alpha=8, **native(options))
    require_number(got, expected, dtype, f"DoRA forward in {dtype}")


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: f"dropout {o.get('dropout')}")
def test_backward_is_exact_on_a_lattice_of_exact_norms(options: dict[str, Any], dtype: str) -> None:
    operands, dy = dora_lattice(), small_integers(11, *ROWS, D_OUT)
    expected = qloracle.dora_backward(dy, **operands, alpha=8, **options)
    got = backend.dora_backward(**as_tensors({"dy": dy, **operands}, dtype), alpha=8, **native(options))
    for name, real in vars(expected).items():
        fmt = "float32" if name == "bias" else dtype
        require_number(getattr(got, name), real, fmt, f"gradient of {name} for {dtype}")


def test_a_transposed_weight_and_rslora_agree_with_the_reference() -> None:
    operands = dora_lattice()
    merged = operands["weight"] + 2 * operands["lora_b"] @ operands["lora_a"]
    operands["weight"] = (merged - 4 * operands["lora_b"] @ operands["lora_a"]).T.copy()
    options = {"alpha": 8, "rank_stabilized": True, "fan_in_fan_out": True}
    expected = qloracle.dora_forward(**operands, **options)
    require_number(backend.dora_forward(**as_tensors(operands), **options), expected, "float32", "y")
    del operands["magnitude"], operands["x"]
    norms = qloracle.dora_norm(**operands, **options)
    require_number(backend.dora_norm(**as_tensors(operands), **options), norms, "float32", "norms")


def test_random_operands_stay_within_the_bounds_of_the_reference() -> None:
    shapes = {"x": (9, 300), "weight": (40, 300), "lora_a": (8, 300), "lora_b": (40, 8), "magnitude": (40,)}
    operands = random_operands(12, **shapes)
    mask = np.random.default_rng(13).random((9, 300)) < 0.7
    options = {"alpha": 3.7, "mask": mask, "dropout": 0.3, "rank_stabilized": True}
    y = backend.dora_forward(**as_tensors(operands), **native(options))
    require_inside(y, dora_forward_bound(**operands, **options), "DoRA forward")
    dy = random_operands(14, dy=(9, 40))["dy"]
    gradients = backend.dora_backward(torch.from_numpy(dy), **as_tensors(operands), **native(options))
    for name, allowed in dora_backward_bound(dy, **operands, **options).items():
        require_inside(getattr(gradients, name), allowed, f"gradient of {name}")


def test_norms_neither_overflow_nor_underflow() -> None:
    weight = torch.tensor([[3e30, 4e30], [3e-30, 4e-30], [0.0, 0.0]])
    zero = torch.zeros(1, 2), torch.zeros(3, 1)
    expected = qloracle.dora_norm(weight.numpy(), zero[0].numpy(), zero[1].numpy(), alpha=1)
    require_number(backend.dora_norm(weight, *zero, alpha=1), expected, "float32", "norms")


def test_a_row_of_zeros_gives_zeros_and_no_nan() -> None:
    zero, one = torch.zeros(1, 2), torch.ones(1, 1)
    y = backend.dora_forward(torch.ones(1, 2), zero, zero, one, one[0], alpha=1)
    gradients = backend.dora_backward(one, torch.ones(1, 2), zero, zero, one, one[0], alpha=1)
    assert (y.tolist(), gradients.magnitude.tolist()) == ([[0.0]], [0.0])


@pytest.mark.parametrize("name", quantizers())
def test_a_quantized_base_stays_within_the_bounds_of_its_dequantized_weight(name: str) -> None:
    shapes = {"x": (6, 20), "weight": (10, 20), "lora_a": (3, 20), "lora_b": (10, 3), "magnitude": (10,)}
    operands = random_operands(15, **shapes)
    quantized = quantizers()[name](torch.from_numpy(operands.pop("weight")))
    weight = qlora_weight(reference_record(quantized), weight_rounding="bfloat16")
    how = {"alpha": 2, "weight_rounding": "bfloat16"}
    y = backend.qdora_forward(weight=quantized, **as_tensors(operands), **how)
    require_inside(y, dora_forward_bound(weight=weight, **operands, alpha=2), f"QDoRA on {name}")
    dy = random_operands(16, dy=(6, 10))["dy"]
    gradients = backend.qdora_backward(torch.from_numpy(dy), weight=quantized, **as_tensors(operands), **how)
    for part, allowed in dora_backward_bound(dy, weight=weight, **operands, alpha=2).items():
        require_inside(getattr(gradients, part), allowed, f"gradient of {part} on {name}")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_gain_beyond_float32_makes_no_nan_of_finite_operands(dtype: str) -> None:
    smallest = 2.0**-133  # a subnormal number of both formats: 1/norm is beyond float32
    weight = torch.tensor([[smallest, 0.0], [0.0, 0.0]], dtype=getattr(torch, dtype))
    a, b, m = torch.zeros(1, 2), torch.zeros(2, 1), torch.tensor([-64.0, 5.0])
    zeros, ones = torch.zeros(3, 2, dtype=weight.dtype), torch.ones(3, 2, dtype=weight.dtype)
    assert backend.dora_forward(zeros, weight, a, b, m, alpha=1).tolist() == [[0.0, 0.0]] * 3
    assert backend.dora_forward(ones, weight, a, b, m, alpha=1)[:, 0].lt(0).all()
    for gradient in vars(backend.dora_backward(zeros, ones, weight, a, b, m, alpha=1)).values():
        assert not gradient.count_nonzero(), gradient
    merged = backend.dora_merge(weight, a, b, m, alpha=1).weight
    assert merged[0, 0] < 0 == merged[0, 1] == merged[1].count_nonzero()


def test_an_infinite_magnitude_stays_infinite() -> None:
    one = torch.ones(1, 1)
    y = backend.dora_forward(one, one, one, one, torch.tensor([-torch.inf]), alpha=1)
    assert y.tolist() == [[-torch.inf]]
