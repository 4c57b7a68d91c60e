"""Blockwise quantization of the reference on host arrays."""

from collections.abc import Callable
from typing import Any

import numpy as np

from qloracle.blocks import block_absmax
from qloracle.blockwise import QuantizedBlocks, dequantize_blockwise, quantize_blockwise
from qloracle_conformance.arrays import HostArray, host


def _block_absmax(x: HostArray, *, block_size: int) -> HostArray:
    return host(block_absmax(x.items, block_size, fmt=x.dtype))


def _quantize_blockwise(x: HostArray, *, codebook: str, block_size: int) -> tuple[HostArray, HostArray]:
    quantized = quantize_blockwise(x.items, codebook=codebook, block_size=block_size, fmt=x.dtype)
    return host(quantized.data), host(quantized.absmax)


def _dequantize_blockwise(
    data: HostArray, absmax: HostArray, *, codebook: str, block_size: int, shape: tuple[int, ...], dtype: str
) -> HostArray:
    quantized = QuantizedBlocks(data.items, absmax.items, codebook, block_size, shape, dtype)
    return host(np.asarray(dequantize_blockwise(quantized)), dtype)


OPS: dict[str, Callable[..., Any]] = {
    "block_absmax": _block_absmax,
    "quantize_blockwise": _quantize_blockwise,
    "dequantize_blockwise": _dequantize_blockwise,
}
