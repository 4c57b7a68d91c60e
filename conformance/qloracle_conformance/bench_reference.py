"""How fast the reference is on one core, and how much memory it takes, beside NumPy and ml_dtypes where they do it too.

    python -m qloracle_conformance.bench_reference [--elements 16777216] [--repeat 5] [--json FILE]

Speeds are of CPU time on one thread. They depend on the machine; the ratios of one run are what to compare. Before
anything is timed, every output is compared with the other library's.
"""

import json
import os
import tracemalloc
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from statistics import median
from time import process_time
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table
from threadpoolctl import threadpool_limits

import qloracle
from qloracle.formats import Array
from qloracle_conformance.adapters.libraries import LIBRARIES, LibraryError, library

MOST_MEMORY = 6.0  # peak beyond the input, in sizes of the array of reals that comes in or goes out
TARGETS = {"nf4.quantize": 30, "nf4.dequantize": 100, "encode.bfloat16": 150}  # million values a second on one core
CONVERSION = 40  # of every other conversion
BLOCKS = (64, 4096)
ENCODED = ("bfloat16", "float16", "tfloat32", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz",
           "float8_e8m0fnu", "float6_e2m3fn", "float6_e3m2fn", "float4_e2m1fn")  # fmt: skip
_PIECE = 1 << 22  # values whose peak of memory is traced


@dataclass(frozen=True)
class Work:
    """One operation, and the same by another library."""

    name: str
    run: Callable[[], Any]
    size: int  # values
    real_bytes: int  # of the array of reals: the input of quantize and encode, the output of dequantize and decode
    twin: Callable[[], Any] | None = None
    twin_name: str = ""


@dataclass(frozen=True)
class Line:
    """What was measured."""

    name: str
    million_values_per_second: float
    target: float | None
    memory: float  # peak beyond the input, in sizes of the array of reals
    memory_of_four_times: float  # the same for an input four times as large: flat if it does not grow
    other: str
    other_million_values_per_second: float | None
    ratio: float | None  # of speeds, reference to other


def target_of(name: str) -> float | None:
    """Return the speed that an operation must have; None where none is asked for."""
    if name in TARGETS:
        return TARGETS[name]
    return CONVERSION if name.startswith(("encode.", "decode.")) else None


def work(elements: int) -> list[Work]:
    """Return all operations on normal numbers."""
    normal = np.random.default_rng(0).standard_normal(elements, np.float32)
    made = [_quantizers(normal, block_size) for block_size in BLOCKS]
    int8 = qloracle.quantize_int8(normal)
    return [
        *(each for group in made for each in group),
        Work("int8.quantize", partial(qloracle.quantize_int8, normal), elements, normal.nbytes),
        Work("int8.dequantize", partial(qloracle.dequantize_int8, int8), elements, int8.codes.nbytes * 4),
        *(_encoding(normal, fmt) for fmt in ENCODED),
        *(_decoding(normal, fmt) for fmt in ENCODED if fmt != "tfloat32"),
    ]


def _quantizers(normal: Array, block_size: int) -> list[Work]:
    suffix = "" if block_size == BLOCKS[0] else f" /{block_size}"
    found = []
    for codebook in ("nf4", "fp4", "dynamic_signed"):
        plain = qloracle.quantize_blockwise(normal, codebook=codebook, block_size=block_size)
        quantize = partial(qloracle.quantize_blockwise, normal, codebook=codebook, block_size=block_size)
        found.append(Work(f"{codebook}.quantize{suffix}", quantize, normal.size, normal.nbytes))
        restore = partial(qloracle.dequantize_blockwise, plain)
        found.append(Work(f"{codebook}.dequantize{suffix}", restore, normal.size, normal.nbytes))
    return found


def _encoding(normal: Array, fmt: str) -> Work:
    run = partial(qloracle.encode, normal, fmt)
    for name in ("ml_dtypes", "numpy"):
        if fmt in (known := _known(name)) and (name, fmt) != ("ml_dtypes", "float16"):
            twin = partial(known[fmt], normal)
            if fmt != "float8_e8m0fnu" and not np.array_equal(run(), twin()):
                raise typer.Exit(1)
            return Work(f"encode.{fmt}", run, normal.size, normal.nbytes, twin, name)
    return Work(f"encode.{fmt}", run, normal.size, normal.nbytes)


