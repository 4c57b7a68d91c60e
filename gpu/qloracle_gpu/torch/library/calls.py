"""What functions of this package do under a compiler: the same by their operators.

Their names, arguments and results are those of the functions, so the docstrings stand there. As there, results have no
gradient history: arguments are detached.
"""

from typing import Any

import torch
from torch import Tensor

from qloracle.codebooks import Codebook
from qloracle_gpu.torch.blockwise import QuantizedBlocks
from qloracle_gpu.torch.double_quant import DoubleQuantized
from qloracle_gpu.torch.formats import NAMES, require_tensor, require_tensor_format
from qloracle_gpu.torch.int8 import QuantizedInt8
from qloracle_gpu.torch.library.affine_calls import (
    affine_parameters,
    dequantize_affine,
    fake_quantize,
    fake_quantize_backward,
    minmax_range,
    moving_range,
    percentile_range,
    quantize_affine,
    quantize_symmetric,
    symmetric_scale,
)
from qloracle_gpu.torch.library.codebook_text import codebook_text
from qloracle_gpu.torch.library.layer_calls import (
    dora_backward,
    dora_forward,
    embedding_lora_backward,
    embedding_lora_forward,
    int8_linear_forward,
    llm_int8_backward,
    llm_int8_forward,
    lora_backward,
    lora_forward,
    qdora_backward,
    qdora_forward,
    qlora_backward,
    qlora_forward,
    quantized_matmul,
    weight_only_backward,
    weight_only_forward,
)
from qloracle_gpu.torch.nested_absmax import NESTED_CODEBOOK, QuantizedAbsmax

__all__ = [
    "affine_parameters",
    "block_absmax",
    "decode",
    "dequantize_absmax",
    "dequantize_affine",
    "dequantize_blockwise",
    "dequantize_double",
    "dequantize_int8",
    "dora_backward",
    "dora_forward",
    "embedding_lora_backward",
    "embedding_lora_forward",
    "encode",
    "fake_quantize",
    "fake_quantize_backward",
    "int8_linear_forward",
    "int8_matmul",
    "llm_int8_backward",
    "llm_int8_forward",
    "lora_backward",
    "lora_forward",
    "minmax_range",
    "moving_range",
    "pack_4bit",
    "percentile_range",
    "qdora_backward",
    "qdora_forward",
    "qlora_backward",
    "qlora_forward",
    "quantize_absmax",
    "quantize_affine",
    "quantize_blockwise",
    "quantize_double",
    "quantize_int8",
    "quantize_symmetric",
    "quantized_matmul",
    "scale_int8_matmul",
    "symmetric_scale",
    "unpack_4bit",
    "weight_only_backward",
    "weight_only_forward",
]

OPERATORS = torch.ops.qloracle
Table = str | Codebook


def decode(bits: Tensor) -> Tensor:
    """See `qloracle_gpu.torch.decode`."""
    return _tensor(OPERATORS.decode(require_tensor("bits", bits)))


def encode(values: Tensor, fmt: str, **options: Any) -> Tensor:
    """See `qloracle_gpu.torch.encode`."""
    return _tensor(OPERATORS.encode(require_tensor("values", values), fmt, **options))


def pack_4bit(codes: Tensor, pad_code: int = 0) -> Tensor:
    """See `qloracle_gpu.torch.pack_4bit`."""
    return _tensor(OPERATORS.pack_4bit(codes, pad_code))


def unpack_4bit(packed: Tensor, size: int) -> Tensor:
    """See `qloracle_gpu.torch.unpack_4bit`."""
    return _tensor(OPERATORS.unpack_4bit(packed, size))


def block_absmax(x: Tensor, block_size: int) -> Tensor:
    """See `qloracle_gpu.torch.block_absmax`."""
    return _tensor(OPERATORS.block_absmax(require_tensor_format("x", x), block_size))


def quantize_blockwise(x: Tensor, *, codebook: Table = "nf4", block_size: int = 64) -> QuantizedBlocks:
    """See `qloracle_gpu.torch.quantize_blockwise`."""
    values = require_tensor_format("x", x)
    data, absmax = OPERATORS.quantize_blockwise(values, codebook_text(codebook), block_size)
    return QuantizedBlocks(data, absmax, codebook, block_size, tuple(values.shape), NAMES[values.dtype])


