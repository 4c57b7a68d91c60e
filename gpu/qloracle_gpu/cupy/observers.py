"""Observers: the range of values that a quantizer is to cover. Clause: ``[observers.minmax]``."""

from math import prod

import numpy as np

from qloracle.formats import Format
from qloracle_gpu.cupy.arrays import flat_words, require_tensor
from qloracle_gpu.cupy.blocks import LARGEST_PART, ROWS_OF_PART, block_count, team_of
from qloracle_gpu.cupy.groups import group_runs, group_shape
from qloracle_gpu.cupy.launcher import Array, Operation, operation
from qloracle_gpu.cupy.operands import zeros

GRANULARITIES = ("tensor", "row", "column", "group")


def minmax_range(
    x: Array, *, granularity: str = "tensor", group_size: int | None = None, fmt: str | None = None
) -> tuple[Array, Array]:
    """Return the smallest and the largest value of every group.

    Parameters
    ----------
    x : array of float32, float16 or bfloat16, any strides
    granularity : {"tensor", "row", "column", "group"}
        See `quantize_affine`.
    group_size : int, optional
        For "group" only.
    fmt : str, optional
        Format of `x` where it is given as bit patterns.

    Returns
    -------
    lo, hi : arrays of float32
        One number a group. Both NaN where the group holds a NaN or an infinity, both 0 for an empty group; a zero is
        +0.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        For another dtype, or a granularity that does not go with the shape or the group size.

    Notes
    -----
    Clause ``[observers.minmax]``. Rounding points: none.
    """
    array, named = require_tensor("x", x, fmt)
    group_shape(array.shape, granularity, group_size, GRANULARITIES)
    with operation("minmax_range", x=array) as run:
        return range_of_groups(run, flat_words(run, array), named, array.shape, granularity, group_size)


def range_of_groups(
    run: Operation, words: Array, named: Format, shape: tuple[int, ...], granularity: str, group_size: int | None
) -> tuple[Array, Array]:
    """Return both ends of the range of every group of a tensor of 1-d words."""
    found = group_shape(shape, granularity, group_size, GRANULARITIES)
    if words.size == 0:
        return zeros(run, found), zeros(run, found)
    length, column = group_runs(shape, granularity, group_size)
    ends = _of_columns(run, words, named, length) if column else _of_blocks(run, words, named, length)
    return ends[0].reshape(found), ends[1].reshape(found)


def _of_blocks(run: Operation, words: Array, named: Format, length: int) -> tuple[Array, Array]:
    """Return the ranges of runs of `length` elements; of long ones in several stages."""
    size, name, ends = words.size, named.name, (words, words)
    while True:
        parts, part = block_count(length, LARGEST_PART), min(length, LARGEST_PART)
        count, team = block_count(size, length) * parts, team_of(part)
        out = run.empty(count, "float32"), run.empty(count, "float32")
        arguments = (*ends, *map(np.int64, (size, length, part, parts)), np.int32(team), *out)
        run.launch("observe", f"range_of_parts_{name}", count * team, arguments)
        if parts == 1:
            return out
        size, length, name, ends = count, parts, "float32", out


def _of_columns(run: Operation, words: Array, named: Format, columns: int) -> tuple[Array, Array]:
    """Return the ranges of the columns of a matrix; of many rows in several stages."""
    rows, name, ends = words.size // columns, named.name, (words, words)
    while True:
        runs = block_count(rows, ROWS_OF_PART)
        out = run.empty(runs * columns, "float32"), run.empty(runs * columns, "float32")
        arguments = (*ends, *map(np.int64, (rows, columns, ROWS_OF_PART)), *out)
        run.launch("observe", f"range_of_columns_{name}", prod((runs, columns)), arguments)
        if runs == 1:
            return out
        rows, name, ends = runs, "float32", out
