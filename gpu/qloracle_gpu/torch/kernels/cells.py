"""A table that guesses the code of a float32 quotient, and says when the guess may be wrong.

The quotient's magnitude is cut into cells by the leading bits of its pattern, so that cells are fine where a codebook
crowds around zero. Each cell, widened on both sides by `MARGIN` of its ends, meets at most one midpoint: the guess is
one comparison with that, and it may be wrong only within `MARGIN` of it. A kernel's quotient is x·fl32(1/absmax), two
roundings away from the real one, a relative error below 2^−22 as long as nothing overflows or underflows; a midpoint
stands in the table as the nearest float32, off by 2^−24. Both together are below `MARGIN`.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

from qloracle.codebooks import Codebook
from qloracle.errors import reject_value
from qloracle.formats import Array

MARGIN = 2.0**-21
NO_MIDPOINT = 2.0  # no quotient comes near it
_MOST_BITS = 12  # of the significand, for one cell


@dataclass(frozen=True)
class CellTable:
    """What a kernel reads to find a code."""

    cells: Tensor  # int64: the midpoint of each cell as float32 bits, above them how many midpoints lie below the cell
    midpoints: Tensor  # float64, ascending, for the few that are decided exactly
    codes: Tensor  # uint8, by position in ascending order of value
    shift: int  # of the pattern of a magnitude to the number of its cell
    first: int  # number of the lowest cell, which takes all below it too
    count: int  # cells for either sign; those of negative quotients come second
    ordered: bool  # whether codes are positions, so that `codes` need not be read


@cache
def cell_table(codebook: Codebook, device: torch.device) -> CellTable:
    """Return the table of a codebook on a device, made once.

    Raises
    ------
    ArgumentValueError
        If two midpoints are too near each other for a table of modest size.
    """
    midpoints = np.array(codebook.midpoints, np.float64)
    order = np.array(codebook.value_order, np.uint8)
    nonzero = np.abs(midpoints[midpoints != 0])
    lowest = np.float32(nonzero.min() / 4 if nonzero.size else 0.25)
    for shift in range(22, 22 - _MOST_BITS, -1):
        first = int(lowest.view(np.int32)) >> shift
        count = (int(np.float32(1).view(np.int32)) >> shift) - first + 1
        cells = _cells(midpoints, shift, first, count)
        if cells is not None:
            break
    else:
        reject_value("codebook", f"a table whose midpoints differ in their first {_MOST_BITS} bits", codebook.name)
    on_device = [torch.from_numpy(array).to(device) for array in (cells, midpoints, order)]
    ordered = np.array_equal(order, np.arange(len(order)))
    return CellTable(on_device[0], on_device[1], on_device[2], shift, first, count, ordered)


def _cells(midpoints: Array, shift: int, first: int, count: int) -> Array | None:
    """Return the cells of both signs, or None if one of them meets two midpoints."""
    edges = ((np.arange(count + 1, dtype=np.int32) + first) << shift).view(np.float32).astype(np.float64)
    low, high = edges[:-1].copy(), edges[1:].copy()
    low[0], high[-1] = 0.0, 2.0  # the lowest cell begins at zero, the highest takes what is rounded beyond one
    low, high = low * (1 - MARGIN), high * (1 + MARGIN)
    ends = [(low, high), (-high, -low)]
    table = np.empty(2 * count, np.int64)
    for sign, (start, stop) in enumerate(ends):
        below = np.searchsorted(midpoints, start, side="left")
        met = np.searchsorted(midpoints, stop, side="right") - below
        if met.max() > 1:
            return None
        padded = np.append(midpoints, NO_MIDPOINT)
        boundary = np.where(met == 1, padded[below], NO_MIDPOINT).astype(np.float32)
        bits = boundary.view(np.uint32).astype(np.int64)
        table[sign * count : (sign + 1) * count] = below.astype(np.int64) << 32 | bits
    return table
