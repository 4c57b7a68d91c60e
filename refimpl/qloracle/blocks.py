"""Flat blocks and their absmax.

Blocks run over the row-major order of the tensor, whatever its shape: rows are not block boundaries. The last block
may be short; nothing is padded. Clause: ``[blocks.absmax]``.
"""

import numpy as np

from qloracle.errors import require_positive_integer
from qloracle.formats import Array
from qloracle.rounding import widen


def block_count(size: int, block_size: int) -> int:
    """Return ⌈size / block_size⌉."""
    return -(-size // block_size)


def block_absmax(x: Array, block_size: int, *, fmt: str | None = None) -> Array:
    """Return the largest magnitude of every flat block.

    absmax_b = max |x_i| over the block's own elements; NaN if any of them is NaN or infinite (the block is poisoned).

    Parameters
    ----------
    x : array of float32, float16 or bfloat16, any shape
        Empty arrays have no block.
    block_size : int
        Elements in a block.
    fmt : str, optional
        Format of `x` where it is given as bit patterns.

    Returns
    -------
    array of float32, shape (⌈x.size / block_size⌉,)
        Non-negative, or NaN.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If the dtype is not one of the three, or `block_size` is no positive integer.

    Notes
    -----
    Clause ``[blocks.absmax]``. Rounding points: none. Source: Dettmers et al. 2022, "8-bit Optimizers via Block-wise
    Quantization", section 2.1; flat blocks and poisoning are this specification's.

    Examples
    --------
    >>> block_absmax(np.array([1, -3, 2, 0, 5], np.float32), 2)
    array([3., 2., 5.], dtype=float32)
    """
    block_size = require_positive_integer("block_size", block_size)
    flat = widen(x, fmt, "x").reshape(-1)
    block_size = min(block_size, max(flat.size, 1))  # a block larger than the tensor is the whole tensor
    full = flat.size - flat.size % block_size
    absmax = np.empty(block_count(flat.size, block_size), np.float32)
    # Two extremes instead of the maximum of |x|: one pass less, and np.max and np.min both propagate NaN.
    blocks = flat[:full].reshape(-1, block_size)
    absmax[: len(blocks)] = np.maximum(np.max(blocks, axis=1), -np.min(blocks, axis=1))
    if full < flat.size:
        absmax[-1] = np.max(np.abs(flat[full:]))
    return np.abs(poison(absmax))


def poison(absmax: Array) -> Array:
    """Return absmax with infinity turned to NaN: a block that holds ±inf has no scale."""
    return np.where(np.isinf(absmax), np.float32(np.nan), absmax)


def spread(per_block: Array, size: int, block_size: int) -> Array:
    """Return one value for each of `size` elements from one value for each block."""
    return np.repeat(per_block, min(block_size, size))[:size]
