"""[quantized.matmul] on tensors: inside the reference's bound, for any layout, and refused before any work."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import qloracle
import qloracle_gpu.torch as backend
from qloracle.bounds import quantized_matmul_bound
from qloracle.errors import ArgumentTypeError, ArgumentValueError
from qloracle.formats import TENSOR_FORMATS
from qloracle.tracking.roundings import Roundings

ONES = torch.ones(3, 4)
WEIGHT = backend.quantize_blockwise(torch.ones(2, 4))
DOUBLE = backend.quantize_double(torch.ones(2, 4))
META = torch.device("meta")


@pytest.mark.parametrize("weight_rounding", TENSOR_FORMATS)
@pytest.mark.parametrize("rows", [(1,), (2, 3), (33,), (0,)])
@pytest.mark.parametrize("kind", ["quantize_blockwise", "quantize_double", "quantize_int8"])
def test_products_lie_within_the_bound_of_the_reference(kind: str, rows: tuple[int, ...], weight_rounding: str) -> None:
    rng = np.random.default_rng(len(rows))
    x, w = rng.standard_normal((*rows, 50)).astype(np.float32), rng.standard_normal((7, 50)).astype(np.float32)
    bias = rng.standard_normal(7).astype(np.float32)
    weight, reference = getattr(backend, kind)(torch.from_numpy(w)), getattr(qloracle, kind)(w)
    found = backend.quantized_matmul(
        torch.from_numpy(x), weight, bias=torch.from_numpy(bias), weight_rounding=weight_rounding
    )
    allowed = quantized_matmul_bound(x, reference, bias=bias, roundings=Roundings(weight=weight_rounding))
    y = found.numpy()
    inside = (allowed.lo <= y) & (y <= allowed.hi)
    assert y.shape == allowed.lo.shape
    assert inside.all(), f"{np.count_nonzero(~inside)} of {y.size} outside their bound"


@pytest.mark.parametrize("out_dtype", TENSOR_FORMATS)
def test_the_output_format_can_be_chosen_and_is_that_of_x_else(out_dtype: str) -> None:
    x = ONES.to(getattr(torch, out_dtype))
    assert backend.quantized_matmul(x, WEIGHT).dtype == x.dtype
    assert backend.quantized_matmul(ONES, WEIGHT, out_dtype=out_dtype).dtype == x.dtype


def test_strided_rows_are_read_where_they_lie() -> None:
    x = torch.arange(24, dtype=torch.float32).reshape(4, 6).T
    assert torch.equal(backend.quantized_matmul(x, WEIGHT), backend.quantized_matmul(x.contiguous(), WEIGHT))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: backend.quantized_matmul(ONES.T, WEIGHT), "^weight must be of shape"),
        (lambda: backend.quantized_matmul(torch.tensor(1.0), WEIGHT), "^x must be at least 1-d"),
        (lambda: backend.quantized_matmul(ONES, WEIGHT, bias=torch.ones(3)), "^bias must be of shape"),
        (lambda: backend.quantized_matmul(ONES, WEIGHT, bias=torch.ones(2, device=META)), "^bias must be on cpu"),
        (lambda: backend.quantized_matmul(ONES, WEIGHT, weight_rounding="float64"), "^weight_rounding must be one of"),
        (lambda: backend.quantized_matmul(ONES, WEIGHT, out_dtype="float64"), "^out_dtype must be one of"),
        (lambda: backend.quantized_matmul(ONES, backend.quantize_blockwise(torch.ones(4))), "^weight must be of shape"),
        (lambda: backend.dequantize_blockwise(replace(WEIGHT, absmax=torch.ones(1, device=META))),
         "^absmax must be on cpu"),
        (lambda: backend.dequantize_absmax(replace(DOUBLE.absmax, offset=torch.ones((), device=META))),
         "^offset must be on cpu"),
    ],
)  # fmt: skip
def test_what_does_not_belong_together_is_refused(call: object, message: str) -> None:
    with pytest.raises(ArgumentValueError, match=message):
        call()  # type: ignore[operator]


def test_a_plain_tensor_is_no_quantized_weight() -> None:
    with pytest.raises(ArgumentTypeError, match=r"^weight must be QuantizedBlocks"):
        backend.quantized_matmul(ONES, torch.ones(2, 4))  # type: ignore[arg-type]
