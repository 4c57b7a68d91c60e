"""Quantizing a tensor as another one was quantized, whatever the quantizer. Clause: ``[merge.requantize]``."""

from dataclasses import replace

import torch
from torch import Tensor

from qloracle.errors import reject_value, require_one_of
from qloracle_gpu.torch.affine import QuantizedAffine, coded, quantize_affine, require_affine
from qloracle_gpu.torch.blocks import block_columns, block_matrices
from qloracle_gpu.torch.blockwise import QuantizedBlocks, nearest_block_codes, quantize_blockwise
from qloracle_gpu.torch.codebooks import codebook_named
from qloracle_gpu.torch.double_quant import DoubleQuantized, quantize_double
from qloracle_gpu.torch.formats import NAMES, require_tensor_format
from qloracle_gpu.torch.int8 import QuantizedInt8, int8_codes, quantize_int8
from qloracle_gpu.torch.nested_absmax import dequantize_absmax
from qloracle_gpu.torch.packing import pack_valid_codes
from qloracle_gpu.torch.qlora import QuantizedWeight, shape_of

SCALES = ("fresh", "kept")


def quantize_like(x: Tensor, like: QuantizedWeight, *, scales: str = "fresh") -> QuantizedWeight:
    """Quantize a tensor with the quantizer of a record, and with its scales if they are kept.

    Parameters
    ----------
    x : tensor of float32, float16 or bfloat16, the shape of what `like` holds
    like : QuantizedBlocks, DoubleQuantized, QuantizedInt8 or QuantizedAffine
    scales : {"fresh", "kept"}

    Returns
    -------
    record of the type of `like`

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If `like` is no such record, the shape differs, `scales` is unknown, or as the quantizer itself.

    Notes
    -----
    Clause ``[merge.requantize]``. With kept scales the codes of doubly quantized blocks are those of the restored
    absmax; with fresh ones, as ever, those of the exact one.

    Examples
    --------
    >>> base = quantize_int8(torch.tensor([2.0, -1.0]))
    >>> quantize_like(torch.tensor([4.0, 1.0]), base, scales="kept").codes
    tensor([127,  64], dtype=torch.int8)
    """
    require_one_of("scales", scales, SCALES)
    values, shape = require_tensor_format("x", x), shape_of(like)
    if tuple(values.shape) != shape:
        reject_value("x", f"of shape {shape}", tuple(values.shape))
    return _fresh(values, like) if scales == "fresh" else _kept(values, like)


def _fresh(x: Tensor, like: QuantizedWeight) -> QuantizedWeight:
    match like:
        case QuantizedBlocks():
            return quantize_blockwise(x, codebook=like.codebook, block_size=like.block_size)
        case DoubleQuantized():
            nested = like.nested_codebook
            return quantize_double(x, codebook=like.codebook, block_size=like.block_size, nested_codebook=nested)
        case QuantizedAffine():
            how = (like.granularity, like.group_size)
            return quantize_affine(x, qmin=like.qmin, qmax=like.qmax, granularity=how[0], group_size=how[1])
    return quantize_int8(x, granularity=like.granularity, block_size=like.block_size)


def _kept(x: Tensor, like: QuantizedWeight) -> QuantizedWeight:
    name = NAMES[x.dtype]
    if isinstance(like, QuantizedInt8):
        wide = x.to(torch.float32)
        if like.block_size is not None:
            limited = _saturated(wide.reshape(-1), like.absmax, like.block_size).view(x.shape)
        else:
            limit = like.absmax.abs()[..., None] if like.granularity == "row" else like.absmax.abs()
            limited = torch.clamp(wide, -limit, limit)
        codes = int8_codes(limited, like.absmax, like.granularity, like.block_size)
        return replace(like, codes=codes, dtype=name)
    if isinstance(like, QuantizedAffine):
        _, scale, zero_point = require_affine(like)
        return coded(x, scale, zero_point, (like.qmin, like.qmax), like.granularity, like.group_size)
    if isinstance(like, DoubleQuantized):
        absmax = dequantize_absmax(like.absmax, codebook=like.nested_codebook)
    else:
        absmax = like.absmax
    table = codebook_named(like.codebook)
    flat = _saturated(x.reshape(-1).to(torch.float32), absmax, like.block_size)
    codes = nearest_block_codes(flat, absmax, table, like.block_size)
    data = pack_valid_codes(codes, table.zero_code) if table.code_bits == 4 else codes
    return replace(like, data=data, shape=tuple(x.shape), dtype=name)


def _saturated(flat: Tensor, absmax: Tensor, block_size: int) -> Tensor:
    """Return a copy clamped to ±|absmax| of each block, beyond which every quotient has the code of ±1."""
    limited = torch.empty_like(flat)
    for values, limit, out in zip(
        block_matrices(flat, block_size),
        block_columns(absmax.abs(), flat.numel(), block_size),
        block_matrices(limited, block_size),
        strict=True,
    ):
        torch.clamp(values, -limit, limit, out=out)
    return limited
