"""Packing of the reference on host arrays."""

from collections.abc import Callable
from typing import Any

from qloracle.packing import pack_4bit, storage_bytes, storage_view, unpack_4bit
from qloracle_conformance.arrays import HostArray, host


def _pack_4bit(codes: HostArray, *, pad_code: int) -> HostArray:
    return host(pack_4bit(codes.items, pad_code))


def _unpack_4bit(packed: HostArray, *, size: int) -> HostArray:
    return host(unpack_4bit(packed.items, size))


def _storage_view(packed: HostArray, *, storage: str) -> HostArray:
    return HostArray(storage_view(packed.items, storage), storage)


def _storage_bytes(stored: HostArray, *, storage: str) -> HostArray:
    return host(storage_bytes(stored.items))


OPS: dict[str, Callable[..., Any]] = {
    "pack_4bit": _pack_4bit,
    "unpack_4bit": _unpack_4bit,
    "storage_view": _storage_view,
    "storage_bytes": _storage_bytes,
}
