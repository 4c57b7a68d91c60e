"""The text of a clause, from the docstrings of the reference."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from qloracle_conformance.explain import rule_of
from qloracle_conformance.spec.clauses import carrier, carriers_of, clauses, signature_of
from qloracle_conformance.spec.docstrings import cleaned, parse


@dataclass(frozen=True)
class Rule:
    """A clause as its carriers state it."""

    label: str
    line: str  # "" for a clause that this version does not have
    formula: str  # the paragraphs of the first carrier that state it
    carriers: Sequence[tuple[str, str]]  # full name with signature, docstring


@cache
def rule(label: str) -> Rule:
    """Return the rule of a clause."""
    if label not in clauses():
        return Rule(label, "", "", ())
    carriers = []
    for name in carriers_of(label):
        thing = carrier(name)
        carriers.append((name + (signature_of(thing) if callable(thing) else ""), cleaned(thing.__doc__)))
    return Rule(label, rule_of(label), parse(carriers[0][1]).rule, carriers)
