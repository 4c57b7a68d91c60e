"""A codebook as text, and back: its name, or for a table of one's own its name and its words."""

from re import fullmatch

import torch

from qloracle.codebooks import Codebook
from qloracle.errors import reject_value
from qloracle.tables import CODEBOOKS

_TABLES: dict[str, Codebook] = {}  # tables of one's own by their texts


def codebook_text(codebook: str | Codebook) -> str:
    """Return a text that two codebooks share only if they have the same name and entries.

    Raises
    ------
    ArgumentValueError
        If a compiler traces the call and the table is none of this specification: it could not follow its words. Layers
        have made their texts before, and operators take the text.

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
    if torch.compiler.is_compiling():
        rule = "a name under torch.compile, or for torch.ops.qloracle the text that codebook_text made of it before"
        reject_value("codebook", rule, "a table of one's own")
    words = " ".join(f"{int(word):08x}" for word in codebook.entries.view("uint32"))
    text = f"{codebook.name}: {words}"
    _TABLES.setdefault(text, codebook)
    return text


def codebook_of(text: str) -> str | Codebook:
    """Return the codebook of a text: a name as it is, a table of one's own made once.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If it is neither a name nor a text of `codebook_text`, or `Codebook` refuses the entries.

    Examples
    --------
    >>> codebook_of("nf4")
    'nf4'
    >>> halves = "halves: " + " ".join(f"{word:08x}" for word in torch.arange(16.0).view(torch.int32).tolist())
    >>> codebook_of(halves).entries[3] == 3, codebook_text(codebook_of(halves)) == halves
    (np.True_, True)
    """
    name, colon, words = text.rpartition(": ")
    if text in CODEBOOKS or not colon:
        return text
    if text not in _TABLES:
        if not all(fullmatch("[0-9a-f]{8}", word) for word in words.split(" ")):
            reject_value("codebook", "a name, or a text of codebook_text", repr(text))
        patterns = torch.tensor([int(word, 16) for word in words.split(" ")], dtype=torch.uint32, device="cpu")
        _TABLES[text] = Codebook(name, patterns.view(torch.float32).numpy())
    return _TABLES[text]
