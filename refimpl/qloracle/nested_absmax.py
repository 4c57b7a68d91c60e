"""The absmax of blocks, quantized themselves.

Clauses: ``[double_quant.offset]`` (in `mean_offset`), ``[double_quant.quantize]``, ``[double_quant.dequantize]``.
Source: Dettmers et al. 2023, "QLoRA", section 3, "Double Quantization".
"""

from dataclasses import dataclass

import numpy as np

from qloracle.blocks import block_absmax, require_float32
from qloracle.blockwise import dequantize_codes, require_block_values
from qloracle.codebooks import Codebook
from qloracle.errors import reject_type, reject_value, require_dtype, require_record
from qloracle.formats import FLOAT32, Array
from qloracle.mean_offset import mean_offset
from qloracle.nearest import quantize_codes
from qloracle.records import require_fields
from qloracle.tables import codebook_named

NESTED_BLOCK_SIZE = 256
NESTED_CODEBOOK = "dynamic_signed"


@dataclass(frozen=True)
class QuantizedAbsmax:
    """The absmax of a tensor's blocks as codes, one a byte whatever their width."""

    codes: Array  # uint8, one a block
    absmax: Array  # float32, one for each nested group of 256 blocks
    offset: np.float32  # mean of the absmax, subtracted before and added after

    def __post_init__(self) -> None:
        """Refuse fields of other types."""
        require_fields(self)


def quantize_absmax(
    absmax: Array, *, codebook: str | Codebook = NESTED_CODEBOOK, offset: np.float32 | None = None
) -> QuantizedAbsmax:
    """Quantize the absmax of blocks: subtract their mean, then quantize blockwise, 256 to a nested group.

    residual_i = fl32(absmax_i − offset); codes and nested absmax as for any tensor.

    Parameters
    ----------
    absmax : array of float32, 1-d
        Poisoned blocks hold NaN; they are left out of the mean and poison their nested group, no more.
    codebook : str or Codebook
        A name in `tables.CODEBOOKS`, or a table of one's own. Residuals have both signs: an unsigned map loses half.
    offset : float32, optional
        Use this offset instead of the mean (to judge what follows given somebody else's offset).

    Returns
    -------
    QuantizedAbsmax

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If `absmax` is not a 1-d float32 array, `offset` is not one float32 number, or the codebook is unknown.

    Notes
    -----
    Clauses ``[double_quant.offset]``, ``[double_quant.quantize]``. Rounding points, in order: the mean; each
    residual. The cost at block 64 is 8/64 + 32/(64·256) bits a weight instead of 32/64: 4.127 instead of 4.5 in all
    (`footprint.stored_bytes`).

    Examples
    --------
    >>> q = quantize_absmax(np.array([1, 2, 3], np.float32))
    >>> q.offset, q.absmax, q.codes
    (np.float32(2.0), array([1.], dtype=float32), array([  0, 127, 255], dtype=uint8))
    >>> quantize_absmax(np.array([1, 2, 3], np.float32), codebook="nf4").codes
    array([ 0,  7, 15], dtype=uint8)
    """
    table, numbers = codebook_named(codebook), require_float32("absmax", absmax)
    if numbers.ndim != 1:
        reject_type("absmax", "a 1-d float32 array", f"{numbers.ndim}-d")
    shift = mean_offset(numbers) if offset is None else require_offset(offset)
    residual = residuals(numbers, shift)
    nested = block_absmax(residual, NESTED_BLOCK_SIZE)
    codes = quantize_codes(residual, nested, table, NESTED_BLOCK_SIZE)
    return QuantizedAbsmax(codes, nested, shift)


def residuals(absmax: Array, offset: np.float32) -> Array:
    """Return fl32(absmax_i − offset)."""
    with np.errstate(invalid="ignore", over="ignore"):
        difference: Array = absmax - offset
    return difference


def require_offset(offset: object) -> np.float32:
    """Return a 0-d float32 array or scalar as a scalar, or raise `ArgumentTypeError`."""
    number = require_float32("offset", offset)
    if number.ndim:
        reject_type("offset", "one float32 number", f"{number.ndim}-d")
    return np.float32(number)


def dequantize_absmax(quantized: QuantizedAbsmax, *, codebook: str | Codebook = NESTED_CODEBOOK) -> Array:
    """Restore the absmax of blocks.

    absmax_i = fl32(fl32(entries[code_i] · nested_absmax) + offset); never clamped, even below zero.

    Parameters
    ----------
    quantized : QuantizedAbsmax
    codebook : str or Codebook
        The one that the codes belong to.

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
    require_record("quantized", quantized, QuantizedAbsmax)
    table, codes = codebook_named(codebook), quantized.codes
    require_dtype("codes", codes, "uint8")
    if codes.ndim != 1:
        reject_value("codes", "1-d", f"{codes.ndim}-d")
    if codes.size and codes.max() >= table.entries.size:
        reject_value("codes", f"codes from 0 to {table.entries.size - 1}", int(codes.max()))
    nested = require_block_values("absmax", quantized.absmax, codes.size, NESTED_BLOCK_SIZE)
    offset = require_offset(quantized.offset)
    product = dequantize_codes(codes, nested, table, NESTED_BLOCK_SIZE, FLOAT32.name)
    with np.errstate(invalid="ignore", over="ignore"):
        restored: Array = product + offset
    return restored
