"""Writing pages with a progress bar: what `qloracle html` does."""

from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from qloracle_conformance.pages.site import steps, write_pages
from qloracle_conformance.reading import Run


def write(run: Run, output: Path, witnesses: Path | None, progress_to: Console) -> Path:
    """Write the pages of a report and return the one to begin with."""
    columns = (TextColumn("pages"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=progress_to, transient=True) as progress:
        bar = progress.add_task("pages", total=steps(run, output))
        return write_pages(run, output, witnesses, lambda _: progress.advance(bar))
