"""Conversions of the reference on host arrays."""

from collections.abc import Callable
from typing import Any

import numpy as np

from qloracle.formats import FORMATS
from qloracle.rounding import decode, encode
from qloracle_conformance.arrays import HostArray, host


def _encode(
    values: HostArray, random_bits: HostArray | None = None, *, fmt: str, rounding: str = "ties_to_even",
    overflow: str | None = None, nan: str | None = None,
) -> HostArray:  # fmt: skip
    source = values.dtype if values.dtype in FORMATS else None
    random = None if random_bits is None else random_bits.items
    words = encode(
        values.items, fmt, rounding=rounding, overflow=overflow, nan=nan, random_bits=random, source=source
    )  # fmt: skip
    return host(words, fmt)


def _decode(bits: HostArray, *, dtype: str) -> HostArray:
    return host(np.asarray(encode(decode(bits.items, bits.dtype), dtype)), dtype)


OPS: dict[str, Callable[..., Any]] = {
    "encode": _encode,
    "decode": _decode,
}
