"""Packing of the reference on host arrays."""

from collections.abc import Callable
from typing import Any

from qloracle.packing import pack_4bit, unpack_4bit
from qloracle_conformance.arrays import HostArray, host


def _pack_4bit(codes: HostArray, *, pad_code: int) -> HostArray:
    return host(pack_4bit(codes.items, pad_code))


def _unpack_4bit(packed: HostArray, *, size: int) -> HostArray:
    return host(unpack_4bit(packed.items, size))


OPS: dict[str, Callable[..., Any]] = {
    "pack_4bit": _pack_4bit,
    "unpack_4bit": _unpack_4bit,
}
