"""The plots of a property: ordinal errors, used parts of a bound, and where failing elements lie."""

from collections.abc import Mapping, Sequence
from math import frexp, log10
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path

from qloracle_conformance.distribution import PARTS
from qloracle_conformance.pages.shares import Map, Shares, map_of, shares_of
from qloracle_conformance.pages.svg import INK, LINE, QUIET, RIGHT, WRONG

_FLOOR = 0.35  # of a logarithmic bar, so that a count of 1 is seen
_SUPERSCRIPT = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
_MOST_TICKS = 17
_PANELS = 3  # side by side


def errors_figure(errors: Mapping[str, int]) -> Figure:
    """Return the histogram of ordinal errors: powers of two, signed, the right ones in the middle, NaN at the end."""
    places = {key: _place(int(key)) for key in errors if key != "nan"}
    right = max(places.values(), default=0)
    if "nan" in errors:
        places["nan"] = right + 2
    figure, axes = _panel(6.4, 2.0)
    _bars(axes, [places[k] for k in errors if k != "0"], [_height(errors[k]) for k in errors if k != "0"], WRONG)
    if "0" in errors:
        _bars(axes, [0], [_height(errors["0"])], RIGHT)
    low, high = min((*places.values(), -4)), max((*places.values(), 4))
    axes.set_xlim(low - 0.7, high + 0.7)
    numbers = [p for p in range(min(low, 0), right + 1) if p % -(-(right - low + 1) // _MOST_TICKS) == 0]
    ticks = {p: _power(p) for p in numbers} | ({places["nan"]: "NaN"} if "nan" in errors else {})
    axes.set_xticks(list(ticks), list(ticks.values()))
    _counts(axes, max(errors.values(), default=1))
    axes.set_xlabel("ordinals off, from each power of two to the next")
    return figure


def parts_figure(parts: Sequence[int]) -> Figure:
    """Return the histogram of used parts of the bound."""
    figure, axes = _panel(6.4, 2.0)
    _bars(axes, range(PARTS), [_height(n) for n in parts[:PARTS]], RIGHT)
    _bars(axes, [PARTS + 0.5], [_height(parts[PARTS])], WRONG)
    axes.axvline(PARTS - 0.5, color=INK, linewidth=1, linestyle=(0, (3, 3)))
    axes.set_xlim(-0.7, PARTS + 1.2)
    edges = [f"{100 * i // PARTS}" for i in range(PARTS + 1)]
    axes.set_xticks([i - 0.5 for i in range(PARTS + 1)] + [PARTS + 0.5], [*edges, "outside"])
    _counts(axes, max(parts))
    axes.set_xlabel("used part of the bound, %")
    return figure


def places_figure(places: Mapping[str, Any]) -> Figure:
    """Return the single elements as a map, and below it the shares of failing ones by every division."""
    drawn, shares = map_of(places), shares_of(places)
    rows = -(-drawn.wrong.size // drawn.width)
    panels = -(-len(shares) // _PANELS)
    map_height = min(3.2, max(0.5, rows * 0.07))
    height = map_height + 0.75 + panels * 1.35
    figure = Figure(figsize=(8.6, height))
    top = 1 - (map_height + 0.3) / height
    _draw_map(figure.add_axes((0.085, top, 0.9, map_height / height)), drawn, rows)
    overall = places["failing"] / places["size"]
    for number, share in enumerate(shares):
        line, column = divmod(number, _PANELS)
        bottom = (0.3 + (panels - 1 - line) * 1.35) / height
        axes = figure.add_axes((0.085 + column * 0.32, bottom, 0.25, 0.85 / height))
        _draw_share(axes, share, overall)
    return figure


def _draw_map(axes: Axes, drawn: Map, rows: int) -> None:
    axes.set_title(f"elements {drawn.start:,} to {drawn.start + drawn.wrong.size - 1:,}, {drawn.width} in a row")
    axes.add_patch(PathPatch(Path(*_cells(np.ones_like(drawn.wrong), drawn.width)), facecolor=LINE, linewidth=0))
    if drawn.wrong.any():
        axes.add_patch(PathPatch(Path(*_cells(drawn.wrong, drawn.width)), facecolor=WRONG, linewidth=0))
    axes.set_xlim(0, drawn.width)
    axes.set_ylim(rows, 0)
    step = max(1, drawn.width // 8)
    axes.set_xticks([c + 0.5 for c in range(0, drawn.width, step)], [str(c) for c in range(0, drawn.width, step)])
    shown = range(0, rows, max(1, rows // 6))
    axes.set_yticks([r + 0.5 for r in shown], [f"{drawn.start + r * drawn.width:,}" for r in shown])


def _cells(wrong: np.ndarray[Any, Any], width: int) -> tuple[list[tuple[float, float]], list[int]]:
    """Return vertices and codes of one path with a box around every run of elements in a row."""
    vertices: list[tuple[float, float]] = []
    codes: list[int] = []
    for row, begin in enumerate(range(0, wrong.size, width)):
        edges = np.flatnonzero(np.diff(np.concatenate([[0], wrong[begin : begin + width], [0]]).astype(np.int8)))
        for left, right in edges.reshape(-1, 2).tolist():
            vertices += _box(left + 0.06, right - 0.06, row + 0.06, row + 0.94)
            codes += _BOX
    return vertices, codes


_BOX = [int(Path.MOVETO), *[int(Path.LINETO)] * 3, int(Path.CLOSEPOLY)]


def _box(left: float, right: float, low: float, high: float) -> list[tuple[float, float]]:
    return [(left, low), (left, high), (right, high), (right, low), (left, low)]


def _draw_share(axes: Axes, share: Shares, overall: float) -> None:
    parts = share.parts
    _bars(axes, range(len(parts)), parts, WRONG)
    axes.axhline(overall, color=INK, linewidth=0.8, linestyle=(0, (3, 3)))
    axes.set_title(share.title)
    axes.set_xlim(-0.7, len(parts) - 0.3)
    highest = max(*parts, overall)
    axes.set_ylim(0, highest * 1.08)
    step = -(-len(parts) // 8)
    axes.set_xticks(range(0, len(parts), step), share.labels[::step])
    axes.set_yticks([0, highest], ["0", f"{highest:.3g}" if highest < 0.001 else f"{highest:.1%}"])


def _panel(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height))
    return figure, figure.add_axes((0.13, 0.24, 0.85, 0.72))


def _bars(axes: Axes, at: Sequence[float] | range, heights: Sequence[float], colour: str) -> None:
    """Draw bars as one path: a hundred patches would take a hundred times as long."""
    boxes = [_box(x - 0.4, x + 0.4, 0, h) for x, h in zip(at, heights, strict=True) if h > 0]
    if boxes:
        vertices = [vertex for box in boxes for vertex in box]
        axes.add_patch(PathPatch(Path(vertices, _BOX * len(boxes)), facecolor=colour, linewidth=0))


def _counts(axes: Axes, most: int) -> None:
    """Label a logarithmic axis of counts."""
    top = _height(most)
    powers = [n for n in range(20) if n + _FLOOR <= top + 1]
    step = -(-len(powers) // 5)
    axes.set_ylim(0, top * 1.05 + 0.05)
    shown = [n for n in powers[::step] if n + _FLOOR <= top * 1.05 + 0.05]
    axes.set_yticks(
        [n + _FLOOR for n in shown], [f"{10**n:,}" if n < 5 else f"10{str(n).translate(_SUPERSCRIPT)}" for n in shown]
    )
    axes.set_ylabel("elements", color=QUIET)


def _height(count: int) -> float:
    return log10(count) + _FLOOR if count else 0.0


def _place(end: int) -> int:
    """Return where the bin whose lower end is 0 or ±2^k stands: 0, or ±(k + 1)."""
    exponent = frexp(abs(end))[1] if end else 0
    return exponent if end >= 0 else -exponent


def _power(place: int) -> str:
    if abs(place) <= 1:
        return str(place).replace("-", "−")
    return ("−" if place < 0 else "") + "2" + str(abs(place) - 1).translate(_SUPERSCRIPT)
