"""Writing files so that a reader never sees half of one."""

from pathlib import Path

from qloracle.errors import QloracleError


class FileError(QloracleError):
    """A file cannot be read or written."""


def write_atomically(path: Path, text: str) -> None:
    """Write a text file by renaming a complete one into place.

    Raises
    ------
    FileError
        If the folder cannot be made or the file cannot be written.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        raise FileError(f"cannot write {path}: {error.strerror or error}") from error


def read_text(path: Path) -> str:
    """Return the text of a file.

    Raises
    ------
    FileError
        If it cannot be read, or is no UTF-8 text.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise FileError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
