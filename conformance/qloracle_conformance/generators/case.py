"""A case: the inputs and options of one call, and what is known about them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
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
    stored: Mapping[str, Mapping[str, str]] = field(default_factory=dict)  # inputs that are tensors of a weights file

    @property
    def elements(self) -> int:
        """Number of elements of all inputs."""
        return sum(array.items.size for array in self.inputs.values() if array is not None)

    def array(self, name: str) -> HostArray:
        """Return an input that must be there."""
        array = self.inputs[name]
        if array is None:
            raise KeyError(name)
        return array


Generator = Callable[[Draw, Claim], Case]


def admitted(claim: Claim, shapes: Sequence[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """Return the shapes that a claim admits; if it has other numbers of axes, the same elements along those."""
    filled = [s for s in shapes if claim.empty or 0 not in s]
    return [s for s in filled if len(s) in claim.ndims] or [fitted(s, claim) for s in filled]


def fitted(shape: tuple[int, ...], claim: Claim) -> tuple[int, ...]:
    """Return a shape of the same elements in the same order whose number of axes a claim admits."""
    enough = [n for n in sorted(claim.ndims) if n >= len(shape)]
    if enough:
        return (1,) * (enough[0] - len(shape)) + shape
    kept = max(claim.ndims) - 1
    return (prod(shape[: len(shape) - kept]), *shape[len(shape) - kept :])


def each_layout(draw: Draw, claim: Claim, inputs: Iterable[str]) -> dict[str, str]:
    """Return a layout for each input, independently: the strides of one tell nothing about those of another."""
    return {name: draw.choice(claim.layouts) for name in inputs}


def reshaped(array: HostArray, claim: Claim) -> HostArray:
    """Return the elements of an array along a number of axes that a claim admits."""
    return HostArray(array.items.reshape(fitted(array.shape, claim)), array.dtype)
