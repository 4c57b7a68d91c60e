"""`qloracle explain` and `qloracle spec`: the specification in a terminal and as a site."""

from pathlib import Path
from typing import Annotated

import typer

from qloracle_conformance.commands.guard import console, guarded


def explain(
    name: Annotated[str | None, typer.Argument(help="A clause, an operation, or a witness file; none: a list.")] = None,
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            help="NAME=VALUES, NAME:DTYPE=VALUES or NAME:DTYPE[SHAPE]=VALUES: print every intermediate for these"
            " numbers. Commas separate values, semicolons rows; 0x3f800000 is a bit pattern; @FILE.npy reads a file;"
            " none leaves an input out.",
        ),
    ] = None,
    option: Annotated[
        list[str] | None, typer.Option(help="NAME=VALUE: an option of the operation, as block_size=4.")
    ] = None,
    dtype: Annotated[str | None, typer.Option(help="Type of the inputs that name none, as bfloat16.")] = None,
) -> None:
    """Print a rule with a worked example, every intermediate for numbers of yours, or those of a witness."""

    def action() -> int:
        from qloracle_conformance import explain as explaining
        from qloracle_conformance.usage import UsageError
        from qloracle_conformance.witness import read_witness

        given = bool(inputs or option or dtype)
        file = name is not None and (name.endswith(".json") or Path(name).is_file())
        if given and (name is None or file):
            raise UsageError("--input, --option and --dtype go with the name of a clause or operation")
        if name is None:
            explaining.list_names(console())
        elif given:
            explaining.explain_inputs(console(), name, inputs or [], option or [], dtype)
        elif file:
            explaining.explain_witness(console(), read_witness(Path(name)))
        else:
            explaining.explain_clause(console(), name)
        return 0

    guarded(action)


def spec(
    output: Annotated[Path, typer.Option(help="Folder of the site; that of an earlier build is replaced.")] = Path(
        "build/spec"
    ),
    root: Annotated[Path, typer.Option(help="Root of the repository: its proofs and reports are shown too.")] = Path(),
) -> None:
    """Render the whole specification as one static site that needs no network."""

    def action() -> int:
        from qloracle_conformance.spec.site import build

        pages = build(output, root)
        console().print(f"{pages} pages, start at {output / 'index.html'}", soft_wrap=True)
        return 0

    guarded(action)
