"""Double quantization: the absmax of the blocks, quantized themselves.

Clauses: ``[double_quant.offset]``, ``[double_quant.quantize]``, ``[double_quant.dequantize]``.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from qloracle.codebooks import Codebook
from qloracle.errors import reject_type, reject_value
from qloracle_gpu.torch.blocks import block_absmax, require_block_values
from qloracle_gpu.torch.blockwise import (
    QuantizedBlocks,
    StoredCodes,
    dequantize_blockwise,
    nearest_block_codes,
    quantize_blockwise,
    write_values,
)
from qloracle_gpu.torch.codebooks import codebook_named, device_codebook
from qloracle_gpu.torch.exact_mean import mean_offset
from qloracle_gpu.torch.formats import require_dtype

NESTED_BLOCK_SIZE = 256
NESTED_CODEBOOK = "dynamic_signed"


@dataclass(frozen=True)
class QuantizedAbsmax:
    """The absmax of a tensor's blocks as 8-bit codes."""

    codes: Tensor  # uint8, one a block
    absmax: Tensor  # float32, one for each nested group of 256 blocks
    offset: Tensor  # float32, 0-d: mean of the absmax, subtracted before and added after


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


def quantize_absmax(
    absmax: Tensor, *, codebook: str | Codebook = NESTED_CODEBOOK, offset: Tensor | None = None
) -> QuantizedAbsmax:
    """Quantize the absmax of blocks: subtract their mean, then quantize blockwise, 256 to a nested group.

    residual_i = fl32(absmax_i − offset); codes and nested absmax as for any tensor.

    Parameters
    ----------
    absmax : tensor of float32, 1-d
        Poisoned blocks hold NaN; they are left out of the mean and poison their nested group, no more.
    codebook : str or Codebook
    offset : tensor of float32, 0-d, optional
        Use this offset instead of the mean.

    Returns
    -------
    QuantizedAbsmax

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If `absmax` is not a 1-d float32 tensor, `offset` not a 0-d one, or the codebook is unknown.

    Notes
    -----
    Clauses ``[double_quant.offset]``, ``[double_quant.quantize]``. Rounding points, in order: the mean; each residual.

    Examples
    --------
    >>> q = quantize_absmax(torch.tensor([1.0, 2.0, 3.0]))
    >>> q.offset, q.absmax, q.codes
    (tensor(2.), tensor([1.]), tensor([  0, 127, 255], dtype=torch.uint8))
    """
    values = require_dtype("absmax", absmax, torch.float32)
    if values.ndim != 1:
        reject_type("absmax", "a 1-d float32 tensor", f"{values.ndim}-d")
    table = codebook_named(codebook)
    offset = mean_offset(values) if offset is None else _require_offset(offset)
    residual = values - offset
    nested = block_absmax(residual, NESTED_BLOCK_SIZE)
    return QuantizedAbsmax(nearest_block_codes(residual, nested, table, NESTED_BLOCK_SIZE), nested, offset)


def dequantize_absmax(quantized: QuantizedAbsmax, *, codebook: str | Codebook = NESTED_CODEBOOK) -> Tensor:
    """Restore the absmax of blocks.

    absmax_i = fl32(fl32(entries[code_i] · nested_absmax) + offset); never clamped, even below zero.

    Parameters
    ----------
    quantized : QuantizedAbsmax
    codebook : str or Codebook

    Returns
    -------
    tensor of float32, 1-d

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If codes and nested absmax do not belong together.

    Notes
    -----
    Clause ``[double_quant.dequantize]``. Rounding points, in order: the product; the sum.

    Examples
    --------
    >>> dequantize_absmax(quantize_absmax(torch.tensor([1.0, 2.0, 3.0])))
    tensor([1.0070, 2.0000, 3.0000])
    """
    table = codebook_named(codebook)
    codes = require_dtype("codes", quantized.codes, torch.uint8)
    if codes.ndim != 1:
        reject_value("codes", "1-d", f"{codes.ndim}-d")
    if table.code_bits == 4 and codes.numel() and int(codes.max()) > 15:
        reject_value("codes", "codes from 0 to 15", int(codes.max()))
    nested = require_block_values("absmax", quantized.absmax, codes.numel(), NESTED_BLOCK_SIZE)
    offset = _require_offset(quantized.offset)
    product = torch.empty(codes.shape, dtype=torch.float32, device=codes.device)
    stored = StoredCodes(codes, device_codebook(table, codes.device).entries, pairs=None)
    write_values(stored, nested, NESTED_BLOCK_SIZE, product)
    return product.add_(offset)


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
    absmax = dequantize_absmax(q.absmax, codebook=q.nested_codebook)
    plain = QuantizedBlocks(q.data, absmax, q.codebook, q.block_size, q.shape, q.dtype)
    return dequantize_blockwise(plain, dtype=dtype)


def _require_offset(offset: Tensor) -> Tensor:
    values = require_dtype("offset", offset, torch.float32)
    if values.ndim != 0:
        reject_type("offset", "a 0-d float32 tensor", f"{values.ndim}-d")
    return values
