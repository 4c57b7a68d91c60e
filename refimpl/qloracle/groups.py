"""Groups of elements that share a scale: the whole tensor, rows, columns, or flat groups.

tensor: one group; row: one for every position in all axes but the last; column: one for every position in the last
axis; block or group: flat runs of `size` elements in row-major order, the last one short where they do not fit.
"""

from collections.abc import Callable, Iterator
from math import prod
from typing import Any

import numpy as np

from qloracle.blocks import block_count, rectangles, spread
from qloracle.errors import reject_value, require_one_of, require_positive_integer
from qloracle.formats import Array

FLAT = {"block": "block_size", "group": "group_size"}  # flat granularities, and the argument that holds their size


def group_shape(shape: tuple[int, ...], granularity: str, size: int | None, known: tuple[str, ...]) -> tuple[int, ...]:
    """Return the shape of an array with one number for each group.

    Parameters
    ----------
    shape : tuple of int
        Of the tensor.
    granularity : str
    size : int or None
        Elements in a flat group; None for the other granularities.
    known : tuple of str
        The granularities that the caller knows, the flat one last.

    Returns
    -------
    tuple of int
        (), shape[:-1], shape[-1:] or (⌈elements / size⌉,).

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If the granularity is unknown, or does not go with the shape or the size.

    Examples
    --------
    >>> group_shape((2, 3), "column", None, ("column", "block")), group_shape((2, 3), "block", 4, ("column", "block"))
    ((3,), (2,))
    """
    require_one_of("granularity", granularity, known)
    if granularity in FLAT:
        return (block_count(prod(shape), require_positive_integer(FLAT[granularity], size)),)
    if size is not None:
        reject_value(FLAT[known[-1]], f"None for granularity {granularity!r}", size)
    if granularity != "tensor" and not shape:
        reject_value("granularity", f"'tensor' or '{known[-1]}' for a 0-d array", repr(granularity))
    return {"tensor": (), "row": shape[:-1], "column": shape[-1:]}[granularity]


def group_matrices(x: Array, granularity: str, size: int | None) -> list[Array]:
    """Return the groups of a tensor as the rows of one matrix; of a second one where the last flat group is short."""
    if granularity in FLAT and size is not None:
        flat, size = x.reshape(-1), min(size, max(x.size, 1))
        full = flat.size - flat.size % size
        tail = [flat[np.newaxis, full:]] if full < flat.size else []
        return [flat[:full].reshape(-1, size), *tail]
    if granularity == "tensor":
        return [x.reshape(1, x.size)]
    matrix = x.reshape(prod(x.shape[:-1]), x.shape[-1])
    return [matrix if granularity == "row" else matrix.T]


def reduce_groups(
    x: Array, granularity: str, size: int | None, known: tuple[str, ...], reduce: Callable[[Array], Array]
) -> Array:
    """Return one number for each group; `reduce` takes the groups as the rows of a matrix."""
    shape = group_shape(x.shape, granularity, size, known)
    return np.concatenate([reduce(matrix) for matrix in group_matrices(x, granularity, size)]).reshape(shape)


def spread_groups(per_group: Array, shape: tuple[int, ...], granularity: str, size: int | None) -> Array:
    """Return the number of every element's group, broadcastable to `shape`."""
    if granularity in FLAT and size is not None:
        return spread(per_group, prod(shape), size).reshape(shape)
    return per_group[..., np.newaxis] if granularity == "row" else per_group


def spread_parameters(
    scale: Array, zero_point: Array, shape: tuple[int, ...], granularity: str, size: int | None
) -> tuple[Array, Array]:
    """Return scale and zero point of every element's group, broadcastable to `shape`."""
    return spread_groups(scale, shape, granularity, size), spread_groups(zero_point, shape, granularity, size)


def by_groups(
    function: Callable[..., Array], dtype: np.dtype[Any], x: Array, per_group: tuple[Array, ...], granularity: str,
    size: int | None,
) -> Array:  # fmt: skip
    """Return ``function(x, *spread)`` for a function of elements, computed a cache-sized part at a time.

    Parameters
    ----------
    function : callable
        Takes a part of `x` as a matrix, and of each array in `per_group` what broadcasts to it.
    dtype : dtype
        Of the result.
    x : array
    per_group : tuple of array
        Each of one number a group; spread over `x` they would need as much memory as `x` each.
    granularity, size
        As for `group_shape`.

    Examples
    --------
    >>> x, scales = np.float32([[1, 2, 3], [4, 5, 6]]), np.float32([10, 100])
    >>> by_groups(np.multiply, x.dtype, x, (scales,), "block", 4)
    array([[ 10.,  20.,  30.],
           [ 40., 500., 600.]], dtype=float32)
    """
    flat, numbers = x.reshape(-1), [array.reshape(-1) for array in per_group]
    made = np.empty(flat.size, dtype)
    for elements, groups, rows in _parts(x.shape, granularity, size):
        part = function(flat[elements].reshape(rows, -1), *(array[groups] for array in numbers))
        made[elements] = part.reshape(-1)
    return made.reshape(x.shape)


def _parts(shape: tuple[int, ...], granularity: str, size: int | None) -> Iterator[tuple[slice, Any, int]]:
    """Yield parts of a tensor: flat elements, the index of their groups among all groups, and the part's rows."""
    count = prod(shape)
    width = size if granularity in FLAT and size is not None else count if granularity == "tensor" else shape[-1]
    for elements, lines in rectangles(count, width):
        rows = lines.stop - lines.start
        if granularity == "column":
            first = elements.start % width
            yield elements, (np.newaxis, slice(first, first + (elements.stop - elements.start) // rows)), rows
        else:
            yield elements, (lines, np.newaxis), rows
