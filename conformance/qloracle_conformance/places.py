"""Where failing elements lie, counted by everything that a kernel's work is divided by."""

from typing import Any

import numpy as np

from qloracle.formats import Array
from qloracle_conformance.patterns import describe_pattern

LANES = 32
MOST_BINS = 64  # of rows, columns and blocks; more are counted together
WIDTHS = (4, 8, 16, 32, 64, 128, 256)  # of vectors, warps and tiles whose remainder is a tail
WINDOW = 2048  # elements that are shown one by one


def places_of(wrong: Array, row_length: int, block_size: int) -> dict[str, Any]:
    """Count failing elements by lane, nibble, row, column, block and tail, and keep a part of them one by one.

    Parameters
    ----------
    wrong : array of bool, any shape
        In row-major order; at least one is True.
    row_length : int
        Length of a row of the output; 0 if there are no rows.
    block_size : int
        Elements in a block; 0 if there are no blocks.
    """
    flat = wrong.reshape(-1)
    size, failing = flat.size, np.flatnonzero(flat)
    row_length = row_length if 0 < row_length < size else 0
    block_size = block_size if 0 < block_size < size else 0
    start = window_start(size, int(failing[0]), row_length or block_size)
    return {
        "size": size,
        "failing": int(failing.size),
        "pattern": describe_pattern(wrong, row_length, block_size),
        "row_length": row_length,
        "block_size": block_size,
        "lanes": np.bincount(failing % LANES, minlength=LANES).tolist(),
        "nibbles": np.bincount(failing % 2, minlength=2).tolist(),
        "rows": _binned(failing // row_length, size // row_length) if row_length else [],
        "columns": _binned(failing % row_length, row_length) if row_length else [],
        "blocks": _binned(failing // block_size, -(-size // block_size)) if block_size else [],
        "tails": [[width, int(np.sum(failing >= size - size % width))] for width in WIDTHS if width < size],
        "start": start,
        "window": np.packbits(flat[start : start + WINDOW]).tobytes().hex(),
    }


def window_start(size: int, first: int, unit: int) -> int:
    """Return where the window begins: at the start, or at that of the row or block (or lane 0) of element `first`."""
    if size <= WINDOW:
        return 0
    width = unit if 0 < unit <= WINDOW // 2 else LANES
    return first // width * width


def bin_of(number: Array, count: int) -> Array:
    """Return the bins of the numbers of rows, columns or blocks, of which there are `count`."""
    bins: Array = number * min(count, MOST_BINS) // count
    return bins


def _binned(numbers: Array, count: int) -> list[int]:
    counts: list[int] = np.bincount(bin_of(numbers, count), minlength=min(count, MOST_BINS)).tolist()
    return counts
