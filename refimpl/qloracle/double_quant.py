"""Double quantization: a tensor quantized in blocks, and the absmax of the blocks quantized too (`nested_absmax`).

Source: Dettmers et al. 2023, "QLoRA", section 3, "Double Quantization".
"""

from dataclasses import dataclass

from qloracle.blockwise import QuantizedBlocks, dequantize_blockwise, quantize_blockwise
from qloracle.codebooks import Codebook
from qloracle.errors import require_record
from qloracle.formats import Array
from qloracle.nested_absmax import NESTED_CODEBOOK, QuantizedAbsmax, dequantize_absmax, quantize_absmax
from qloracle.records import require_fields


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

    def __post_init__(self) -> None:
        """Refuse fields of other types."""
        require_fields(self)


def quantize_double(
    x: Array,
    *,
    codebook: str | Codebook = "nf4",
    block_size: int = 64,
    nested_codebook: str | Codebook = NESTED_CODEBOOK,
    fmt: str | None = None,
) -> DoubleQuantized:
    """Quantize a tensor in flat blocks, then its absmax.

    Parameters
    ----------
    x : array of float32, float16 or bfloat16, any shape
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
        As `quantize_blockwise`; for an unknown `nested_codebook`.

    Notes
    -----
    The codes of `x` come from the exact absmax, not from the restored one.

    Examples
    --------
    >>> import numpy as np
    >>> q = quantize_double(np.array([-1, 1, 0.5, 0], np.float32), block_size=2)
    >>> [hex(byte) for byte in q.data], q.absmax.codes, q.absmax.offset
    (['0xf', '0xf7'], array([255,   0], dtype=uint8), np.float32(0.75))
    """
    plain = quantize_blockwise(x, codebook=codebook, block_size=block_size, fmt=fmt)
    nested = quantize_absmax(plain.absmax, codebook=nested_codebook)
    return DoubleQuantized(plain.data, nested, codebook, plain.block_size, plain.shape, plain.dtype, nested_codebook)


def restore_absmax(quantized: DoubleQuantized) -> QuantizedBlocks:
    """Return the same tensor with its absmax restored to float32."""
    require_record("quantized", quantized, DoubleQuantized)
    absmax = dequantize_absmax(quantized.absmax, codebook=quantized.nested_codebook)
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

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        As `dequantize_absmax` and `dequantize_blockwise`.

    Notes
    -----
    Clauses ``[double_quant.dequantize]``, ``[blockwise.dequantize]``. Rounding points, in order: those of the absmax;
    those of the values. A block of zeros gives the entry nearest to 0 times its restored absmax, which is mostly not 0:
    for an entry 0 a zero of the sign of that absmax, −0 where it is negative, and for a codebook without 0 no zero at
    all. What is stored does not tell such a block from others (`blockwise.dequantize_codes`).

    Examples
    --------
    >>> import numpy as np
    >>> dequantize_double(quantize_double(np.array([-1, 1, 0.5, 0], np.float32), block_size=2))
    array([-1.       ,  1.       ,  0.5017578,  0.       ], dtype=float32)
    """
    return dequantize_blockwise(restore_absmax(quantized), dtype=dtype)
