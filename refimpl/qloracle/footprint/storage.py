"""How many bytes a tensor takes under a scheme of storage: codes, scales, offsets and tables.

Clauses: ``[footprint.codes]``, ``[footprint.scales]``, ``[footprint.offsets]``, ``[footprint.tables]``,
``[footprint.bits]``. The schemes stand in `schemes`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import prod

from qloracle.blocks import block_count
from qloracle.errors import require_positive_integer, require_shape
from qloracle.footprint.schemes import Scheme, require_scheme
from qloracle.nested_absmax import NESTED_BLOCK_SIZE

FLOAT32_BYTES = 4


@dataclass(frozen=True)
class TensorBytes:
    """The bytes of one tensor."""

    codes: int  # what stands for the elements
    scales: int  # absmax, scales, and nested absmax
    offsets: int  # zero points, and the offset of double quantization


def group_count(shape: tuple[int, ...], scheme: Scheme) -> int:
    """Return how many groups of a tensor have a scale of their own."""
    size = prod(shape)
    if scheme.group == "block":
        return block_count(size, require_positive_integer("block_size", scheme.block_size))
    by_rows, by_columns = prod(shape[:-1]), prod(shape[-1:])
    return {"none": 0, "tensor": 1, "row": by_rows, "column": by_columns}[scheme.group]


def tensor_bytes(shape: Sequence[int], scheme: str | Scheme) -> TensorBytes:
    """Return the bytes of a tensor under a scheme, its tables left out.

    codes = ⌈n·code_bits/8⌉; scales = 4·G; offsets = zero_point_bytes·G, with n elements in G groups: 1 for a tensor,
    the product of all axes but the last for rows, the last axis for columns, ⌈n/block_size⌉ for flat blocks. Double
    quantization: scales = G + 4·⌈G/256⌉ (8-bit codes and their float32 absmax), offsets = 4.

    Parameters
    ----------
    shape : sequence of int
        Shape of the tensor; () is one element.
    scheme : str or Scheme

    Returns
    -------
    TensorBytes

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If the scheme is unknown, or `shape` is no sequence of integers that are 0 or more.

    Notes
    -----
    Clauses ``[footprint.codes]``, ``[footprint.scales]``, ``[footprint.offsets]``. Every part is counted in whole
    bytes: an odd number of 4-bit codes ends with a padded nibble. Integers only.

    Examples
    --------
    >>> tensor_bytes((3, 43), "nf4")
    TensorBytes(codes=65, scales=12, offsets=0)
    >>> tensor_bytes((4096, 4096), "nf4_double")
    TensorBytes(codes=8388608, scales=266240, offsets=4)
    """
    scheme, shape = require_scheme(scheme), require_shape(shape)
    codes = -(-prod(shape) * scheme.code_bits // 8)
    groups = group_count(shape, scheme)
    if scheme.nested:
        nested = groups + FLOAT32_BYTES * block_count(groups, NESTED_BLOCK_SIZE)
        return TensorBytes(codes, nested, FLOAT32_BYTES)
    return TensorBytes(codes, FLOAT32_BYTES * groups, scheme.zero_point_bytes * groups)


def table_bytes(scheme: str | Scheme) -> int:
    """Return the bytes of the tables that a scheme reads: its codebook, and that of the nested absmax.

    tables = 4·entries, once for the whole model (a variant keeps a copy with every tensor).

    Raises
    ------
    ArgumentValueError
        If the scheme is unknown.

    Notes
    -----
    Clause ``[footprint.tables]``. Integers only.

    Examples
    --------
    >>> table_bytes("nf4"), table_bytes("nf4_double"), table_bytes("int8")
    (64, 1088, 0)
    """
    return FLOAT32_BYTES * require_scheme(scheme).table_entries


def bits_per_weight(scheme: str | Scheme) -> Fraction:
    """Return what an element costs in a tensor so large that partial blocks, tables and single numbers vanish.

    bits = code_bits + (32 + 8·zero_point_bytes)/block_size; with double quantization code_bits + 8/block_size +
    32/(256·block_size).

    Raises
    ------
    ArgumentValueError
        If the scheme is unknown.

    Notes
    -----
    Clause ``[footprint.bits]``. Source: Dettmers et al. 2023, "QLoRA", section 3, "Double Quantization". Rounding
    points: none; the result is a fraction.

    Examples
    --------
    >>> float(bits_per_weight("nf4")), round(float(bits_per_weight("nf4_double")), 3)
    (4.5, 4.127)
    """
    scheme = require_scheme(scheme)
    bits = Fraction(scheme.code_bits)
    if scheme.group != "block":
        return bits
    block_size = require_positive_integer("block_size", scheme.block_size)
    if scheme.nested:
        return bits + Fraction(8, block_size) + Fraction(32, NESTED_BLOCK_SIZE * block_size)
    return bits + Fraction(32 + 8 * scheme.zero_point_bytes, block_size)
