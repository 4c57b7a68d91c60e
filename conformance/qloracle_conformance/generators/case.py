"""A case: the inputs and options of one call, and what is known about them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from qloracle_conformance.arrays import HostArray
from qloracle_conformance.backend import Claim
from qloracle_conformance.generators.draw import Draw


@dataclass(frozen=True)
class Case:
    """One call of an operation, before it is made."""

    operation: str
    inputs: Mapping[str, HostArray | None]
    options: Mapping[str, Any]
    layouts: Mapping[str, str] = field(default_factory=dict)
    lattice: bool = False  # every partial sum is exact in any order: the sum must be exact
    term: str = ""  # the part of a formula that the inputs single out, where stages are parts and not outputs
    repeat: bool = False

    def array(self, name: str) -> HostArray:
        """Return an input that must be there."""
        array = self.inputs[name]
        if array is None:
            raise KeyError(name)
        return array


Generator = Callable[[Draw, Claim], Case]
