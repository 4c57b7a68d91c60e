"""`qloracle witness-script`: a deviation as a script for an upstream issue."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from qloracle_conformance.commands.guard import console, guarded


def witness_script(
    witness: Annotated[Path, typer.Argument(help="A witness file that `check` wrote.")],
    backend: Annotated[str | None, typer.Option(help="Another backend than the one that failed.")] = None,
    device: Annotated[str | None, typer.Option(help="Another device than the recorded one.")] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Write the script to this file.")] = None,
) -> None:
    """Print a Python script that shows the deviation with the library and NumPy alone; it exits 1 where it shows."""

    def action() -> int:
        from qloracle_conformance.files import write_atomically
        from qloracle_conformance.scripts.write import witness_script as write

        text = write(witness, backend, device)
        if output is None:
            sys.stdout.write(text)
        else:
            write_atomically(output, text)
            console().print(f"{output} written; now: python {output}", soft_wrap=True)
        return 0

    guarded(action)
