"""Reading a file of vectors: every record with the line that it begins at, its case, and its lines."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from qloracle_conformance.exchange.reading import CutShortError, TokenLines
from qloracle_conformance.exchange.records import case_body, case_id, read_case
from qloracle_conformance.files import FileError
from qloracle_conformance.generators.case import Case
from qloracle_conformance.registry import OPERATIONS
from qloracle_conformance.vectors.vector import Source


@dataclass(frozen=True)
class Stored:
    """A vector as it stands in a file."""

    path: Path
    line: int  # of its first line
    lines: tuple[str, ...]
    id: str
    operation: str
    source: Source
    case: Case
    stages: tuple[str, ...]  # named in its lines
    refused: bool

    def reject(self, rule: str, offset: int = 0) -> FileError:
        """Return the error that names file, line and rule."""
        return FileError(f"{self.path}, line {self.line + offset}: {rule}")


def stored_vectors(path: Path, text: str) -> Iterator[Stored]:
    """Yield the vectors of a file.

    Raises
    ------
    FileError
        If a record is malformed: the message names file, line and rule.
    """
    lines = text.splitlines()
    start = 0
    while start < len(lines):
        if not lines[start].strip():
            start += 1
            continue
        end = next((i for i in range(start, len(lines)) if lines[i].split() == ["end"]), None)
        if end is None:
            raise FileError(f"{path}, line {len(lines)}: the file was cut short inside the vector of line {start + 1}")
        yield _stored(path, start + 1, tuple(lines[start : end + 1]))
        start = end + 1


def _stored(path: Path, line: int, lines: tuple[str, ...]) -> Stored:
    reader = TokenLines(str(path), lines)
    reader.number = line - 1
    try:
        head = reader.following()
        if len(head) != 4 or head[0] != "vector" or head[2] not in OPERATIONS:
            reader.reject("a vector begins with 'vector ID OPERATION FUNCTION' and an operation that exists")
        source, marks = _source(reader, reader.following())
        if reader.following()[0] != "flags":
            reader.reject("the third line of a vector is 'flags COUNT NAME …'")
        case, tokens = read_case(reader, head[2])
    except CutShortError:
        raise FileError(f"{path}, line {reader.number}: the vector ends here, before it is complete") from None
    stages = tuple(words[1] for words in map(str.split, lines) if len(words) > 1 and words[0] == "stage")
    if tokens[0] not in ("output", "error", "stage") or (tokens[0] == "error") != (not stages):
        reader.reject("after the inputs come outputs and stages, or 'error KIND ARGUMENT'")
    refused = tokens[0] == "error"
    origin = f"{head[2]}.{source.family}.{source.seed}" + ("" if refused else f".{source.index}")
    if case_id(origin, case_body(case)) != head[1]:
        raise FileError(
            f"{path}, line {line}: the id must end with the digest of the case, which was changed: {head[1]}"
        )
    return Stored(path, line, lines, head[1], head[2], source, replace(case, **marks), stages, refused)


def _source(reader: TokenLines, tokens: list[str]) -> tuple[Source, dict[str, Any]]:
    """Return where a case comes from, and what the line says of the case besides."""
    known = len(tokens) == 7 and tokens[0] == "source" and tokens[4] in ("whole", "cut")
    if not known or tokens[5] not in ("lattice", "bounded"):
        reader.reject("the second line of a vector is 'source FAMILY SEED INDEX whole|cut lattice|bounded PART'")
    if not (tokens[2].isdecimal() and tokens[3].isdecimal()):
        reader.reject(f"seed and index must be whole numbers, got {tokens[2]!r} and {tokens[3]!r}")
    source = Source(tokens[1], int(tokens[2]), int(tokens[3]), tokens[4] == "cut")
    return source, {"lattice": tokens[5] == "lattice", "term": "" if tokens[6] == "-" else tokens[6]}
