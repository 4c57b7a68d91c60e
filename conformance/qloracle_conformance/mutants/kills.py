"""The kill matrix as data, as a table, and what it says about the clauses of the reference."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from rich.console import Console
from rich.table import Table

from qloracle import SPECIFICATION_VERSION


@dataclass(frozen=True)
class Kill:
    """How a mutant was caught, or that it was not."""

    mutant: str
    fault: str
    length: int  # inner dimension that it was confined to, 0 if to none
    property: str  # "" for a survivor
    clause: str  # of the property's stage; "" for a survivor, an error or a stage of every operation
    bound: str  # of the error bound, where the case was no lattice; else ""
    cases: int  # that it took
    right_stage: bool


def covered(kills: Sequence[Kill]) -> set[str]:
    """Return the clauses that a mutant broke and a property that names the clause noticed."""
    return {clause for k in kills if k.right_stage for clause in (k.clause, k.bound) if clause}


def as_json(kills: Sequence[Kill], accusations: Mapping[str, Sequence[str]], seed: int) -> str:
    """Return the matrix as JSON."""
    content = {
        "specification": SPECIFICATION_VERSION,
        "seed": seed,
        "kills": [asdict(k) for k in kills],
        "rewrites": {name: list(found) for name, found in accusations.items()},
    }
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def print_matrix(
    kills: Sequence[Kill], accusations: Mapping[str, Sequence[str]], uncovered: Sequence[str], out: Console
) -> int:
    """Print the matrix and its summary; return 0 if there is nothing to complain about."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("mutant", "fault", "caught by", "cases"):
        table.add_column(name)
    for k in kills:
        at = f" at K = {k.length}" if k.length else ""
        table.add_row(k.mutant, k.fault + at, _verdict(k), str(k.cases))
    out.print(table)
    for name, found in accusations.items():
        blame = f"[bold red]accused by {found[0]}, {len(found)} in all[/]" if found else "not accused"
        out.print(f"right rewrite {name}: {blame}")
    for clause in uncovered:
        out.print(f"clause {clause}: [bold red]no mutant of it dies by a property that names it[/]")
    missed = [k for k in kills if not k.right_stage]
    blamed = [name for name, found in accusations.items() if found]
    out.print(
        f"{len(kills) - len(missed)} of {len(kills)} caught at the right stage,"
        f" {len(blamed)} of {len(accusations)} rewrites accused, {len(uncovered)} clauses uncovered"
    )
    return 1 if missed or blamed or uncovered else 0


def _verdict(k: Kill) -> str:
    if k.right_stage:
        return k.property
    return f"[bold red]{k.property + ': wrong stage' if k.property else 'survived'}[/]"
