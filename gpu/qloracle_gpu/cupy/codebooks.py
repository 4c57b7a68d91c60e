"""The codebooks of the specification as the kernels read them; their tables stand in `qloracle.tables`.

Quantizing starts in a *cell* of the quotients: the high bits of a float32 word. A cell knows how many boundaries lie
certainly below all its numbers; from there the kernel looks at one boundary after another, of which a cell has few.
"""

from dataclasses import dataclass
from fractions import Fraction
from functools import cache

import numpy as np

from qloracle.codebooks import Codebook
from qloracle_gpu.cupy.launcher import Array, Operation

Host = np.ndarray[tuple[int, ...], np.dtype[np.generic]]
RELATIVE_MARGIN = 2.0**-20  # see the proof in nearest.cuh
ABSOLUTE_MARGIN = 2.0**-124
MOST_CELLS = 2048  # on either side of zero
FINEST = 6  # bits of the mantissa field that tell cells apart
MANTISSA_BITS = 23


@dataclass(frozen=True)
class Cells:
    """How quotients are cut into cells by the magnitudes of their float32 words."""

    first_word: int  # the shifted magnitude of the first cell, which takes all smaller ones too
    shift: int
    count: int  # on either side of zero


@dataclass(frozen=True)
class HostTables:
    """What quantizing with a codebook reads."""

    numbers: Host  # float32: below every boundary, above it, and the entries in ascending order; as many of each
    codes: Host  # uint8, of these entries
    starts: Host  # uint8, for each cell
    layout: tuple[np.int32, ...]  # the numbers of `CodebookTables` in nearest.cuh


def entries_of(run: Operation, codebook: Codebook) -> Array:
    """Return the entries in code order on the device."""
    return run.resident((codebook, "entries"), lambda: np.array(codebook.entries))


def quantizing_arguments(run: Operation, codebook: Codebook) -> tuple[object, ...]:
    """Return the arguments that every quantizing kernel takes for its codebook."""
    tables = host_tables(codebook)
    numbers = run.resident((codebook, "numbers"), lambda: tables.numbers)
    codes = run.resident((codebook, "codes"), lambda: tables.codes)
    return (*tables.layout, numbers, codes, run.resident((codebook, "starts"), lambda: tables.starts))


@cache
def host_tables(codebook: Codebook) -> HostTables:
    """Return the tables of a codebook, made once."""
    lower, upper = margins(codebook)
    cells = cells_of(lower, upper)
    values = codebook.entries[codebook.value_order]
    layout = (len(values), cells.count, cells.first_word, cells.shift, codebook.zero_code, codebook.code_bits)
    numbers = np.concatenate([_filled(lower), _filled(upper), values])
    codes = np.array(codebook.value_order)
    return HostTables(numbers, codes, cell_starts(cells, upper), tuple(np.int32(number) for number in layout))


def margins(codebook: Codebook) -> tuple[Host, Host]:
    """Return the float32 numbers beside every boundary, below and above, between which the guess does not decide."""
    values = codebook.entries[codebook.value_order]
    lower, upper = [], []
    for low, high in zip(values[:-1].tolist(), values[1:].tolist(), strict=True):
        middle = float((Fraction(low) + Fraction(high)) / 2)
        margin = max(abs(middle) * RELATIVE_MARGIN, ABSOLUTE_MARGIN)
        with np.errstate(over="ignore"):  # entries of a table of one's own may be near the end of float32
            lower.append(np.nextafter(np.float32(middle - margin), np.float32(-np.inf)))
            upper.append(np.nextafter(np.float32(middle + margin), np.float32(np.inf)))
    return np.array(lower, np.float32), np.array(upper, np.float32)


def cells_of(lower: Host, upper: Host) -> Cells:
    """Return cells that begin at the smallest magnitude beside a boundary and end at 1, as fine as the table allows."""
    ends = np.abs(np.concatenate([lower, upper])).astype(np.float32)
    smallest = ends[ends > ABSOLUTE_MARGIN * 4].min(initial=np.float32(1))
    last = int(np.float32(1).view(np.uint32))
    for bits in range(FINEST, -1, -1):
        shift = MANTISSA_BITS - bits
        first = int(smallest.view(np.uint32)) >> shift
        count = (last >> shift) - first + 1
        if count <= MOST_CELLS:
            return Cells(first, shift, max(count, 1))
    raise AssertionError("254 binades fit")


def cell_starts(cells: Cells, upper: Host) -> Host:
    """Return for every cell, those above zero first, how many boundaries lie certainly below all its quotients."""
    words = (np.arange(cells.count, dtype=np.uint32) + np.uint32(cells.first_word)) << np.uint32(cells.shift)
    low = words.view(np.float32).copy()
    high = (words + np.uint32((1 << cells.shift) - 1)).view(np.float32).copy()
    low[0], high[-1] = 0, np.inf  # the first cell takes all that is smaller, the last one all that is larger
    above = np.searchsorted(upper, low, side="left")
    below = np.searchsorted(upper, -high, side="left")
    return np.concatenate([above, below]).astype(np.uint8)


def _filled(boundaries: Host) -> Host:
    """Return the boundaries, one more behind them: there is an entry more than there are boundaries."""
    return np.append(boundaries, np.float32(np.inf)).astype(np.float32)
