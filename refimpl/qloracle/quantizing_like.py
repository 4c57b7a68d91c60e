"""Quantizing a tensor as another one was quantized, whatever the quantizer. Clause: ``[merge.requantize]``."""

from dataclasses import replace

import numpy as np

from qloracle.affine import QuantizedAffine, coded, dequantize_affine, quantize_affine
from qloracle.blockwise import QuantizedBlocks, dequantize_blockwise, quantize_blockwise
from qloracle.double_quant import DoubleQuantized, dequantize_double, quantize_double, restore_absmax
from qloracle.errors import reject_type, reject_value, require_one_of
from qloracle.formats import Array, tensor_format
from qloracle.groups import by_groups
from qloracle.int8 import QuantizedInt8, dequantize_int8, quantize_int8, quantize_int8_codes, require_int8
from qloracle.nearest import quantize_codes
from qloracle.packing import pack_4bit
from qloracle.qlora import QuantizedWeight
from qloracle.rounding import widen
from qloracle.tables import codebook_named

SCALES = ("fresh", "kept")


def quantize_like(x: Array, like: QuantizedWeight, *, scales: str = "fresh", fmt: str | None = None) -> QuantizedWeight:
    """Quantize a tensor with the quantizer of a record, and with its scales if they are kept.

    Parameters
    ----------
    x : array of float32, float16 or bfloat16, the shape of what `like` holds
    like : QuantizedBlocks, DoubleQuantized, QuantizedInt8 or QuantizedAffine
    scales : {"fresh", "kept"}
    fmt : str, optional
        Format of `x` where it is given as bit patterns.

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
    >>> import numpy as np
    >>> base = quantize_int8(np.array([2, -1], np.float32))
    >>> quantize_like(np.array([4, 1], np.float32), base, scales="kept").codes
    array([127,  64], dtype=int8)
    """
    require_one_of("scales", scales, SCALES)
    tensor_format(x, fmt, "x")
    if x.shape != shape_of(like):
        reject_value("x", f"of shape {shape_of(like)}", x.shape)
    return _fresh(x, like, fmt) if scales == "fresh" else _kept(x, like, fmt)


def shape_of(weight: object) -> tuple[int, ...]:
    """Return the shape of the tensor that a record holds."""
    if isinstance(weight, QuantizedBlocks | DoubleQuantized):
        return tuple(weight.shape)
    if not isinstance(weight, QuantizedInt8 | QuantizedAffine):
        known = "QuantizedBlocks, DoubleQuantized, QuantizedInt8 or QuantizedAffine"
        reject_type("weight", known, type(weight).__name__)
    return tuple(weight.codes.shape)


def dequantized_weight(weight: QuantizedWeight) -> Array:
    """Return the values of a record of a 2-d tensor in the format of the original; bfloat16 as uint16 words."""
    if len(shape_of(weight)) != 2:
        reject_value("weight", "a quantized 2-d tensor", f"shape {shape_of(weight)}")
    match weight:
        case QuantizedBlocks():
            return dequantize_blockwise(weight)
        case DoubleQuantized():
            return dequantize_double(weight)
        case QuantizedInt8():
            return dequantize_int8(weight)
    return dequantize_affine(weight)


def _fresh(x: Array, like: QuantizedWeight, fmt: str | None) -> QuantizedWeight:
    match like:
        case QuantizedBlocks():
            return quantize_blockwise(x, codebook=like.codebook, block_size=like.block_size, fmt=fmt)
        case DoubleQuantized():
            return quantize_double(
                x,
                codebook=like.codebook,
                block_size=like.block_size,
                nested_codebook=like.nested_codebook,
                fmt=fmt,
            )
        case QuantizedInt8():
            return quantize_int8(x, granularity=like.granularity, block_size=like.block_size, fmt=fmt)
    return quantize_affine(
        x, qmin=like.qmin, qmax=like.qmax, granularity=like.granularity, group_size=like.group_size, fmt=fmt
    )


def _kept(x: Array, like: QuantizedWeight, fmt: str | None) -> QuantizedWeight:
    wide, name = widen(x, fmt, "x"), tensor_format(x, fmt, "x").name
    match like:
        case QuantizedInt8():
            require_int8(like)
            how = (like.granularity, like.block_size)
            codes = by_groups(quantize_int8_codes, np.dtype(np.int8), wide, (like.absmax,), *how)
            return replace(like, codes=codes, dtype=name)
        case QuantizedAffine():
            settings = (like.qmin, like.qmax, like.granularity, like.group_size, name)
            return coded(wide, like.scale, like.zero_point, settings)
    plain = restore_absmax(like) if isinstance(like, DoubleQuantized) else like
    table = codebook_named(plain.codebook)
    codes = quantize_codes(wide, plain.absmax, table, plain.block_size)
    data = pack_4bit(codes, table.zero_code) if table.code_bits == 4 else codes
    return replace(like, data=data, shape=x.shape, dtype=name)
