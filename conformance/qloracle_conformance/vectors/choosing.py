"""Which cases become vectors: few and small, one or more of every family that has any of that size."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from qloracle.errors import QloracleError
from qloracle_conformance.arrays import HostArray
from qloracle_conformance.generators.case import Case
from qloracle_conformance.operations.conversion import NO_STAGE
from qloracle_conformance.operations.operation import Operation
from qloracle_conformance.pipe.selection import MEMORY_FAMILIES
from qloracle_conformance.reduction import candidates
from qloracle_conformance.task import Task, case_at
from qloracle_conformance.vectors.locating import claims, reference_outputs
from qloracle_conformance.vectors.vector import Source

CONVERTED = (("values",), ("bits",), ("values", "random_bits"))  # inputs that are converted element by element


@dataclass(frozen=True)
class Size:
    """How many vectors, and how large."""

    cases: int  # of a family that are kept whatever they show
    tried: int  # of a family that are generated; of the further ones those are kept that show something new
    largest: int  # elements of all inputs together


SIZES = {
    "small": Size(cases=1, tried=12, largest=384),
    "medium": Size(cases=4, tried=20, largest=4096),
    "large": Size(cases=20, tried=20, largest=1 << 17),
}
_GIVEN_UP = 4  # cases of a family in a row that were too large


def families_of(operation: Operation) -> list[str]:
    """Return the families whose cases a file can hold; how arrays lie in memory, it cannot."""
    return [name for name in operation.families if name not in MEMORY_FAMILIES]


def small_cases(
    operation: Operation, family: str, size: Size, seed: int, searched: int = 1
) -> Iterator[tuple[Source, Case]]:
    """Yield the cases of a family that are small enough, and of larger ones a part, where they have one.

    So many cases are generated as the size says, times `searched`.
    """
    task = Task(operation, family, claims()[operation.name], size.tried, 0, seed)
    too_large = 0
    for index in range(size.tried * searched):
        found = case_of(task, index, size.largest)
        too_large = 0 if found else too_large + 1
        if found:
            yield found
        elif too_large == _GIVEN_UP:
            return


def case_of(task: Task, index: int, largest: int) -> tuple[Source, Case] | None:
    """Return case `index` of a task, or its part where it has too many elements; None if there is no such part."""
    case = plain(case_at(task, index))
    if case.term == NO_STAGE:
        return None
    if case.elements <= largest:
        return Source(task.family, task.seed, index, cut=False), case
    part = cut(case, largest)
    return None if part is None else (Source(task.family, task.seed, index, cut=True), part)


def plain(case: Case) -> Case:
    """Return a case without what only a running backend is asked: layouts, repetition, tensors of a weights file."""
    return replace(case, layouts={}, repeat=False, stored={})


def cut(case: Case, largest: int) -> Case | None:
    """Return a part of a case that is itself a case, or None.

    Of a conversion, elements spread over the whole, of few distinct ones each; of flat blocks, as many of the last ones
    as fit, with the short one at the end; of anything else the block, group or row of the middle element.
    """
    if tuple(case.inputs) in CONVERTED:
        return _spread(case, largest // 3)
    if set(case.inputs) == {"x"} and case.options.get("block_size") and (tail := _last_blocks(case, largest)):
        return tail
    sizes = [array.items.size for array in case.inputs.values() if array is not None]
    fitting = (c for c in candidates(case, max(sizes) // 2) if 1 < c.elements <= largest and _admitted(c))
    found = next(fitting, None)
    return None if found is None else plain(found)


def _last_blocks(case: Case, largest: int) -> Case | None:
    x, block_size = case.array("x"), case.options["block_size"]
    size, first = x.items.size, -(-(x.items.size - largest) // block_size) * block_size
    if first >= size:  # one block is too large, and there is no short one
        return None
    return replace(case, inputs={"x": HostArray(x.items.reshape(-1)[first:], x.dtype)})


def _admitted(case: Case) -> bool:
    """Return whether a part is a case at all: a proposal to the reducer need not be."""
    try:
        reference_outputs(case)
    except QloracleError:
        return False
    return True


def _spread(case: Case, count: int) -> Case:
    first = case.array(next(iter(case.inputs))).words().reshape(-1)
    distinct = np.sort(np.unique(first, return_index=True)[1])
    if distinct.size > 256:  # more than an 8-bit format has
        distinct = np.arange(count) * first.size // count
    arrays = {
        name: HostArray(case.array(name).items.reshape(-1)[distinct], case.array(name).dtype) for name in case.inputs
    }
    return replace(case, inputs=arrays)
