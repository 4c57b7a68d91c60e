"""Printing arrays: their first elements in a line, and intermediates of one size side by side."""

from collections.abc import Mapping, Sequence

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from qloracle.formats import FORMATS, Array
from qloracle_conformance.arrays import HostArray
from qloracle_conformance.finding import describe_number

_BETWEEN = 2  # spaces before a column
_MOST_SHOWN = 16  # elements of an array in a line


def shown(array: HostArray) -> str:
    """Return the first elements of an array in hex and decimal."""
    reals, words = array.real().reshape(-1)[:_MOST_SHOWN], array.words().reshape(-1)[:_MOST_SHOWN]
    width = 2 * words.dtype.itemsize
    if array.dtype in FORMATS:
        items = [f"0x{int(w):0{width}x} ({float(r):.9g})" for w, r in zip(words, reals, strict=True)]
    else:
        items = [cell(item) for item in array.items.reshape(-1)[:_MOST_SHOWN]]
    more = [f"… {array.items.size - _MOST_SHOWN} more"] if array.items.size > _MOST_SHOWN else []
    return "  ".join(items + more) or "no elements"


def print_intermediates(console: Console, values: Mapping[str, Array], rows: int, element: int = -1) -> None:
    """Print intermediates, those of one size side by side."""
    for columns in by_size(values):
        _print_columns(console, columns, element, rows)


def by_size(values: Mapping[str, Array]) -> list[dict[str, Array]]:
    """Return intermediates in groups of one size, the smallest first."""
    sizes = sorted({np.asarray(v).size for v in values.values()})
    return [{k: np.asarray(v) for k, v in values.items() if np.asarray(v).size == size} for size in sizes]


def cell(value: Array, name: str = "") -> str:
    """Return a number with its bits; words in hex, which have 16 bits and more, or a column called so."""
    item = np.asarray(value)
    if item.dtype.kind == "u" and (item.dtype.itemsize > 1 or name.endswith("word")):
        return f"0x{int(item):0{2 * item.dtype.itemsize}x}"
    return describe_number(item)


def _fitting(texts: Mapping[str, Sequence[str]], room: int) -> list[list[str]]:
    """Return the names of columns in groups that fit side by side; one that is too wide alone stands alone."""
    groups, left = list[list[str]](), 0
    for name, column in texts.items():
        width = _BETWEEN + _width(name, column)
        if not groups or width > left:
            groups.append([])
            left = room
        groups[-1].append(name)
        left -= width
    return groups


def _width(name: str, column: Sequence[str]) -> int:
    return max(map(len, (name, *column)))


def _print_columns(console: Console, values: Mapping[str, Array], element: int, rows: int) -> None:
    """Print intermediates side by side, around the failing element if there are many."""
    flat = {name: v.reshape(-1) for name, v in values.items()}
    size = len(next(iter(flat.values())))
    start = max(0, min(element - rows // 2, size - rows)) if size > rows else 0
    shown = range(start, min(size, start + rows))
    texts = {name: [cell(v[index], name) for index in shown] for name, v in flat.items()}
    for names in _fitting(texts, console.width - len("element") - 1):
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("element", justify="right", min_width=len("element"))
        for name in names:  # in a terminal narrower than one column a number is folded, never cut
            table.add_column(escape(name), overflow="fold", min_width=_width(name, texts[name]))
        for row, index in enumerate(shown):
            mark = "[red]" if index == element else ""
            table.add_row(f"{mark}{index}", *(f"{mark}{texts[name][row]}" for name in names))
        console.print(table)
    if size > rows:
        console.print(f"[dim]elements {start} to {start + rows - 1} of {size}[/]")