def _known(name: str) -> dict[str, Callable[[Array], Array]]:
    try:
        found = library(name)
    except LibraryError:
        return {}
    return {fmt: found.conversion(fmt, "ties_to_even", found.own_overflow(fmt)[0]) for fmt in found.formats}


def _decoding(normal: Array, fmt: str) -> Work:
    words = qloracle.encode(np.abs(normal), fmt)
    name = "numpy" if fmt == "float16" else "ml_dtypes"
    twin = None
    if name in LIBRARIES and _known(name):
        twin = partial(library(name).values, words, fmt)
    return Work(f"decode.{fmt}", partial(qloracle.decode, words, fmt), words.size, words.size * 8, twin, name)


def seconds(function: Callable[[], Any], repeat: int) -> float:
    """Return the median CPU time of a call on one thread, after one to warm up: who else computes matters less."""
    function()
    times = []
    for _ in range(repeat):
        start = process_time()
        function()
        times.append(process_time() - start)
    return median(times)


def peak(each: Work) -> float:
    """Return the most memory that a call takes beyond its input, output included, in sizes of the array of reals."""
    tracemalloc.start()
    each.run()
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return most / each.real_bytes


def measured(elements: int, repeat: int) -> list[Line]:
    """Measure everything on one thread."""
    small = {each.name: each for each in work(_PIECE)}
    large = {each.name: each for each in work(4 * _PIECE)}
    lines = []
    with threadpool_limits(1):
        for each in track(work(elements), "operations", console=Console(stderr=True), transient=True):
            speed = each.size / seconds(each.run, repeat) / 1e6
            other = each.size / seconds(each.twin, repeat) / 1e6 if each.twin else None
            memory = peak(small[each.name]), peak(large[each.name])
            ratio = speed / other if other else None
            lines.append(Line(each.name, speed, target_of(each.name), *memory, each.twin_name, other, ratio))
    return lines


def missed(lines: list[Line]) -> list[str]:
    """Return one sentence for each target that was missed."""
    slow = [
        f"{each.name}: {each.million_values_per_second:.0f} M values/s, {each.target:.0f} wanted"
        for each in lines if each.target and each.million_values_per_second < each.target
    ]  # fmt: skip
    large = [
        f"{each.name}: {max(each.memory, each.memory_of_four_times):.1f} times its reals, {MOST_MEMORY:.0f} allowed"
        for each in lines if max(each.memory, each.memory_of_four_times) > MOST_MEMORY
    ]  # fmt: skip
    return slow + large


def table(lines: list[Line], title: str) -> Table:
    """Return the results as a table for the terminal."""
    rendered = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for heading in (
        "operation",
        "M values/s",
        "target",
        "memory / reals",
        "of 4 x input",
        "other",
        "M values/s",
        "ratio",
    ):
        rendered.add_column(heading, justify="left" if heading in ("operation", "other") else "right")
    for each in lines:
        other, ratio = each.other_million_values_per_second, each.ratio
        rendered.add_row(
            each.name, f"{each.million_values_per_second:.0f}", f"{each.target:.0f}" if each.target else "",
            f"{each.memory:.1f}", f"{each.memory_of_four_times:.1f}", each.other if other else "",
            f"{other:.0f}" if other else "", f"{ratio:.2f}" if ratio else "",
        )  # fmt: skip
    return rendered


def bench(
    elements: Annotated[int, typer.Option(min=1, help="Values of an input.")] = 1 << 24,
    repeat: Annotated[int, typer.Option(min=1, help="Calls; the median counts.")] = 5,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the results to this file.")] = None,
) -> None:
    """Measure the reference on one core; exit 1 if a target is missed."""
    lines = measured(elements, repeat)
    versions = {name: version(name) for name in ("numpy", "ml_dtypes")}
    title = f"{elements} values, median of {repeat}, one thread; " + ", ".join(f"{n} {v}" for n, v in versions.items())
    console = Console(width=140)
    console.print(table(lines, title))
    for sentence in missed(lines):
        console.print(f"[bold red]missed[/] {sentence}")
    if json_file:
        header = {"elements": elements, "repeat": repeat, "cores": os.cpu_count(), "versions": versions}
        report = {**header, "lines": [asdict(each) for each in lines], "missed": missed(lines)}
        json_file.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    raise typer.Exit(1 if missed(lines) else 0)


if __name__ == "__main__":
    typer.run(bench)
