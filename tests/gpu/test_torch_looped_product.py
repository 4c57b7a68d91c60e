"""Products of a few rows by a C loop on the CPU: every code with its own scale and its own place of x."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

import qloracle_gpu.torch as q
from qloracle_gpu.torch.kernels.compiled_loops import has_loop
from qloracle_gpu.torch.looped_product import MOST_ROWS, looped_product
from qloracle_gpu.torch.qlora import qlora_weight

needs_loop = pytest.mark.skipif(not has_loop("product_4bit_float32"), reason="NOT RUN: no C compiler, or no AVX-512")
LARGEST_NAN = 0x7FFFFFFF  # rounds to -0 where a carry is let through


def stored(shape: tuple[int, int], block_size: int, codebook: str = "nf4", seed: int = 0) -> q.QuantizedBlocks:
    """Any codes under scales that differ from block to block, zeros and subnormals among them."""
    generator = torch.Generator().manual_seed(seed)
    size = shape[0] * shape[1]
    data = torch.randint(0, 256, (size // 2,), generator=generator, dtype=torch.uint8)
    absmax = torch.randn(size // block_size, generator=generator).abs()
    absmax[::5], absmax[3::7] = 0.0, 3e-40
    return q.QuantizedBlocks(data, absmax, codebook, block_size, shape, "float32")


def require_product(x: Tensor, weight: q.QuantizedBlocks | q.DoubleQuantized, rounding: str, expected: Tensor) -> None:
    found = looped_product(x, weight, rounding)
    assert found is not None, "the loop did not take it"
    assert found.dtype == torch.float32
    wrong = torch.nonzero((found != expected) & ~(found.isnan() & expected.isnan()))
    assert not len(wrong), f"{len(wrong)} of {found.numel()} wrong, first {wrong[0].tolist()}"


@needs_loop
@pytest.mark.parametrize("rounding", ["float32", "bfloat16"])
@pytest.mark.parametrize("codebook", ["nf4", "fp4"])
@pytest.mark.parametrize(("shape", "block_size"), [((7, 64), 64), ((3, 96), 32), ((70, 2048), 128), ((1, 4096), 4096)])
def test_a_single_one_in_x_brings_out_each_weight(
    shape: tuple[int, int], block_size: int, codebook: str, rounding: str
) -> None:
    weight = stored(shape, block_size, codebook)
    dense = qlora_weight(weight, weight_rounding=rounding).float()
    ones = torch.eye(shape[1])
    for rows, wanted in zip(ones.split(MOST_ROWS), dense.T.split(MOST_ROWS), strict=True):
        require_product(rows, weight, rounding, wanted)


@needs_loop
@pytest.mark.parametrize("rows", range(1, MOST_ROWS + 1))
def test_sums_of_small_integers_are_exact_for_any_number_of_rows(rows: int) -> None:
    generator, shape = torch.Generator().manual_seed(rows), (600, 2048)  # more than one thread has at once
    signs = torch.randint(0, 2, shape, generator=generator) * 2 - 1
    weight = q.quantize_blockwise((signs * 2.0 ** torch.randint(0, 3, (600, 1), generator=generator)), block_size=64)
    x = torch.randint(-8, 9, (rows, 2048), generator=generator).to(torch.bfloat16)
    require_product(x, weight, "float32", (x.long() @ qlora_weight(weight).long().T).float())


@needs_loop
def test_nested_absmax_are_restored_first() -> None:
    weight = q.quantize_double(torch.randn(64, 1024, generator=torch.Generator().manual_seed(1)))
    dense = qlora_weight(weight)
    require_product(torch.eye(1024)[1000:1016], weight, "float32", dense.T[1000:1016])


@needs_loop
@pytest.mark.parametrize("rounding", ["float32", "bfloat16"])
def test_a_nan_of_any_payload_poisons_its_row_alone(rounding: str) -> None:
    weight = stored((5, 128), 32)
    absmax = weight.absmax.clone()
    absmax.view(torch.int32)[[4, 11]] = LARGEST_NAN
    y = looped_product(torch.ones(3, 128), replace(weight, absmax=absmax), rounding)
    assert y is not None
    assert y.isnan().any(0).tolist() == [False, True, True, False, False]
    assert y.isnan().all(0).tolist() == [False, True, True, False, False]


@needs_loop
def test_the_default_dtype_and_strides_of_x_change_nothing() -> None:
    weight, x = stored((9, 256), 64), torch.randn(256, 4, generator=torch.Generator().manual_seed(2)).T
    before = q.quantized_matmul(x.contiguous(), weight)
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.equal(q.quantized_matmul(x, weight), before)
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize(
    ("x", "weight", "rounding"),
    [
        (torch.ones(MOST_ROWS + 1, 64), stored((3, 64), 64), "float32"),
        (torch.ones(0, 64), stored((3, 64), 64), "float32"),
        (torch.ones(1, 96), stored((2, 96), 64), "float32"),
        (torch.ones(1, 64), stored((3, 64), 16), "float32"),
        (torch.ones(1, 64), stored((3, 64), 64), "float16"),
        (torch.ones(1, 64), q.quantize_blockwise(torch.ones(3, 64), codebook="dynamic_signed"), "float32"),
    ],
    ids=["too many rows", "no rows", "blocks across rows", "short blocks", "float16", "codes of 8 bits"],
)
def test_what_the_loop_does_not_take_goes_another_way(x: Tensor, weight: q.QuantizedBlocks, rounding: str) -> None:
    assert looped_product(x, weight, rounding) is None
    assert q.quantized_matmul(x, weight, weight_rounding=rounding).shape == (len(x), weight.shape[0])
