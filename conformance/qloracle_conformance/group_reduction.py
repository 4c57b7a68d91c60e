"""Smaller cases of quantizers with scales for groups, and of layers with quantized weights."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np

from qloracle.formats import Array
from qloracle_conformance.arrays import HostArray
from qloracle_conformance.generators.case import Case

ELEMENTS = ("x", "dy", "codes")  # inputs with one item for each element
GROUPS = ("scale", "zero_point", "clip")  # with one for each group


def own_candidates(case: Case) -> Callable[[Case, int], Iterator[Case]] | None:
    """Return what makes smaller cases of ranges, of layers with quantized weights, or of scales for groups; or None."""
    names = case.inputs.keys()
    if names == {"lo", "hi"} or {"previous_lo", "current_lo"} <= names:
        return range_candidates
    if "codes" in names and ("x" in names or "dy" in names):
        return layer_candidates
    if "group_size" in case.options and names <= {*ELEMENTS, *GROUPS}:
        return group_candidates
    return None


def range_candidates(case: Case, element: int) -> Iterator[Case]:
    """Yield the range of the element alone."""
    items = {name: case.array(name).items.reshape(-1)[element : element + 1] for name in case.inputs}
    if all(array.size for array in items.values()):
        yield _with(case, items)


def group_candidates(case: Case, element: int) -> Iterator[Case]:
    """Yield the element alone, where its scale is given; then its group."""
    items = {name: case.array(name).items for name in case.inputs}
    size = next(items[name].size for name in ELEMENTS if name in items)
    if not size:
        return
    shape = next(items[name].shape for name in ELEMENTS if name in items)
    for place in dict.fromkeys((min(element, size - 1),)):
        group = _group_of(place, shape, case.options)
        if set(items) & set(GROUPS):
            yield _with(case, {name: _one(name, array, place, group) for name, array in items.items()}, tensor=True)
    for group in dict.fromkeys((_group_of(min(element, size - 1), shape, case.options), element)):
        part = {name: _part(case, name, group, element) for name in items}
        if all(array.size for array in part.values()):
            yield _with(case, part)


def _group_of(place: int, shape: tuple[int, ...], options: Mapping[str, Any]) -> int:
    kind = options["granularity"]
    if kind == "group":
        return int(place // options["group_size"])
    last = shape[-1] if shape else 1
    return {"tensor": 0, "row": place // last, "column": place % last}[kind]


def _one(name: str, array: Array, place: int, group: int) -> Array:
    flat = array.reshape(-1)
    return flat[place : place + 1] if name in ELEMENTS else flat[group : group + 1].reshape(())


def _part(case: Case, name: str, group: int, element: int) -> Array:
    """Return what a group has of one input; the ends of its range where a tensor is the group."""
    array, options = case.array(name).items, case.options
    kind, flat = options["granularity"], array.reshape(-1)
    if name in GROUPS:
        return array if kind == "tensor" else flat[group : group + 1]
    if kind == "group":
        size = options["group_size"]
        return flat[group * size : (group + 1) * size]
    if kind == "tensor":
        wide = case.array(name).real().reshape(-1)
        return flat[[int(np.argmin(wide)), int(np.argmax(wide)), min(element, flat.size - 1)]] if flat.size else flat
    rows = array.reshape(prod(array.shape[:-1]), array.shape[-1])
    return rows[group : group + 1] if kind == "row" else rows[:, group : group + 1]


def _with(case: Case, items: Mapping[str, Array], *, tensor: bool = False) -> Case:
    arrays = {n: HostArray(np.array(array, order="C"), case.array(n).dtype) for n, array in items.items()}
    options = {**case.options, **({"granularity": "tensor", "group_size": None} if tensor else {})}
    return replace(case, inputs={**case.inputs, **arrays}, options=options)


def layer_candidates(case: Case, element: int) -> Iterator[Case]:
    """Yield one row of the activations, with one row of the weight where that has a scale of its own, or with all."""
    name = "x" if "x" in case.inputs else "dy"
    array, codes = case.array(name).items, case.array("codes").items
    rows = array.reshape(prod(array.shape[:-1]), array.shape[-1])
    own = case.options.get("granularity", "row") == "row" and name == "x"
    for row in dict.fromkeys((element // max(1, len(codes)), element, element // max(1, rows.shape[1]))):
        if row >= len(rows):
            continue
        alone = {name: rows[row : row + 1]}
        column = element % max(1, len(codes))
        if own:
            per_row = [n for n in ("codes", "absmax", "scale", "zero_point", "weight", "bias") if case.inputs.get(n)]
            yield _with(case, {**alone, **{n: case.array(n).items[column : column + 1] for n in per_row}})
        yield _with(case, alone)
