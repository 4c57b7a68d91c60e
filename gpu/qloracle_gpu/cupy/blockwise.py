"""Blockwise quantization with a codebook, and its inverse.

Clauses: ``[blockwise.quantize]``, ``[blockwise.dequantize]``, ``[blockwise.shape]``.
"""

from dataclasses import dataclass
from math import prod

import numpy as np

from qloracle.codebooks import Codebook
from qloracle.errors import reject_value, require_one_of, require_positive_integer, require_record
from qloracle.formats import TENSOR_FORMATS, Format, format_named
from qloracle.tables import codebook_named
from qloracle_gpu.cupy.arrays import carrier, flat_items, flat_words, require_dtype, require_tensor
from qloracle_gpu.cupy.blocks import absmax_of_blocks, block_count, require_block_values
from qloracle_gpu.cupy.codebooks import entries_of, quantizing_arguments
from qloracle_gpu.cupy.launcher import THREADS, Array, Operation, operation
from qloracle_gpu.cupy.packing import require_packed
from qloracle_gpu.cupy.vectors import ITEMS

FUSED_BLOCK_SIZES = tuple(ITEMS << k for k in range(10))  # 8 to 4096: absmax and codes in one pass over x


@dataclass(frozen=True)
class QuantizedBlocks:
    """A tensor quantized in flat blocks; everything that restoring it needs."""

    data: Array  # uint8: packed bytes of a 4-bit codebook, codes of an 8-bit one; 1-d
    absmax: Array  # float32, one a block
    codebook: str | Codebook  # name in `qloracle.tables.CODEBOOKS`, or a table of one's own
    block_size: int  # elements in a block
    shape: tuple[int, ...]  # of the original
    dtype: str  # format name of the original


def quantize_blockwise(
    x: Array, *, codebook: str | Codebook = "nf4", block_size: int = 64, fmt: str | None = None
) -> QuantizedBlocks:
    """Quantize a tensor in flat blocks: absmax, codes, and for a 4-bit codebook packing.

    code = the entry nearest to the real number x/absmax; at an exact midpoint the lower entry.

    Parameters
    ----------
    x : array of float32, float16 or bfloat16, any shape and strides
    codebook : str or Codebook
        A name in `qloracle.tables.CODEBOOKS`, or a table of one's own.
    block_size : int
        Elements in a block; any positive integer. Powers of two from 8 to 4096 need one pass over `x`, others two.
    fmt : str, optional
        Format of `x` where it is given as bit patterns.

    Returns
    -------
    QuantizedBlocks
        On the device of `x`.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        For another dtype, an unknown codebook, or a block size below 1.

    Notes
    -----
    Clauses ``[blocks.absmax]``, ``[blockwise.quantize]``, ``[packing.nibbles]``, in this order. Rounding points: none.
    A block with any NaN or ±inf is poisoned: its absmax is NaN and its codes are those of zeros.
    """
    table, block_size = codebook_named(codebook), require_positive_integer("block_size", block_size)
    array, named = require_tensor("x", x, fmt)
    with operation("quantize_blockwise", x=array) as run:
        words = flat_words(run, array)
        if block_size in FUSED_BLOCK_SIZES:
            data, absmax = _fused(run, words, named, table, block_size)
        else:
            absmax = absmax_of_blocks(run, words, named, block_size)
            data = codes_given_absmax(run, words, named, absmax, table, block_size)
    return QuantizedBlocks(data, absmax, codebook, block_size, tuple(array.shape), named.name)


def _fused(run: Operation, words: Array, named: Format, table: Codebook, block_size: int) -> tuple[Array, Array]:
    data = run.empty(_stored_bytes(words.size, table.code_bits), "uint8")
    absmax = run.empty(block_count(words.size, block_size), "float32")
    threads = max(THREADS, block_size // ITEMS)
    tables = quantizing_arguments(run, table)
    arguments = (words, np.int64(words.size), np.int32(block_size), *tables, data, absmax)
    kernel = f"quantize_fused_{named.name}"
    run.launch("quantize", kernel, -(-words.size // ITEMS), arguments, block=(threads, 1, 1))
    return data, absmax


def codes_given_absmax(
    run: Operation, words: Array, named: Format, absmax: Array, table: Codebook, block_size: int, *,
    code_bits: int | None = None,
) -> Array:  # fmt: skip
    """Return the codes of 1-d words given the absmax of their blocks: packed, or with `code_bits` 8 one a byte."""
    bits = table.code_bits if code_bits is None else code_bits
    data = run.empty(_stored_bytes(words.size, bits), "uint8")
    *layout, _, numbers, codes, starts = quantizing_arguments(run, table)
    length = np.int64(max(min(block_size, words.size), 1))
    arguments = (words, np.int64(words.size), length, absmax, *layout, np.int32(bits), numbers, codes, starts, data)
    run.launch("quantize", f"quantize_given_{named.name}", -(-words.size // ITEMS), arguments)
    return data


def dequantize_blockwise(quantized: QuantizedBlocks, *, dtype: str | None = None) -> Array:
    """Restore a tensor from its codes and absmax.

    value = RN_dtype(fl32(entries[code] · absmax)); +0 where absmax is 0, NaN where it is NaN.

    Parameters
    ----------
    quantized : QuantizedBlocks
    dtype : {"float32", "float16", "bfloat16"}, optional
        Output format; by default that of the original.

    Returns
    -------
    array of `dtype`, the shape of the original; bfloat16 as uint16 words

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If data, absmax and shape do not belong together, or the format is unknown.

    Notes
    -----
    Clauses ``[packing.nibbles]``, ``[blockwise.dequantize]``, ``[blockwise.shape]``. Rounding points, in order: the
    product to float32; the product to `dtype`.
    """
    table, data, absmax, size = require_blocks(quantized)
    dtype = require_one_of("dtype", quantized.dtype if dtype is None else dtype, TENSOR_FORMATS)
    with operation("dequantize_blockwise", data=data, absmax=absmax) as run:
        values = values_of_codes(run, flat_items(run, data), absmax, table, quantized.block_size, size, dtype)
        return values.reshape(quantized.shape)


def require_blocks(quantized: QuantizedBlocks) -> tuple[Codebook, Array, Array, int]:
    """Return codebook, data, absmax and size of a quantized tensor if they belong together, else raise."""
    require_record("quantized", quantized, QuantizedBlocks)
    table, size = codebook_named(quantized.codebook), prod(quantized.shape)
    absmax = require_block_values("absmax", quantized.absmax, size, quantized.block_size)
    data = require_dtype("data", quantized.data, "uint8")
    if table.code_bits == 4:
        require_packed(data, size)
    elif data.size != size:
        reject_value("data", f"{size} codes for shape {quantized.shape}", data.size)
    return table, data, absmax, size


def values_of_codes(
    run: Operation, data: Array, absmax: Array, table: Codebook, block_size: int, size: int, dtype: str
) -> Array:
    """Return the values of stored codes, 1-d."""
    out = run.empty(size, carrier(format_named(dtype)))
    entries = entries_of(run, table)
    length = np.int64(max(min(block_size, size), 1))
    scales = flat_items(run, absmax)
    arguments = (data, scales, np.int64(size), length, entries, np.int32(table.entries.size), out)
    run.launch("dequantize", f"dequantize_{table.code_bits}bit_{dtype}", -(-size // ITEMS), arguments)
    return out


def _stored_bytes(size: int, code_bits: int) -> int:
    return (size + 1) // 2 if code_bits == 4 else size
