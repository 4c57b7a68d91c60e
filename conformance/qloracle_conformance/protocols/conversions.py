"""Signatures of format conversions."""

from typing import Any, Protocol

Native = Any


class Encode(Protocol):
    """``encode``: to a format, in one rounding.

    Clauses [format.encode], [format.rounding], [format.overflow], [format.stochastic], [format.nan].
    Without more than `fmt`: ties to even, and infinity, else NaN, else the largest finite number for what is too
    large. Other options are passed only if a claim lists them: `rounding`, `overflow`, `nan` as in the reference's
    `encode`, and `random_bits` (uint32, the shape of `values`) where rounding is "stochastic". The source is float32
    (float64 for the format float32, int64 for float64) unless a claim lists others as `source`.
    """

    def __call__(self, values: Native, *, fmt: str) -> Native:
        """Return an array of type `fmt`, of the shape of `values`."""
        ...


class Decode(Protocol):
    """``decode``: a format narrower than float32 to "float32", exact. Clause [format.decode]."""

    def __call__(self, bits: Native, *, dtype: str) -> Native:
        """Return an array of type `dtype`, of the shape of `bits`."""
        ...


PROTOCOLS: dict[str, type] = {
    "encode": Encode,
    "decode": Decode,
}
