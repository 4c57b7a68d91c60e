"""A step of a sequence, as plain data: what a witness carries and `replay` runs."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from qloracle_conformance.arrays import LAYOUTS

FUNCTION = "(sequence)"  # stands for the function of a call that is a sequence
MOVES = ("save", "load", "move", "drop")  # what the suite itself does between calls


@dataclass(frozen=True)
class Step:
    """One call of an operation on named arrays, or one thing that the suite does with them in between."""

    do: str  # what the step is for ("quantize", "train"), or one of MOVES
    operation: str = ""  # of a call
    given: Mapping[str, str | None] = field(default_factory=dict)  # argument → name of an array, None if left out
    options: Mapping[str, Any] = field(default_factory=dict)
    made: tuple[str, ...] = ()  # names of the results
    names: tuple[str, ...] = ()  # arrays that are saved, loaded, moved or dropped
    layout: str = ""  # that they are moved to
    lattice: bool = False  # as of `Case`
    term: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return the step as JSON values, without what it does not use."""
        if self.do in MOVES:
            return {"do": self.do, "names": list(self.names), **({"layout": self.layout} if self.layout else {})}
        options = {name: list(value) if isinstance(value, tuple) else value for name, value in self.options.items()}
        step = {"do": self.do, "operation": self.operation, "given": dict(self.given), "options": options,
                "made": list(self.made)}  # fmt: skip
        return {**step, **({"lattice": True} if self.lattice else {}), **({"term": self.term} if self.term else {})}

    def __str__(self) -> str:
        """Return the step as one line: ``q1.data, q1.absmax = nf4.quantize(x=w0, block_size=64)``."""
        if self.do in MOVES:
            return f"{self.do} {', '.join(self.names)}{f' to layout {self.layout}' if self.layout else ''}"
        arguments = [f"{name}={value}" for name, value in {**self.given, **self.options}.items()]
        return f"{', '.join(self.made)} = {self.operation}({', '.join(arguments)})"


def steps_of(options: Mapping[str, Any]) -> tuple[Step, ...]:
    """Return the steps that the options of a case hold.

    Raises
    ------
    KeyError, TypeError, ValueError
        If they are no steps.
    """
    return tuple(_step(content) for content in options["steps"])


def _step(content: Mapping[str, Any]) -> Step:
    if content["do"] in MOVES:
        return Step(content["do"], names=tuple(content["names"]), layout=content.get("layout", ""))
    options = {name: _without_lists(value) for name, value in content["options"].items()}
    return Step(content["do"], content["operation"], dict(content["given"]), options, tuple(content["made"]),
                lattice=bool(content.get("lattice")), term=content.get("term", ""))  # fmt: skip


def _without_lists(value: Any) -> Any:
    return tuple(_without_lists(item) for item in value) if isinstance(value, list | tuple) else value


def require_runnable(steps: Iterable[Step], inputs: Iterable[str], operations: Iterable[str]) -> None:
    """Refuse a sequence that uses what is not there.

    Raises
    ------
    ValueError
        Names the step.
    """
    known, saved, there = set(inputs), set[str](), set(operations)
    for number, step in enumerate(steps, 1):
        used = [name for name in (*step.given.values(), *step.names) if name is not None]
        unknown = [name for name in used if name not in known]
        if unknown:
            raise ValueError(f"step {number} uses {', '.join(unknown)}, which no input and no earlier step is")
        if step.do not in MOVES and step.operation not in there:
            raise ValueError(f"step {number} calls {step.operation!r}, which is no operation")
        if step.do == "move" and step.layout not in LAYOUTS:
            raise ValueError(f"layout of step {number} must be among {', '.join(LAYOUTS)}, got {step.layout!r}")
        if step.do == "load" and not saved.issuperset(step.names):
            raise ValueError(f"step {number} loads {', '.join(step.names)}, not all of which was saved")
        if step.do == "save":
            saved.update(step.names)
        known = known.difference(step.names) if step.do == "drop" else known.union(step.made)
