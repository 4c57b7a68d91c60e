"""Conversions of the reference on host arrays."""

from collections.abc import Callable
from typing import Any

import numpy as np

from qloracle.rounding import decode, encode
from qloracle_conformance.arrays import HostArray, host


def _encode(values: HostArray, *, fmt: str) -> HostArray:
    return host(np.asarray(encode(values.items, fmt)), fmt)


def _decode(bits: HostArray, *, dtype: str) -> HostArray:
    return host(np.asarray(encode(decode(bits.items, bits.dtype), dtype)), dtype)


OPS: dict[str, Callable[..., Any]] = {
    "encode": _encode,
    "decode": _decode,
}
