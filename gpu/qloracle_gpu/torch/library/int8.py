"""Operators of INT8: absmax codes, and products of them.

Their rules are those of the functions of the same name in `qloracle_gpu.torch`.
"""

from typing import Any

import torch
from torch import Tensor

from qloracle_gpu.torch import int8 as rules
from qloracle_gpu.torch import int8_linear, int8_scale, matmul
from qloracle_gpu.torch.compiling import eager
from qloracle_gpu.torch.formats import DTYPES, NAMES
from qloracle_gpu.torch.library.registering import operator


@operator
def quantize_int8(x: Tensor, granularity: str = "tensor", block_size: int | None = None) -> tuple[Tensor, Tensor]:
    """Return codes and absmax."""
    q = eager(rules.quantize_int8)(x, granularity=granularity, block_size=block_size)
    return q.codes, q.absmax


@quantize_int8.register_fake
def _(x: Tensor, granularity: str = "tensor", block_size: int | None = None) -> tuple[Tensor, Tensor]:
    shape = rules.absmax_shape(x.shape, granularity, block_size)
    return x.new_empty(x.shape, dtype=torch.int8), x.new_empty(shape, dtype=torch.float32)


@operator
def dequantize_int8(
    codes: Tensor, absmax: Tensor, granularity: str, block_size: int | None = None, dtype: str = "float32"
) -> Tensor:
    """Return the values of codes."""
    return eager(rules.dequantize_int8)(rules.QuantizedInt8(codes, absmax, granularity, block_size, dtype))


@dequantize_int8.register_fake
def _(codes: Tensor, _absmax: Tensor, _granularity: str, _size: int | None = None, dtype: str = "float32") -> Tensor:
    return codes.new_empty(codes.shape, dtype=DTYPES[dtype])


@operator
def int8_matmul(a: Tensor, b: Tensor) -> Tensor:
    """Return a bᵀ as int32."""
    return eager(matmul.int8_matmul)(a, b)


@int8_matmul.register_fake
def _(a: Tensor, b: Tensor) -> Tensor:
    return a.new_empty((*a.shape[:-1], b.shape[0]), dtype=torch.int32)


@operator
def scale_int8_matmul(
    acc: Tensor, row_absmax: Tensor, column_absmax: Tensor, bias: Tensor | None = None, out_dtype: str = "float32"
) -> Tensor:
    """Return acc · row · column / 127² + bias."""
    return eager(int8_scale.scale_int8_matmul)(acc, row_absmax, column_absmax, bias, out_dtype=out_dtype)


@scale_int8_matmul.register_fake
def _(acc: Tensor, _row: Tensor, _column: Tensor, _bias: Tensor | None = None, out_dtype: str = "float32") -> Tensor:
    return acc.new_empty(acc.shape, dtype=DTYPES[out_dtype])


@operator
def int8_linear_forward(
    x: Tensor, codes: Tensor, absmax: Tensor, bias: Tensor | None = None, out_dtype: str | None = None
) -> Tensor:
    """Return y of INT8 activations and an INT8 weight, both with one absmax a row."""
    weight = rules.QuantizedInt8(codes, absmax, "row", None, "float32")
    return eager(int8_linear.int8_linear_forward)(x, weight, bias=bias, out_dtype=out_dtype)


@int8_linear_forward.register_fake
def _(x: Tensor, codes: Tensor, *options: Any) -> Tensor:
    dtype = (options[2] if len(options) > 2 else None) or NAMES[x.dtype]
    return x.new_empty((*x.shape[:-1], codes.shape[0]), dtype=DTYPES[dtype])
