"""The codebooks of this specification by name; each table stands in its own module, with its derivation."""

from collections.abc import Mapping
from types import MappingProxyType

from qloracle.codebooks import Codebook
from qloracle.dynamic_map import DYNAMIC_SIGNED, DYNAMIC_UNSIGNED
from qloracle.errors import reject_type, require_one_of
from qloracle.float8_map import FLOAT8
from qloracle.fp4 import FP4
from qloracle.linear_map import LINEAR_SIGNED, LINEAR_SIGNED_4BIT, LINEAR_UNSIGNED, LINEAR_UNSIGNED_4BIT
from qloracle.nf4 import NF4

_ALL = (
    NF4,
    FP4,
    LINEAR_SIGNED_4BIT,
    LINEAR_UNSIGNED_4BIT,
    DYNAMIC_SIGNED,
    DYNAMIC_UNSIGNED,
    LINEAR_SIGNED,
    LINEAR_UNSIGNED,
    FLOAT8,
)
CODEBOOKS: Mapping[str, Codebook] = MappingProxyType({codebook.name: codebook for codebook in _ALL})


def codebook_named(codebook: str | Codebook) -> Codebook:
    """Return the codebook of a name, or the given one itself.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If `codebook` is neither a name nor a codebook, or no codebook has that name.

    Examples
    --------
    >>> codebook_named("fp4").zero_code
    0
    """
    if isinstance(codebook, Codebook):
        return codebook
    if not isinstance(codebook, str):
        reject_type("codebook", "a name or a Codebook", type(codebook).__name__)
    require_one_of("codebook", codebook, CODEBOOKS)
    return CODEBOOKS[codebook]
