"""`qloracle vectors` and `qloracle header`: files for those who test without Python."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from qloracle_conformance.commands.guard import console, guarded

vectors = typer.Typer(
    help="Test vectors: files with inputs, limits of every stage, and the mistakes that they hunt.",
    no_args_is_help=True,
)


@vectors.command("write")
def write(
    folder: Annotated[Path, typer.Argument(help="Where manifest.json and the files go.")],
    only: Annotated[str | None, typer.Option(help="Property ids, a shell pattern such as 'nf4.*'.")] = None,
    size: Annotated[str, typer.Option(help="How many and how large: small, medium or large.")] = "small",
    level: Annotated[str, typer.Option(help="Limits of codes: exact, or tie for near boundaries.")] = "exact",
    seed: Annotated[int, typer.Option(min=0, help="Seed of the cases.")] = 0,
    jobs: Annotated[int, typer.Option("-j", "--jobs", min=1, help="Number of processes; the files are the same.")] = 1,
) -> None:
    """Write test vectors; each file says of every stage which bits and ordinals are allowed."""

    def action() -> int:
        from rich.console import Console

        from qloracle_conformance.vectors.building import Settings
        from qloracle_conformance.vectors.writing import write_vectors

        return write_vectors(folder, Settings(only, size, level, seed), jobs, console(), Console(stderr=True))  # type: ignore[arg-type]

    guarded(action)


@vectors.command("verify")
def verify(
    folder: Annotated[Path | None, typer.Argument(help="A folder of vectors; none: the ones that are shipped.")] = None,
) -> None:
    """Check schema, digests, ids and versions of a folder, and derive everything anew; exit 1 if a vector differs."""

    def action() -> int:
        from rich.console import Console

        from qloracle_conformance.vectors.canonical import shipped_folder
        from qloracle_conformance.vectors.verifying import verify_vectors

        return verify_vectors(folder or shipped_folder(), console(), Console(stderr=True))

    guarded(action)


@vectors.command("path")
def path() -> None:
    """Print the folder of the vectors that are part of this package."""

    def action() -> int:
        from qloracle_conformance.vectors.canonical import shipped_folder

        sys.stdout.write(f"{shipped_folder()}\n")
        return 0

    guarded(action)


def header(
    output: Annotated[Path | None, typer.Option("-o", "--output", help="A file; none: standard output.")] = None,
) -> None:
    """Write all tables and constants as a C header (C89, C++; only <stdint.h>), made from the reference."""

    def action() -> int:
        from qloracle_conformance.c_header.text import header_text
        from qloracle_conformance.files import write_atomically

        if output is None:
            sys.stdout.write(header_text())
        else:
            write_atomically(output, header_text())
            console().print(f"{output} written", soft_wrap=True)
        return 0

    guarded(action)
