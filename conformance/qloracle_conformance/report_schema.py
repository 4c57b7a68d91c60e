"""What a line of a report must hold: keys, types and the values that exist."""

from collections.abc import Mapping
from typing import Any, get_args

from qloracle_conformance.judge import LEVELS
from qloracle_conformance.verdicts import Status

FORMAT = 2  # since 2: ordinal errors, used parts of bounds, steps and places of failing elements
Rule = Any  # a type, a tuple of types, a set of values, a list with the rule of each item, a mapping key → rule

_NUMBER = (int, float)
_COUNTS = [int]
_BACKEND = {"name": str, "requested": str, "version": str, "device": str}
_SETTINGS = {"profile": str, "seed": int}
_SUITE = {"python": str, "numpy": str, "machine": str, "worker_threads": int, "subnormals_kept": bool}
_CLAIM = {"operation": str, "levels": dict, "basis": str, "source": str, "roundings": dict}
_FINDING = {"element": int, "pattern": str, "got": str, "allowed": str, "error": str, "cause": str, "context": dict}
_STEPS = {"codebook": str, "pairs": [[_NUMBER]]}
_PLACES = {
    "size": int, "failing": int, "pattern": str, "row_length": int, "block_size": int, "lanes": _COUNTS,
    "nibbles": _COUNTS, "rows": _COUNTS, "columns": _COUNTS, "blocks": _COUNTS, "tails": [_COUNTS], "start": int,
    "window": str,
}  # fmt: skip

LINES: dict[str, dict[str, Rule]] = {
    "header": {
        "format": int, "specification": str, "backend": _BACKEND, "environment": dict, "settings": _SETTINGS,
        "suite": _SUITE, "claims": [_CLAIM], "time": str,
    },
    "property": {
        "id": str, "operation": str, "stage": str, "family": str, "clause": str, "claimed": frozenset(LEVELS),
        "attained": frozenset({*LEVELS, None}), "basis": str, "status": frozenset(get_args(Status)), "cases": int,
        "elements": int, "not_judged": int, "blocked": int, "failing": int, "boundary_hits": int,
        "bound_used": _NUMBER, "window": _NUMBER, "ordinal_errors": dict, "bound_parts": _COUNTS,
        "steps": (_STEPS, None), "places": (_PLACES, None), "message": str, "finding": (_FINDING, None),
        "witness": str, "seconds": _NUMBER,
    },
    "matrix": {"name": str, "shape": list, "dtype": str, "not_finite": int, "bits_per_weight": dict, "sqnr_db": dict},
    "footer": {"exit_code": int, "properties": int, "unclaimed": [str], "seconds": _NUMBER},
}  # fmt: skip
# What reports of format 1 did not say.
ADDED_IN_2: dict[str, Any] = {"ordinal_errors": {}, "bound_parts": [], "steps": None, "places": None}


def first_problem(line: Mapping[str, Any], rules: Mapping[str, Rule], place: str = "") -> str:
    """Return what is wrong with a line, or "" if nothing is: the key, the rule and what stands there."""
    for key, rule in rules.items():
        if key not in line:
            return f"needs the key {place + key!r}"
        found = _problem(line[key], rule, place + key)
        if found:
            return found
    return ""


def _problem(value: Any, rule: Rule, name: str) -> str:
    """Return what is wrong with a value."""
    options = rule if isinstance(rule, tuple) else (rule,)
    if value is None and None in options:
        return ""
    for option in options:
        if isinstance(option, Mapping) and isinstance(value, dict):
            return first_problem(value, option, f"{name}.")
        if isinstance(option, list) and isinstance(value, list):
            return next(filter(None, (_problem(item, option[0], name) for item in value)), "")
        if isinstance(option, frozenset) and isinstance(value, str | None) and value in option:
            return ""
        if isinstance(option, type) and isinstance(value, option) and (option is bool or not isinstance(value, bool)):
            return ""
    return f"needs the key {name!r} as {_named(options)}, got {value!r}"


def _named(options: tuple[Rule, ...]) -> str:
    names = []
    for option in options:
        if isinstance(option, frozenset):
            names.append("one of " + ", ".join(sorted(str(o) for o in option)))
        else:
            kinds: dict[object, str] = {dict: "an object", list: "a list"}
            names.append(kinds.get(type(option), getattr(option, "__name__", "null")))
    return " or ".join(names)
