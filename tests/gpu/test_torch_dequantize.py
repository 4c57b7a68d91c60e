"""[blockwise.dequantize] and [int8.dequantize] on tensors: every rounding where the rule puts it."""

from typing import Any

import numpy as np
import pytest
import torch

import qloracle
import qloracle_gpu.torch as backend
from qloracle.codebooks import Codebook
from qloracle.errors import ArgumentValueError
from qloracle.formats import Array
from qloracle.tables import CODEBOOKS

from .words import hexadecimal, require_same, tensor

FORMATS = ("float32", "float16", "bfloat16")
# Absmax of every kind; the negative ones come from double quantization, infinity from a file that is not ours.
ABSMAX = "00000000 80000000 00000001 00000007 00800000 3f800000 3eaaaaab 477fe000 7f7fffff 7f800000 7fc00000 bf99999a"


def require_blockwise(data: Array, absmax: Array, *fields: Any) -> None:
    """Compare the values of a record whose last four fields are codebook, block size, shape and format."""
    codebook, block_size, (size,), dtype = fields
    got = backend.dequantize_blockwise(backend.QuantizedBlocks(torch.tensor(data), torch.tensor(absmax), *fields))
    expected = qloracle.dequantize_blockwise(qloracle.QuantizedBlocks(data, absmax, *fields))
    require_same(got, expected, dtype, f"{codebook} to {dtype}, {size} in blocks of {block_size}")


def test_the_nf4_table_comes_back_word_for_word() -> None:
    data = tensor("01 23 45 67 89 ab cd ef", torch.uint8)
    values = backend.dequantize_blockwise(backend.QuantizedBlocks(data, torch.ones(1), "nf4", 16, (16,), "float32"))
    assert hexadecimal(values) == (
        "bf800000 bf3239b1 bf066b30 beca32a0 be91a24d be3d353f bdba7871 00000000 "
        "3da2faff 3e24cae3 3e7c04dd 3ead033a 3ee1a4b8 3f1007ab 3f3913b3 3f800000"
    )


# The exact product of the entry 3f3913b3 and each absmax lies beside a tie of bfloat16, its float32 rounding on it.
@pytest.mark.parametrize(("absmax", "expected"), [("3f00fbf4", "3eba"), ("3f0b5bb6", "3eca")])
def test_the_product_is_rounded_to_float32_before_it_is_rounded_to_the_output(absmax: str, expected: str) -> None:
    product = (0x3913B3 | 1 << 23) * (int(absmax, 16) & 0x7FFFFF | 1 << 23)
    beside_tie = product % 2**39 - 2**38  # the last kept bit of bfloat16 stands for 2^39
    assert beside_tie > 0 if expected == "3eba" else beside_tie < 0, "one rounding alone gives the other neighbour"
    quantized = backend.QuantizedBlocks(tensor("e0", torch.uint8), tensor(absmax), "nf4", 64, (1,), "bfloat16")
    assert hexadecimal(backend.dequantize_blockwise(quantized)) == expected


@pytest.mark.parametrize("codebook", CODEBOOKS)
@pytest.mark.parametrize("dtype", FORMATS)
def test_every_code_times_absmax_of_every_kind_agrees_with_the_reference(codebook: str, dtype: str) -> None:
    absmax = tensor(ABSMAX).numpy()
    data = np.tile(np.arange(256, dtype=np.uint8), absmax.size)
    block_size = 512 if CODEBOOKS[codebook].code_bits == 4 else 256
    require_blockwise(data, absmax, codebook, block_size, (block_size * absmax.size,), dtype)


