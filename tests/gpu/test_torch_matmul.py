"""[int8.matmul] and [int8.scale] on tensors."""

import numpy as np
import pytest
import torch

import qloracle
import qloracle_gpu.torch as backend
from qloracle.bounds import scale_int8_matmul_bound
from qloracle_gpu.torch import matmul

from .words import hexadecimal, require_same, tensor


def random_codes(rng: np.random.Generator, *shape: int) -> torch.Tensor:
    return torch.from_numpy(rng.integers(-128, 128, shape).astype(np.int8))


def test_a_product_worked_out_by_hand() -> None:
    a, b = torch.tensor([[1, 2]], dtype=torch.int8), torch.tensor([[3, 4], [-127, 127]], dtype=torch.int8)
    acc = backend.int8_matmul(a, b)
    assert (acc.tolist(), acc.dtype) == ([[11, 127]], torch.int32)


@pytest.mark.parametrize("rows", [(), (0,), (1,), (17,), (2, 3)])
@pytest.mark.parametrize("inner", [0, 1, 8, 1023, 1024, 1025, 4099])
@pytest.mark.parametrize("columns", [0, 1, 9])
def test_products_of_random_codes_agree_with_the_reference(rows: tuple[int, ...], inner: int, columns: int) -> None:
    rng = np.random.default_rng(inner)
    a, b = random_codes(rng, *rows, inner), random_codes(rng, columns, inner)
    expected = qloracle.int8_matmul(a.numpy(), b.numpy())
    require_same(backend.int8_matmul(a, b), expected, None, f"{rows} by {inner} by {columns}")


@pytest.mark.parametrize(
    ("code", "inner", "expected"),
    [(-128, 1024, 2**24), (-128, 131071, 2147467264), (127, 133144, 2147479576), (-127, 133144, 2147479576)],
)
def test_sums_up_to_the_largest_inner_dimension_are_exact(code: int, inner: int, expected: int) -> None:
    codes = torch.full((1, inner), code, dtype=torch.int8)
    assert backend.int8_matmul(codes, codes).item() == expected


@pytest.mark.parametrize(("code", "inner"), [(127, 133145), (0, 133145), (-128, 131072)])
def test_an_inner_dimension_that_could_overflow_is_refused(code: int, inner: int) -> None:
    a, b = torch.zeros(1, inner, dtype=torch.int8), torch.full((1, inner), code, dtype=torch.int8)
    with pytest.raises(qloracle.errors.ArgumentValueError, match=f"^K must be at most .*, got {inner}"):
        backend.int8_matmul(a, b)


@pytest.mark.parametrize("rows", [1, 16, 17, 33])
@pytest.mark.parametrize("inner", [1, 8, 100])
@pytest.mark.parametrize("columns", [1, 8, 13])
def test_shapes_that_the_integer_units_refuse_are_filled_with_zeros(
    rows: int, inner: int, columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What cuBLAS asks of the shapes; the CPU takes any, and multiplies here.
    def integer_units(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        assert a.shape[0] > 16, f"{a.shape[0]} rows"
        assert a.shape[1] % 8 == b.shape[1] % 8 == 0, f"{tuple(a.shape)} by {tuple(b.shape)}"
        assert (a.stride(1), b.stride(0)) == (1, 1), "rows of a and columns of b are contiguous"
        return a.to(torch.int32) @ b.to(torch.int32)

    monkeypatch.setattr(torch, "_int_mm", integer_units)
    rng = np.random.default_rng(rows)
    a, b = random_codes(rng, rows, inner), random_codes(rng, columns, inner)
    expected = qloracle.int8_matmul(a.numpy(), b.numpy())
    require_same(matmul._integer_product(a, b), expected, None, f"{rows} by {inner} by {columns}")


def test_scaling_keeps_what_float32_intermediates_would_lose() -> None:
    # 1 · 2^70 · 2^60 / 127²: row times column overflows, the result is a normal number.
    overflowing = torch.tensor([[1]], dtype=torch.int32), torch.tensor([2.0**70]), torch.tensor([2.0**60])
    assert hexadecimal(backend.scale_int8_matmul(*overflowing)) == "79820610"
    # 2^30 · (1 + 2^-23)·2^-70 · 2^-70 / 127²: row times column is subnormal and loses its last bit.
    underflowing = torch.tensor([[2**30]], dtype=torch.int32), tensor("1c800001"), torch.tensor([2.0**-70])
    assert hexadecimal(backend.scale_int8_matmul(*underflowing)) == "01820611"


def test_scaling_lies_within_the_bound_of_the_reference() -> None:
    rng = np.random.default_rng(12)
    acc = rng.integers(-(2**31), 2**31, (33, 65)).astype(np.int32)
    row, column = (rng.integers(0x30000000, 0x50000000, n, dtype=np.uint32).view(np.float32) for n in acc.shape)
    bias = (rng.standard_normal(65) * 2.0**40).astype(np.float32)
    for shift in (None, bias):
        allowed = scale_int8_matmul_bound(acc, row, column, shift)
        given = [torch.from_numpy(array) for array in (acc, row, column)]
        y = backend.scale_int8_matmul(*given, None if shift is None else torch.from_numpy(shift)).numpy()
        inside = (allowed.lo <= y) & (y <= allowed.hi)
        assert inside.all(), f"{np.count_nonzero(~inside)} of {y.size} outside, bias: {shift is not None}"


@pytest.mark.parametrize(("dtype", "expected"), [("float32", "40c00000"), ("float16", "4600"), ("bfloat16", "40c0")])
def test_the_output_format_can_be_chosen(dtype: str, expected: str) -> None:
    acc = torch.tensor([[16129]], dtype=torch.int32)
    y = backend.scale_int8_matmul(acc, torch.tensor([2.0]), torch.tensor([3.0]), out_dtype=dtype)
    assert hexadecimal(y) == expected
