"""How fast NF4 runs here: the reference, the torch backend and bitsandbytes, measured in turn within one run.

    python -m qloracle_conformance.bench [--elements 16777216] [--repeat 5] [--json FILE]

Absolute numbers depend on the machine and on who else uses it; the ratios of one run are what to compare. Before
anything is timed, the torch backend's output is compared with the reference's, bit for bit.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from importlib import import_module
from importlib.metadata import version
from itertools import product
from pathlib import Path
from statistics import median
from time import perf_counter
from types import ModuleType
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

import qloracle
from qloracle.formats import Array

BLOCK_SIZE = 64
NF4 = {"blocksize": BLOCK_SIZE, "quant_type": "nf4"}  # as bitsandbytes calls it
OPERATIONS = ("quantize", "dequantize")
FORMATS = ("float32", "bfloat16")
IMPLEMENTATIONS = ("reference", "torch", "bitsandbytes")
EXTRAS = {"torch": "torch", "qloracle_gpu.torch": "torch", "bitsandbytes.functional": "bitsandbytes"}
Case = tuple[str, str, str]  # operation, format, implementation


@dataclass(frozen=True)
class Result:
    """One line of the table."""

    operation: str
    format: str
    seconds: dict[str, float]  # median, by implementation
    million_values_per_second: dict[str, float]
    torch_over_bitsandbytes: float  # ratio of speeds
    torch_over_reference: float


def load(name: str) -> ModuleType:
    """Import an optional module, or end with exit code 2 and the command that installs it."""
    try:
        return import_module(name)
    except ImportError as error:
        Console(stderr=True, soft_wrap=True, markup=False).print(
            f"The benchmark compares with {name}, which cannot be imported ({error}). "
            f"This installs it: pip install 'qloracle[{EXTRAS[name]}]'"
        )
        raise typer.Exit(2) from error


def cases(elements: int) -> dict[Case, Callable[[], Any]]:
    """Return what is measured, after making the inputs."""
    torch, backend, others = map(load, EXTRAS)
    normal = np.random.default_rng(0).standard_normal(elements, np.float32)
    words = {"float32": normal, "bfloat16": qloracle.encode(normal, "bfloat16")}
    result: dict[Case, Callable[[], Any]] = {}
    for fmt in FORMATS:
        x = torch.from_numpy(normal).to(getattr(torch, fmt))
        plain, mine = qloracle.quantize_blockwise(words[fmt], fmt=fmt), backend.quantize_blockwise(x)
        require_same(fmt, mine, plain, backend, torch)
        result |= {
            ("quantize", fmt, "reference"): partial(qloracle.quantize_blockwise, words[fmt], fmt=fmt),
            ("quantize", fmt, "torch"): partial(backend.quantize_blockwise, x),
            ("quantize", fmt, "bitsandbytes"): partial(others.quantize_4bit, x, **NF4),
            ("dequantize", fmt, "reference"): partial(qloracle.dequantize_blockwise, plain),
            ("dequantize", fmt, "torch"): partial(backend.dequantize_blockwise, mine),
            ("dequantize", fmt, "bitsandbytes"): partial(others.dequantize_4bit, *others.quantize_4bit(x, **NF4)),
        }
    return result


def require_same(fmt: str, mine: Any, plain: qloracle.QuantizedBlocks, backend: ModuleType, torch: ModuleType) -> None:
    """End with exit code 1 unless the torch backend and the reference give the same bits."""
    restored = backend.dequantize_blockwise(mine).view(torch.int32 if fmt == "float32" else torch.int16).numpy()
    expected = qloracle.dequantize_blockwise(plain)
    pairs: dict[str, tuple[Array, Array]] = {
        "codes": (mine.data.numpy(), plain.data),
        "absmax": (mine.absmax.numpy().view(np.uint32), plain.absmax.view(np.uint32)),
        "values": (restored.view(f"u{restored.itemsize}"), expected.view(f"u{expected.itemsize}")),
    }
    for what, (got, wanted) in pairs.items():
        if not np.array_equal(got, wanted):
            Console(stderr=True).print(f"Not timed: NF4 {what} of {fmt} differ between torch and the reference.")
            raise typer.Exit(1)


def measure(functions: dict[Case, Callable[[], Any]], repeat: int) -> dict[Case, float]:
    """Return the median time of each function in seconds; every round calls each once, after one round to warm up."""
    times: dict[Case, list[float]] = {case: [] for case in functions}
    for _ in track(range(repeat + 1), description="rounds", console=Console(stderr=True), transient=True):
        for case, function in functions.items():
            start = perf_counter()
            function()
            times[case].append(perf_counter() - start)
    return {case: median(each[1:]) for case, each in times.items()}


def results(seconds: dict[Case, float], elements: int) -> list[Result]:
    """Return one result for each operation and format."""
    lines = []
    for operation, fmt in product(OPERATIONS, FORMATS):
        own = {name: seconds[operation, fmt, name] for name in IMPLEMENTATIONS}
        rates = {name: elements / each / 1e6 for name, each in own.items()}
        ratios = rates["torch"] / rates["bitsandbytes"], rates["torch"] / rates["reference"]
        lines.append(Result(operation, fmt, own, rates, *ratios))
    return lines


def table(lines: list[Result], title: str) -> Table:
    """Return the results as a table for the terminal."""
    rendered = Table(title=title, title_justify="left")
    for heading in ("NF4", "format", *(f"{name}, M values/s" for name in IMPLEMENTATIONS)):
        rendered.add_column(heading, justify="right" if "M values" in heading else "left")
    rendered.add_column("torch : bitsandbytes", justify="right")
    rendered.add_column("torch : reference", justify="right")
    for line in lines:
        rates = [f"{line.million_values_per_second[name]:.1f}" for name in IMPLEMENTATIONS]
        ratios = [f"{line.torch_over_bitsandbytes:.2f}", f"{line.torch_over_reference:.1f}"]
        rendered.add_row(line.operation, line.format, *rates, *ratios)
    return rendered


def bench(
    elements: Annotated[int, typer.Option(min=1, help="Elements of the tensor.")] = 1 << 24,
    repeat: Annotated[int, typer.Option(min=1, help="Rounds; the median counts.")] = 5,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the results to this file.")] = None,
) -> None:
    """Measure NF4 in blocks of 64 on normal numbers: reference, torch backend and bitsandbytes."""
    functions = cases(elements)
    lines = results(measure(functions, repeat), elements)
    versions = {name: version(name) for name in ("numpy", "torch", "bitsandbytes")}
    threads = load("torch").get_num_threads()
    title = f"{elements} elements, median of {repeat}; " + ", ".join(f"{n} {v}" for n, v in versions.items())
    Console(width=140).print(table(lines, f"{title}; {threads} threads, the reference runs on one"))
    if json_file:
        header = {"elements": elements, "block_size": BLOCK_SIZE, "repeat": repeat, "threads": threads}
        report = {**header, "versions": versions, "results": [asdict(line) for line in lines]}
        json_file.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(bench)
