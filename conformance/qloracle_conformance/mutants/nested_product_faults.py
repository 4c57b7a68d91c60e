"""Faults of products whose absmax are quantized themselves: what is not expanded, or expanded from the wrong group."""

from collections.abc import Callable
from typing import Any

import numpy as np

from qloracle.formats import Array
from qloracle.tables import codebook_named
from qloracle_conformance.arrays import HostArray, host
from qloracle_conformance.mutants.mutant import Mutant
from qloracle_conformance.mutants.product_kernel import product_by, right_product


def _changed_nested(change: Callable[[dict[str, Any]], Array]) -> dict[str, Any]:
    def matmul(**arguments: Any) -> HostArray:
        absmax = host(np.asarray(change(arguments), np.float32))
        rest = {n: v for n, v in arguments.items() if n not in ("absmax_codes", "nested_absmax", "offset")}
        return product_by(right_product)["quantized_matmul"](**rest, absmax=absmax)

    return {"double_quantized_matmul": matmul}


def _nested(arguments: dict[str, Any]) -> tuple[Array, Array, np.float32]:
    table = codebook_named("dynamic_signed")
    codes = arguments["absmax_codes"].items
    return table.entries[codes], arguments["nested_absmax"].items, np.float32(arguments["offset"].items)


def _spread(nested: Array, count: int) -> Array:
    return np.repeat(nested, 256)[:count]


def _nested_unexpanded(arguments: dict[str, Any]) -> Array:
    y: Array = arguments["absmax_codes"].items.astype(np.float32)
    return y


def _nested_without_offset(arguments: dict[str, Any]) -> Array:
    entries, nested, _ = _nested(arguments)
    return entries * _spread(nested, len(entries))


def _nested_offset_in_float16(arguments: dict[str, Any]) -> Array:
    entries, nested, offset = _nested(arguments)
    return entries * _spread(nested, len(entries)) + np.float32(np.float16(offset))


def _nested_first_group(arguments: dict[str, Any]) -> Array:
    entries, nested, offset = _nested(arguments)
    return entries * (nested[0] if nested.size else 0) + offset


def _nested_groups_of_64(arguments: dict[str, Any]) -> Array:
    entries, nested, offset = _nested(arguments)
    which = np.minimum(np.arange(len(entries)) // 64, max(len(nested) - 1, 0))
    return entries * nested[which] + offset


def _nested_linear(arguments: dict[str, Any]) -> Array:
    _, nested, offset = _nested(arguments)
    codes = arguments["absmax_codes"].items.astype(np.float32)
    y: Array = (codes - 127) / 128 * _spread(nested, len(codes)) + offset
    return y


def nested_product_faults() -> list[Mutant]:
    """Return the mutants of products whose absmax are quantized themselves."""
    nested: list[tuple[str, str, Callable[[dict[str, Any]], Array]]] = [
        ("unexpanded", "codes of the absmax are taken for absmax", _nested_unexpanded),
        ("without-offset", "the offset is not added", _nested_without_offset),
        ("offset-float16", "the offset passes through float16", _nested_offset_in_float16),
        ("first-group", "the first nested absmax serves all groups", _nested_first_group),
        ("groups-of-64", "nested groups are taken to be of 64 blocks", _nested_groups_of_64),
        ("linear", "codes of the absmax are taken to be linear", _nested_linear),
    ]
    return [Mutant(f"matmul-nested-{name}", fault, _changed_nested(change), ("y",)) for name, fault, change in nested]
