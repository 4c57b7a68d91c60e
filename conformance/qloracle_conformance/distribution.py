"""How the outputs of a property are distributed: what a report's plots are drawn from, counted case by case.

Everything here is a function of the cases alone and is counted inside one task, so that it is the same however many
processes or machines share a run.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from qloracle.formats import Array
from qloracle_conformance.judge import LEVELS, NO_WORD_ORDINAL, StageResult
from qloracle_conformance.places import places_of

PARTS = 10  # bins of the used part of a bound, and one more for what lies outside of it
MOST_PAIRS = 64  # of an allowed and a given code


@dataclass
class Steps:
    """Elements that have one wrong code instead of one right one."""

    count: int
    least: float  # x/absmax
    greatest: float


@dataclass
class Distribution:
    """What was counted at one stage over the cases of a family."""

    errors: dict[int, int] = field(
        default_factory=dict
    )  # signed lower end of a bin [2^k, 2^(k+1)) → elements; 0 → right
    without_number: int = 0  # elements that are NaN, or no word of the format, where a number is due; or the converse
    parts: list[int] = field(default_factory=list)  # elements by the used part of their error bound
    codebook: str = ""
    pairs: dict[tuple[int, int], Steps] = field(default_factory=dict)  # (right, given) position in value order
    places: dict[str, Any] | None = None  # of the case with the most failing elements

    def add(self, result: StageResult, wrong: Array) -> None:
        """Count a stage's result; `wrong` says where it breaks the claim."""
        if result.dtype != "byte order":  # a byte in another order is no distance from the right one
            self._add_errors(result)
        if result.used is not None:
            self._add_parts(result.used)
        if not np.any(wrong):
            return
        if result.steps is not None:
            self._add_pairs(result, wrong.reshape(-1))
        if self.places is None or int(np.sum(wrong)) > self.places["failing"]:
            self.places = places_of(wrong, result.row_length, result.block_size)

    def add_right(self, elements: int) -> None:
        """Count elements that are right."""
        self._count(0, elements)

    def as_json(self) -> dict[str, Any]:
        """Return what a report's line says."""
        errors = {str(key): self.errors[key] for key in sorted(self.errors)}
        most = sorted(self.pairs.items(), key=lambda item: (-item[1].count, item[0]))[:MOST_PAIRS]
        pairs = [[*pair, s.count, _short(s.least), _short(s.greatest)] for pair, s in sorted(most)]
        return {
            "ordinal_errors": errors | ({"nan": self.without_number} if self.without_number else {}),
            "bound_parts": self.parts,
            "steps": {"codebook": self.codebook, "pairs": pairs} if pairs else None,
            "places": self.places,
        }

    def _add_errors(self, result: StageResult) -> None:
        limits = result.allowed[next(level for level in LEVELS if level in result.allowed)]
        judged = limits.judged if result.blocked is None else limits.judged & ~result.blocked
        if result.middle is None:
            got, lo, hi = result.got, limits.lo, limits.hi
        else:  # a sum is compared with the one number that the exact sum rounds to, wherever in its bound it lies
            got, lo = _one_zero(result.got), _one_zero(result.middle)
            hi = lo
        off = judged & ((got < lo) | (got > hi))
        self.add_right(int(np.sum(judged)) - int(np.sum(off)))
        if not np.any(off):
            return
        got, lo, hi = got[off], lo[off], hi[off]
        numbers = (got < NO_WORD_ORDINAL) & (lo < NO_WORD_ORDINAL)
        self.without_number += int(np.sum(~numbers))
        got, lo, hi = (a[numbers].astype(np.float64) for a in (got, lo, hi))
        signed = np.where(got > hi, got - hi, got - lo)
        ends = np.ldexp(np.sign(signed), np.frexp(signed)[1] - 1)
        for end, count in zip(*np.unique(ends, return_counts=True), strict=True):
            self._count(int(end), int(count))

    def _count(self, end: int, count: int) -> None:
        if count:
            self.errors[end] = self.errors.get(end, 0) + count

    def _add_parts(self, used: Array) -> None:
        measured = used[~np.isnan(used)]
        if not measured.size:
            return
        # A part of exactly 1 is inside its bound.
        place = np.where(measured > 1, PARTS, np.minimum(measured * PARTS, PARTS - 1)).astype(np.int64)
        counts = np.bincount(place.reshape(-1), minlength=PARTS + 1).tolist()
        self.parts = [a + b for a, b in zip(self.parts or [0] * (PARTS + 1), counts, strict=True)]

    def _add_pairs(self, result: StageResult, wrong: Array) -> None:
        steps = result.steps
        if steps is None:
            return
        self.codebook = steps.codebook
        failing = wrong[steps.index]
        right, given, scaled = steps.right[failing], steps.given[failing], steps.scaled[failing]
        for pair in np.unique(np.stack([right, given], axis=1), axis=0).tolist():
            members = scaled[(right == pair[0]) & (given == pair[1])]
            key, least, greatest = (pair[0], pair[1]), float(members.min()), float(members.max())
            known = self.pairs.setdefault(key, Steps(0, least, greatest))
            known.count += members.size
            known.least, known.greatest = min(known.least, least), max(known.greatest, greatest)


def _one_zero(ordinals: Array) -> Array:
    """Return ordinals among which −0 and +0 are one number: no rule fixes the sign of a sum that is zero."""
    return np.where(ordinals < 0, ordinals + 1, ordinals)


def _short(value: float) -> float:
    """Return a number of nine digits: more than a plot shows."""
    return float(f"{value:.9g}")
