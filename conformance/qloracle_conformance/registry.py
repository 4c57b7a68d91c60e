"""All operations and properties, by name.

A property is one family of inputs for one stage of one operation; its id is ``operation.stage.family``. Ids are locked
in ``property_ids.txt``: they never change meaning and are never reused.
"""

from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from importlib.resources import files

from qloracle_conformance.large.operations import FAMILY as LARGE_FAMILY
from qloracle_conformance.large.operations import LARGE
from qloracle_conformance.operations.operation import Operation
from qloracle_conformance.registered import (
    adapters,
    affine,
    blockwise,
    conversions,
    dora,
    double,
    footprint,
    int8,
    int8_linear,
    layers,
    merging,
    optimizers,
    packing,
    products,
    requantizing,
    tables,
)
from qloracle_conformance.sequences.walks import FAMILY as WALK
from qloracle_conformance.sequences.walks import SEQUENCES

WEIGHTS = "weights"  # the family of properties whose inputs are the matrices of a checkpoint
QUANTIZERS = ("nf4", "nf4_double", "dynamic_signed", "int8_tensor", "int8_row", "int8_column", "int8_block")
MODULES = (
    conversions,
    packing,
    tables,
    blockwise,
    double,
    int8,
    affine,
    int8_linear,
    layers,
    dora,
    products,
    merging,
    requantizing,
    adapters,
    optimizers,
    footprint,
)  # as reports list them


@dataclass(frozen=True)
class Property:
    """One checkable statement: inputs of this family, judged at this stage."""

    operation: str
    stage: str
    family: str

    @property
    def id(self) -> str:
        """The locked name."""
        return f"{self.operation}.{self.stage}.{self.family}"


OPERATIONS: dict[str, Operation] = {operation.name: operation for part in MODULES for operation in part.operations()}
JUDGED: dict[str, Operation] = {**OPERATIONS, **SEQUENCES}


@cache
def properties() -> dict[str, Property]:
    """Return all properties by id, in the order of operations, families and stages."""
    found = {}
    for operation in OPERATIONS.values():
        for family in operation.families:
            for stage in operation.stages_of(family):
                prop = Property(operation.name, stage, family)
                found[prop.id] = prop
        if operation.name.partition(".")[0] in QUANTIZERS:
            for stage in operation.stages_of(WEIGHTS):
                found[f"{operation.name}.{stage}.{WEIGHTS}"] = Property(operation.name, stage, WEIGHTS)
        if operation.name in LARGE:
            for stage in operation.stages_of(LARGE_FAMILY):
                found[f"{operation.name}.{stage}.{LARGE_FAMILY}"] = Property(operation.name, stage, LARGE_FAMILY)
    for sequence in SEQUENCES.values():
        for stage in sequence.stages_of(WALK):
            found[f"{sequence.name}.{stage}.{WALK}"] = Property(sequence.name, stage, WALK)
    return found


def selected(pattern: str | None) -> dict[str, Property]:
    """Return the properties whose id matches a shell pattern, or begins with it; all without one."""
    if pattern is None:
        return properties()
    return {k: p for k, p in properties().items() if fnmatchcase(k, pattern) or k.startswith(pattern + ".")}


def locked_ids() -> list[str]:
    """Return the ids of the lock file."""
    text = files("qloracle_conformance").joinpath("property_ids.txt").read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line and not line.startswith("#")]
