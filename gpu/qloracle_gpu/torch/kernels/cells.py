"""A table that guesses the code of a float32 quotient, and says when the guess may be wrong.

The quotient's magnitude is cut into cells by the leading bits of its pattern, so that cells are fine where a codebook
crowds around zero. Each cell, widened on both sides by `MARGIN` of its ends, meets at most one midpoint: the guess is
one comparison with that, and it may be wrong only within `MARGIN` of it. A kernel's quotient is x·fl32(1/absmax), two
roundings away from the real one, a relative error below 2^−22 as long as nothing overflows or underflows; a midpoint
stands in the table as the nearest float32, off by 2^−24. Both together are below `MARGIN`.
"""

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from qloracle.codebooks import Codebook
from qloracle.errors import reject_value

MARGIN = 2.0**-21
NO_MIDPOINT = 2.0  # no quotient comes near it
_MOST_BITS = 12  # of the significand, for one cell


@dataclass(frozen=True)
class CellTable:
    """What a kernel reads to find a code."""

    cells: Tensor  # int64: the midpoint of each cell as float32 bits, above them how many midpoints lie below the cell
    midpoints: Tensor  # float64, ascending, for the few that are decided exactly; then one that nothing exceeds
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
    with torch.device("cpu"):
        midpoints = torch.tensor(codebook.midpoints, dtype=torch.float64)
        order = torch.tensor(codebook.value_order).to(torch.uint8)
        nonzero = midpoints[midpoints != 0].abs()
        lowest = float(nonzero.min()) / 4 if nonzero.numel() else 0.25
        for shift in range(22, 22 - _MOST_BITS, -1):
            first = _pattern(lowest) >> shift
            count = (_pattern(1.0) >> shift) - first + 1
            cells = _cells(midpoints, shift, first, count)
            if cells is not None:
                break
        else:
            reject_value("codebook", f"a table whose midpoints differ in their first {_MOST_BITS} bits", codebook.name)
        ordered = torch.equal(order, torch.arange(len(order), dtype=torch.uint8))
    exact = torch.cat([midpoints, torch.tensor([NO_MIDPOINT], dtype=torch.float64)])
    return CellTable(cells.to(device), exact.to(device), order.to(device), shift, first, count, ordered)


def _pattern(value: float) -> int:
    """Return the bits of a number that is rounded to float32."""
    return int(torch.tensor(value, dtype=torch.float32).view(torch.int32))


def _cells(midpoints: Tensor, shift: int, first: int, count: int) -> Tensor | None:
    """Return the cells of both signs, or None if one of them meets two midpoints."""
    numbers = torch.arange(first, first + count + 1, dtype=torch.int32)
    edges = (numbers << shift).view(torch.float32).to(torch.float64)
    low, high = edges[:-1].clone(), edges[1:].clone()
    low[0], high[-1] = 0.0, 2.0  # the lowest cell begins at zero, the highest takes what is rounded beyond one
    low, high = low * (1 - MARGIN), high * (1 + MARGIN)
    padded = torch.cat([midpoints, torch.tensor([NO_MIDPOINT], dtype=torch.float64)])
    signs = []
    for start, stop in ((low, high), (-high, -low)):
        below = torch.searchsorted(midpoints, start, right=False)
        met = torch.searchsorted(midpoints, stop, right=True) - below
        if int(met.max()) > 1:
            return None
        boundary = torch.where(met == 1, padded[below], NO_MIDPOINT).to(torch.float32)
        bits = boundary.view(torch.int32).to(torch.int64) & 0xFFFFFFFF
        signs.append(below << 32 | bits)
    return torch.cat(signs)
