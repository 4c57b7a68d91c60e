"""Double quantization: a tensor in blocks whose absmax are quantized too.

Clauses: ``[double_quant.quantize]``, ``[double_quant.dequantize]``.
"""

from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from qloracle.codebooks import Codebook
from qloracle_gpu.torch.blocks import require_block_count
from qloracle_gpu.torch.blockwise import (
    QuantizedBlocks,
    dequantize_blockwise,
    dequantized_at_once,
    quantize_blockwise,
    require_data,
)
from qloracle_gpu.torch.codebooks import codebook_named
from qloracle_gpu.torch.compiling import compiles_as_operator
from qloracle_gpu.torch.formats import dtype_named, require_device, require_dtype
from qloracle_gpu.torch.kernels.availability import kernels_run_on
from qloracle_gpu.torch.kernels.stored_absmax import NestedAbsmax
from qloracle_gpu.torch.nested_absmax import (
    NESTED_CODEBOOK,
    QuantizedAbsmax,
    dequantize_absmax,
    quantize_absmax,
    stored_absmax,
)


@dataclass(frozen=True)
class DoubleQuantized:
    """A tensor quantized in blocks whose absmax are quantized too."""

    data: Tensor  # uint8, as in QuantizedBlocks
    absmax: QuantizedAbsmax
    codebook: str | Codebook  # of the tensor
    block_size: int
    shape: tuple[int, ...]
    dtype: str
    nested_codebook: str | Codebook = NESTED_CODEBOOK  # of the absmax


@compiles_as_operator
def quantize_double(
    x: Tensor,
    *,
    codebook: str | Codebook = "nf4",
    block_size: int = 64,
    nested_codebook: str | Codebook = NESTED_CODEBOOK,
) -> DoubleQuantized:
    """Quantize a tensor in flat blocks, then its absmax.

    Parameters
    ----------
    x : tensor of float32, float16 or bfloat16, any shape and strides
    codebook : str or Codebook
        The codebook of the tensor.
    block_size : int
    nested_codebook : str or Codebook
        The codebook of the absmax.

    Returns
    -------
    DoubleQuantized

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        As `quantize_blockwise`.

    Notes
    -----
    The codes of `x` come from the exact absmax, not from the restored one.
    """
    plain = quantize_blockwise(x, codebook=codebook, block_size=block_size)
    nested = quantize_absmax(plain.absmax, codebook=nested_codebook)
    return DoubleQuantized(plain.data, nested, codebook, plain.block_size, plain.shape, plain.dtype, nested_codebook)


@compiles_as_operator
def dequantize_double(quantized: DoubleQuantized, *, dtype: str | None = None) -> Tensor:
    """Restore a tensor whose absmax are quantized: first the absmax, then the values.

    Parameters
    ----------
    quantized : DoubleQuantized
    dtype : {"float32", "float16", "bfloat16"}, optional
        Output format; by default that of the original.

    Returns
    -------
    tensor of `dtype`, the shape of the original

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        As `dequantize_absmax` and `dequantize_blockwise`.
    """
    q = quantized
    if kernels_run_on(require_dtype("data", q.data, torch.uint8).device.type):
        table, target = codebook_named(q.codebook), dtype_named(q.dtype if dtype is None else dtype, "dtype")
        data, nested = require_data(q.data, table, q.shape), nested_absmax_of(q)
        require_device("absmax", nested.codes, data.device)
        return dequantized_at_once(data, table, nested, q.block_size, q.shape, target)
    absmax = dequantize_absmax(q.absmax, codebook=q.nested_codebook)
    plain = QuantizedBlocks(q.data, absmax, q.codebook, q.block_size, q.shape, q.dtype)
    return dequantize_blockwise(plain, dtype=dtype)


def nested_absmax_of(quantized: DoubleQuantized) -> NestedAbsmax:
    """Return the absmax of a tensor as a kernel takes them, after checking that they are as many as its blocks."""
    nested = stored_absmax(quantized.absmax, codebook_named(quantized.nested_codebook))
    require_block_count("absmax", nested.codes, prod(quantized.shape), quantized.block_size)
    return nested
