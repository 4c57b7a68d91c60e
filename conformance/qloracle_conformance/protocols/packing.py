"""Signatures of packing."""

from typing import Any, Protocol

Native = Any


class Pack4bit(Protocol):
    """``pack_4bit``: two codes in a byte, the first in the high nibble. Clause [packing.nibbles]."""

    def __call__(self, codes: Native, *, pad_code: int) -> Native:
        """Return uint8 of shape (⌈codes.size / 2⌉,) from uint8 codes of any shape."""
        ...


class Unpack4bit(Protocol):
    """``unpack_4bit``: the inverse. Clause [packing.nibbles]."""

    def __call__(self, packed: Native, *, size: int) -> Native:
        """Return uint8 codes of shape (size,)."""
        ...


PROTOCOLS: dict[str, type] = {
    "pack_4bit": Pack4bit,
    "unpack_4bit": Unpack4bit,
}
