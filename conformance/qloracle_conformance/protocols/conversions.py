"""Signatures of format conversions."""

from typing import Any, Protocol

Native = Any


class Encode(Protocol):
    """``encode``: float32 to "bfloat16" or "float16", ties to even, all specials. Clause [format.encode]."""

    def __call__(self, values: Native, *, fmt: str) -> Native:
        """Return an array of type `fmt`, of the shape of `values`."""
        ...


class Decode(Protocol):
    """``decode``: bfloat16 or float16 to "float32", exact. Clause [format.decode]."""

    def __call__(self, bits: Native, *, dtype: str) -> Native:
        """Return an array of type `dtype`, of the shape of `bits`."""
        ...


PROTOCOLS: dict[str, type] = {
    "encode": Encode,
    "decode": Decode,
}
