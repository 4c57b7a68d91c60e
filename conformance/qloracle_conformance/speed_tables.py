"""Tables for the README: how fast the backends and the reference are, and what sweeps over all inputs found."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from qloracle_conformance.files import FileError, read_text


def backend_speed(path: Path, where: str) -> str:
    """Return what `qloracle bench` measured as a Markdown table; that it did not run yet, where there is no report.

    Raises
    ------
    FileError
        If the file is no report of `qloracle bench`.
    """
    if not path.exists():
        return f"{where}: not yet run.\n"
    try:
        run = json.loads(read_text(path))
        others = list(dict.fromkeys(name for line in run["results"] for name in line["ratios"]))
        rows = [_backend_row(line, others) for line in run["results"]]
        machine = ", ".join(
            f"{value}" if name == "device" else f"{name} {value}" for name, value in run["machine"].items()
        )
        head = (
            f"{where} ({machine}), {run['date']}, medians of {run['repeat']} in one run, in which copying ran at"
            f" {run['copy_bytes_per_second'] / 1e9:.3g} GB/s and the bfloat16 product at"
            f" {run['product_flops_per_second'] / 1e12:.3g} TFLOP/s. The last columns are ratios of speeds."
        )
    except (KeyError, TypeError, ValueError) as error:
        raise FileError(f"{path} is no report of the benchmark: {type(error).__name__}: {error}") from error
    names = ["operation", "format", "elements", "rate", "of the limit", *(f"speed : {name}" for name in others)]
    return f"{head}\n\n{_table(names, rows)}"


def _backend_row(line: Mapping[str, Any], others: Sequence[str]) -> list[str]:
    unit = "TFLOP/s" if line["limit"] == "product" else "GB/s"
    ratios = [f"{line['ratios'][name]:.2f}" if name in line["ratios"] else "–" for name in others]
    rate, fraction = f"{line['rate']:.3g} {unit}", f"{line['fraction']:.2f}"
    return [line["name"], line["format"], f"{line['elements']:,}", rate, fraction, *ratios]


def reference_speed(path: Path) -> str:
    """Return the speeds and the memory of the reference as a Markdown table.

    Raises
    ------
    FileError
        If there is no report of `qloracle_conformance.bench_reference`.
    """
    try:
        run = json.loads(read_text(path))
        rows = [_speed_row(line) for line in run["lines"]]
        head = (
            f"Reference, one thread, {run['elements']:,} values, medians of {run['repeat']} in one run, NumPy"
            f" {run['versions']['numpy']}; memory is the peak beyond the input, in sizes of the array of reals that"
            " comes in or goes out."
        )
    except (KeyError, TypeError, ValueError) as error:
        raise FileError(f"{path} is no report of the reference's speed: {type(error).__name__}: {error}") from error
    names = ["operation", "million values/s", "memory", "speed over that of the same cast elsewhere"]
    return f"{head}\n\n{_table(names, rows)}"


def _speed_row(line: Mapping[str, Any]) -> list[str]:
    ratio = f"{line['ratio']:.2f} × {line['other']}" if line["ratio"] else ""
    memory = max(line["memory"], line["memory_of_four_times"])
    return [line["name"], f"{line['million_values_per_second']:.0f}", f"{memory:.1f}", ratio]


def sweeps(paths: Sequence[Path]) -> str:
    """Return what sweeps found as a Markdown table; the name of the format alone where there is no report.

    Raises
    ------
    FileError
        If a file is no report of `qloracle sweep`.
    """
    rows = [_sweep_row(path) for path in paths]
    names = ["float32 to", "overflow", "against", "inputs", "mismatches", "specification", "seconds", "processes",
             "most memory of one, MiB"]  # fmt: skip
    return _table(names, rows)


def _sweep_row(path: Path) -> list[str]:
    if not path.exists():
        return [path.stem, "not yet run", *[""] * 7]
    try:
        found = json.loads(read_text(path))
        return [
            found["to"], found["overflow"], f"{found['against']} {found['version']}", f"{found['inputs']:,}",
            f"{found['mismatches']:,}", found["specification"], f"{found['seconds']:.0f}", str(found["processes"]),
            f"{found['peak_process_bytes'] / 2**20:.0f}",
        ]  # fmt: skip
    except (KeyError, TypeError, ValueError) as error:
        raise FileError(f"{path} is no report of a sweep: {type(error).__name__}: {error}") from error


def _table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    rule = "|---|" + "---:|" * (len(names) - 1)
    lines = [f"| {' | '.join(cells)} |" for cells in (names, *rows)]
    return "\n".join([lines[0], rule, *lines[1:]]) + "\n"
