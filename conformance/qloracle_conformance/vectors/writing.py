"""Writing a set of vectors into a folder."""

from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from threadpoolctl import threadpool_limits

from qloracle_conformance.files import FileError, read_text, write_atomically
from qloracle_conformance.vectors.building import Settings, VectorSet, build
from qloracle_conformance.vectors.manifest import NAME, manifest_of, manifest_text
from qloracle_conformance.vectors.text import file_text

FORM = "FORMAT.md"
Result = TypeVar("Result")


def texts_of(made: VectorSet) -> dict[str, str]:
    """Return the text of every file of a set: vectors, manifest, and how to read them."""
    texts = {path: file_text(members) for path, members in made.files.items()}
    form = files(__package__).joinpath("format.md").read_text(encoding="utf-8")
    return {**texts, NAME: manifest_text(manifest_of(made, texts)), FORM: form}


def write_vectors(folder: Path, settings: Settings, jobs: int, out: Console, progress_to: Console) -> int:
    """Make the vectors of a selection, write them, say what there is, and return the exit code.

    Raises
    ------
    UsageError
        If nothing is selected.
    FileError
        If the folder holds other files of vectors than those that are written, or cannot be written.
    """
    made = with_progress(lambda advance: build(settings, advance, jobs), progress_to)
    texts = texts_of(made)
    _require_own(folder, set(texts))
    for path, text in texts.items():
        write_atomically(folder / path, text)
    shown = {flag for vector in made.vectors() for flag in vector.flags}
    manifest = manifest_of(made, {path: text for path, text in texts.items() if path in made.files})
    left = manifest["not_covered"]
    out.print(
        f"{sum(1 for _ in made.vectors()):,} vectors in {len(made.files)} files of {escape(str(folder))}, level"
        f" {settings.level}, {sum(len(t) for t in texts.values()) / 1e6:.1f} MB", soft_wrap=True,
    )  # fmt: skip
    out.print(f"{len(shown)} of {len(shown) + len(left['mistakes'])} known mistakes break a limit of one at least")
    out.print(f"{len(left['properties'])} of {len(made.wanted)} properties have no case of this size")
    return 0


def _require_own(folder: Path, names: set[str]) -> None:
    """Refuse a folder in which a file of an earlier set would stay behind, and belong to no manifest."""
    other = sorted(path.name for path in folder.glob("*.txt") if path.name not in names) if folder.is_dir() else []
    if other:
        raise FileError(f"{folder} holds {other[0]}, which is no file of this set: delete it, or name another folder")
    manifest = folder / NAME
    if manifest.exists() and '"qloracle_vectors"' not in read_text(manifest):
        raise FileError(f"{manifest} is no manifest of vectors: it is not replaced, name another folder")


def with_progress(work: Callable[[Callable[[str, int], None]], Result], progress_to: Console) -> Result:
    """Do some work with a bar; the work says which of how many operations it has come to."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with threadpool_limits(limits=1), Progress(*columns, console=progress_to, transient=True) as progress:
        bar = progress.add_task("starting", total=None)
        return work(lambda name, total: progress.update(bar, total=total, description=name, advance=1))
