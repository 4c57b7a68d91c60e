"""Shares of failing elements by lane, nibble, row, column, block and tail, from the counts of a report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from qloracle.formats import Array
from qloracle_conformance.places import LANES, MOST_BINS, WINDOW, bin_of

_NARROWEST, _WIDEST = 16, 128  # columns of the map of single elements
_USUAL = 64


@dataclass(frozen=True)
class Shares:
    """How much of each part of an output fails."""

    title: str
    labels: Sequence[str]
    failing: Sequence[int]
    members: Sequence[int]

    @property
    def parts(self) -> list[float]:
        """The failing part of each, 0 to 1; 0 where there is no element."""
        return [f / m if m else 0.0 for f, m in zip(self.failing, self.members, strict=True)]


def shares_of(places: Mapping[str, Any]) -> list[Shares]:
    """Return the shares of every division that the output has."""
    size, row, block = places["size"], places["row_length"], places["block_size"]
    found = [
        _divided("lane: element mod 32", places["lanes"], LANES, size),
        _divided("nibble: element mod 2", places["nibbles"], 2, size, ("even (high)", "odd (low)")),
    ]
    if row:
        found.append(_runs("row", places["rows"], size, row))
        columns = np.bincount(bin_of(np.arange(row), row), minlength=min(row, MOST_BINS)) * (size // row)
        found.append(Shares(f"column, of {row:,}", _bins(row), places["columns"], columns.tolist()))
    if block:
        found.append(_runs("block", places["blocks"], size, block))
    tails = [(width, failing) for width, failing in places["tails"] if size % width]
    if tails:
        members = [size % width for width, _ in tails]
        labels = [str(width) for width, _ in tails]
        found.append(
            Shares("tail: what a multiple of … leaves over", labels, [failing for _, failing in tails], members)
        )
    return found


def _divided(title: str, failing: Sequence[int], by: int, size: int, labels: Sequence[str] = ()) -> Shares:
    members = [size // by + (i < size % by) for i in range(by)]
    return Shares(title, labels or [str(i) for i in range(by)], failing, members)


def _runs(name: str, failing: Sequence[int], size: int, length: int) -> Shares:
    """Return the shares of consecutive runs of elements, the last of which may be short."""
    count = -(-size // length)
    lengths = np.full(count, length)
    lengths[-1] = size - (count - 1) * length
    members = np.bincount(bin_of(np.arange(count), count), weights=lengths, minlength=min(count, MOST_BINS))
    return Shares(f"{name}, of {count:,}", _bins(count), failing, members.astype(np.int64).tolist())


def _bins(count: int) -> list[str]:
    """Return the number of the first row, column or block of each bin."""
    firsts = np.unique(bin_of(np.arange(count), count), return_index=True)[1]
    return [str(first) for first in firsts.tolist()]


@dataclass(frozen=True)
class Map:
    """Single elements in rows: which of them fail."""

    start: int  # the first element
    width: int
    wrong: Array  # bool, flat


def map_of(places: Mapping[str, Any]) -> Map:
    """Return the elements that a report keeps one by one, in rows of the output's own, or a block's, length."""
    start, size = places["start"], places["size"]
    bits = np.unpackbits(np.frombuffer(bytes.fromhex(places["window"]), np.uint8))
    wrong = bits[: min(WINDOW, size - start)].astype(np.bool_)
    unit = places["row_length"] or places["block_size"]
    if _NARROWEST <= unit <= _WIDEST:
        width = unit
    else:
        width = unit * -(-2 * _NARROWEST // unit) if 0 < unit < _NARROWEST else _USUAL
    return Map(start, width, wrong)
