"""Schemes of storage as data: what stands for an element, and which elements share a scale.

`footprint.storage` counts what they take. What is not stored with a tensor (outliers of activations, say) costs
nothing.
"""

from dataclasses import dataclass, replace

from qloracle.errors import reject_value, require_integer, require_one_of, require_positive_integer
from qloracle.formats import FORMATS, TENSOR_FORMATS
from qloracle.nested_absmax import NESTED_CODEBOOK
from qloracle.records import require_fields
from qloracle.tables import CODEBOOKS

GROUPS = ("none", "tensor", "row", "column", "block")
PLAIN = TENSOR_FORMATS


@dataclass(frozen=True)
class Scheme:
    """How the elements of a tensor are stored."""

    name: str
    code_bits: int  # of an element: its code, or the number itself in a plain format
    group: str = "none"  # the elements that share a scale, one of GROUPS
    block_size: int | None = None  # elements of a flat block, for group "block"
    zero_point_bytes: int = 0  # of each group, for affine schemes, whose 4-bit codes are packed too
    nested: bool = False  # double quantization: 8-bit codes of the absmax, 256 to a nested float32 absmax, one offset
    table_entries: int = 0  # float32 words of the codebooks, that of the nested absmax included

    def __post_init__(self) -> None:
        """Refuse a record that describes no storage."""
        require_fields(self)
        require_positive_integer("code_bits", self.code_bits)
        require_one_of("group", self.group, GROUPS)
        if self.group == "block":
            require_positive_integer("block_size", self.block_size)
        elif self.block_size is not None or self.nested:
            reject_value("group", "'block' for a scheme with a block size or nested absmax", repr(self.group))
        for name in ("zero_point_bytes", "table_entries"):
            if require_integer(name, getattr(self, name), "an integer that is 0 or more") < 0:
                reject_value(name, "an integer that is 0 or more", getattr(self, name))


def _schemes() -> tuple[Scheme, ...]:
    blocks = [Scheme(c.name, c.code_bits, "block", 64, table_entries=c.entries.size) for c in CODEBOOKS.values()]
    own = CODEBOOKS[NESTED_CODEBOOK]
    nested = {c.name: 0 if c is own else own.entries.size for c in CODEBOOKS.values()}  # one table is stored once
    return (
        *(Scheme(name, 8 * FORMATS[name].word.itemsize) for name in PLAIN),
        *(Scheme(f"int8_{group}", 8, group) for group in ("tensor", "row", "column")),
        Scheme("int8_block", 8, "block", 64),
        Scheme("llm_int8", 8, "row"),
        *blocks,
        *(replace(s, name=f"{s.name}_double", nested=True, table_entries=s.table_entries + nested[s.name])
          for s in blocks),
        *(Scheme(f"affine{bits}_{group}", bits, group, zero_point_bytes=4)
          for bits in (8, 4) for group in ("tensor", "row", "column")),
        *(Scheme(f"affine{bits}_group", bits, "block", 64, zero_point_bytes=4) for bits in (8, 4)),
    )  # fmt: skip


SCHEMES: dict[str, Scheme] = {scheme.name: scheme for scheme in _schemes()}


SHORT = {"int8": "int8_tensor", "affine8": "affine8_tensor", "affine4": "affine4_tensor"}


def scheme_named(name: str, block_size: int | None = None) -> Scheme:
    """Return a scheme by name, with flat blocks of another size if one is given.

    Parameters
    ----------
    name : str
        A key of SCHEMES; "int8", "affine8" and "affine4" are short for the scheme with one scale for the tensor.
    block_size : int, optional
        Elements of a block, for the schemes that have blocks (64 if not given).

    Raises
    ------
    ArgumentValueError
        If there is no such scheme, or it has no blocks although `block_size` is given.
    ArgumentTypeError
        If `block_size` is no integer.

    Examples
    --------
    >>> scheme_named("nf4", 128)
    Scheme(name='nf4', code_bits=4, group='block', block_size=128, zero_point_bytes=0, nested=False, table_entries=16)
    """
    known = require_one_of("scheme", name, [*SCHEMES, *SHORT])
    scheme = SCHEMES[SHORT.get(known, known)]
    if block_size is None:
        return scheme
    block_size = require_positive_integer("block_size", block_size)
    if scheme.group != "block":
        reject_value("block_size", f"None for scheme {scheme.name}, which has no blocks", block_size)
    return replace(scheme, block_size=block_size)


def require_scheme(scheme: str | Scheme) -> Scheme:
    """Return `scheme`, looked up if it is a name."""
    return scheme if isinstance(scheme, Scheme) else scheme_named(scheme)
