"""Where failing elements lie: the tightest description among the patterns that kernel faults leave."""

import numpy as np

from qloracle.formats import Array


def describe_pattern(wrong: Array, row_length: int = 0, block_size: int = 0) -> str:
    """Describe the positions of failing elements.

    Parameters
    ----------
    wrong : array of bool, any shape
        In row-major order.
    row_length : int
        Length of a row of the output; 0 if there are no rows.
    block_size : int
        Elements in a block; 0 if there are no blocks.

    Returns
    -------
    str
        For example "odd elements: 31 of 32", or "element 5 alone"; "" if nothing fails.
    """
    flat = wrong.reshape(-1)
    failing = np.flatnonzero(flat)
    if not failing.size:
        return ""
    if failing.size == 1:
        return f"element {failing[0]} alone, of {flat.size}"
    if failing.size == flat.size:
        return f"all {flat.size} elements"
    index = np.arange(flat.size)
    for name, members in _candidates(index, flat.size, row_length, block_size, failing):
        inside = int(members.sum())
        if members[failing].all() and inside < flat.size and failing.size * 2 >= inside:
            return f"{name}: {failing.size} of {inside}"
    return f"scattered: {failing.size} of {flat.size}, first {failing[0]}, last {failing[-1]}"


def _candidates(index: Array, size: int, row_length: int, block_size: int, failing: Array) -> list[tuple[str, Array]]:
    """Return named sets of elements, tight ones first."""
    found: list[tuple[str, Array]] = []
    if block_size and size > block_size:
        last = (size - 1) // block_size
        blocks = np.unique(failing // block_size)
        if size % block_size:
            found.append(("the short last block", index // block_size == last))
        if len(blocks) == 1:
            found.append((f"block {blocks[0]}", index // block_size == blocks[0]))
        found.append(("the last block", index // block_size == last))
        places = np.unique(failing % block_size)
        if len(places) == 1:
            found.append((f"element {places[0]} of each block", index % block_size == places[0]))
        found.append((f"blocks {_listed(blocks)}", np.isin(index // block_size, blocks)))
    if row_length and size > row_length:
        rows, columns = np.unique(failing // row_length), np.unique(failing % row_length)
        if len(rows) == 1:
            found.append((f"row {rows[0]}", index // row_length == rows[0]))
        if len(columns) == 1:
            found.append((f"column {columns[0]}", index % row_length == columns[0]))
        found.append(("the last row", index // row_length == (size - 1) // row_length))
        found.append((f"rows {_listed(rows)}", np.isin(index // row_length, rows)))
        found.append((f"columns {_listed(columns)}", np.isin(index % row_length, columns)))
        found.append(("rows from 1 on", index >= row_length))
    for lanes in (32, 16, 8, 4):
        lane = np.unique(failing % lanes)
        if len(lane) == 1 and size > lanes:
            found.append((f"lane {lane[0]} of {lanes}", index % lanes == lane[0]))
    found += [("odd elements (low nibbles)", index % 2 == 1), ("even elements (high nibbles)", index % 2 == 0)]
    found.append((f"elements from {failing[0]} on", index >= failing[0]))
    return found


def _listed(numbers: Array) -> str:
    shown = ", ".join(str(n) for n in numbers[:4])
    return shown if len(numbers) <= 4 else f"{shown} … ({len(numbers)})"
