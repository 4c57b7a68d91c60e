"""One run of the benchmark: check, measure every work beside the machine's limits, and write what was found."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table

from qloracle_conformance.benchmark.elementwise import Works, elementwise
from qloracle_conformance.benchmark.machines import CupyMachine, Machine, TorchMachine, limits, medians
from qloracle_conformance.benchmark.works import BenchmarkError, Measured, Work, measured
from qloracle_conformance.files import write_atomically

SMALLEST = 1 << 16  # elements, of the plot over sizes


@dataclass(frozen=True)
class Settings:
    """What the command line asks for."""

    backend: str
    device: str
    elements: int
    only: str | None
    repeat: int
    json: Path | None
    plot: Path | None


@dataclass(frozen=True)
class Run:
    """What was measured in one run."""

    machine: Mapping[str, str]
    limits: Mapping[str, float]  # "copy" in bytes a second, "product" in operations a second
    lines: Sequence[Measured]


def bench(settings: Settings, out: Console, progress_to: Console) -> int:
    """Measure, print a table, write the files that were asked for, and return the exit code.

    Raises
    ------
    BenchmarkError
        If the backend or the device is not there, nothing is selected, or the backend's output is wrong.
    FileError
        If a file cannot be written.
    """
    if settings.device.partition(":")[0] not in ("cpu", "cuda"):
        raise BenchmarkError(f"device must be cpu, cuda or cuda:N, got {settings.device!r}")
    if settings.plot is not None and settings.plot.suffix != ".svg":
        raise BenchmarkError(f"--plot must name an .svg file, got {settings.plot.name!r}")
    machine, works = _started(settings)
    selected = [w for w in works if settings.only is None or fnmatchcase(w.name, settings.only)]
    if not selected:
        raise BenchmarkError(
            f"no operation is called {settings.only!r}; there are {', '.join(dict.fromkeys(w.name for w in works))}"
        )
    reached = limits(machine, settings.repeat)
    lines = [
        measured(work, medians(machine, work, settings.repeat), reached)
        for work in track(selected, description="measuring", console=progress_to, transient=True)
    ]
    run = Run(machine.describe(), reached, lines)
    out.print(_table(run))
    if settings.json is not None:
        content = {**_header(settings, run), "results": [asdict(line) for line in lines]}
        write_atomically(settings.json, json.dumps(content, indent=1) + "\n")
    if settings.plot is not None:
        from qloracle_conformance.benchmark.plot import draw

        draw(settings.plot, run)
    return 0


def _started(settings: Settings) -> tuple[Machine, list[Work]]:
    """Return the machine and its works, after the output of the backend was compared with the reference's."""
    machine, works = _backend(settings)
    elements = [work for size in _sizes(settings) for work in elementwise(works, size)]
    features, rows, hidden = (2048, 256, 1024) if settings.device == "cpu" else (8192, 4096, 4096)
    return machine, [*elements, *works.products(features, rows, hidden)]


def _backend(settings: Settings) -> tuple[Machine, Works]:
    if settings.backend == "torch":
        from qloracle_conformance.benchmark.torch_works import TorchWorks
        from qloracle_conformance.benchmark.torch_works import check as check_torch

        works = TorchWorks(settings.device)
        check_torch(works)
        return TorchMachine(settings.device), works
    if settings.backend != "cupy":
        raise BenchmarkError(f"backend must be torch or cupy, got {settings.backend!r}")
    if settings.device == "cpu":
        raise BenchmarkError("the backend cupy runs on cuda or cuda:N, got device 'cpu'")
    from qloracle_conformance.benchmark.cupy_works import CupyWorks
    from qloracle_conformance.benchmark.cupy_works import check as check_cupy

    machine, made = CupyMachine(settings.device), CupyWorks()
    check_cupy(made)
    return machine, made


def _sizes(settings: Settings) -> Iterator[int]:
    """Yield the sizes of tensors: one, or with a plot every fourth power of two up to it."""
    size = SMALLEST
    while settings.plot is not None and size < settings.elements:
        yield size
        size *= 4
    yield settings.elements


def _header(settings: Settings, run: Run) -> dict[str, object]:
    libraries = {}
    for name in ("numpy", "torch", "triton", "cupy-cuda13x", "bitsandbytes", "torchao", "peft"):
        try:
            libraries[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "backend": settings.backend, "requested": settings.device, "machine": run.machine, "versions": libraries,
        "date": datetime.now(UTC).strftime("%Y-%m-%d"), "elements": settings.elements, "repeat": settings.repeat,
        "copy_bytes_per_second": run.limits["copy"], "product_flops_per_second": run.limits["product"],
    }  # fmt: skip


def _table(run: Run) -> Table:
    """Return the results as a table for the terminal."""
    where = ", ".join(value if name == "device" else f"{name} {value}" for name, value in run.machine.items())
    copy, product = run.limits["copy"] / 1e9, run.limits["product"] / 1e12
    title = f"{where}; copy {copy:.1f} GB/s, bfloat16 product {product:.2f} TFLOP/s"
    rendered = Table(title=title, title_justify="left")
    others = list(dict.fromkeys(name for line in run.lines for name in line.ratios))
    for heading in ("operation", "format", "elements", "rate", "of the limit", *(f": {name}" for name in others)):
        rendered.add_column(heading, justify="left" if heading in ("operation", "format") else "right")
    for line in run.lines:
        unit = "TFLOP/s" if line.limit == "product" else "GB/s"
        ratios = [f"{line.ratios[name]:.2f}" if name in line.ratios else "-" for name in others]
        rate = f"{line.rate:.3g} {unit}"
        rendered.add_row(line.name, line.format, f"{line.elements:,}", rate, f"{line.fraction:.2f}", *ratios)
    return rendered
