"""Flat blocks and their absmax.

Blocks run over the row-major order of the tensor, whatever its shape: rows are not block boundaries. The last block
may be short; nothing is padded. Clause: ``[blocks.absmax]``.
"""

from collections.abc import Iterator

import numpy as np

from qloracle.errors import reject_type, require_positive_integer
from qloracle.formats import Array, tensor_format
from qloracle.rounding import widen

CHUNK = 1 << 16  # elements at a time: what is computed in between stays in the cache, whatever the block size


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
    require_tensor(x, fmt, "x")
    flat = x.reshape(-1)
    absmax = np.zeros(block_count(flat.size, block_size), np.float32)
    for elements, blocks in rectangles(flat.size, block_size):
        part = widen(flat[elements], fmt, "x").reshape(blocks.stop - blocks.start, -1)
        # Two extremes instead of the maximum of |x|: one pass less, and np.max and np.min both propagate NaN.
        extreme = np.maximum(np.max(part, axis=1), -np.min(part, axis=1))
        absmax[blocks] = np.maximum(absmax[blocks], extreme)
    absmax[np.isinf(absmax)] = np.nan
    return np.abs(absmax, out=absmax)


def require_tensor(x: Array, fmt: str | None, argument: str) -> str:
    """Return the format of weights or activations, or raise `ArgumentTypeError` if it is not one of the three."""
    return tensor_format(x, fmt, argument).name


def require_float32(argument: str, values: object) -> Array:
    """Return a float32 array or scalar of any byte order as a native array, or raise `ArgumentTypeError`."""
    if not isinstance(values, np.ndarray | np.generic) or values.dtype.newbyteorder("=") != np.float32:
        reject_type(argument, "float32", getattr(values, "dtype", type(values).__name__))
    return np.asarray(values, np.float32)


def rectangles(size: int, block_size: int) -> Iterator[tuple[slice, slice]]:
    """Yield pieces of at most `CHUNK` elements in which every block has as many elements as any other.

    Each is a pair of slices, of elements and of blocks: many whole blocks, the short last one, or a part of a long one.

    Examples
    --------
    >>> [(e.start, e.stop, b.start, b.stop) for e, b in rectangles(7, 3)]
    [(0, 6, 0, 2), (6, 7, 2, 3)]
    """
    block_size = max(min(block_size, size), 1)  # a block larger than the tensor is the whole tensor
    together, whole = CHUNK // block_size, size // block_size
    for first in range(0, whole, together) if together else ():
        last = min(first + together, whole)
        yield slice(first * block_size, last * block_size), slice(first, last)
    for block in range(whole if together else 0, block_count(size, block_size)):
        end = min((block + 1) * block_size, size)
        for start in range(block * block_size, end, CHUNK):
            yield slice(start, min(start + CHUNK, end)), slice(block, block + 1)


def poison(absmax: Array) -> Array:
    """Return absmax with infinity turned to NaN: a block that holds ±inf has no scale."""
    return np.where(np.isinf(absmax), np.float32(np.nan), absmax)


def spread(per_block: Array, size: int, block_size: int) -> Array:
    """Return one value for each of `size` elements from one value for each block."""
    return np.repeat(per_block, min(block_size, size))[:size]
