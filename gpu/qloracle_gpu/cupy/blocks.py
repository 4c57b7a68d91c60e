"""Flat blocks, rows and columns, and their absmax. Clauses: ``[blocks.absmax]``, ``[int8.absmax]``."""

import numpy as np

from qloracle.errors import reject_value, require_positive_integer
from qloracle.formats import Format
from qloracle_gpu.cupy.arrays import flat_words, require_dtype, require_tensor
from qloracle_gpu.cupy.launcher import Array, Operation, operation
from qloracle_gpu.cupy.vectors import ITEMS, LANES

LARGEST_PART = 4096  # elements that one team of lanes reads
ROWS_OF_PART = 256  # rows that one thread reads of a column


def block_count(size: int, block_size: int) -> int:
    """Return ⌈size / block_size⌉."""
    return -(-size // block_size)


def block_absmax(x: Array, block_size: int, *, fmt: str | None = None) -> Array:
    """Return the largest magnitude of every flat block.

    absmax_b = max |x_i| over the block's own elements; NaN if any of them is NaN or infinite (the block is poisoned).

    Parameters
    ----------
    x : array of float32, float16 or bfloat16, any shape and strides
        Blocks run over its row-major order.
    block_size : int
        Elements in a block; the last one may be short.
    fmt : str, optional
        Format of `x` where it is given as bit patterns.

    Returns
    -------
    array of float32, shape (⌈x.size / block_size⌉,)
        Non-negative, or NaN.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If the format is not one of the three, or `block_size` is no positive integer.

    Notes
    -----
    Clause ``[blocks.absmax]``. Rounding points: none.
    """
    block_size = require_positive_integer("block_size", block_size)
    array, named = require_tensor("x", x, fmt)
    with operation("block_absmax", x=array) as run:
        return absmax_of_blocks(run, flat_words(run, array), named, block_size)


def absmax_of_blocks(run: Operation, words: Array, named: Format, block_size: int) -> Array:
    """Return the absmax of the flat blocks of 1-d words; long blocks in several stages."""
    size, name = words.size, named.name
    block_size = max(min(block_size, size), 1)
    while True:
        parts = block_count(block_size, LARGEST_PART)
        part = min(block_size, LARGEST_PART)
        count = block_count(size, block_size) * parts
        out = run.empty(count, "float32")
        team = team_of(part)
        arguments = (words, *map(np.int64, (size, block_size, part, parts)), np.int32(team), np.int32(parts == 1), out)
        run.launch("blocks", f"absmax_of_parts_{name}", count * team, arguments)
        if parts == 1:
            return out
        words, size, block_size, name = out, count, parts, "float32"


def absmax_of_columns(run: Operation, words: Array, named: Format, rows: int, columns: int) -> Array:
    """Return the absmax of the columns of a matrix of 1-d words; 0 for columns without rows."""
    if rows == 0:
        zeros = run.empty(columns, "float32")
        zeros[...] = 0
        return zeros
    name = named.name
    while True:
        runs = block_count(rows, ROWS_OF_PART)
        out = run.empty(runs * columns, "float32")
        arguments = (words, *map(np.int64, (rows, columns, ROWS_OF_PART)), np.int32(runs == 1), out)
        run.launch("blocks", f"absmax_of_columns_{name}", runs * columns, arguments)
        if runs == 1:
            return out
        words, rows, name = out, runs, "float32"


def team_of(part: int) -> int:
    """Return how many lanes read a part of a block: a power of two."""
    return min(LANES, 1 << max(0, block_count(part, ITEMS) - 1).bit_length())


def require_block_values(argument: str, per_block: object, size: int, block_size: int) -> Array:
    """Return `per_block` if it is float32 and has one value for each block of `size` elements, else raise."""
    values = require_dtype(argument, per_block, "float32")
    expected = block_count(size, require_positive_integer("block_size", block_size))
    if values.shape != (expected,):
        reject_value(argument, f"of shape ({expected},), one value a block", values.shape)
    return values
