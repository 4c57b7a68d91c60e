"""Running a sequence against a backend: arrays stay native from step to step, as they do in a program."""

import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from qloracle.formats import Array
from qloracle_conformance.arrays import HostArray, place_in
from qloracle_conformance.backend import Backend, Native
from qloracle_conformance.execution import Call, Outcome, fetch_all
from qloracle_conformance.sequences.step import MOVES, Step, steps_of


@dataclass(frozen=True)
class StepOutcome:
    """What came of one step."""

    given: dict[str, HostArray | None] = field(default_factory=dict)  # as fetched just before the call
    outputs: tuple[HostArray, ...] = ()  # as fetched just after it
    disturbed: tuple[str, ...] = ()  # arrays of earlier steps whose bits are others after this one


Signature = tuple[str, tuple[int, ...], bytes]


def _signature(items: Array, dtype: str) -> Signature:
    """Return type, shape and bytes: quicker to compare than arrays, of which a sequence has a hundred small ones."""
    return dtype, items.shape, items.tobytes()


class Workspace:
    """The arrays of a running sequence: native, and as they were when they were made."""

    def __init__(self, backend: Backend, call: Call) -> None:
        """Keep the backend; nothing is placed before it is used."""
        self.backend = backend
        self.call = call
        self.natives: dict[str, Native] = {}
        self.known: dict[str, Signature] = {}
        self.saved: dict[str, HostArray] = {}

    def native(self, name: str) -> Native:
        """Return an array, placed now if it is an input that was not used before."""
        if name not in self.natives:
            array = self.call.inputs[name]
            if array is None:
                raise KeyError(name)
            self.place(name, array, self.call.layouts.get(name, "contiguous"))
        return self.natives[name]

    def place(self, name: str, array: HostArray, layout: str) -> None:
        """Make a native array anew; the one of the same name before is given back first, so that memory is reused."""
        self.natives.pop(name, None)
        p = place_in(array, layout)
        self.natives[name] = self.backend.place(p.buffer, p.dtype, p.shape, p.strides, p.offset)
        self.known[name] = _signature(array.items, array.dtype)

    def fetched(self, name: str) -> HostArray:
        """Return the present contents of an array."""
        found = fetch_all(self.backend, self.native(name))
        if isinstance(found, str):
            raise TypeError(f"{name}: {found}")
        return found[0]

    def disturbed(self) -> tuple[str, ...]:
        """Return the arrays whose bits changed since they were made; each is named once."""
        changed = []
        for name, native in self.natives.items():
            items, dtype = self.backend.fetch(native)
            present = _signature(items, dtype)
            if present != self.known[name]:
                changed.append(name)
                self.known[name] = present
        return tuple(changed)

    def act(self, step: Step) -> StepOutcome:
        """Do what the suite does between calls."""
        for name in step.names:
            if step.do == "save":
                self.saved[name] = self.fetched(name)
            elif step.do == "load":
                self.place(name, self.saved[name], "contiguous")
            elif step.do == "move":
                self.place(name, self.fetched(name), step.layout)
            else:
                self.natives.pop(name, None)
        return StepOutcome(disturbed=self.disturbed())

    def call_step(self, step: Step, function: str) -> StepOutcome | str:
        """Call an operation, or say what is wrong with what it returned."""
        given = {role: None if name is None else self.fetched(name) for role, name in step.given.items()}
        arguments = {role: None if name is None else self.native(name) for role, name in step.given.items()}
        result = self.backend.ops[function](**arguments, **step.options)
        outputs = fetch_all(self.backend, result)
        if isinstance(outputs, str):
            return outputs
        if len(outputs) > len(step.made):
            return f"{len(outputs)} arrays were returned, {len(step.made)} are specified"
        disturbed = self.disturbed()
        for name, native, array in zip(step.made, result if isinstance(result, tuple) else (result,), outputs,
                                       strict=False):  # fmt: skip
            self.natives[name], self.known[name] = native, _signature(array.items, array.dtype)
        return StepOutcome(given, outputs, disturbed)


def run_sequence(backend: Backend, call: Call) -> Outcome:
    """Run the steps of a call one after another, until one fails or returns less than is specified."""
    from qloracle_conformance.registry import OPERATIONS

    space, done, steps = Workspace(backend, call), list[StepOutcome](), steps_of(call.options)
    for number, step in enumerate(steps, 1):
        place = f"step {number} ({step.operation or step.do})"
        try:
            outcome = (
                space.act(step) if step.do in MOVES else space.call_step(step, OPERATIONS[step.operation].function)
            )
        except Exception as error:  # noqa: BLE001  # whatever a backend raises is a verdict
            text = " ".join(f"{place}: {type(error).__name__}: {error}".split())
            return Outcome(failure="raised", message=text[:300], details=traceback.format_exc(), steps=tuple(done))
        if isinstance(outcome, str):
            return Outcome(failure="output", message=f"{place}: {outcome}", steps=tuple(done))
        done.append(outcome)
        if len(outcome.outputs) < len(step.made):
            break  # the judge says what is missing; what follows would use it
    return Outcome(changed_inputs=tuple(_changed_inputs(call, steps, done)), steps=tuple(done))


def _changed_inputs(call: Call, steps: Sequence[Step], done: Sequence[StepOutcome]) -> Iterator[str]:
    for number, (step, outcome) in enumerate(zip(steps, done, strict=False), 1):
        changed = [name for name in outcome.disturbed if name in call.inputs]
        if changed:
            yield f"{', '.join(changed)} in step {number} ({step.operation or step.do})"
