"""Double quantization: the absmax of blocks, quantized themselves.

Clauses: ``[double_quant.offset]``, ``[double_quant.quantize]``, ``[double_quant.dequantize]``.
"""

from dataclasses import dataclass

import numpy as np

from qloracle.codebooks import Codebook
from qloracle.errors import reject_type, reject_value, require_record
from qloracle.formats import FLOAT32
from qloracle.tables import codebook_named
from qloracle_gpu.cupy.arrays import flat_items, require_dtype
from qloracle_gpu.cupy.blocks import absmax_of_blocks, require_block_values
from qloracle_gpu.cupy.blockwise import QuantizedBlocks, codes_given_absmax, dequantize_blockwise, quantize_blockwise
from qloracle_gpu.cupy.codebooks import entries_of
from qloracle_gpu.cupy.launcher import THREADS, Array, Operation, operation

NESTED_BLOCK_SIZE = 256
NESTED_CODEBOOK = "dynamic_signed"
MOST_ADDING_CTAS = 512  # every CTA of the sum ends in 256 additions to memory


@dataclass(frozen=True)
class QuantizedAbsmax:
    """The absmax of a tensor's blocks as codes, one a byte whatever their width."""

    codes: Array  # uint8, one a block
    absmax: Array  # float32, one for each nested group of 256 blocks
    offset: Array  # float32, 0-d: mean of the absmax, subtracted before and added after


@dataclass(frozen=True)
class DoubleQuantized:
    """A tensor quantized in blocks whose absmax are quantized too."""

    data: Array  # uint8, as in QuantizedBlocks
    absmax: QuantizedAbsmax
    codebook: str | Codebook  # of the tensor
    block_size: int
    shape: tuple[int, ...]
    dtype: str
    nested_codebook: str | Codebook = NESTED_CODEBOOK  # of the absmax


def quantize_absmax(
    absmax: Array, *, codebook: str | Codebook = NESTED_CODEBOOK, offset: Array | None = None
) -> QuantizedAbsmax:
    """Quantize the absmax of blocks: subtract their mean, then quantize blockwise, 256 to a nested group.

    residual_i = fl32(absmax_i − offset); codes and nested absmax as for any tensor.

    Parameters
    ----------
    absmax : array of float32, 1-d
        Poisoned blocks hold NaN; they are left out of the mean and poison their nested group, no more.
    codebook : str or Codebook
    offset : array of float32, 0-d, optional
        Use this offset instead of the mean.

    Returns
    -------
    QuantizedAbsmax
        Nothing waits for the device: the mean is finished there.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If `absmax` is not a 1-d float32 array, `offset` not one float32 number, or the codebook is unknown.

    Notes
    -----
    Clauses ``[double_quant.offset]``, ``[double_quant.quantize]``. Rounding points, in order: the mean; each residual.
    """
    table, numbers = codebook_named(codebook), require_dtype("absmax", absmax, "float32")
    if numbers.ndim != 1:
        reject_type("absmax", "a 1-d float32 array", f"{numbers.ndim}-d")
    given = None if offset is None else _require_offset(offset)
    with operation("quantize_absmax", absmax=numbers, offset=given) as run:
        flat = flat_items(run, numbers)
        shift = _mean(run, flat) if given is None else flat_items(run, given)
        residual = run.empty(flat.size, "float32")
        run.launch("mean", "residuals", flat.size, (flat, shift, np.int64(flat.size), residual))
        nested = absmax_of_blocks(run, residual, FLOAT32, NESTED_BLOCK_SIZE)
        codes = codes_given_absmax(run, residual, FLOAT32, nested, table, NESTED_BLOCK_SIZE, code_bits=8)
        return QuantizedAbsmax(codes, nested, shift.reshape(()))


def _mean(run: Operation, absmax: Array) -> Array:
    """Return RN_float32(Σ absmax_i / n), the sum exact, over the blocks that are not poisoned; +0 if there is none."""
    sums, offset = run.empty(256, "int64"), run.empty(1, "float32")
    sums[...] = 0
    threads = min(absmax.size, MOST_ADDING_CTAS * THREADS)
    run.launch("mean", "sum_significands", threads, (absmax, np.int64(absmax.size), sums))
    run.launch("mean", "finish_mean", 1, (sums, offset), block=(1, 1, 1))
    return offset


def dequantize_absmax(quantized: QuantizedAbsmax, *, codebook: str | Codebook = NESTED_CODEBOOK) -> Array:
    """Restore the absmax of blocks.

    absmax_i = fl32(fl32(entries[code_i] · nested_absmax) + offset); never clamped, even below zero.

    Parameters
    ----------
    quantized : QuantizedAbsmax
    codebook : str or Codebook
        The one that the codes belong to. Codes of a 4-bit one are looked at, which waits for the device.

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
    """
    require_record("quantized", quantized, QuantizedAbsmax)
    table, codes = codebook_named(codebook), require_dtype("codes", quantized.codes, "uint8")
    if codes.ndim != 1:
        reject_value("codes", "1-d", f"{codes.ndim}-d")
    nested = require_block_values("absmax", quantized.absmax, codes.size, NESTED_BLOCK_SIZE)
    offset = _require_offset(quantized.offset)
    with operation("dequantize_absmax", codes=codes, nested_absmax=nested, offset=offset) as run:
        if table.code_bits == 4 and codes.size and (largest := int(codes.max())) > 15:
            reject_value("codes", "codes from 0 to 15", largest)
        out = run.empty(codes.size, "float32")
        arguments = (
            flat_items(run, codes), flat_items(run, nested), flat_items(run, offset), np.int64(codes.size),
            np.int64(NESTED_BLOCK_SIZE), entries_of(run, table), out,
        )  # fmt: skip
        run.launch("dequantize", "restore_absmax", codes.size, arguments)
        return out


def quantize_double(
    x: Array, *, codebook: str | Codebook = "nf4", block_size: int = 64,
    nested_codebook: str | Codebook = NESTED_CODEBOOK, fmt: str | None = None,
) -> DoubleQuantized:  # fmt: skip
    """Quantize a tensor in flat blocks, then its absmax.

    Parameters
    ----------
    x : array of float32, float16 or bfloat16, any shape and strides
    codebook : str or Codebook
        The codebook of the tensor.
    block_size : int
    nested_codebook : str or Codebook
        The codebook of the absmax.
    fmt : str, optional
        Format of `x` where it is given as bit patterns.

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
    codebook_named(nested_codebook)
    plain = quantize_blockwise(x, codebook=codebook, block_size=block_size, fmt=fmt)
    nested = quantize_absmax(plain.absmax, codebook=nested_codebook)
    return DoubleQuantized(plain.data, nested, codebook, plain.block_size, plain.shape, plain.dtype, nested_codebook)


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

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        As `dequantize_absmax` and `dequantize_blockwise`.
    """
    require_record("quantized", quantized, DoubleQuantized)
    return dequantize_blockwise(restore_absmax(quantized), dtype=dtype)


def restore_absmax(quantized: DoubleQuantized) -> QuantizedBlocks:
    """Return the tensor with its absmax restored."""
    q = quantized
    absmax = dequantize_absmax(q.absmax, codebook=q.nested_codebook)
    return QuantizedBlocks(q.data, absmax, q.codebook, q.block_size, q.shape, q.dtype)


def _require_offset(offset: object) -> Array:
    number = require_dtype("offset", offset, "float32")
    if number.ndim:
        reject_type("offset", "one float32 number", f"{number.ndim}-d")
    return number
