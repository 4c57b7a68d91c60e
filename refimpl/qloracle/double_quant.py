"""Double quantization: the absmax of the blocks, quantized themselves.

Clauses: ``[double_quant.offset]``, ``[double_quant.quantize]``, ``[double_quant.dequantize]``.
Source: Dettmers et al. 2023, "QLoRA", section 3, "Double Quantization".
"""

from dataclasses import dataclass

import numpy as np

from qloracle.blocks import block_absmax
from qloracle.blockwise import (
    QuantizedBlocks,
    codebook_named,
    dequantize_blockwise,
    dequantize_codes,
    quantize_blockwise,
    quantize_codes,
    require_block_values,
)
from qloracle.errors import reject_type, reject_value, require_dtype
from qloracle.formats import FLOAT32, Array

NESTED_BLOCK_SIZE = 256
NESTED_CODEBOOK = "dynamic_signed"


@dataclass(frozen=True)
class QuantizedAbsmax:
    """The absmax of a tensor's blocks as 8-bit codes."""

    codes: Array  # uint8, one a block
    absmax: Array  # float32, one for each nested group of 256 blocks
    offset: np.float32  # mean of the absmax, subtracted before and added after


@dataclass(frozen=True)
class DoubleQuantized:
    """A tensor quantized in blocks whose absmax are quantized too."""

    data: Array  # uint8, as in QuantizedBlocks
    absmax: QuantizedAbsmax
    codebook: str
    block_size: int
    shape: tuple[int, ...]
    dtype: str


def mean_offset(absmax: Array) -> np.float32:
    """Return the mean of the absmax, rounded once.

    offset = RN_float32(Σ absmax_i / n), the sum exact, over the blocks that are not poisoned; +0 if there is none.

    Parameters
    ----------
    absmax : array of float32
        Any finite numbers, and NaN for poisoned blocks.

    Returns
    -------
    numpy.float32

    Raises
    ------
    ArgumentTypeError
        If `absmax` is not float32.

    Notes
    -----
    Clause ``[double_quant.offset]``. Rounding points: one. A float64 sum divided by n rounds twice or more: the mean
    of [4, 2^−22, 2^−100, 0] lies just above a tie and is 1 + 2^−23.

    Examples
    --------
    >>> float(mean_offset(np.array([4, 2**-22, 2**-100, 0], np.float32))).hex()
    '0x1.0000020000000p+0'
    """
    require_dtype("absmax", absmax, "float32")
    finite = absmax[np.isfinite(absmax)]
    if not finite.size:
        return np.float32(0)
    return round_ratio(exact_sum(finite), finite.size, -149)


def exact_sum(values: Array) -> int:
    """Return Σ values as an integer multiple of 2^−149, exactly; `values` are finite float32."""
    words = values.view(np.uint32)
    field = ((words >> 23) & 0xFF).astype(np.int64)
    significand = (words & 0x7FFFFF).astype(np.int64) | (np.minimum(field, 1) << 23)
    signed = np.where(words >> 31 != 0, -significand, significand)
    total = 0
    # Within one exponent 2^39 significands of 24 bits fit int64.
    for exponent in np.unique(field).tolist():
        total += int(np.sum(signed[field == exponent], dtype=np.int64)) << (max(exponent, 1) - 1)
    return total


def round_ratio(numerator: int, denominator: int, exponent: int) -> np.float32:
    """Return RN_float32(numerator / denominator · 2^exponent) in a single rounding, for integers.

    The quotient is cut to about 50 bits and its last bit set if anything was cut off (rounding to odd); what remains
    fits float64, and the one rounding left is the cast to float32.
    """
    shift = 50 - (abs(numerator).bit_length() - denominator.bit_length())
    scaled = abs(numerator) << max(shift, 0)
    quotient, remainder = divmod(scaled, denominator << max(-shift, 0))
    odd = float(quotient | (remainder != 0))
    magnitude = np.ldexp(np.float64(odd), exponent - shift)
    return np.float32(-magnitude if numerator < 0 else magnitude)