@pytest.mark.parametrize("codebook", CODEBOOKS)
@pytest.mark.parametrize("block_size", [1, 2, 3, 64, 100, 2**40])
@pytest.mark.parametrize("size", [0, 1, 2, 63, 64, 65, 1001])
def test_any_length_and_block_size_agrees_with_the_reference(codebook: str, block_size: int, size: int) -> None:
    rng = np.random.default_rng(size)
    data = rng.integers(0, 256, (size + 1) // 2 if CODEBOOKS[codebook].code_bits == 4 else size, dtype=np.uint8)
    absmax = rng.integers(0, 2**32, -(-size // block_size), dtype=np.uint32).view(np.float32)
    require_blockwise(data, absmax, codebook, block_size, (size,), "float32")


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("block_size", [1, 3, 64, 2**17 + 1])
def test_more_elements_than_are_worked_on_at_a_time_agree_with_the_reference(block_size: int, dtype: str) -> None:
    size, rng = 2**19 + 5, np.random.default_rng(6)
    absmax = rng.standard_normal(-(-size // block_size)).astype(np.float32)
    absmax[::7] = 0
    for codebook, count in (("nf4", size // 2 + 1), ("dynamic_signed", size)):
        data = rng.integers(0, 256, count, dtype=np.uint8)
        require_blockwise(data, absmax, codebook, block_size, (size,), dtype)


def test_a_block_of_zeros_comes_back_as_positive_zeros() -> None:
    quantized = backend.quantize_blockwise(torch.tensor([-0.0, 0.0, -0.0]))
    assert hexadecimal(backend.dequantize_blockwise(quantized)) == "00000000 00000000 00000000"


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("granularity", ["tensor", "row", "column", "block"])
def test_every_int8_code_times_absmax_of_every_kind_agrees_with_the_reference(granularity: str, dtype: str) -> None:
    kinds = tensor(ABSMAX).numpy()
    codes = np.tile(np.arange(-127, 128).astype(np.int8), (kinds.size, 1))
    if granularity == "column":
        codes = np.ascontiguousarray(codes.T)
    for absmax in (kinds,) if granularity != "tensor" else kinds:
        fields = (granularity, 255 if granularity == "block" else None, dtype)
        stored = torch.from_numpy(codes), torch.tensor(absmax)
        got = backend.dequantize_int8(backend.QuantizedInt8(*stored, *fields))
        expected = qloracle.dequantize_int8(qloracle.QuantizedInt8(codes, np.asarray(absmax), *fields))
        require_same(got, expected, dtype, f"INT8 by {granularity} to {dtype}")


def test_random_int8_quotients_agree_with_the_reference() -> None:
    rng = np.random.default_rng(7)
    codes = rng.integers(-127, 128, (2**12, 64)).astype(np.int8)
    absmax = rng.integers(1, 0x7F800000, 2**12, dtype=np.uint32).view(np.float32)
    got = backend.dequantize_int8(
        backend.QuantizedInt8(torch.from_numpy(codes), torch.from_numpy(absmax), "row", None, "float32")
    )
    expected = qloracle.dequantize_int8(qloracle.QuantizedInt8(codes, absmax, "row", None, "float32"))
    require_same(got, expected, "float32", "INT8 by row")


@pytest.mark.parametrize("storage", ["uint8", "float16", "bfloat16", "float32"])
@pytest.mark.parametrize("start", [0, 1])
def test_a_storage_view_holds_the_bytes_and_gives_them_back(storage: str, start: int) -> None:
    packed = torch.arange(start + 256, dtype=torch.int32).to(torch.uint8)[start:]
    stored = backend.storage_view(packed, storage)
    assert (stored.dtype, stored.numel()) == (getattr(torch, storage), 256 // stored.element_size())
    assert torch.equal(backend.storage_bytes(stored), packed), f"{storage} storage changed the bytes"


def test_a_table_of_ones_own_serves_if_quotients_decide_its_codes() -> None:
    x = np.random.default_rng(8).standard_normal(300).astype(np.float32)
    thirds = Codebook("thirds", (np.arange(-8, 8) / 9).astype(np.float32))
    got = backend.quantize_blockwise(torch.from_numpy(x), codebook=thirds, block_size=7)
    expected = qloracle.quantize_blockwise(x, codebook=thirds, block_size=7)
    require_same(got.data, expected.data, None, "codes of a table of one's own")
    require_same(
        backend.dequantize_blockwise(got), qloracle.dequantize_blockwise(expected), "float32", "values of the same"
    )
    far_apart = Codebook("far apart", np.array([1, 2.0**-60] * 8, np.float32))
    with pytest.raises(ArgumentValueError, match="at most 29 significant bits, got far apart"):
        backend.quantize_blockwise(torch.from_numpy(x), codebook=far_apart)
