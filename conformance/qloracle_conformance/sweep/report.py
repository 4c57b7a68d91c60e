"""What a sweep found: as data, and on the terminal."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from qloracle.decoding import decoded
from qloracle.formats import FLOAT32, format_named
from qloracle_conformance.sweep.work import MOST_RUNS, MOST_SAMPLES, Sample, UnitResult


def joined(units: Sequence[UnitResult], to: str) -> dict[str, Any]:
    """Put the results of units, in the order of their inputs, together."""
    runs: list[tuple[int, int]] = []
    run_count = 0
    end = -2
    for unit in units:
        continues = bool(unit.runs) and unit.runs[0][0] == end + 1
        fresh = list(unit.runs)
        if continues:
            if len(runs) == run_count:  # the last run is among those kept
                runs[-1] = (runs[-1][0], fresh[0][1])
            fresh = fresh[1:]
        runs += fresh if len(runs) == run_count else []
        run_count += unit.run_count - continues
        end = unit.last_run[1] if unit.last_run else -2
    samples = [sample for unit in units for sample in unit.samples][:MOST_SAMPLES]
    ends = [unit.last_sample for unit in units if unit.last_sample]
    return {
        "inputs": sum(unit.last - unit.first + 1 for unit in units),
        "refused": sum(unit.refused for unit in units),
        "mismatches": sum(unit.mismatches for unit in units),
        "intervals": run_count,
        "first_intervals": [
            {"first": f"{low:#010x}", "last": f"{high:#010x}", "inputs": high - low + 1}
            for low, high in runs[:MOST_RUNS]
        ],
        "samples": [shown(sample, to) for sample in samples],
        "last": shown(ends[-1], to) if ends else None,
    }  # fmt: skip


def shown(sample: Sample, to: str) -> dict[str, str]:
    """Return a mismatch in hex and decimal."""
    named = format_named(to)
    width = 2 + 2 * named.word.itemsize
    word, wanted, got = sample
    value = decoded(np.array([word], FLOAT32.word), FLOAT32)[0]
    numbers = [decoded(np.array([bits], named.word), named)[0] for bits in (wanted, got)]
    return {
        "input": f"{word:#010x} ({value:.9g})",
        "reference": f"{wanted:#0{width}x} ({numbers[0]:.9g})",
        "other": f"{got:#0{width}x} ({numbers[1]:.9g})",
    }


def print_report(console: Console, report: dict[str, Any]) -> None:
    """Print the verdict, and what mismatches."""
    refused = f", {report['refused']:,} of them refused by the reference" if report["refused"] else ""
    console.print(
        f"float32 to {report['to']}, {report['rounding']}, overflow {report['overflow']}: reference "
        f"{report['specification']} against {report['against']} {report['version']}"
    )
    earlier = report["units_of_earlier_runs"]
    run = f"this run, which went on after {earlier} units," if earlier else "it"
    console.print(f"{report['inputs']:,} inputs{refused}; {run} took {report['seconds']:,} s")
    if not report["mismatches"]:
        console.print("[green]0 mismatches[/]")
        return
    console.print(f"[bold red]{report['mismatches']:,} mismatches[/] in {report['intervals']:,} intervals of inputs")
    samples = [*report["samples"], *([report["last"]] if report["mismatches"] > len(report["samples"]) else [])]
    for rows in (samples, report["first_intervals"]):
        table = Table(box=None, pad_edge=False, header_style="bold")
        for name in rows[0]:
            table.add_column(name, no_wrap=True)
        for row in rows:
            table.add_row(*(f"{value:,}" if isinstance(value, int) else value for value in row.values()))
        console.print(table)
    if report["intervals"] > len(report["first_intervals"]):
        console.print(f"[dim]and {report['intervals'] - len(report['first_intervals']):,} intervals more[/]")