def quantize_absmax(
    absmax: Array, *, codebook: str = NESTED_CODEBOOK, offset: np.float32 | None = None
) -> QuantizedAbsmax:
    """Quantize the absmax of blocks: subtract their mean, then quantize blockwise, 256 to a nested group.

    residual_i = fl32(absmax_i − offset); codes and nested absmax as for any tensor.

    Parameters
    ----------
    absmax : array of float32, 1-d
        Poisoned blocks hold NaN; they are left out of the mean and poison their nested group, no more.
    codebook : {"dynamic_signed", "nf4"}
    offset : float32, optional
        Use this offset instead of the mean (to judge what follows given somebody else's offset).

    Returns
    -------
    QuantizedAbsmax

    Raises
    ------
    ArgumentTypeError
        If `absmax` is not a 1-d float32 array, or `offset` is not float32.

    Notes
    -----
    Clauses ``[double_quant.offset]``, ``[double_quant.quantize]``. Rounding points, in order: the mean; each
    residual. The cost at block 64 is 8/64 + 32/(64·256) bits a weight instead of 32/64: 4.127 instead of 4.5 in all.

    Examples
    --------
    >>> q = quantize_absmax(np.array([1, 2, 3], np.float32))
    >>> q.offset, q.absmax, q.codes
    (np.float32(2.0), array([1.], dtype=float32), array([  0, 127, 255], dtype=uint8))
    """
    require_dtype("absmax", absmax, "float32")
    if absmax.ndim != 1:
        reject_type("absmax", "a 1-d float32 array", f"{absmax.ndim}-d")
    offset = mean_offset(absmax) if offset is None else offset
    require_dtype("offset", offset, "float32")
    residual = residuals(absmax, offset)
    nested = block_absmax(residual, NESTED_BLOCK_SIZE)
    codes = quantize_codes(residual, nested, codebook_named(codebook), NESTED_BLOCK_SIZE)
    return QuantizedAbsmax(codes, nested, offset)


def residuals(absmax: Array, offset: np.float32) -> Array:
    """Return fl32(absmax_i − offset)."""
    with np.errstate(invalid="ignore", over="ignore"):
        difference: Array = absmax - offset
    return difference


def dequantize_absmax(quantized: QuantizedAbsmax, *, codebook: str = NESTED_CODEBOOK) -> Array:
    """Restore the absmax of blocks.

    absmax_i = fl32(fl32(entries[code_i] · nested_absmax) + offset); never clamped, even below zero.

    Parameters
    ----------
    quantized : QuantizedAbsmax
    codebook : {"dynamic_signed", "nf4"}

    Returns
    -------
    array of float32, 1-d

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If codes and nested absmax do not belong together, or the offset is not float32.

    Notes
    -----
    Clause ``[double_quant.dequantize]``. Rounding points, in order: the product; the sum.

    Examples
    --------
    >>> dequantize_absmax(quantize_absmax(np.array([1, 2, 3], np.float32)))
    array([1.0070312, 2.       , 3.       ], dtype=float32)
    """
    table, codes, nested = codebook_named(codebook), quantized.codes, quantized.absmax
    require_dtype("codes", codes, "uint8")
    if codes.ndim != 1:
        reject_value("codes", "1-d", f"{codes.ndim}-d")
    if codes.size and codes.max() >= table.entries.size:
        reject_value("codes", f"codes from 0 to {table.entries.size - 1}", int(codes.max()))
    require_block_values("absmax", nested, codes.size, NESTED_BLOCK_SIZE)
    require_dtype("offset", quantized.offset, "float32")
    product = dequantize_codes(codes, nested, table, NESTED_BLOCK_SIZE, FLOAT32.name)
    with np.errstate(invalid="ignore", over="ignore"):
        restored: Array = product + quantized.offset
    return restored


def quantize_double(
    x: Array, *, codebook: str = "nf4", block_size: int = 64, fmt: str | None = None
) -> DoubleQuantized:
    """Quantize a tensor in flat blocks, then its absmax.

    Parameters
    ----------
    x : array of float32, float16 or bfloat16, any shape
    codebook : {"nf4", "dynamic_signed"}
        The codebook of the tensor; that of the absmax is always the signed dynamic map.
    block_size : int
    fmt : str, optional
        Format of `x` where it is given as bit patterns.

    Returns
    -------
    DoubleQuantized

    Notes
    -----
    The codes of `x` come from the exact absmax, not from the restored one.
    """
    plain = quantize_blockwise(x, codebook=codebook, block_size=block_size, fmt=fmt)
    return DoubleQuantized(
        plain.data, quantize_absmax(plain.absmax), codebook, plain.block_size, plain.shape, plain.dtype
    )


def restore_absmax(quantized: DoubleQuantized) -> QuantizedBlocks:
    """Return the same tensor with its absmax restored to float32."""
    absmax = dequantize_absmax(quantized.absmax)
    return QuantizedBlocks(
        quantized.data, absmax, quantized.codebook, quantized.block_size, quantized.shape, quantized.dtype
    )


def dequantize_double(quantized: DoubleQuantized, *, dtype: str | None = None) -> Array:
    """Restore a tensor whose absmax are quantized: first the absmax, then the values.

    Parameters
    ----------
    quantized : DoubleQuantized
    dtype : {"float32", "float16", "bfloat16"}, optional
        Output format; by default that of the original.

    Returns
    -------
    array of `dtype`, the shape of the original; bfloat16 as uint16 words
    """
    return dequantize_blockwise(restore_absmax(quantized), dtype=dtype)
