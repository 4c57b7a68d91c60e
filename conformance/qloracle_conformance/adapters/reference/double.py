"""Double quantization of the reference on host arrays."""

from collections.abc import Callable
from typing import Any

import numpy as np

from qloracle.double_quant import DoubleQuantized, dequantize_double, quantize_double
from qloracle.nested_absmax import NESTED_CODEBOOK, QuantizedAbsmax, dequantize_absmax, quantize_absmax
from qloracle_conformance.arrays import HostArray, host


def _quantize_absmax(absmax: HostArray, *, codebook: str = NESTED_CODEBOOK) -> tuple[HostArray, ...]:
    return _nested(quantize_absmax(absmax.items, codebook=codebook))


def _nested(quantized: QuantizedAbsmax) -> tuple[HostArray, ...]:
    return host(quantized.codes), host(quantized.absmax), host(np.asarray(quantized.offset))


def _dequantize_absmax(
    absmax_codes: HostArray, nested_absmax: HostArray, offset: HostArray, *, codebook: str = NESTED_CODEBOOK
) -> HostArray:
    quantized = QuantizedAbsmax(absmax_codes.items, nested_absmax.items, np.float32(offset.items))
    return host(dequantize_absmax(quantized, codebook=codebook))


def _quantize_double(
    x: HostArray, *, codebook: str, block_size: int, nested_codebook: str = NESTED_CODEBOOK
) -> tuple[HostArray, ...]:
    quantized = quantize_double(
        x.items, codebook=codebook, block_size=block_size, nested_codebook=nested_codebook, fmt=x.dtype
    )
    return host(quantized.data), *_nested(quantized.absmax)


def _dequantize_double(
    data: HostArray, absmax_codes: HostArray, nested_absmax: HostArray, offset: HostArray, *,
    codebook: str, block_size: int, shape: tuple[int, ...], dtype: str, nested_codebook: str = NESTED_CODEBOOK,
) -> HostArray:  # fmt: skip
    absmax = QuantizedAbsmax(absmax_codes.items, nested_absmax.items, np.float32(offset.items))
    quantized = DoubleQuantized(data.items, absmax, codebook, block_size, shape, dtype, nested_codebook)
    return host(np.asarray(dequantize_double(quantized)), dtype)


OPS: dict[str, Callable[..., Any]] = {
    "quantize_absmax": _quantize_absmax,
    "dequantize_absmax": _dequantize_absmax,
    "quantize_double": _quantize_double,
    "dequantize_double": _dequantize_double,
}
