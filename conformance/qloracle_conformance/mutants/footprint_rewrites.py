"""Right rewrites of counting: block by block, element by element, or from closed forms."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from qloracle.footprint.storage import group_count
from qloracle_conformance import counted
from qloracle_conformance.arrays import HostArray, host
from qloracle_conformance.mutants.mutant import Rewrite


def _by_division(shapes: HostArray, *, scheme: str, block_size: int) -> tuple[HostArray, ...]:
    """Round up by adding one less than the divisor, in NumPy integers."""
    chosen = counted.scheme_of(scheme, block_size)
    rows = [counted.shape_of(row) for row in shapes.items]
    elements = np.array([int(np.prod(row, dtype=object)) for row in rows], np.int64)
    groups = np.array([group_count(row, chosen) for row in rows], np.int64)
    codes = (elements // 8 * chosen.code_bits) + (elements % 8 * chosen.code_bits + 7) // 8
    nested = np.full(len(rows), 4, np.int64)
    if chosen.nested:
        return host(codes), host(groups + (groups + 255) // 256 * 4), host(nested)
    return host(codes), host(groups * 4), host(groups * chosen.zero_point_bytes)


def _by_blocks(sizes: HostArray, *, optimizer: str) -> HostArray:
    """Visit the blocks of every moment."""

    def blocks(size: int) -> Iterator[int]:
        whole, rest = divmod(size, 256)
        yield whole * (256 + 4)
        yield rest + 4 if rest else 0

    if optimizer.endswith("32bit"):
        return host(np.array(sum(4 * int(size) + 4 * int(size) for size in sizes.items), np.int64))
    found = sum(part for size in sizes.items for _ in range(2) for part in blocks(int(size)))
    return host(np.array(found + (2 * 1024 if sizes.items.size else 0), np.int64))


def _printed_from_total(
    shapes: HostArray, quantized: HostArray, item_bytes: HostArray, **options: Any
) -> tuple[HostArray, HostArray]:
    """Take the printed number as the total less what is no parameter."""
    found = counted.model(shapes.items, quantized.items, item_bytes.items, **options)
    printed = found.total - found.scales - found.offsets - found.tables
    return host(np.array(found.total, np.int64)), host(np.array(printed, np.int64))


def footprint_rewrites() -> list[Rewrite]:
    """Return right rewrites."""
    return [
        Rewrite("footprint-by-division", "counts are rounded up by division", {"tensor_bytes": _by_division}, {}),
        Rewrite("footprint-by-blocks", "states are counted block by block", {"state_bytes": _by_blocks}, {}),
        Rewrite("footprint-from-total", "the printed number is derived from the total",
                {"model_footprint": _printed_from_total}, {}),
    ]  # fmt: skip
