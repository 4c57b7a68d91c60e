"""Reducing a failing case to the smallest part that still fails: one block, one row, one element."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from qloracle.nested_absmax import NESTED_BLOCK_SIZE
from qloracle_conformance.arrays import HostArray
from qloracle_conformance.generators.case import Case
from qloracle_conformance.group_reduction import own_candidates
from qloracle_conformance.merge_reduction import merge_candidates
from qloracle_conformance.sequences.reduction import reduced_sequence


def _nothing() -> None:
    pass


def reduced(
    case: Case, element: int, still_fails: Callable[[Case], bool], afresh: Callable[[], None] = _nothing
) -> Case:
    """Return the smallest candidate that still fails, or the case itself.

    Parameters
    ----------
    case : Case
    element : int
        Flat index of a failing element of the output.
    still_fails : function
        Runs a candidate and says whether it fails in the same way.
    afresh : function
        Starts the backend anew; for sequences.
    """
    if "steps" in case.options:
        return reduced_sequence(case, still_fails, afresh)
    for candidate in candidates(case, max(element, 0)):
        if still_fails(candidate):
            return candidate
    return case


def candidates(case: Case, element: int) -> Iterator[Case]:
    """Yield smaller cases that keep the failing element, smallest first; none for other layouts than contiguous."""
    return (smaller for smaller in _proposed(case, element) if smaller.elements <= case.elements)


def _proposed(case: Case, element: int) -> Iterator[Case]:
    if any(layout != "contiguous" for layout in case.layouts.values()):
        return
    if {"x", "lora_a"} <= case.inputs.keys():
        yield from _rows_of_layer(case, element)
    elif "ids" in case.inputs:
        yield from _lookup(case, element)
    elif "lora_a" in case.inputs:
        yield from merge_candidates(case, element)
    elif (own := own_candidates(case)) is not None:
        yield from own(case, element)
    elif case.options.get("block_size"):
        yield from _blocks(case, element)
    elif set(case.inputs) == {"values"} or set(case.inputs) == {"bits"}:
        name = next(iter(case.inputs))
        yield _with(case, {name: case.array(name).items.reshape(-1)[element : element + 1]}, {})
    elif set(case.inputs) == {"values", "random_bits"}:
        yield _with(case, {n: case.array(n).items.reshape(-1)[element : element + 1] for n in case.inputs}, {})
    elif case.options.get("granularity") in ("tensor", "row", "column"):
        yield from _groups(case, element)


def _with(case: Case, items: Mapping[str, Any], options: Mapping[str, Any]) -> Case:
    arrays = {n: HostArray(np.ascontiguousarray(v), case.array(n).dtype) for n, v in items.items()}
    return replace(case, inputs={**case.inputs, **arrays}, options={**case.options, **options})


def _groups(case: Case, element: int) -> Iterator[Case]:
    """Yield the row or column of the element, or the element beside the largest one of its tensor."""
    name, kind = "x" if "x" in case.inputs else "codes", case.options["granularity"]
    items = case.array(name).items
    if items.size == 0 or items.ndim == 0:
        return
    rows = items.reshape(-1, items.shape[-1])
    scales = case.array("absmax").items.reshape(-1) if "absmax" in case.inputs else None
    if kind == "tensor":
        largest = int(np.argmax(np.abs(case.array(name).real().reshape(-1))))
        places = [largest, min(element, items.size - 1)]
        yield _with(case, {name: items.reshape(-1)[places]}, {})
        return
    # An absmax counts groups, a code counts elements: either may be what the index means.
    whole, place = divmod(element, rows.shape[1])
    count = len(rows) if kind == "row" else rows.shape[1]
    for group in dict.fromkeys((whole if kind == "row" else place, element)):
        if group < count:
            part = rows[group : group + 1] if kind == "row" else rows[:, group : group + 1]
            kept = {} if scales is None else {"absmax": scales[group : group + 1]}
            yield _with(case, {name: part, **kept}, {})


def _blocks(case: Case, element: int) -> Iterator[Case]:
    """Yield the block of the element alone, and the tensor up to its end."""
    size = case.options["block_size"]
    if set(case.inputs) == {"x"}:
        flat = case.array("x").items.reshape(-1)
        # Outputs of one value a block count blocks; others count elements or, packed, pairs of them.
        for block in dict.fromkeys((element // size, element, 2 * element // size)):
            part = flat[block * size : (block + 1) * size]
            if part.size:
                yield _with(case, {"x": part}, {})
        return
    if {"data", "absmax_codes"} <= case.inputs.keys() and size % 2 == 0:
        yield from _nested_group(case, element // size)
    elif set(case.inputs) == {"data", "absmax"} and size % 2 == 0:
        count = int(np.prod(case.options["shape"], dtype=np.int64))
        packed = 2 if case.array("data").items.size < count else 1
        block = element // size
        part = case.array("data").items[block * size // packed : (block + 1) * size // packed]
        length = min(size, count - block * size)
        yield _with(case, {"data": part, "absmax": case.array("absmax").items[block : block + 1]}, {"shape": (length,)})


def _nested_group(case: Case, block: int) -> Iterator[Case]:
    """Yield one block with the codes of its own absmax."""
    size, count = case.options["block_size"], int(np.prod(case.options["shape"], dtype=np.int64))
    length = min(size, count - block * size)
    packed = 2 if case.array("data").items.size < count else 1
    part = {
        "data": case.array("data").items[block * size // packed : (block + 1) * size // packed],
        "absmax_codes": case.array("absmax_codes").items[block : block + 1],
        "nested_absmax": case.array("nested_absmax").items[block // NESTED_BLOCK_SIZE :][:1],
    }
    yield _with(case, part, {"shape": (length,)})


def _rows_of_layer(case: Case, element: int) -> Iterator[Case]:
    """Yield one row of the batch against one row of the weight, forward only and where the weight is plain."""
    if "weight" not in case.inputs or "dy" in case.inputs:
        return
    x, weight, fan = case.array("x").items, case.array("weight").items, case.options.get("fan_in_fan_out")
    if not x.size or not weight.size:
        return
    row, column = divmod(element, weight.shape[1 if fan else 0])
    rows, one = x.reshape(-1, x.shape[-1]), slice(column, column + 1)
    part = {"x": rows[row : row + 1], "weight": weight[:, one] if fan else weight[one]}
    part["lora_b"] = case.array("lora_b").items[one]
    for name, axis in (("bias", column), ("lora_bias", column), ("magnitude", column), ("mask", row)):
        array = case.inputs.get(name)
        if array is not None:
            part[name] = array.items.reshape(-1, *array.shape[-1:] if name == "mask" else ())[axis : axis + 1]
    yield _with(case, part, {})


def _lookup(case: Case, element: int) -> Iterator[Case]:
    """Yield the index alone whose row holds the element, forward only."""
    ids, dimension = case.array("ids").items.reshape(-1), case.array("weight").shape[-1]
    if "dy" not in case.inputs and ids.size and dimension:
        position = min(element // dimension, ids.size - 1)
        yield _with(case, {"ids": ids[position : position + 1]}, {})
