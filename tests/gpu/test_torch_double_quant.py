"""[double_quant.offset], [double_quant.quantize] and [double_quant.dequantize] on tensors."""

from fractions import Fraction

import numpy as np
import pytest
import torch

import qloracle
import qloracle_gpu.torch as backend
from qloracle.formats import Array
from qloracle_gpu.torch.exact_mean import mean_offset

from .boundaries import with_specials
from .words import hexadecimal, require_same, tensor

NAN = float("nan")


def require_absmax(absmax: Array, codebook: str = "dynamic_signed") -> None:
    got = backend.quantize_absmax(torch.from_numpy(absmax), codebook=codebook)
    expected = qloracle.quantize_absmax(absmax, codebook=codebook)
    require_same(got.offset, expected.offset, None, "offset")
    require_same(got.absmax, expected.absmax, "float32", "nested absmax")
    require_same(got.codes, expected.codes, None, "codes")
    restored = qloracle.dequantize_absmax(expected, codebook=codebook)
    require_same(backend.dequantize_absmax(got, codebook=codebook), restored, "float32", "restored absmax")


@pytest.mark.parametrize(
    ("absmax", "expected"),
    [
        ([4, 2**-22, 2**-100, 0], "3f800001"),  # just above a tie: 1 + 2^-24 + 2^-102
        ([4, 2**-22, 0, 0], "3f800000"),  # a tie, to even
        ([4, 3 * 2**-22, 0, 0], "3f800002"),
        ([2**-149, 0], "00000000"),
        ([2**-149, 2**-149, 2**-149, 0], "00000001"),
        ([2**127, 2**127, 2**127], "7f000000"),
        ([NAN, 3, NAN, 1], "40000000"),
        ([NAN, NAN], "00000000"),
        ([], "00000000"),
        ([1, -1], "00000000"),
        ([-4, -(2**-22), -(2**-100), 0], "bf800001"),
    ],
)
def test_the_offset_is_the_exact_mean_rounded_once(absmax: list[float], expected: str) -> None:
    assert hexadecimal(mean_offset(torch.tensor(absmax, dtype=torch.float32))) == expected


def test_the_offset_of_numbers_of_every_magnitude_is_that_of_fractions() -> None:
    rng = np.random.default_rng(8)
    for count in (3, 17, 1000):
        absmax = (rng.integers(0, 0x7F800000, count, dtype=np.uint32)).view(np.float32)
        mean = sum(Fraction(float(value)) for value in absmax) / count
        offset = float(mean_offset(torch.from_numpy(absmax)))
        step = Fraction(float(np.nextafter(np.float32(offset), np.float32(np.inf)))) - Fraction(offset)
        assert abs(Fraction(offset) - mean) <= step / 2, f"the mean of {count} numbers"


@pytest.mark.parametrize("codebook", ["dynamic_signed", "nf4", "fp4", "float8"])
@pytest.mark.parametrize("count", [0, 1, 255, 256, 257, 1000])
def test_absmax_of_any_number_of_blocks_agree_with_the_reference(count: int, codebook: str) -> None:
    rng = np.random.default_rng(count)
    require_absmax(np.abs(rng.standard_normal(count)).astype(np.float32), codebook)


def test_absmax_with_specials_agree_with_the_reference() -> None:
    require_absmax(np.abs(with_specials(np.random.default_rng(9), 64, 33)).reshape(-1))
    require_absmax(np.random.default_rng(10).integers(0, 0x7F800000, 2000, dtype=np.uint32).view(np.float32))


def test_a_given_offset_is_used_instead_of_the_mean() -> None:
    absmax = np.array([1, 2, 3], np.float32)
    got = backend.quantize_absmax(torch.from_numpy(absmax), offset=torch.tensor(0.5))
    expected = qloracle.quantize_absmax(absmax, offset=np.float32(0.5))
    require_same(got.codes, expected.codes, None, "codes")
    assert (hexadecimal(got.offset), hexadecimal(got.absmax)) == ("3f000000", "40200000")


def test_restored_absmax_may_be_negative() -> None:
    nested = backend.QuantizedAbsmax(tensor("00 ff", torch.uint8), torch.tensor([2.0]), torch.tensor(1.0))
    # bf7e3333 · 2 + 1 and 1 · 2 + 1
    assert hexadecimal(backend.dequantize_absmax(nested)) == "bf7c6666 40400000"


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("codebook", ["nf4", "dynamic_signed"])
@pytest.mark.parametrize("block_size", [3, 64])
def test_double_quantized_tensors_agree_with_the_reference(codebook: str, dtype: str, block_size: int) -> None:
    x = with_specials(np.random.default_rng(11), 301, 64)
    got = backend.quantize_double(torch.from_numpy(x), codebook=codebook, block_size=block_size)
    expected = qloracle.quantize_double(x, codebook=codebook, block_size=block_size)
    require_same(got.data, expected.data, None, "data")
    require_same(got.absmax.offset, expected.absmax.offset, None, "offset")
    restored = qloracle.dequantize_double(expected, dtype=dtype)
    require_same(backend.dequantize_double(got, dtype=dtype), restored, dtype, f"restored {dtype}")
