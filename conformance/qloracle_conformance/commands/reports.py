"""Commands on reports: `qloracle merge`, `compare`, `export`, `html`; and `qloracle new-adapter`."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from qloracle_conformance.commands.guard import console, guarded


def merge(
    reports: Annotated[list[Path], typer.Argument(help="The reports of all shards of one run.")],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Write the report of the whole run.")] = None,
) -> None:
    """Join the shards of a run into what the whole run would have said; exit code as of `check`."""

    def action() -> int:
        from qloracle_conformance.merging import merge as run

        return run(reports, output, console())

    guarded(action)


def compare(
    before: Annotated[Path, typer.Argument(help="A report.")],
    after: Annotated[Path, typer.Argument(help="A later one.")],
) -> None:
    """Print which verdicts changed between two reports; exit 1 if a property broke that held."""

    def action() -> int:
        from qloracle_conformance.comparing import compare as run

        return run(before, after, console())

    guarded(action)


def export(
    report: Annotated[Path, typer.Argument(help="A report of `check` or `merge`.")],
    junit: Annotated[Path | None, typer.Option(help="Write JUnit XML to this file.")] = None,
    badge: Annotated[Path | None, typer.Option(help="Write an SVG badge to this file.")] = None,
    annotate: Annotated[bool, typer.Option("--annotate", help="Print annotations for a pull request.")] = False,
) -> None:
    """Turn a report into what other programs read."""

    def action() -> int:
        from qloracle_conformance.exports import annotations, write_exports
        from qloracle_conformance.reading import read_run
        from qloracle_conformance.usage import UsageError

        if junit is None and badge is None and not annotate:
            raise UsageError("nothing to write: give --junit FILE, --badge FILE or --annotate")
        run = read_run(report)
        write_exports(run, junit, badge)
        if annotate:
            sys.stdout.write(annotations(run))
        return 0

    guarded(action)


def html(
    report: Annotated[Path, typer.Argument(help="A report of `check` or `merge`.")],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="A folder, or a file that ends in .html: only failures in detail.")
    ] = Path("build/report"),
    witnesses: Annotated[
        Path | None, typer.Option(help="Folder of the witness files; not given: where the report says.")
    ] = None,
) -> None:
    """Write a report as static pages with plots that need no network; the exit code does not say the verdict."""

    def action() -> int:
        from qloracle_conformance.reading import read_run
        from qloracle_conformance.usage import UsageError

        run = read_run(report)
        try:
            from qloracle_conformance.pages.command import write
        except ModuleNotFoundError as error:
            if error.name not in ("jinja2", "markupsafe", "matplotlib"):
                raise
            raise UsageError(f"this command needs the module {error.name!r}: pip install 'qloracle[report]'") from error
        start = write(run, output, witnesses, Console(stderr=True))
        console().print(f"start at {start}", soft_wrap=True, markup=False)
        return 0

    guarded(action)


def new_adapter(
    path: Annotated[Path, typer.Argument(help="The file to write, for example my_adapter.py.")],
    arrays: Annotated[str, typer.Option(help="What your functions take: numpy or torch.")] = "numpy",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that is there.")] = False,
) -> None:
    """Write an adapter for your own kernels that runs at once, and claims nothing until you tell it."""

    def action() -> int:
        from qloracle_conformance.new_adapter import new_adapter as write

        write(path, arrays, overwrite=overwrite)
        console().print(f"{path} written; now: qloracle check --backend {path.stem}:backend", soft_wrap=True)
        return 0

    guarded(action)
