"""Reducing a failing merge to one element of the weight, or to one row where rows have norms."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from qloracle_conformance.arrays import HostArray
from qloracle_conformance.generators.case import Case


def merge_candidates(case: Case, element: int) -> Iterator[Case]:
    """Yield the element of a weight with the rows of the adapter that it depends on; none for quantized weights."""
    if "weight" not in case.inputs or not case.array("weight").items.size:
        return
    weight = case.array("weight").items
    element = min(element, weight.size - 1)
    i, j = divmod(element, weight.shape[1])
    output, column = (j, i) if case.options["fan_in_fan_out"] else (i, j)
    if "magnitude" in case.inputs:  # the element may as well be that of a norm
        for row in dict.fromkeys((output, min(element, case.array("magnitude").items.size - 1))):
            yield _part(case, row, None)
        return
    yield _part(case, output, column)
    yield _part(case, output, None)


def _part(case: Case, output: int, column: int | None) -> Case:
    """Return one row of the layer, and one column of it unless all are needed."""
    columns = slice(None) if column is None else slice(column, column + 1)
    row = slice(output, output + 1)
    fan = case.options["fan_in_fan_out"]
    parts = {
        "weight": case.array("weight").items[(columns, row) if fan else (row, columns)],
        "lora_a": case.array("lora_a").items[:, columns],
        "lora_b": case.array("lora_b").items[row],
        **{name: case.array(name).items[row] for name in ("magnitude", "norms") if name in case.inputs},
    }
    arrays = {name: HostArray(np.ascontiguousarray(items), case.array(name).dtype) for name, items in parts.items()}
    return replace(case, inputs={**case.inputs, **arrays})
