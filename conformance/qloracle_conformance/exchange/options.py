"""Plain options as tokens: ``KIND VALUE …``, readable with sscanf, and exact.

``int 64``, ``float 0x1.8p+4`` (C99 and Python read it, to the last bit), ``bool 1``, ``text nf4``, ``none``, and lists
with their length first: ``ints 2 4 96``, ``floats``, ``bools``, ``texts``. Texts hold no space: what is not a letter, a
digit or one of ``_.-*()/:,[]`` is %XX as in a URL, and an empty text is ``""``. Anything else is ``json`` and one such
text.
"""

import json
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import quote, unquote

from qloracle_conformance.exchange.words import TextError

_EMPTY = '""'
_SAFE = "_.-*()/:,[]"


def option_text(value: Any) -> str:
    """Return an option's kind and value."""
    if value is None:
        return "none"
    kind = _kind(value)
    if kind is not None:
        return f"{kind} {_WRITE[kind](value)}"
    if isinstance(value, tuple) and value and len({_kind(item) for item in value} - {None}) == 1:
        kind = _kind(value[0])
        if kind is not None and all(_kind(item) == kind for item in value):
            return " ".join([f"{kind}s", str(len(value)), *(_WRITE[kind](item) for item in value)])
    return "ints 0" if value == () else f"json {_written(json.dumps(value, sort_keys=False))}"


def _kind(value: Any) -> str | None:
    return {bool: "bool", int: "int", float: "float", str: "text"}.get(type(value))


def _written(text: str) -> str:
    return quote(text, safe=_SAFE) or _EMPTY


def _read_text(token: str) -> str:
    return "" if token == _EMPTY else unquote(token, errors="strict")


def _read_float(token: str) -> float:
    return float.fromhex(token) if "x" in token.lower() else float(token)  # fromhex takes 0.1 for one sixteenth


def _read_bool(token: str) -> bool:
    return {"0": False, "1": True}[token]


_WRITE: dict[str, Callable[[Any], str]] = {
    "bool": lambda value: str(int(value)),
    "int": str,
    "float": float.hex,
    "text": _written,
}
_READ: dict[str, Callable[[str], Any]] = {
    "bool": _read_bool,
    "int": int,
    "float": _read_float,
    "text": _read_text,
}


def option_value(tokens: Sequence[str]) -> Any:
    """Return the value of an option from its tokens.

    Raises
    ------
    TextError
        If they are no option.
    """
    kind, *values = tokens or [""]
    try:
        if kind == "none" and not values:
            return None
        if kind in _READ and len(values) == 1:
            return _READ[kind](values[0])
        if kind == "json" and len(values) == 1:
            return _without_lists(json.loads(_read_text(values[0])))
        if kind[:-1] in _READ and kind.endswith("s") and values and int(values[0]) == len(values) - 1:
            return tuple(_READ[kind[:-1]](item) for item in values[1:])
    except (KeyError, OverflowError, ValueError) as error:
        raise TextError(f"an option is {kind} and a value of it, got {' '.join(tokens)!r}") from error
    known = ", ".join(["none", *_READ, *(f"{name}s" for name in _READ), "json"])
    raise TextError(f"an option is one of {known} and its value, got {' '.join(tokens)!r}")


def _without_lists(value: Any) -> Any:
    """Return a value as it was before JSON turned its tuples to lists."""
    return tuple(_without_lists(item) for item in value) if isinstance(value, list) else value
