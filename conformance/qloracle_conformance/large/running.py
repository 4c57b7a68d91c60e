"""Running a large call where the backend is: only windows of the results travel."""

import gc
import traceback
from fractions import Fraction

import numpy as np

from qloracle.formats import Array
from qloracle_conformance.arrays import STORAGE, HostArray
from qloracle_conformance.backend import Backend, Native
from qloracle_conformance.execution import Call, Outcome
from qloracle_conformance.large.extent import Extent, items


def run_large(backend: Backend, call: Call, extent: Extent) -> Outcome:
    """Repeat the inputs of a call up to its extent, run it, and return the windows of every output in turn."""
    try:
        natives = {name: _placed(backend, call.inputs[name], extent, share) for name, share in extent.inputs.items()}
        result = backend.ops[call.function](**{**natives, **call.options})
        native = result if isinstance(result, tuple) else (result,)
        if len(native) != len(extent.outputs):
            return Outcome(failure="output", message=f"{len(native)} arrays were returned, not {len(extent.outputs)}")
        outputs: list[HostArray] = []
        for index, (array, share) in enumerate(zip(native, extent.outputs, strict=True)):
            fetched = _fetched(backend, array, extent, share)
            if isinstance(fetched, str):
                return Outcome(failure="output", message=f"output {index} {fetched}")
            outputs += fetched
        changed = tuple(
            n for n, share in extent.inputs.items() if not _same(backend, natives[n], call.inputs[n], extent, share)
        )
    except Exception as error:  # noqa: BLE001  # whatever a backend raises is a verdict
        text = " ".join(f"{type(error).__name__}: {error}".split())
        return Outcome(failure="raised", message=text[:300], details=traceback.format_exc())
    finally:
        gc.collect()  # the next operation wants the memory
    return Outcome(outputs=tuple(outputs), changed_inputs=changed)


def _placed(backend: Backend, pattern: HostArray | None, extent: Extent, share: Fraction) -> Native:
    if pattern is None:
        raise TypeError("a large input must be given")
    count = items(extent.elements, share)
    buffer = np.empty(count, pattern.items.dtype)
    whole = count // pattern.items.size * pattern.items.size
    buffer[:whole].reshape(-1, pattern.items.size)[...] = pattern.items
    buffer[whole:] = pattern.items[: count - whole]
    return backend.place(buffer, pattern.dtype, (count,), (1,), 0)


def _fetched(backend: Backend, native: Native, extent: Extent, share: Fraction) -> list[HostArray] | str:
    found, dtype = backend.fetch(native)
    if dtype not in STORAGE or found.dtype != np.dtype(STORAGE[dtype]):
        return f"has type {dtype}, stored as {found.dtype}, which no operation returns"
    count = items(extent.elements, share)
    if found.shape != (count,):
        return f"must have shape {(count,)}, got {found.shape}"
    return [HostArray(_window(found, share, window).copy(), dtype) for window in extent.windows]


def _window(array: Array, share: Fraction, window: tuple[int, int]) -> Array:
    return array[items(window[0], share) : items(window[1], share)]


def _same(backend: Backend, native: Native, pattern: HostArray | None, extent: Extent, share: Fraction) -> bool:
    """Return whether an input has what it was given, in all windows."""
    found, _ = backend.fetch(native)
    return pattern is not None and all(
        np.array_equal(_window(found, share, w).view(np.uint8), patterned(pattern, share, w).view(np.uint8))
        for w in extent.windows
    )


def patterned(pattern: HostArray, share: Fraction, window: tuple[int, int]) -> Array:
    """Return the items of a repeated pattern that belong to a window."""
    places = np.arange(items(window[0], share), items(window[1], share)) % pattern.items.size
    found: Array = pattern.items[places]
    return found
