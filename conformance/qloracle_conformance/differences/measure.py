"""Comparing one conversion of a library with the reference's, and counting what differs by its cause."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from qloracle.decoding import decoded, is_nan
from qloracle.formats import Array, format_named
from qloracle.rounding import encode
from qloracle_conformance.adapters.libraries import Library
from qloracle_conformance.differences.causes import CAUSES, Mismatches, cause_of

Example = dict[str, str]


@dataclass(frozen=True)
class Conversion:
    """A conversion under named policies."""

    library: str
    source: str  # float32, float64 or int64
    to: str
    rounding: str = "ties_to_even"
    overflow: str = "ieee"

    @property
    def id(self) -> str:
        """A name for the record."""
        return f"{self.library}.{self.source}.{self.to}.{self.rounding}.{self.overflow}"


@dataclass
class Count:
    """Mismatches of one cause."""

    count: int = 0
    smallest: tuple[float, Example] | None = None  # by magnitude, with the example
    largest: tuple[float, Example] | None = None


@dataclass
class Tally:
    """What was found on a domain."""

    inputs: int = 0
    causes: dict[str, Count] = field(default_factory=dict)

    def merge(self, other: "Tally") -> None:
        """Add what was found on another part of the domain."""
        self.inputs += other.inputs
        for name, found in other.causes.items():
            mine = self.causes.setdefault(name, Count())
            mine.count += found.count
            mine.smallest = _outer(mine.smallest, found.smallest, -1)
            mine.largest = _outer(mine.largest, found.largest, 1)


def _outer(a: tuple[float, Example] | None, b: tuple[float, Example] | None, way: int) -> tuple[float, Example] | None:
    known = [each for each in (a, b) if each is not None]
    return max(known, key=lambda each: (way * each[0], each[1]["input"])) if known else None


def compared(library: Library, conversion: Conversion, parts: Iterable[Array]) -> Tally:
    """Compare on a domain, given in parts; NaN equals NaN."""
    convert = library.conversion(conversion.to, conversion.rounding, conversion.overflow)
    tally = Tally()
    for values in parts:
        tally.merge(_compared_part(conversion, convert, values))
    return tally


def _compared_part(conversion: Conversion, convert: Callable[[Array], Array], values: Array) -> Tally:
    named = format_named(conversion.to)
    variant = None if named.has_nan else "zero"  # what stands in where the reference refuses
    wanted = encode(values, conversion.to, rounding=conversion.rounding, overflow=conversion.overflow, nan=variant)
    got, refused = answers(convert, values, wanted.dtype)
    differ = got != wanted
    if not named.has_nan and values.dtype.kind == "f":
        differ |= np.isnan(values)
    wrong = np.flatnonzero(differ & ~refused)
    if wrong.size and named.has_nan:
        words = got[wrong]
        both = is_nan(words.astype(named.word), named) & is_nan(wanted[wrong], named) & (words <= named.filled_bits)
        wrong = wrong[~both]
    tally = Tally(values.size)
    if wrong.size:
        mismatches = Mismatches(
            values[wrong], wanted[wrong], got[wrong], conversion.to, conversion.rounding, conversion.overflow
        )
        _count(tally, mismatches)
    return tally


def answers(convert: Callable[[Array], Array], values: Array, word: np.dtype[Any]) -> tuple[Array, Array]:
    """Return the library's words, and where it refuses NaN, as the reference does in a format without one."""
    nowhere = np.zeros(values.shape, np.bool_)
    try:
        return convert(values), nowhere
    except (ValueError, AssertionError):
        refused = np.isnan(values)
        got = np.zeros(values.shape, word)
        got[~refused] = convert(values[~refused])
        return got, refused


def _count(tally: Tally, mismatches: Mismatches) -> None:
    names = list(CAUSES)
    positions = cause_of(mismatches)
    with np.errstate(invalid="ignore"):
        sizes = np.abs(np.nan_to_num(mismatches.values.astype(np.float64), nan=0.0, posinf=np.inf, neginf=np.inf))
    for position in np.unique(positions).tolist():
        of_cause = np.flatnonzero(positions == position)
        low, high = of_cause[np.argmin(sizes[of_cause])], of_cause[np.argmax(sizes[of_cause])]
        tally.causes[names[position]] = Count(
            of_cause.size,
            (float(sizes[low]), example(mismatches, int(low))),
            (float(sizes[high]), example(mismatches, int(high))),
        )


def example(mismatches: Mismatches, index: int) -> Example:
    """Return one mismatch in words and numbers."""
    named = format_named(mismatches.fmt)
    value = mismatches.values[index]
    bits = int(np.asarray(value).view(f"u{value.itemsize}"))
    given = str(int(value)) if value.dtype.kind == "i" else f"{bits:#0{2 + 2 * value.itemsize}x} ({float(value):.9g})"
    refused = bool(value.dtype.kind == "f" and np.isnan(value) and not named.has_nan)
    return {
        "input": given,
        "reference": "refused" if refused else shown(int(mismatches.wanted[index]), mismatches.fmt),
        "library": shown(int(mismatches.got[index]), mismatches.fmt),
    }


def shown(word: int, fmt: str) -> str:
    """Return a word with its value."""
    named = format_named(fmt)
    digits = 2 + 2 * named.word.itemsize
    if word & ~named.filled_bits or word < 0:
        return f"{word & 0xFFFFFFFFFFFFFFFF:#x} (no word of the format)"
    return f"{word:#0{digits}x} ({decoded(np.array([word], named.word), named)[0]:.6g})"


def record(conversion: Conversion, version: str, domain: str, tally: Tally) -> dict[str, Any]:
    """Return a tally as data."""
    groups = [
        {
            "cause": name,
            "count": tally.causes[name].count,
            "examples": [each[1] for each in (tally.causes[name].smallest, tally.causes[name].largest) if each],
        }
        for name in CAUSES
        if name in tally.causes
    ]
    return {
        "id": conversion.id, "library": conversion.library, "version": version, "source": conversion.source,
        "to": conversion.to, "rounding": conversion.rounding, "overflow": conversion.overflow, "domain": domain,
        "inputs": tally.inputs, "mismatches": sum(found["count"] for found in groups), "groups": groups,
    }  # fmt: skip
