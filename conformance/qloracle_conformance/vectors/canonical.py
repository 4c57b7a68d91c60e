"""The canonical set: the vectors that are part of the package, and how they are made."""

import os
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

from rich.console import Console

from qloracle_conformance.files import FileError
from qloracle_conformance.vectors.building import Settings, build
from qloracle_conformance.vectors.writing import texts_of, with_progress

FOLDER = "canonical"
CANONICAL = Settings()  # small, exact, seed 0, all that there is
_PACKAGE = Path("conformance/qloracle_conformance/vectors")  # in a checkout


def shipped_folder() -> Path:
    """Return the folder of the shipped vectors."""
    return Path(str(files(__package__).joinpath(FOLDER)))


def canonical_files(root: Path, progress_to: Console) -> Iterator[tuple[Path, str]]:
    """Yield path and text of every file of the canonical set, made anew.

    Raises
    ------
    FileError
        If the folder below `root` holds a file that is none of the set.
    """
    made = with_progress(lambda advance: build(CANONICAL, advance, os.cpu_count() or 1), progress_to)
    texts = texts_of(made)
    folder = _PACKAGE / FOLDER
    extra = sorted(path.name for path in (root / folder).glob("*") if path.name not in texts)
    if extra:
        raise FileError(f"{folder / extra[0]} is no file of the canonical set: delete it")
    for name, text in texts.items():
        yield folder / name, text
