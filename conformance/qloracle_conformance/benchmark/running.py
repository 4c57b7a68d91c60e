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

from qloracle_conformance.benchmark.machines import CupyMachine, Machine, TorchMachine, medians
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

    header: dict[str, object]
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
    limits = machine.limits(settings.repeat)
    lines = [
        measured(work, medians(machine, work, settings.repeat), limits)
        for work in track(selected, description="measuring", console=progress_to, transient=True)
    ]
    run = Run(_header(settings, machine, limits), lines)
    out.print(_table(run))
    if settings.json is not None:
        content = {**run.header, "results": [asdict(line) for line in lines]}
        write_atomically(settings.json, json.dumps(content, indent=1) + "\n")
    if settings.plot is not None:
        from qloracle_conformance.benchmark.plot import draw

        draw(settings.plot, run)
    return 0


def _started(settings: Settings) -> tuple[Machine, list[Work]]:
    """Return the machine and its works, after the output of the backend was compared with the reference's."""
    sizes = list(_sizes(settings))
    here = settings.device == "cpu"
    product = (
        {"features": 2048, "rows": 256, "hidden": 1024} if here else {"features": 8192, "rows": 4096, "hidden": 4096}
    )
    if settings.backend == "torch":
        from qloracle_conformance.benchmark.torch_works import TorchWorks
        from qloracle_conformance.benchmark.torch_works import check as check_torch

        works = TorchWorks(settings.device)
        check_torch(works)
        return TorchMachine(settings.device), [
            *(work for size in sizes for work in works.elementwise(size)), *works.products(**product)
        ]  # fmt: skip
    if settings.backend != "cupy":
        raise BenchmarkError(f"backend must be torch or cupy, got {settings.backend!r}")
    if here:
        raise BenchmarkError("the backend cupy runs on cuda or cuda:N, got device 'cpu'")
    from qloracle_conformance.benchmark.cupy_works import CupyWorks
    from qloracle_conformance.benchmark.cupy_works import check as check_cupy

    machine, made = CupyMachine(settings.device), CupyWorks()
    check_cupy(made)
    return machine, [*(work for size in sizes for work in made.elementwise(size)), *made.products(**product)]


def _sizes(settings: Settings) -> Iterator[int]:
    """Yield the sizes of tensors: one, or with a plot every fourth power of two up to it."""
    size = SMALLEST
    while settings.plot is not None and size < settings.elements:
        yield size
        size *= 4
    yield settings.elements


def _header(settings: Settings, machine: Machine, limits: Mapping[str, float]) -> dict[str, object]:
    libraries = {}
    for name in ("numpy", "torch", "triton", "cupy-cuda13x", "bitsandbytes", "torchao", "peft"):
        try:
            libraries[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "backend": settings.backend, "requested": settings.device, "machine": machine.describe(), "versions": libraries,
        "date": datetime.now(UTC).strftime("%Y-%m-%d"), "elements": settings.elements, "repeat": settings.repeat,
        "copy_bytes_per_second": limits["copy"], "product_flops_per_second": limits["product"],
    }  # fmt: skip


def _table(run: Run) -> Table:
    """Return the results as a table for the terminal."""
    copy, product = (float(str(run.header[n])) for n in ("copy_bytes_per_second", "product_flops_per_second"))
    rendered = Table(
        title=f"{run.header['machine']}; copy {copy / 1e9:.1f} GB/s, bfloat16 product {product / 1e12:.2f} TFLOP/s",
        title_justify="left",
    )
    others = list(dict.fromkeys(name for line in run.lines for name in line.ratios))
    for heading in ("operation", "format", "elements", "rate", "of the limit", *(f": {name}" for name in others)):
        rendered.add_column(heading, justify="left" if heading in ("operation", "format") else "right")
    for line in run.lines:
        unit = "TFLOP/s" if line.limit == "product" else "GB/s"
        ratios = [f"{line.ratios[name]:.2f}" if name in line.ratios else "-" for name in others]
        rate = f"{line.rate:.3g} {unit}"
        rendered.add_row(line.name, line.format, f"{line.elements:,}", rate, f"{line.fraction:.2f}", *ratios)
    return rendered
