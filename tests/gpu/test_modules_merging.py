"""Merges on tensors: bit for bit where every partial sum is exact, within the bound elsewhere."""

from typing import Any

import numpy as np
import pytest
import torch

import qloracle
import qloracle_gpu.torch as backend
from qloracle.bounds import dora_merge_bound, lora_merge_bound
from qloracle.errors import ArgumentValueError

from .layers import (
    D_IN,
    D_OUT,
    FORMATS,
    as_array,
    as_tensors,
    dora_lattice,
    lattice,
    quantizers,
    random_operands,
    reference_record,
    require_inside,
    require_same_record,
    small_integers,
)
from .words import require_same

OPTIONS = [{"alpha": 8}, {"alpha": 8, "rank_stabilized": True}, {"alpha": 8, "fan_in_fan_out": True}, {"alpha": -2}]


def merge_lattice(options: dict[str, Any]) -> dict[str, np.ndarray]:
    operands = lattice("weight", "lora_a", "lora_b")
    if "fan_in_fan_out" in options:
        operands["weight"] = operands["weight"].T.copy()
    return operands


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("verb", ["lora_merge", "lora_unmerge"])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_merging_and_unmerging_are_exact_on_small_integers(options: dict[str, Any], verb: str, dtype: str) -> None:
    operands = merge_lattice(options)
    expected = getattr(qloracle, verb)(**operands, **options)
    got = getattr(backend, verb)(**as_tensors(operands, dtype), **options)
    require_same(got + 0.0, qloracle.encode(expected + 0.0, dtype), dtype, f"{verb} in {dtype}")


@pytest.mark.parametrize("dtype", FORMATS)
def test_merges_of_random_operands_stay_within_the_bound(dtype: str) -> None:
    tensors = as_tensors(random_operands(1, weight=(30, 50), lora_a=(7, 50), lora_b=(30, 7)), dtype)
    arrays = {name: as_array(tensor) for name, tensor in tensors.items()}
    fmt = "bfloat16" if dtype == "bfloat16" else None
    for unmerge, verb in ((False, backend.lora_merge), (True, backend.lora_unmerge)):
        allowed = lora_merge_bound(**arrays, alpha=1.3, fmt=fmt, unmerge=unmerge)
        require_inside(verb(**tensors, alpha=1.3), allowed, f"{verb.__name__} in {dtype}")


def test_the_input_is_not_modified() -> None:
    tensors = as_tensors(lattice("weight", "lora_a", "lora_b"))
    before = {name: tensor.clone() for name, tensor in tensors.items()}
    backend.lora_merge(**tensors, alpha=8)
    assert all(torch.equal(tensors[name], before[name]) for name in tensors)


@pytest.mark.parametrize("verb", ["lora_merge", "dora_merge"])
def test_a_safe_merge_names_the_first_element_that_is_not_finite(verb: str) -> None:
    weight, one = torch.tensor([[1.0, 2.0], [3.0, 3e38]]), torch.ones(1, 2)
    more = {"magnitude": torch.tensor([1.0, 3e38])} if verb == "dora_merge" else {}
    with pytest.raises(ArgumentValueError, match=r"^the merged weight must be finite, got (inf|nan) at \(1, "):
        getattr(backend, verb)(weight, one, torch.full((2, 1), 3e38), alpha=1, safe=True, **more)


@pytest.mark.parametrize("unmerge", [False, True])
@pytest.mark.parametrize("dtype", FORMATS)
def test_merging_a_bias_is_exact_on_small_integers(dtype: str, unmerge: bool) -> None:
    bias, added = small_integers(1, D_OUT), small_integers(2, D_OUT)
    expected = qloracle.merge_bias(bias, added, alpha=8, rank=4, unmerge=unmerge)
    tensors = (torch.from_numpy(part).to(getattr(torch, dtype)) for part in (bias, added))
    got = backend.merge_bias(*tensors, alpha=8, rank=4, unmerge=unmerge)
    require_same(got + 0.0, qloracle.encode(expected + 0.0, dtype), dtype, f"merged bias in {dtype}")


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("transposed", [False, True])
def test_dora_merges_exactly_where_norms_are_exact(transposed: bool, dtype: str) -> None:
    operands = dora_lattice()
    del operands["x"]
    operands["magnitude"][5] = 2  # 0 cannot be unmerged
    if transposed:
        operands["weight"] = operands["weight"].T.copy()
    how = {"alpha": 8, "fan_in_fan_out": transposed}
    expected = qloracle.dora_merge(**operands, **how)
    tensors = as_tensors(operands, dtype)
    got = backend.dora_merge(**tensors, **how)
    require_same(got.weight + 0.0, qloracle.encode(expected.weight + 0.0, dtype), dtype, "merged weight")
    require_same(got.norms, expected.norms, "float32", "norms")
    weight = tensors.pop("weight")
    # The row whose norm is 0 comes back as −s B A, which is what W was there.
    assert torch.equal(backend.dora_unmerge(got, **tensors, **how), weight)


