"""Measure the differences and write data and page.

python -m qloracle_conformance.differences [--full [--fresh]] | [--page]

A record of all inputs is kept until `--full` replaces it, whatever specification and library it is of: it says so.
"""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from qloracle_conformance.differences.collect import full_record, quick, to_sweep
from qloracle_conformance.differences.measure import Conversion
from qloracle_conformance.differences.page import is_current, render
from qloracle_conformance.files import read_text, write_atomically

DATA, PAGE = Path("reports/differences.json"), Path("reports/differences.md")


def text_of(data: dict[str, Any]) -> str:
    """Return the data as the text of its file."""
    return json.dumps(data, indent=1, ensure_ascii=False) + "\n"


def main(
    full: Annotated[bool, typer.Option("--full", help="Also convert all 2^32 float32 inputs (half an hour).")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="With --full, measure again what is in the file.")] = False,
    processes: Annotated[int | None, typer.Option("-j", min=1, help="Processes. Not given: one a core.")] = None,
    page: Annotated[bool, typer.Option("--page", help="Measure nothing: write the page from the data.")] = False,
    root: Annotated[Path, typer.Option(help="Root of the repository.")] = Path(),
) -> None:
    """Measure where ml_dtypes, NumPy, PyTorch and gfloat differ from the reference; write data and page."""
    console = Console(stderr=True)
    known = json.loads(read_text(root / DATA)) if page or (root / DATA).exists() else {}
    if page:
        write_atomically(root / PAGE, render(known))
        return
    with console.status("measuring") as status:
        data = quick(status.update)
        wanted = to_sweep()
        kept = {each["id"]: each for each in known.get("sweeps", [])}
        for conversion in wanted if full else ():
            old = kept.get(conversion.id)
            if fresh or old is None or not is_current(old, data):
                status.update(f"{conversion.id}: all inputs")
                kept[conversion.id] = full_record(conversion, processes)
                _write(root, data, wanted, kept)
    _write(root, data, wanted, kept)


def _write(root: Path, data: dict[str, Any], wanted: list[Conversion], kept: dict[str, dict[str, Any]]) -> None:
    names = [conversion.id for conversion in wanted]
    data["sweeps"] = [kept[name] for name in (*names, *sorted(set(kept) - set(names))) if name in kept]
    write_atomically(root / DATA, text_of(data))
    write_atomically(root / PAGE, render(data))


if __name__ == "__main__":
    typer.run(main)
