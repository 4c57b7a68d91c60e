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


class StorageView(Protocol):
    """``storage_view``: operation packing.store, the same bytes as wider items. Clause [packing.storage]."""

    def __call__(self, packed: Native, *, storage: str) -> Native:
        """Return items of type `storage` ("uint8" unless the claim says otherwise), 1-d, from uint8 of any shape."""
        ...


class StorageBytes(Protocol):
    """``storage_bytes``: operation packing.restore, the inverse. Clause [packing.storage]."""

    def __call__(self, stored: Native, *, storage: str) -> Native:
        """Return uint8, 1-d, from items of type `storage`."""
        ...


PROTOCOLS: dict[str, type] = {
    "pack_4bit": Pack4bit,
    "unpack_4bit": Unpack4bit,
    "storage_view": StorageView,
    "storage_bytes": StorageBytes,
}
