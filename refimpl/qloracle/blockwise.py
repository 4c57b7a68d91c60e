"""Blockwise quantization with a codebook, and its inverse.

Clauses: ``[blockwise.quantize]``, ``[blockwise.dequantize]``, ``[blockwise.shape]``.

Lemma (float64 decides exactly). Let x and a > 0 be float32 numbers and m ≠ 0 a midpoint of at most 29 significant
bits. Then x/a > m if and only if RN_float64(x/a) > m. *Proof.* Rounding is monotone and m is a float64 number, so
x/a ≤ m gives RN(x/a) ≤ m. For x/a > m write x = X·2^i, a = A·2^j, m = M·2^k with integers |X|, A < 2^24, |M| < 2^29:
x − a·m is a nonzero multiple of 2^min(i, j+k). If i ≥ j+k, then |x/a − m| / |m| ≥ 2^(j+k) / (A·|M|·2^(j+k)) > 2^−53;
else it is at least 2^i / (|X|·2^i)·|x/a|/|m|, which also exceeds 2^−53. So x/a lies beyond m by more than |m|·2^−53,
at least half a unit in the last place of m, and rounds to a number above m. ∎ For m = 0 the sign of x decides.
"""

from dataclasses import dataclass

import numpy as np

from qloracle.blocks import block_absmax, block_count, spread
from qloracle.codebooks import Codebook
from qloracle.dynamic_map import DYNAMIC_SIGNED
from qloracle.errors import reject_value, require_dtype, require_positive_integer
from qloracle.formats import TENSOR_FORMATS, Array, format_of
from qloracle.nf4 import NF4
from qloracle.packing import pack_4bit, unpack_4bit
from qloracle.rounding import round_to, widen

CODEBOOKS: dict[str, Codebook] = {c.name: c for c in (NF4, DYNAMIC_SIGNED)}
_CHUNK = 1 << 16  # elements at a time: the float64 quotients stay in the cache


@dataclass(frozen=True)
class QuantizedBlocks:
    """A tensor quantized in flat blocks; everything that restoring it needs."""

    data: Array  # uint8: packed bytes of a 4-bit codebook, codes of an 8-bit one; 1-d
    absmax: Array  # float32, one a block
    codebook: str  # name in CODEBOOKS
    block_size: int  # elements in a block
    shape: tuple[int, ...]  # of the original
    dtype: str  # format name of the original


def codebook_named(name: str) -> Codebook:
    """Return the codebook called `name`, or raise `ArgumentValueError` that lists the known names."""
    if name not in CODEBOOKS:
        reject_value("codebook", f"one of {', '.join(CODEBOOKS)}", repr(name))
    return CODEBOOKS[name]


def quantize_codes(x: Array, absmax: Array, codebook: Codebook, block_size: int) -> Array:
    """Return the code of every element, given the absmax of its block.

    code = the entry nearest to the real number x/absmax; at an exact midpoint the lower entry. Where absmax is 0, NaN
    or ±inf, or x is NaN: the code of zero. Beyond the outermost entries the codes saturate.

    Parameters
    ----------
    x : array of float32, any shape
    absmax : array of float32, one for each flat block of `x`
        Any numbers: the rule is total, so that codes can be judged given somebody else's absmax.
    codebook : Codebook
    block_size : int

    Returns
    -------
    array of uint8, shape (x.size,)

    Notes
    -----
    Clause ``[blockwise.quantize]``. Rounding points: none; the float64 quotient decides exactly (lemma above).
    """
    flat, size = x.reshape(-1), x.size
    ranks = np.empty(size, np.uint8)
    step = block_size * max(1, _CHUNK // block_size)
    usable = np.where(np.isfinite(absmax) & (absmax != 0), absmax, np.float32(np.inf)).astype(np.float64)
    with np.errstate(invalid="ignore"):
        for start in range(0, size, step):
            part = flat[start : start + step].astype(np.float64)
            block = start // block_size
            divisors = usable[block : block + block_count(part.size, block_size)]
            quotient = part / spread(divisors, part.size, block_size)
            quotient[np.isnan(quotient)] = 0.0
            ranks[start : start + step] = np.searchsorted(codebook.midpoints, quotient, side="left")
    return codebook.value_order[ranks]


def dequantize_codes(codes: Array, absmax: Array, codebook: Codebook, block_size: int, dtype: str) -> Array:
    """Return the value of every code.

    value = RN_dtype(fl32(entries[code] · absmax)); +0 where absmax is 0, NaN where it is NaN.

    Parameters
    ----------
    codes : array of uint8, shape (n,)
    absmax : array of float32, one for each block; may be negative after double quantization
    codebook : Codebook
    block_size : int
    dtype : {"float32", "float16", "bfloat16"}

    Returns
    -------
    array of `dtype`, shape (n,); bfloat16 as uint16 words

    Notes
    -----
    Clause ``[blockwise.dequantize]``. Rounding points, in order: the product to float32; the product to `dtype`.
    """
    scale = spread(absmax, codes.size, block_size)
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        product = codebook.entries[codes] * scale
    return round_to(np.where(scale == 0, np.float32(0), product), dtype)


def quantize_blockwise(
    x: Array, *, codebook: str = "nf4", block_size: int = 64, fmt: str | None = None
) -> QuantizedBlocks:
    """Quantize a tensor in flat blocks: absmax, codes, and for a 4-bit codebook packing.

    Parameters
    ----------
    x : array of float32, float16 or bfloat16, any shape
    codebook : {"nf4", "dynamic_signed"}
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
    name = format_of(x, fmt, "x").name
    wide = widen(x, fmt, "x")
    absmax = block_absmax(wide, block_size)
    codes = quantize_codes(wide, absmax, table, block_size)
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
    are part of the state and are restored exactly; a 1-d tensor stays 1-d.

    Examples
    --------
    >>> dequantize_blockwise(quantize_blockwise(np.array([-1, 1, 0.5, 0], np.float32)))
    array([-1.        ,  1.        ,  0.44070983,  0.        ], dtype=float32)
    """
    table = codebook_named(quantized.codebook)
    dtype = quantized.dtype if dtype is None else dtype
    if dtype not in TENSOR_FORMATS:
        reject_value("dtype", f"one of {', '.join(TENSOR_FORMATS)}", repr(dtype))
    size = int(np.prod(quantized.shape, dtype=np.int64))
    require_block_values("absmax", quantized.absmax, size, quantized.block_size)
    require_dtype("data", quantized.data, "uint8")
    codes = unpack_4bit(quantized.data, size) if table.code_bits == 4 else quantized.data.reshape(-1)
    if codes.size != size:
        reject_value("data", f"{size} codes for shape {quantized.shape}", codes.size)
    values = dequantize_codes(codes, quantized.absmax, table, quantized.block_size, dtype)
    return values.reshape(quantized.shape)


def require_block_values(argument: str, per_block: Array, size: int, block_size: int) -> None:
    """Raise unless `per_block` is float32 and has one value for each block of `size` elements."""
    require_dtype(argument, per_block, "float32")
    expected = block_count(size, require_positive_integer("block_size", block_size))
    if per_block.shape != (expected,):
        reject_value(argument, f"of shape ({expected},), one value a block", per_block.shape)
