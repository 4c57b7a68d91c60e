"""Blockwise quantization with a codebook, and its inverse.

Clauses: ``[blockwise.quantize]`` (the codes: `nearest`), ``[blockwise.dequantize]``, ``[blockwise.shape]``.
"""

from dataclasses import dataclass
from math import prod

import numpy as np

from qloracle.blocks import block_absmax, block_count, rectangles, require_float32, require_tensor
from qloracle.codebooks import Codebook
from qloracle.errors import reject_value, require_dtype, require_one_of, require_positive_integer, require_record
from qloracle.formats import FLOAT32, TENSOR_FORMATS, Array, format_named
from qloracle.nearest import quantize_codes
from qloracle.packing import pack_4bit, unpack_4bit
from qloracle.records import require_fields
from qloracle.rounding import round_to
from qloracle.tables import codebook_named


@dataclass(frozen=True)
class QuantizedBlocks:
    """A tensor quantized in flat blocks; everything that restoring it needs."""

    data: Array  # uint8: packed bytes of a 4-bit codebook, codes of an 8-bit one; 1-d
    absmax: Array  # float32, one a block
    codebook: str | Codebook  # name in `tables.CODEBOOKS`, or a table of one's own
    block_size: int  # elements in a block
    shape: tuple[int, ...]  # of the original
    dtype: str  # format name of the original

    def __post_init__(self) -> None:
        """Refuse fields of other types."""
        require_fields(self)


def dequantize_codes(codes: Array, absmax: Array, codebook: Codebook, block_size: int, dtype: str) -> Array:
    """Return the value of every code.

    value = RN_dtype(fl32(entries[code] · absmax)); +0 where absmax is 0, NaN where it is NaN.

    Parameters
    ----------
    codes : array of uint8, shape (n,)
    absmax : array of float32, one for each block
        May be negative after double quantization; then a code of zero gives −0, like every product.
    codebook : Codebook
    block_size : int
    dtype : {"float32", "float16", "bfloat16"}

    Returns
    -------
    array of `dtype`, shape (n,); bfloat16 as uint16 words

    Notes
    -----
    Clause ``[blockwise.dequantize]``. Rounding points, in order: the product to float32; the product to `dtype`.

    A block of zeros has absmax 0, and +0 is what such a block gives, whatever its codes. The rule reads the absmax that
    it is given and nothing else: a block of zeros whose absmax went through double quantization comes back with the
    absmax that was restored, mostly not 0, and gives entry times absmax. With the code of an entry 0 that is a zero of
    the sign of the absmax. Telling such a block apart would need a bit that the state does not hold.

    Examples
    --------
    >>> from qloracle.nf4 import NF4
    >>> dequantize_codes(np.array([0, 7, 15, 15], np.uint8), np.array([-2, 0], np.float32), NF4, 3, "float32")
    array([ 2., -0., -2.,  0.], dtype=float32)
    """
    target = format_named(dtype)
    values = np.empty(codes.size, target.carrier)
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        for elements, blocks in rectangles(codes.size, block_size):
            scale = absmax[blocks]
            product = codebook.entries[codes[elements]].reshape(len(scale), -1) * scale[:, np.newaxis]
            product[scale == 0] = 0
            # The product is a float32 number: rounding it to float32 would change nothing.
            values[elements] = (product if target is FLOAT32 else round_to(product, dtype)).reshape(-1)
    return values


def quantize_blockwise(
    x: Array, *, codebook: str | Codebook = "nf4", block_size: int = 64, fmt: str | None = None
) -> QuantizedBlocks:
    """Quantize a tensor in flat blocks: absmax, codes, and for a 4-bit codebook packing.

    Parameters
    ----------
    x : array of float32, float16 or bfloat16, any shape
    codebook : str or Codebook
        A name in `tables.CODEBOOKS`, or a table of one's own.
    block_size : int
        Elements in a block; any positive integer.
    fmt : str, optional
        Format of `x` where it is given as bit patterns.

    Returns
    -------
    QuantizedBlocks

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        For another dtype, an unknown codebook, or a block size below 1.

    Notes
    -----
    Clauses ``[blocks.absmax]``, ``[blockwise.quantize]``, ``[packing.nibbles]``, in this order. A block with any NaN
    or ±inf is poisoned: its absmax is NaN and its codes are those of zeros; no other block is touched.

    References
    ----------
    Dettmers et al. 2023, "QLoRA", section 3 and equation 1.

    Examples
    --------
    >>> q = quantize_blockwise(np.array([-1, 1, 0.5, 0], np.float32))
    >>> [hex(byte) for byte in q.data], q.absmax
    (['0xf', '0xc7'], array([1.], dtype=float32))
    """
    table, block_size = codebook_named(codebook), require_positive_integer("block_size", block_size)
    name = require_tensor(x, fmt, "x")
    flat = x.reshape(-1)
    absmax = block_absmax(flat, block_size, fmt=fmt)
    codes = quantize_codes(flat, absmax, table, block_size, fmt=fmt)
    data = pack_4bit(codes, table.zero_code) if table.code_bits == 4 else codes
    return QuantizedBlocks(data, absmax, codebook, block_size, x.shape, name)


def dequantize_blockwise(quantized: QuantizedBlocks, *, dtype: str | None = None) -> Array:
    """Restore a tensor from its codes and absmax.

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
    Clauses ``[packing.nibbles]``, ``[blockwise.dequantize]``, ``[blockwise.shape]``: shape and format of the original
    are part of the state and are restored exactly; a 1-d tensor stays 1-d. Rounding points, in order: those of
    `dequantize_codes`.

    Examples
    --------
    >>> dequantize_blockwise(quantize_blockwise(np.array([-1, 1, 0.5, 0], np.float32)))
    array([-1.        ,  1.        ,  0.44070983,  0.        ], dtype=float32)
    """
    require_record("quantized", quantized, QuantizedBlocks)
    table = codebook_named(quantized.codebook)
    dtype = quantized.dtype if dtype is None else dtype
    require_one_of("dtype", dtype, TENSOR_FORMATS)
    size = prod(quantized.shape)
    absmax = require_block_values("absmax", quantized.absmax, size, quantized.block_size)
    require_dtype("data", quantized.data, "uint8")
    codes = unpack_4bit(quantized.data, size) if table.code_bits == 4 else quantized.data.reshape(-1)
    if codes.size != size:
        reject_value("data", f"{size} codes for shape {quantized.shape}", codes.size)
    values = dequantize_codes(codes, absmax, table, quantized.block_size, dtype)
    return values.reshape(quantized.shape)


def require_block_values(argument: str, per_block: Array, size: int, block_size: int) -> Array:
    """Return `per_block` if it is float32 and has one value for each block of `size` elements, else raise."""
    values = require_float32(argument, per_block)
    expected = block_count(size, require_positive_integer("block_size", block_size))
    if values.shape != (expected,):
        reject_value(argument, f"of shape ({expected},), one value a block", values.shape)
    return values
