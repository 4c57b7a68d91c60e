"""Signatures of what shows a codebook."""

from typing import Any, Protocol

Native = Any


class CodebookEntries(Protocol):
    """``codebook_entries``: operations CODEBOOK.entries. Clauses [nf4.table], [fp4.table] and so on."""

    def __call__(self, *, codebook: str) -> Native:
        """Return the entries that codes are read with: float32 of shape (16,) or (256,), in code order."""
        ...


class CodebookMidpoints(Protocol):
    """``codebook_midpoints``: operations CODEBOOK.midpoints. Clause [codebook.midpoints]."""

    def __call__(self, *, codebook: str) -> Native:
        """Return where one code gives way to the next: float64, ascending, one fewer than distinct entries."""
        ...


PROTOCOLS: dict[str, type] = {
    "codebook_entries": CodebookEntries,
    "codebook_midpoints": CodebookMidpoints,
}
