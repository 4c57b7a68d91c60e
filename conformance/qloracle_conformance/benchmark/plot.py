"""Throughput over size, as a picture."""

from io import StringIO
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from qloracle_conformance.benchmark.works import BenchmarkError
from qloracle_conformance.files import write_atomically

if TYPE_CHECKING:
    from qloracle_conformance.benchmark.running import Run


def draw(path: Path, run: "Run") -> None:
    """Draw the rate of every operation that memory limits over the number of elements, and the copy's as a line.

    Raises
    ------
    BenchmarkError
        If matplotlib is not installed.
    FileError
        If the file cannot be written.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise BenchmarkError(f"matplotlib cannot be imported ({error}); pip install 'qloracle[report]'") from error
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot(xlabel="elements", ylabel="GB/s", xscale="log", yscale="log")
    lines = sorted((line for line in run.lines if line.limit == "copy"), key=lambda x: (x.name, x.format, x.elements))
    for (name, fmt), group in groupby(lines, key=lambda x: (x.name, x.format)):
        points = list(group)
        axes.plot([p.elements for p in points], [p.rate for p in points], marker=".", label=f"{name}, {fmt}")
    axes.axhline(run.limits["copy"] / 1e9, color="black", linestyle=":", label="copy")
    axes.legend(fontsize="x-small", ncols=2)
    drawn = StringIO()
    figure.savefig(drawn, format="svg", metadata={"Date": None})
    write_atomically(path, drawn.getvalue())
