"""What an element of a stage is: which part of which output, how it counts as an ordinal, and back to bits."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from qloracle.formats import FORMATS, Array, format_named
from qloracle.nested_absmax import NESTED_CODEBOOK
from qloracle.optim.adamw8bit import CODEBOOKS_OF_MOMENTS
from qloracle.packing import pack_4bit, unpack_4bit
from qloracle.tables import CODEBOOKS, codebook_named
from qloracle_conformance.arrays import STORAGE, HostArray
from qloracle_conformance.generators.case import Case
from qloracle_conformance.judge import StageResult, float_ordinals, words_at
from qloracle_conformance.operations.operation import CONDUCT

FLOAT, INTEGER, BITS, CODE, NIBBLE = "float", "integer", "bits", "code", "nibble"
PACKING, READING, SHAPE = "packing", "reading", "shape"
UNITS = {
    FLOAT: "an element; ordinals are those of the float format",
    INTEGER: "an element; its ordinal is the number itself, signed as its type is",
    BITS: "an element; its ordinal is its word as an unsigned number, NaN payloads count",
    CODE: "an element, a code; its ordinal is its position in the codebook's value order",
    NIBBLE: "a code of 4 bits: element 2i in the high nibble of byte i, 2i + 1 in the low one; its ordinal as of code",
    PACKING: "a byte of packed codes; it is wrong at this stage if it holds the right codes in exchanged nibbles, or"
    " the wrong padding",
    READING: "nothing of its own: wrong values that the same codes in exchanged nibbles would explain are its fault",
    SHAPE: "the shape of the output",
}


@dataclass(frozen=True)
class Unit:
    """Which output a stage judges, and what its elements are."""

    output: int
    kind: str  # key of UNITS
    of: str = "-"  # the float format, the integer type or the codebook

    @property
    def word(self) -> str:
        """The unsigned type of a word."""
        if self.kind in (CODE, NIBBLE, PACKING):
            return "u1"
        return f"u{np.dtype(STORAGE[self.of]).itemsize}"

    def ordinals(self, output: HostArray, count: int) -> Array:
        """Return the ordinals of an output's elements."""
        flat = output.words().reshape(-1)
        if self.kind == FLOAT:
            return float_ordinals(flat, self.of)
        if self.kind in (BITS, PACKING):
            return flat.astype(np.uint64).view(np.int64)
        if self.kind == INTEGER:
            return output.items.reshape(-1).astype(np.int64)
        codes = unpack_4bit(flat, count) if self.kind == NIBBLE else flat
        position: Array = codebook_named(self.of).position[codes]
        return position

    def words(self, ordinals: Array) -> Array:
        """Return the bit patterns that have these ordinals; of several the one that the rule writes.

        An end that lies outside all of them, as where there is no verdict, becomes the nearest one.
        """
        if self.kind == FLOAT:
            return words_at(np.maximum(ordinals, -format_named(self.of).largest_magnitude - 1), self.of)
        if self.kind in (CODE, NIBBLE):
            order = codebook_named(self.of).value_order
            codes: Array = order[np.clip(ordinals, 0, order.size - 1)]
            return codes
        if self.kind == INTEGER and self.of != "bool":
            range_of = np.iinfo(STORAGE[self.of])
            ordinals = np.clip(ordinals, range_of.min, range_of.max)
        return ordinals.astype(np.int64).view(np.uint64).astype(self.word)

    def shifted(self, output: HostArray, count: int, step: int, limits: tuple[int, int]) -> HostArray:
        """Return an output whose every code is a neighbour in value order, or the same where there is none."""
        ordinals = self.ordinals(output, count)
        words = self.words(np.clip(ordinals + step, *limits))
        if self.kind == NIBBLE:
            padding = int(output.items.reshape(-1)[-1]) & 15 if output.items.size else 0
            words = pack_4bit(words.astype(np.uint8), pad_code=padding)
        return HostArray(words.view(STORAGE[output.dtype]).reshape(output.shape), output.dtype)


def units_of(result: StageResult, outputs: tuple[HostArray, ...], case: Case) -> list[Unit]:
    """Return every reading of outputs that gives the ordinals that a stage compared, the likeliest first."""
    if result.stage in CONDUCT:
        return []
    if result.dtype == "byte order":
        read = result.words if result.words is not None else np.empty(0, np.uint8)
        same = (k for k, o in enumerate(outputs) if o.dtype == "uint8" and np.array_equal(o.items.reshape(-1), read))
        written = None if "data" in case.inputs else next(same, None)
        return [Unit(0, READING) if written is None else Unit(written, PACKING)]
    if result.stage == "shape":
        return [Unit(0, SHAPE)]
    got = result.got.reshape(-1)
    found = [u for k, o in enumerate(outputs) for u in _readings(k, o, got.size, case) if _agrees(u, o, got)]
    typed = {FLOAT: result.dtype in FORMATS, INTEGER: result.dtype not in FORMATS}
    return sorted(found, key=lambda unit: not typed.get(unit.kind, True))


def _readings(index: int, output: HostArray, count: int, case: Case) -> Iterator[Unit]:
    size = output.items.size
    if output.dtype == "uint8":
        for name in _codebooks(case):
            if size == count and codebook_named(name).code_bits == 8:
                yield Unit(index, CODE, name)
            if size == (count + 1) // 2 and codebook_named(name).code_bits == 4:
                yield Unit(index, NIBBLE, name)
    if size == count:
        if output.is_float:
            yield Unit(index, FLOAT, output.dtype)
        else:
            yield Unit(index, INTEGER, output.dtype)
        yield Unit(index, BITS, output.dtype)


def _codebooks(case: Case) -> list[str]:
    """Return the codebooks that the codes of a case may be of, those that its options name first."""
    named = [v for k, v in case.options.items() if k in ("codebook", "nested_codebook") and v in CODEBOOKS]
    if not named and not case.operation.startswith("adamw8bit"):
        return []
    return list(dict.fromkeys([*named, NESTED_CODEBOOK, *(table.name for table in CODEBOOKS_OF_MOMENTS.values())]))


def _agrees(unit: Unit, output: HostArray, got: Array) -> bool:
    return bool(np.array_equal(unit.ordinals(output, got.size), got))
