"""A codebook as text: its name, or for a table of one's own its name and its words."""

from qloracle.codebooks import Codebook
from qloracle.tables import CODEBOOKS


def codebook_text(codebook: str | Codebook) -> str:
    """Return a text that two codebooks share only if they have the same name and entries.

    Examples
    --------
    >>> from qloracle.tables import codebook_named
    >>> codebook_text("nf4"), codebook_text(codebook_named("nf4"))
    ('nf4', 'nf4')
    """
    if isinstance(codebook, str):
        return codebook
    if CODEBOOKS.get(codebook.name) is codebook:
        return codebook.name
    words = " ".join(f"{int(word):08x}" for word in codebook.entries.view("uint32"))
    return f"{codebook.name}: {words}"
