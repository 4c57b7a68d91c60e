"""The rounding points of every clause, read from the Notes of the docstrings that carry it.

A docstring says "Rounding points, in order: a; b." or "Rounding points: none.", "No arithmetic.", "Integers only."
where the rule fixes them; "Rounding points of an implementation …" where a sum leaves them to the implementation; and
"Roundings on a path: …" where a bound counts them.
"""

import re
from dataclasses import dataclass
from typing import Literal

from qloracle_conformance.spec.clauses import carrier, carriers_of
from qloracle_conformance.spec.docstrings import paragraphs

Whose = Literal["rule", "implementation", "bound"]

_STATEMENTS: dict[str, Whose] = {
    r"Rounding points?(?:, in order)?: (.*)": "rule",
    r"((?:No arithmetic|Integers only)\b.*)": "rule",
    r"Rounding points of an implementation:? (.*)": "implementation",
    r"Rounding points (as in .*)": "implementation",
    r"Roundings on a path[^:]*: (.*)": "bound",
}
_SENTENCE = re.compile(r"(?<=[.∎])\s+(?=[A-Z`]|b?float\d|u?int\d)")
_ONE = re.compile(r"one(?:, |$)")
_EXACT = re.compile(r"\b(?:is|are) exact\b")
_NONE = re.compile(r"none\b|no arithmetic\b|integers only\b", re.IGNORECASE)


@dataclass(frozen=True)
class RoundingPoints:
    """What a docstring says about where its rule rounds."""

    carrier: str  # full name of the function or record
    whose: Whose  # fixed by the rule, left to an implementation, or counted by a bound
    steps: tuple[str, ...]  # each rounding, in order; empty where nothing is rounded
    remark: str  # what else the statement says


def statement(text: str | None) -> tuple[Whose, tuple[str, ...], str] | None:
    """Return whose they are, the steps and the remark of a docstring's statement, or None if it makes none."""
    for paragraph in paragraphs(text or ""):
        for pattern, whose in _STATEMENTS.items():
            found = re.search(pattern, " ".join(paragraph.split()))
            if found:
                return whose, *_taken_apart(found[1], whose)
    return None


def _taken_apart(said: str, whose: Whose) -> tuple[tuple[str, ...], str]:
    first, *rest = _SENTENCE.split(said)
    sentences = [s for s in rest if not s.startswith(("Source", "Clause"))]
    if whose != "rule":
        return (first.rstrip(".").removeprefix("are "),), " ".join(sentences)
    parts = [part.strip().rstrip(".") for part in first.split(";")]
    if _NONE.match(parts[0]):
        steps, others = [], parts[1:]
    elif _ONE.match(parts[0]):  # what follows a semicolon is then no further rounding
        steps, others = [_ONE.sub("", parts[0]) or "the result"], parts[1:]
    else:
        steps = [part for part in parts if not _EXACT.search(part)]
        others = [part for part in parts if _EXACT.search(part)]
    return tuple(steps), " ".join([f"{part[:1].upper()}{part[1:]}." for part in others] + sentences)


def rounding_points(label: str) -> list[RoundingPoints]:
    """Return what the carriers of a clause say, the most specific carrier first; empty if none says anything."""
    return [
        RoundingPoints(name, *stated)
        for name in carriers_of(label)
        if (stated := statement(carrier(name).__doc__)) is not None
    ]