def test_dora_merges_of_random_operands_stay_within_the_bound() -> None:
    operands = random_operands(3, weight=(30, 50), lora_a=(7, 50), lora_b=(30, 7), magnitude=(30,))
    allowed, allowed_norms = dora_merge_bound(**operands, alpha=1.3)
    got = backend.dora_merge(**as_tensors(operands), alpha=1.3)
    require_inside(got.weight, allowed, "merged weight")
    require_inside(got.norms, allowed_norms, "norms")


def test_a_row_that_was_merged_to_zeros_cannot_be_unmerged() -> None:
    one = torch.ones(1, 1)
    merged = backend.dora_merge(one, one, one, 0 * one[0], alpha=1)
    with pytest.raises(
        ArgumentValueError, match=r"^magnitude must be not 0 where the norm is not, to be unmerged, got 0 at 0$"
    ):
        backend.dora_unmerge(merged, one, one, 0 * one[0], alpha=1)


@pytest.mark.parametrize("scales", ["fresh", "kept"])
@pytest.mark.parametrize("name", quantizers())
def test_quantizing_like_a_record_gives_the_bits_of_the_reference(name: str, scales: str) -> None:
    like = quantizers()[name](torch.from_numpy(random_operands(4, w=(9, 10))["w"]))
    x = 2 * random_operands(5, x=(9, 10))["x"]
    x[3, 3:6] = np.inf, np.nan, -np.inf
    x[5], x[6, 1] = 0, -0.0
    expected = qloracle.quantize_like(x, reference_record(like), scales=scales)
    require_same_record(backend.quantize_like(torch.from_numpy(x), like, scales=scales), expected, f"{name}, {scales}")


@pytest.mark.parametrize("scales", ["fresh", "kept"])
@pytest.mark.parametrize("name", quantizers())
def test_merging_into_a_quantized_weight_gives_the_bits_of_the_reference_on_a_lattice(name: str, scales: str) -> None:
    # A dequantized weight is no integer, so that only alpha 0 adds nothing that float32 would round.
    operands = lattice("weight", "lora_a", "lora_b")
    like = quantizers()[name](torch.from_numpy(operands.pop("weight")))
    expected = qloracle.merge_requantize(reference_record(like), **operands, alpha=0, scales=scales)
    got = backend.merge_requantize(like, **as_tensors(operands), alpha=0, scales=scales)
    require_same_record(got, expected, f"requantized {name}, {scales}")
    original = small_integers(9, D_OUT, D_IN)
    expected = qloracle.merge_into_original(original, reference_record(like), **operands, alpha=8, scales=scales)
    got = backend.merge_into_original(torch.from_numpy(original), like, **as_tensors(operands), alpha=8, scales=scales)
    require_same_record(got, expected, f"{name} of the original, {scales}")


@pytest.mark.parametrize("name", quantizers())
def test_a_requantized_merge_is_the_quantizer_on_a_merge_within_the_bound(name: str) -> None:
    operands = random_operands(6, weight=(9, 16), lora_a=(2, 16), lora_b=(9, 2))
    like = quantizers()[name](torch.from_numpy(operands.pop("weight")))
    values = backend.qlora_forward(torch.eye(16), like, torch.zeros(1, 16), torch.zeros(9, 1), alpha=1).T.contiguous()
    merged = backend.lora_merge(values, **as_tensors(operands), alpha=3)
    require_inside(merged, lora_merge_bound(values.numpy(), **operands, alpha=3), f"merged {name}")
    expected = qloracle.quantize_like(merged.numpy(), reference_record(like))
    require_same_record(backend.merge_requantize(like, **as_tensors(operands), alpha=3), expected, name)
