"""The tables that `qloracle footprint` prints."""

from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from qloracle_conformance.footprints import Measured

_WEIGHTS = ("codes", "scales", "offsets", "tables", "unquantized", "buffers", "total", "printed")
_METHODS = (
    "trainable_parameters", "weights", "adapters", "master_weights", "gradients", "optimizer_states", "total", "device",
    "host",
)  # fmt: skip
_TITLES = {"unquantized": "not quantized", "printed": "tools print", "trainable_parameters": "trained numbers"}


def print_footprints(console: Console, measured: Measured) -> None:
    """Print what the weights take, then what training takes."""
    console.print(
        f"[bold]{escape(measured.source)}[/]: {measured.parameters:,} parameters, {measured.linear_parameters:,} "
        f"of them in linear layers; {measured.buffers:,} numbers in buffers"
    )
    console.print("\nweights, in bytes")
    weights = _table(("scheme", "bits"), _WEIGHTS)
    for line in measured.weights:
        size = f" /{line['block_size']}" if line["block_size"] else ""
        weights.add_row(line["scheme"] + size, f"{line['bits_per_weight']:g}", *_numbers(line, _WEIGHTS))
    console.print(weights)
    console.print(
        "[dim]total counts scales, offsets and tables; tools that add up parameters and buffers print the last column."
        " bits: of a quantized weight in a large tensor[/]"
    )
    skipped = f", the module {', '.join(measured.skip)} (--skip)" if measured.skip else ""
    console.print(f"[dim]not quantized: embeddings, norms and biases{escape(skipped)}[/]")
    how = measured.training
    targets = "all linear layers" if how["targets"] is None else ", ".join(how["targets"])
    console.print(f"\ntraining, in bytes: rank {how['rank']} on {escape(targets)}, {how['optimizer']}")
    methods = _table(("method",), _METHODS)
    for line in measured.methods:
        methods.add_row(line["method"], *_numbers(line, _METHODS))
    console.print(methods)
    for method, why in measured.refused.items():
        console.print(f"[dim]{method} is left out: {escape(why)}[/]")
    console.print(
        "[dim]at the moment of an optimizer step; activations are not counted; host: states of a paged optimizer[/]"
    )


def _table(names: tuple[str, ...], numbers: tuple[str, ...]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in names:
        table.add_column(name, no_wrap=True)
    for name in numbers:
        table.add_column(_TITLES.get(name, name.replace("_", " ")), justify="right", no_wrap=True)
    return table


def _numbers(line: dict[str, Any], names: tuple[str, ...]) -> list[str]:
    return [f"{line[name]:,}" for name in names]
