"""What a sequence has to work with so far: named arrays, what each group of them is, and the steps that made them.

Nothing here depends on what a backend returns: types and shapes follow from the rules, so that a sequence can be drawn
before it is run.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from qloracle_conformance.arrays import HostArray
from qloracle_conformance.backend import Claim
from qloracle_conformance.generators.draw import Draw, Option
from qloracle_conformance.sequences.step import Step

SHAPES = ((6, 10), (5, 67), (16, 32), (3, 129), (24, 16), (7, 9))
RANKS = (2, 1, 4)


@dataclass(frozen=True)
class Slot:
    """Arrays that belong together: a weight, a stored weight, an adapter, its gradients, the state of an optimizer."""

    kind: str  # "weight", "stored", "adapter", "gradients", "packed", "nested", "state"
    names: Mapping[str, str]  # role → name of the array
    shape: tuple[int, ...] = ()
    dtype: str = "float32"
    options: Mapping[str, Any] = field(default_factory=dict)


class Bench:
    """A sequence while it is drawn."""

    def __init__(self, claims: Mapping[str, Claim]) -> None:
        """Begin with nothing; `claims` are those of the operations that may be called."""
        self.claims = claims
        self.inputs: dict[str, HostArray | None] = {}
        self.layouts: dict[str, str] = {}
        self.steps: list[Step] = []
        self.slots: list[Slot] = []
        self.saved: list[str] = []
        self._count = 0
        self._shapes: tuple[tuple[int, int], ...] = ()
        self._usual: dict[tuple[str, tuple[Any, ...]], tuple[Any, Any]] = {}

    def name(self, stem: str) -> str:
        """Return a new name."""
        self._count += 1
        return f"{stem}{self._count}"

    def matrix_shape(self, draw: Draw) -> tuple[int, int]:
        """Return one of the two shapes of this sequence: equal ones and unequal ones both follow each other."""
        if not self._shapes:
            self._shapes = (draw.choice(SHAPES), draw.choice(SHAPES[::-1]))
        return self._shapes[0 if draw.integer(0, 3) else 1]

    def usual(self, draw: Draw, what: str, options: tuple[Option, ...]) -> Option:
        """Return one of the two values that this sequence uses of some options, most often the first of them."""
        key = (what, options)
        if key not in self._usual:
            self._usual[key] = (choice(draw, list(options)), choice(draw, list(options)))
        return self._usual[key][0 if draw.integer(0, 3) else 1]  # type: ignore[no-any-return]

    def fresh(self, slot_kind: str, arrays: Mapping[str, HostArray], **described: Any) -> Slot:
        """Take in new arrays as inputs and return their slot."""
        stem = self.name(slot_kind[0])
        names = {role: f"{stem}.{role}" for role in arrays}
        self.inputs |= {names[role]: array for role, array in arrays.items()}
        slot = Slot(slot_kind, names, **described)
        self.slots.append(slot)
        return slot

    def take(self, array: HostArray, stem: str) -> str:
        """Take in one new array and return its name."""
        name = self.name(stem)
        self.inputs[name] = array
        return name

    def pick(self, draw: Draw, kind: str, make: Callable[[], Slot], fits: Callable[[Slot], bool]) -> Slot:
        """Return a slot that fits: most often one that is there, else a new one.

        While there are fewer than two, new ones come more often: what a backend keeps of one shows at the other.
        """
        found = [slot for slot in self.slots if slot.kind == kind and fits(slot)]
        if not found or draw.integer(0, 1 if len(found) == 1 else 5) == 1:
            return make()
        return choice(draw, found[::-1])

    def call(
        self, do: str, operation: str, given: Mapping[str, str | None], options: Mapping[str, Any], made: Iterable[str],
        **rest: Any,
    ) -> tuple[str, ...]:  # fmt: skip
        """Add a call and return the names of its results."""
        stem = self.name("r")
        names = tuple(f"{stem}.{role}" for role in made)
        self.steps.append(Step(do, operation, given, options, names, **rest))
        return names

    def forget(self, slot: Slot) -> None:
        """Leave a slot out, and every other that shares an array with it."""
        gone = set(slot.names.values())
        self.slots = [s for s in self.slots if not gone & set(s.names.values())]
        self.saved = [name for name in self.saved if name not in gone]


def choice(draw: Draw, options: list[Option]) -> Option:
    """Return one of some options whose number differs from case to case: an index, so that no cycle is promised."""
    return options[draw.integer(0, len(options) - 1)]
