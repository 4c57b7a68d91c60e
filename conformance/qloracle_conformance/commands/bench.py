"""`qloracle bench`: how fast a backend is, beside the machine's limits and other libraries."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from qloracle_conformance.commands.guard import console, guarded


def bench(
    backend: Annotated[str, typer.Option(help="torch or cupy.")] = "torch",
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
    elements: Annotated[
        int | None, typer.Option(min=1 << 12, help="Elements of a tensor. Not given: 2^24 on a CPU, else 2^26.")
    ] = None,
    only: Annotated[str | None, typer.Option(help="Names of operations, a shell pattern such as 'nf4.*'.")] = None,
    repeat: Annotated[int, typer.Option(min=1, help="Rounds after one that warms up; the median counts.")] = 9,
    json: Annotated[Path | None, typer.Option(help="Write what was measured to this file.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Measure many sizes, and draw throughput: an .svg file.")] = None,
) -> None:
    """Measure a backend: GB/s or TFLOP/s, the part of what this machine can do, and the ratio to other libraries.

    The copy bandwidth and the rate of a bfloat16 matrix product are measured in the same run; rounds call every
    implementation in turn. Nothing is timed unless the backend's output is the reference's, bit for bit.
    """

    def action() -> int:
        from qloracle_conformance.benchmark.running import Settings
        from qloracle_conformance.benchmark.running import bench as run

        size = elements or (1 << 24 if device == "cpu" else 1 << 26)
        return run(Settings(backend, device, size, only, repeat, json, plot), console(), Console(stderr=True))

    guarded(action)
