"""Records check their own fields: each must be what its annotation says; which values it may have, the rules say."""

from collections.abc import Mapping
from dataclasses import fields
from functools import cache
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import numpy as np

from qloracle.errors import reject_type

_PLAIN: dict[Any, tuple[str, tuple[type, ...]]] = {
    str: ("a string", (str,)),
    bool: ("True or False", (bool,)),
    int: ("an integer", (int, np.integer)),
    float: ("a number", (int, float, np.integer, np.floating)),
    np.float32: ("float32", (np.float32, np.ndarray)),
}


def require_fields(record: Any) -> None:
    """Raise `ArgumentTypeError` unless every field of a record is of the type that it is annotated with."""
    kind: Any = type(record)
    hints = _hints(kind)
    for field in fields(record):
        value, hint = getattr(record, field.name), hints[field.name]
        if not _is(value, hint):
            shown = type(value).__name__ if isinstance(value, np.ndarray) else repr(value)
            reject_type(field.name, f"{_called(hint)} in {kind.__name__}", shown)


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


def _is(value: object, hint: Any) -> bool:
    origin = get_origin(hint)
    if origin in (Union, UnionType):
        return any(_is(value, part) for part in get_args(hint))
    if origin is np.ndarray:
        return isinstance(value, np.ndarray | np.generic)
    if origin is tuple:
        return isinstance(value, tuple | list) and all(_is(item, get_args(hint)[0]) for item in value)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return isinstance(value, Mapping)
    if hint in _PLAIN:
        return isinstance(value, _PLAIN[hint][1]) and (hint is bool or not isinstance(value, bool))
    return isinstance(value, hint) if isinstance(hint, type) else True


def _called(hint: Any) -> str:
    origin = get_origin(hint)
    if origin in (Union, UnionType):
        return " or ".join(_called(part) for part in get_args(hint))
    if origin is np.ndarray:
        return "a NumPy array"
    if origin is tuple:
        return "a tuple"
    if hint is type(None):
        return "None"
    return _PLAIN[hint][0] if hint in _PLAIN else getattr(hint, "__name__", "a mapping")