def dequantize_blockwise(quantized: QuantizedBlocks, *, dtype: str | None = None) -> Tensor:
    """See `qloracle_gpu.torch.dequantize_blockwise`."""
    q = quantized
    settings = (codebook_text(q.codebook), q.block_size, q.shape, q.dtype if dtype is None else dtype)
    return _tensor(OPERATORS.dequantize_blockwise(q.data, q.absmax, *settings))


def quantize_absmax(
    absmax: Tensor, *, codebook: Table = NESTED_CODEBOOK, offset: Tensor | None = None
) -> QuantizedAbsmax:
    """See `qloracle_gpu.torch.quantize_absmax`."""
    values = require_tensor("absmax", absmax)
    return QuantizedAbsmax(*OPERATORS.quantize_absmax(values, codebook_text(codebook), offset))


def dequantize_absmax(quantized: QuantizedAbsmax, *, codebook: Table = NESTED_CODEBOOK) -> Tensor:
    """See `qloracle_gpu.torch.dequantize_absmax`."""
    q = quantized
    return _tensor(OPERATORS.dequantize_absmax(q.codes, q.absmax, q.offset, codebook_text(codebook)))


def quantize_double(
    x: Tensor, *, codebook: Table = "nf4", block_size: int = 64, nested_codebook: Table = NESTED_CODEBOOK
) -> DoubleQuantized:
    """See `qloracle_gpu.torch.quantize_double`."""
    values, texts = require_tensor_format("x", x), (codebook_text(codebook), codebook_text(nested_codebook))
    data, codes, absmax, offset = OPERATORS.quantize_double(values, texts[0], block_size, texts[1])
    settings = (codebook, block_size, tuple(values.shape), NAMES[values.dtype], nested_codebook)
    return DoubleQuantized(data, QuantizedAbsmax(codes, absmax, offset), *settings)


def dequantize_double(quantized: DoubleQuantized, *, dtype: str | None = None) -> Tensor:
    """See `qloracle_gpu.torch.dequantize_double`."""
    q, nested = quantized, quantized.absmax
    settings = (codebook_text(q.codebook), q.block_size, q.shape, q.dtype if dtype is None else dtype)
    tensors = (q.data, nested.codes, nested.absmax, nested.offset)
    return _tensor(OPERATORS.dequantize_double(*tensors, *settings, codebook_text(q.nested_codebook)))


def quantize_int8(x: Tensor, *, granularity: str = "tensor", block_size: int | None = None) -> QuantizedInt8:
    """See `qloracle_gpu.torch.quantize_int8`."""
    values = require_tensor_format("x", x)
    codes, absmax = OPERATORS.quantize_int8(values, granularity, block_size)
    return QuantizedInt8(codes, absmax, granularity, block_size, NAMES[values.dtype])


def dequantize_int8(quantized: QuantizedInt8, *, dtype: str | None = None) -> Tensor:
    """See `qloracle_gpu.torch.dequantize_int8`."""
    q = quantized
    settings = (q.granularity, q.block_size, q.dtype if dtype is None else dtype)
    return _tensor(OPERATORS.dequantize_int8(q.codes, q.absmax, *settings))


def int8_matmul(a: Tensor, b: Tensor) -> Tensor:
    """See `qloracle_gpu.torch.int8_matmul`."""
    return _tensor(OPERATORS.int8_matmul(a, b))


def scale_int8_matmul(
    acc: Tensor, row_absmax: Tensor, column_absmax: Tensor, bias: Tensor | None = None, *, out_dtype: str = "float32"
) -> Tensor:
    """See `qloracle_gpu.torch.scale_int8_matmul`."""
    scales = (row_absmax.detach(), column_absmax.detach(), None if bias is None else bias.detach())
    return _tensor(OPERATORS.scale_int8_matmul(acc, *scales, out_dtype))


def _tensor(found: Any) -> Tensor:
    """Return the result of an operator, whose type torch does not tell."""
    result: Tensor = found
    return result
