"""Failing points on the step function of a codebook: all of it, and where most of them lie."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from qloracle.errors import QloracleError
from qloracle.formats import Array
from qloracle.tables import codebook_named
from qloracle_conformance.pages.svg import INK, LINE, QUIET, RIGHT, WRONG

_UNIT = 2.0**-24
_LARGEST = 127  # code of absmax INT8


@dataclass(frozen=True)
class Steps:
    """A step function, and the numbers that stand along its axes."""

    values: Array  # of the positions
    boundaries: Array  # between them; one fewer
    lowest: int  # the position that values[0] has
    across: str
    upwards: str

    def value(self, position: int) -> float:
        """Return the value of a position; the nearest one where there is none."""
        return float(self.values[int(np.clip(position - self.lowest, 0, len(self.values) - 1))])

    def boundary(self, right: int, given: int) -> float:
        """Return the boundary of the right position on the side of the given one."""
        place = right - self.lowest - (given < right)
        return float(self.boundaries[int(np.clip(place, 0, len(self.boundaries) - 1))])


def steps_of(codebook: str, pairs: Sequence[Sequence[float]]) -> Steps | None:
    """Return the step function of a codebook, around the pairs where it has no end; None if there is none such."""
    if codebook == "affine":
        low = int(min(min(p[0], p[1]) for p in pairs)) - 2
        positions = np.arange(low, max(low + 8, int(max(max(p[0], p[1]) for p in pairs)) + 3))
        return Steps(positions.astype(np.float64), positions[:-1] + 0.5, low, "x/scale", "steps from the zero point")
    if codebook == "int8":
        codes = np.arange(-_LARGEST, _LARGEST + 1)
        return Steps(codes / _LARGEST, (codes[:-1] + 0.5) / _LARGEST, -_LARGEST, "x/absmax", "code/127")
    try:
        table = codebook_named(codebook)
    except QloracleError:
        return None
    values = np.asarray(table.entries[table.value_order], np.float64)
    return Steps(values, np.asarray(table.midpoints, np.float64), 0, "x/absmax", "entry")


def steps_figure(steps: Mapping[str, Any]) -> Figure | None:
    """Return the plot of a report's steps, or None if their codebook is not known."""
    pairs = steps["pairs"]
    function = steps_of(steps["codebook"], pairs)
    if function is None:
        return None
    figure = Figure(figsize=(8.6, 3.3))
    _draw_whole(figure.add_axes((0.08, 0.15, 0.4, 0.75)), function, pairs)
    _draw_worst(figure.add_axes((0.58, 0.15, 0.41, 0.75)), function, max(pairs, key=lambda p: p[2]))
    return figure


def _draw_whole(axes: Axes, function: Steps, pairs: Sequence[Sequence[float]]) -> None:
    low, high = float(function.values[0]), float(function.values[-1])
    margin = 0.05 * (high - low)
    edges = np.concatenate([[low - margin], function.boundaries, [high + margin]])
    axes.plot(np.repeat(edges, 2)[1:-1], np.repeat(function.values, 2), color=RIGHT, linewidth=1)
    for right, given, _, least, greatest in pairs:
        ends = np.clip([least, greatest], low - margin, high + margin)
        level, due = function.value(int(given)), function.value(int(right))
        axes.plot([ends.mean()] * 2, [level, due], color=WRONG, linewidth=0.6)
        axes.plot(ends, [level, level], color=WRONG, linewidth=2.5, solid_capstyle="round", marker="o", markersize=3)
    axes.set_xlim(low - margin, high + margin)
    axes.set_xticks(np.linspace(low, high, 5), [f"{v:.3g}" for v in np.linspace(low, high, 5)])
    axes.set_title("all of the function; dots: where codes are wrong")
    axes.set_xlabel(function.across)
    axes.set_ylabel(function.upwards, color=QUIET)


def _draw_worst(axes: Axes, function: Steps, pair: Sequence[float]) -> None:
    """Draw the neighbourhood of the pair with the most elements, across in units of float32 rounding."""
    right, given, count, least, greatest = pair
    boundary = function.boundary(int(right), int(given))
    scale = abs(boundary) * _UNIT or _UNIT
    ends = np.array([least - boundary, greatest - boundary]) / scale
    reach = max(4.0, 1.25 * float(np.abs(ends).max()))
    due, level = function.value(int(right)), function.value(int(given))
    below, above = (level, due) if given < right else (due, level)
    axes.plot([-reach, 0, 0, reach], [below, below, above, above], color=RIGHT, linewidth=1.5)
    axes.axvspan(-3, 3, color=LINE, linewidth=0)
    axes.axvline(0, color=INK, linewidth=0.8, linestyle=(0, (3, 3)))
    axes.plot(ends, [level, level], color=WRONG, linewidth=4, solid_capstyle="round", marker="o", markersize=5)
    axes.set_xlim(-reach, reach)
    marks = [float(f"{m:.2g}") for m in (-0.8 * reach, -0.4 * reach, 0, 0.4 * reach, 0.8 * reach)]
    axes.set_xticks(marks, [f"{m:g}" for m in marks])
    axes.set_yticks(sorted({level, due}), [f"{v:.6g}" for v in sorted({level, due})])
    axes.set_title(f"most: {int(count):,} got {level:.6g} where {due:.6g} is due")
    axes.set_xlabel(f"distance to the boundary {boundary:.9g}, in 2⁻²⁴ of it")
