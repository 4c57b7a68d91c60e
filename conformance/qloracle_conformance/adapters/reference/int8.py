"""Absmax INT8 of the reference on host arrays."""

from collections.abc import Callable
from typing import Any

import numpy as np

from qloracle.int8 import QuantizedInt8, dequantize_int8, quantize_int8
from qloracle.int8_product import int8_matmul, scale_int8_matmul
from qloracle.rounding import encode
from qloracle_conformance.arrays import HostArray, host


def _quantize_int8(x: HostArray, *, granularity: str, block_size: int | None) -> tuple[HostArray, HostArray]:
    quantized = quantize_int8(x.items, granularity=granularity, block_size=block_size, fmt=x.dtype)
    return host(quantized.codes), host(quantized.absmax)


def _dequantize_int8(
    codes: HostArray, absmax: HostArray, *, granularity: str, block_size: int | None, dtype: str
) -> HostArray:
    return host(
        np.asarray(dequantize_int8(QuantizedInt8(codes.items, absmax.items, granularity, block_size, dtype))), dtype
    )


def _int8_matmul(a: HostArray, b: HostArray) -> HostArray:
    return host(int8_matmul(a.items, b.items))


def _scale_int8_matmul(
    acc: HostArray, row_absmax: HostArray, column_absmax: HostArray, bias: HostArray | None, *, dtype: str
) -> HostArray:
    shift = None if bias is None else bias.single()
    return host(
        np.asarray(encode(scale_int8_matmul(acc.items, row_absmax.items, column_absmax.items, shift), dtype)), dtype
    )


OPS: dict[str, Callable[..., Any]] = {
    "quantize_int8": _quantize_int8,
    "dequantize_int8": _dequantize_int8,
    "int8_matmul": _int8_matmul,
    "scale_int8_matmul": _scale_int8_matmul,
}
