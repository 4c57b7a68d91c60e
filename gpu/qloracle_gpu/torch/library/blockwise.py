"""Operators of blocks: absmax, codes of a codebook, and absmax that are quantized themselves.

Their rules are those of the functions of the same name in `qloracle_gpu.torch`.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from qloracle_gpu.torch import blocks, double_quant, nested_absmax
from qloracle_gpu.torch import blockwise as rules
from qloracle_gpu.torch.blocks import block_count
from qloracle_gpu.torch.codebooks import codebook_named
from qloracle_gpu.torch.compiling import eager
from qloracle_gpu.torch.formats import DTYPES
from qloracle_gpu.torch.library.codebook_text import codebook_of
from qloracle_gpu.torch.library.registering import operator
from qloracle_gpu.torch.nested_absmax import QuantizedAbsmax


@operator
def block_absmax(x: Tensor, block_size: int) -> Tensor:
    """Return the absmax of every block."""
    return eager(blocks.block_absmax)(x, block_size)


@block_absmax.register_fake
def _(x: Tensor, block_size: int) -> Tensor:
    return x.new_empty(block_count(x.numel(), block_size), dtype=torch.float32)


@operator
def quantize_blockwise(x: Tensor, codebook: str = "nf4", block_size: int = 64) -> tuple[Tensor, Tensor]:
    """Return stored codes and absmax."""
    q = eager(rules.quantize_blockwise)(x, codebook=codebook_of(codebook), block_size=block_size)
    return q.data, q.absmax


@quantize_blockwise.register_fake
def _(x: Tensor, codebook: str = "nf4", block_size: int = 64) -> tuple[Tensor, Tensor]:
    absmax = x.new_empty(block_count(x.numel(), block_size), dtype=torch.float32)
    return x.new_empty(_stored_bytes(x.numel(), codebook), dtype=torch.uint8), absmax


@operator
def dequantize_blockwise(
    data: Tensor, absmax: Tensor, codebook: str, block_size: int, shape: Sequence[int], dtype: str
) -> Tensor:
    """Return the values of stored codes."""
    q = rules.QuantizedBlocks(data, absmax, codebook_of(codebook), block_size, tuple(shape), dtype)
    return eager(rules.dequantize_blockwise)(q)


@dequantize_blockwise.register_fake
def _(data: Tensor, _absmax: Tensor, _codebook: str, _size: int, shape: Sequence[int], dtype: str) -> Tensor:
    return data.new_empty(shape, dtype=DTYPES[dtype])


@operator
def quantize_absmax(
    absmax: Tensor, codebook: str = "dynamic_signed", offset: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return codes and nested absmax of the absmax of blocks, and the offset."""
    q = eager(nested_absmax.quantize_absmax)(absmax, codebook=codebook_of(codebook), offset=offset)
    return q.codes, q.absmax, q.offset if offset is None else q.offset.clone()


@quantize_absmax.register_fake
def _(absmax: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor]:
    return _nested(absmax, absmax.numel())


@operator
def dequantize_absmax(codes: Tensor, absmax: Tensor, offset: Tensor, codebook: str = "dynamic_signed") -> Tensor:
    """Return absmax from their codes."""
    q = QuantizedAbsmax(codes, absmax, offset)
    return eager(nested_absmax.dequantize_absmax)(q, codebook=codebook_of(codebook))


@dequantize_absmax.register_fake
def _(codes: Tensor, *_: Any) -> Tensor:
    return codes.new_empty(codes.shape, dtype=torch.float32)


@operator
def quantize_double(
    x: Tensor, codebook: str = "nf4", block_size: int = 64, nested_codebook: str = "dynamic_signed"
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return stored codes, and codes, nested absmax and offset of their absmax."""
    tables = {"codebook": codebook_of(codebook), "nested_codebook": codebook_of(nested_codebook)}
    q = eager(double_quant.quantize_double)(x, block_size=block_size, **tables)
    return q.data, q.absmax.codes, q.absmax.absmax, q.absmax.offset


@quantize_double.register_fake
def _(x: Tensor, codebook: str = "nf4", block_size: int = 64, *_: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    data = x.new_empty(_stored_bytes(x.numel(), codebook), dtype=torch.uint8)
    return data, *_nested(x, block_count(x.numel(), block_size))


@operator
def dequantize_double(
    data: Tensor, absmax_codes: Tensor, nested_absmax: Tensor, offset: Tensor, codebook: str, block_size: int,
    shape: Sequence[int], dtype: str, nested_codebook: str = "dynamic_signed",
) -> Tensor:  # fmt: skip
    """Return the values of stored codes whose absmax are quantized."""
    nested = QuantizedAbsmax(absmax_codes, nested_absmax, offset)
    tables = codebook_of(codebook), codebook_of(nested_codebook)
    q = double_quant.DoubleQuantized(data, nested, tables[0], block_size, tuple(shape), dtype, tables[1])
    return eager(double_quant.dequantize_double)(q)


@dequantize_double.register_fake
def _(data: Tensor, *settings: Any) -> Tensor:
    shape, dtype = settings[5:7]
    return data.new_empty(shape, dtype=DTYPES[dtype])


def _stored_bytes(size: int, codebook: str) -> int:
    """Return how many bytes the codes of a codebook take."""
    return (size + 1) // 2 if codebook_named(codebook_of(codebook)).code_bits == 4 else size


def _nested(like: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return empty codes, nested absmax and offset of the absmax of `count` blocks."""
    groups = block_count(count, nested_absmax.NESTED_BLOCK_SIZE)
    absmax, offset = like.new_empty(groups, dtype=torch.float32), like.new_empty((), dtype=torch.float32)
    return like.new_empty(count, dtype=torch.uint8), absmax, offset
