"""Comparing outputs with a vector: what a reader of the files does in any language, with integers alone."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from qloracle.formats import Array
from qloracle_conformance.arrays import HostArray
from qloracle_conformance.vectors.units import NIBBLE, PACKING, READING, SHAPE
from qloracle_conformance.vectors.vector import Expected, Vector


def failing_stages(vector: Vector, outputs: Sequence[HostArray]) -> list[str]:
    """Return the stages of which outputs leave the limits: what a reader of the file does, in the order of the file.

    An output of another type or number of items fails all its stages; one of another shape alone the stage that judges
    the shape, or else all. What stands at a byte of exchanged nibbles is a fault of packing, and no fault of codes.
    """
    return [expected.stage for expected in vector.expected if _fails(vector, expected, outputs)]


def _fails(vector: Vector, expected: Expected, outputs: Sequence[HostArray]) -> bool:
    index = expected.unit.output
    if index >= len(outputs):
        return True
    got, right = outputs[index], vector.outputs[index]
    if got.dtype != right.dtype or got.items.size != right.items.size:
        return True
    shaped = any(e.unit.kind == SHAPE for e in vector.expected)
    if got.shape != right.shape and (expected.unit.kind == SHAPE or not shaped):
        return True
    return _leaves(vector, expected, got)


def _leaves(vector: Vector, expected: Expected, got: HostArray) -> bool:
    unit, count = expected.unit, expected.allowed.lo.size
    if unit.kind in (READING, SHAPE):
        return False
    packing = next((e for e in vector.expected if e.unit == replace(unit, kind=PACKING, of="-")), None)
    exchanged = None if packing is None else exchanged_bytes(packing, got)
    if unit.kind == PACKING:
        return bool(exchanged is not None and exchanged.any()) or _wrong_padding(vector, expected, got)
    inside = expected.allowed.accepts(unit.ordinals(got, count))
    if unit.kind == NIBBLE and exchanged is not None:
        inside |= np.repeat(exchanged, 2)[:count]
    return not bool(inside.all())


def exchanged_bytes(packing: Expected, got: HostArray) -> Array:
    """Return where a byte is not the expected one, and would be with its nibbles exchanged."""
    wanted, found = packing.allowed.lo, got.words().reshape(-1).astype(np.int64)
    exchanged: Array = (found != wanted) & ((found & 15) << 4 | found >> 4 == wanted)
    return exchanged


def _wrong_padding(vector: Vector, packing: Expected, got: HostArray) -> bool:
    count = next((e.allowed.lo.size for e in vector.expected if e.unit.kind == NIBBLE), 0)
    wanted, found = packing.allowed.lo, got.words().reshape(-1).astype(np.int64)
    return bool(count % 2 and (wanted[-1] ^ found[-1]) & 15 and not exchanged_bytes(packing, got)[-1])
