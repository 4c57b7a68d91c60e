"""How large a call is, and which parts of it are looked at."""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

LIMITS = tuple(1 << k for k in range(12, 37))  # where an index of some width ends: of elements, bytes or bits
GRID = 65535  # blocks that a grid has along its second and third axis
THREADS = (1, 64, 128, 256, 512, 1024)  # elements that a block of threads may take
MARGIN = 3  # blocks looked at on either side of a limit


@dataclass(frozen=True)
class Extent:
    """The size of a call whose inputs repeat a pattern."""

    elements: int
    period: int  # of the pattern, in elements: no power of two, so that a wrapped index meets other numbers
    inputs: Mapping[str, Fraction]  # items of each input for one element
    outputs: tuple[Fraction, ...]
    windows: tuple[tuple[int, int], ...]  # first element and the one after the last


def items(elements: int, share: Fraction) -> int:
    """Return how many items some elements have; a part of an item counts as one."""
    return -(-elements * share.numerator // share.denominator)


def windows_of(elements: int, block: int) -> tuple[tuple[int, int], ...]:
    """Return what is looked at: the first and last blocks, and those around every limit, in order and apart.

    Parameters
    ----------
    elements : int
    block : int
        Windows begin at a multiple of it, and end at one or with the tensor.
    """
    grids = {GRID * threads for threads in (*THREADS, block)}
    marks = sorted({0, elements, *(m for m in (*LIMITS, *grids) if m < elements)})
    found: list[tuple[int, int]] = []
    for mark in marks:
        begin = max(0, (mark // block - MARGIN) * block)
        end = min(elements, (-(-mark // block) + MARGIN) * block)
        if found and begin <= found[-1][1]:
            found[-1] = (found[-1][0], end)
        else:
            found.append((begin, end))
    return tuple(found)
