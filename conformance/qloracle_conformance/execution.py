"""Calling one operation of a backend: place the inputs, call, fetch the outputs, and see what else it touched."""

import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from qloracle_conformance.arrays import STORAGE, HostArray, Placement, place_in
from qloracle_conformance.backend import Backend, BackendInfo, Native, describe
from qloracle_conformance.large.extent import Extent

REPEATS = 4  # identical calls after the first: a race of one call in a hundred shows in a few dozen cases
_MOST_POISON = 1 << 22  # bytes; beyond that an allocator asks the system for fresh memory anyway

Failure = Literal["", "raised", "output", "crashed", "timeout"]


@dataclass(frozen=True)
class Call:
    """One call of one operation."""

    function: str
    inputs: Mapping[str, HostArray | None]  # None where an optional array is left out
    options: Mapping[str, Any]
    layouts: Mapping[str, str]  # by input; contiguous where not named
    repeat: bool = False  # call again, and in between with other contents, and compare
    out: bool = False  # call again with out=, poisoned arrays for the results
    extent: Extent | None = None  # up to which the inputs repeat, of a large call


@dataclass(frozen=True)
class Outcome:
    """What came of a call."""

    outputs: tuple[HostArray, ...] = ()
    failure: Failure = ""
    message: str = ""  # of the failure, one line
    details: str = ""  # traceback or the process's last words
    changed_inputs: tuple[str, ...] = ()  # inputs whose elements differ after the call
    unstable: bool = False  # an identical call gave other bits, or a later one changed the result of an earlier one
    out: str = ""  # what is wrong with the call that was given arrays for its results
    steps: tuple[Any, ...] = ()  # of a sequence, see `sequences.running`


class Executor(Protocol):
    """Something that runs calls against a backend."""

    info: BackendInfo

    def run(self, call: Call, meanwhile: Callable[[], None] | None = None) -> Outcome:
        """Run a call, and something else while it runs; never raise for what the backend does."""
        ...

    def close(self) -> None:
        """Release the backend."""
        ...


class InProcess:
    """Run calls in this process: for backends that are trusted not to hang or crash, such as mutants."""

    def __init__(self, backend: Backend) -> None:
        """Keep the backend."""
        self.backend = backend
        self.info = describe(backend)

    def run(self, call: Call, meanwhile: Callable[[], None] | None = None) -> Outcome:
        """Run a call, then the other thing."""
        outcome = run_call(self.backend, call)
        if meanwhile is not None:
            meanwhile()
        return outcome

    def close(self) -> None:
        """Release nothing."""


def run_call(backend: Backend, call: Call) -> Outcome:
    """Run one call, or a sequence of them, against a backend in this process."""
    if call.extent is not None:
        from qloracle_conformance.large.running import run_large

        return run_large(backend, call, call.extent)
    if "steps" in call.options:
        from qloracle_conformance.sequences.running import run_sequence

        return run_sequence(backend, call)
    try:
        placements = {name: place_in(a, call.layouts.get(name, "contiguous")) for name, a in call.inputs.items() if a}
        if call.repeat:
            _call_with_others(backend, call)
        natives = {name: _place(backend, p) for name, p in placements.items()}
        arguments = {**dict.fromkeys(call.inputs), **natives, **call.options}
        _leave_poison(backend, placements)
        native = backend.ops[call.function](**arguments)
        outputs = fetch_all(backend, native)
        if isinstance(outputs, str):
            return Outcome(failure="output", message=outputs)
        changed = tuple(name for name, p in placements.items() if not _same(backend, natives[name], call.inputs[name]))
        unstable = False
        if call.repeat and not changed:
            _leave_poison(backend, placements, byte=0x01)
            unstable = any(
                not _same_outputs(backend, backend.ops[call.function](**arguments), outputs) for _ in range(REPEATS)
            )
            _call_with_others(backend, call)
            unstable = unstable or not _same_outputs(backend, native, outputs)
        written = ""
        if call.out and not changed:
            from qloracle_conformance.out_arrays import problem_with_out

            written = problem_with_out(backend, call, arguments, native, outputs)
        return Outcome(outputs=outputs, changed_inputs=changed, unstable=unstable, out=written)
    except Exception as error:  # noqa: BLE001  # whatever a backend raises is a verdict
        text = " ".join(f"{type(error).__name__}: {error}".split())
        text = text.encode("utf-8", "backslashreplace").decode()  # half a surrogate pair is no text
        return Outcome(failure="raised", message=text[:300], details=traceback.format_exc())


def _call_with_others(backend: Backend, call: Call) -> None:
    """Call with the same shapes and other contents: what is kept between calls, or shared by their outputs, shows."""
    others = {n: HostArray(np.flip(a.items.reshape(-1)).reshape(a.shape), a.dtype) for n, a in call.inputs.items() if a}
    natives = {n: _place(backend, place_in(a, call.layouts.get(n, "contiguous"))) for n, a in others.items()}
    backend.ops[call.function](**{**dict.fromkeys(call.inputs), **natives, **call.options})


def _same_outputs(backend: Backend, native: Native, outputs: tuple[HostArray, ...]) -> bool:
    fetched = fetch_all(backend, native)
    return not isinstance(fetched, str) and equal_bits(outputs, fetched)


def _place(backend: Backend, placement: Placement) -> Native:
    p = placement
    return backend.place(p.buffer, p.dtype, p.shape, p.strides, p.offset)


def _leave_poison(backend: Backend, placements: Mapping[str, Placement], byte: int = 0xFE) -> None:
    """Fill memory of likely output sizes with garbage and give it back, so that an unwritten output shows."""
    for placement in placements.values():
        for width in (1, 4):
            size = min(_MOST_POISON, int(np.prod(placement.shape)) * width)
            garbage = np.full(max(1, size), byte, np.uint8)
            backend.place(garbage, "uint8", garbage.shape, (1,), 0)


def fetch_all(backend: Backend, native: Native) -> tuple[HostArray, ...] | str:
    """Return the fetched outputs, or what is wrong with them."""
    outputs = []
    for position, item in enumerate(native if isinstance(native, tuple) else (native,)):
        try:
            items, dtype = backend.fetch(item)
        except Exception as error:  # noqa: BLE001  # and so is what it returns
            return f"output {position} cannot be fetched: {type(item).__name__}, {type(error).__name__}: {error}"
        if dtype not in STORAGE:
            return f"output {position} has type {dtype}, which no operation returns"
        if np.asarray(items).dtype != np.dtype(STORAGE[dtype]):
            return f"output {position} was fetched as {np.asarray(items).dtype}; {dtype} is stored as {STORAGE[dtype]}"
        outputs.append(HostArray(np.array(items, copy=True), dtype))
    return tuple(outputs)


def _same(backend: Backend, native: Native, original: HostArray | None) -> bool:
    items, dtype = backend.fetch(native)
    return original is not None and equal_bits((HostArray(np.asarray(items), dtype),), (original,))


def equal_bits(first: tuple[HostArray, ...], second: tuple[HostArray, ...]) -> bool:
    """Return whether two lists of arrays agree in types, shapes and every bit."""
    return len(first) == len(second) and all(
        a.dtype == b.dtype and a.shape == b.shape and np.array_equal(a.words(), b.words())
        for a, b in zip(first, second, strict=True)
    )
