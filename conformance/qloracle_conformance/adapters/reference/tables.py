"""The codebooks of the reference on host arrays."""

from collections.abc import Callable
from typing import Any

from qloracle.tables import codebook_named
from qloracle_conformance.arrays import HostArray, host


def _codebook_entries(*, codebook: str) -> HostArray:
    return host(codebook_named(codebook).entries)


def _codebook_midpoints(*, codebook: str) -> HostArray:
    return host(codebook_named(codebook).midpoints)


OPS: dict[str, Callable[..., Any]] = {
    "codebook_entries": _codebook_entries,
    "codebook_midpoints": _codebook_midpoints,
}
