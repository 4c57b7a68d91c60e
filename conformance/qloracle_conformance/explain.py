"""Explaining a clause, an operation, or a witness."""

import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from types import ModuleType

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

import qloracle
from qloracle_conformance.finding import describe_number
from qloracle_conformance.operations.operation import level_of
from qloracle_conformance.plan import UsageError
from qloracle_conformance.registry import OPERATIONS
from qloracle_conformance.witness import Witness

_LABEL = re.compile(r"\[([a-z][a-z0-9_]*\.[a-z][a-z0-9_]*)\]")
_ARRAY = re.compile(
    r"numpy\.ndarray\[tuple\[typing\.Any, \.\.\.\], numpy\.dtype\[typing\.Any\]\]|NDArray\[typing\.Any\]"
)
_MOST_ROWS = 64


def reference_modules() -> Iterator[ModuleType]:
    """Yield the modules of the reference."""
    for found in pkgutil.iter_modules(qloracle.__path__):
        yield importlib.import_module(f"qloracle.{found.name}")


def clauses() -> dict[str, list[str]]:
    """Return all clauses and the full names of the functions that carry each, the most specific first."""
    carried: dict[str, list[tuple[int, str]]] = {}
    for module in reference_modules():
        for label in _LABEL.findall(module.__doc__ or ""):
            carried.setdefault(label, [])
        for name, thing in vars(module).items():
            if getattr(thing, "__module__", None) == module.__name__ and (
                inspect.isfunction(thing) or inspect.isclass(thing)
            ):
                labels = _LABEL.findall(thing.__doc__ or "")
                for label in labels:
                    carried.setdefault(label, []).append((len(labels), f"{module.__name__}.{name}"))
    return {label: [name for _, name in sorted(carriers)] for label, carriers in sorted(carried.items())}


def explain_clause(console: Console, name: str) -> None:
    """Print the rule of a clause, or of every stage of an operation, from the reference's docstrings.

    Raises
    ------
    UsageError
        If there is no clause or operation of that name.
    """
    known = clauses()
    if name not in known and name not in OPERATIONS:
        raise UsageError(
            f"no clause, operation or file {name!r}; clauses: {', '.join(known)}; operations: {', '.join(OPERATIONS)}"
        )
    labels = [name] if name in known else []
    if name in OPERATIONS:  # some clauses are called as the operation is
        operation = OPERATIONS[name]
        console.print(f"[bold]{name}[/]: function {operation.function}, judged stage by stage")
        for stage, clause in operation.stages.items():
            console.print(f"  {stage:<14} by clause {escape(f'[{clause}]')}")
        labels += operation.stages.values()
    for clause in dict.fromkeys(labels):
        _print_clause(console, clause, known[clause])


def _print_clause(console: Console, label: str, carriers: list[str]) -> None:
    console.print(f"\n[bold]{escape(f'[{label}]')}[/]")
    for carrier in carriers or []:
        module_name, _, attribute = carrier.rpartition(".")
        thing = getattr(importlib.import_module(module_name), attribute)
        signature = _ARRAY.sub("array", str(inspect.signature(thing)))
        console.print(f"\n[cyan]{carrier}[/]{escape(signature)}", soft_wrap=True)
        console.print(escape(inspect.getdoc(thing) or ""), soft_wrap=True)
    if not carriers:
        module = next(m for m in reference_modules() if f"[{label}]" in (m.__doc__ or ""))
        console.print(escape(inspect.getdoc(module) or ""), soft_wrap=True)


def explain_witness(console: Console, witness: Witness) -> None:
    """Print what a witness shows: the claim, the finding, the inputs, and every intermediate of the reference."""
    found = witness.finding
    console.print(f"[bold]{witness.property}[/] by clause {escape(f'[{witness.clause}]')}, backend {witness.backend}")
    console.print(
        f"claimed {level_of(witness.claim, witness.stage)} ({witness.claim.basis} {escape(witness.claim.source)})"
    )
    for key in ("pattern", "error", "cause", "got", "allowed"):
        if found.get(key):
            console.print(f"  {key:<8} {escape(str(found[key]))}", soft_wrap=True)
    for name, array in witness.case.inputs.items():
        layout = witness.case.layouts.get(name, "contiguous")
        shown = "left out" if array is None else f"{array.dtype} {array.shape}, {layout}"
        console.print(f"input {name}: {shown}")
    console.print(f"options: {escape(str(dict(witness.case.options)))}")
    values = OPERATIONS[witness.operation].intermediates(witness.case)
    sizes = {np.asarray(v).size for v in values.values()}
    for size in sorted(sizes):
        _print_columns(
            console, {k: v for k, v in values.items() if np.asarray(v).size == size}, found.get("element", -1)
        )


def _print_columns(console: Console, values: dict[str, object], element: int) -> None:
    """Print intermediates side by side, around the failing element if there are many."""
    flat = {name: np.asarray(v).reshape(-1) for name, v in values.items()}
    size = len(next(iter(flat.values())))
    start = max(0, min(element - _MOST_ROWS // 2, size - _MOST_ROWS)) if size > _MOST_ROWS else 0
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("element", justify="right")
    for name in flat:
        table.add_column(name, no_wrap=True)
    for index in range(start, min(size, start + _MOST_ROWS)):
        mark = "[red]" if index == element else ""
        table.add_row(f"{mark}{index}", *(f"{mark}{describe_number(v[index])}" for v in flat.values()))
    console.print(table)
    if size > _MOST_ROWS:
        console.print(f"[dim]elements {start} to {start + _MOST_ROWS - 1} of {size}[/]")
