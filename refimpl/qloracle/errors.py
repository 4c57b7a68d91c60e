"""The error types: every rejected argument names itself, the rule that it broke, and its value."""

from collections.abc import Collection, Iterable, Mapping
from math import prod
from typing import Any, NoReturn


class QloracleError(Exception):
    """Base class of every error that this project raises on purpose."""


class ArgumentValueError(QloracleError, ValueError):
    """An argument of the right type has a value that the rule excludes."""


class ArgumentTypeError(QloracleError, TypeError):
    """An argument has a type or dtype that the rule excludes; nothing is cast silently."""


def reject_value(argument: str, rule: str, got: object) -> NoReturn:
    """Raise `ArgumentValueError` as ``ARGUMENT must be RULE, got VALUE``."""
    raise ArgumentValueError(f"{argument} must be {rule}, got {got}")


def reject_type(argument: str, rule: str, got: object) -> NoReturn:
    """Raise `ArgumentTypeError` as ``ARGUMENT must be RULE, got VALUE``."""
    raise ArgumentTypeError(f"{argument} must be {rule}, got {got}")


def require_dtype(argument: str, value: object, dtype: str) -> None:
    """Raise `ArgumentTypeError` unless `value` is an array of the dtype called `dtype`."""
    got = getattr(value, "dtype", None)
    if got is None or isinstance(value, type) or got != dtype:
        reject_type(argument, dtype, type(value).__name__ if got is None else got)


def require_integer(argument: str, value: object, rule: str) -> int:
    """Return `value` if it is an integer (no bool), else raise `ArgumentTypeError` with the rule."""
    if isinstance(value, bool | type) or not hasattr(value, "__index__"):
        reject_type(argument, rule, repr(value))
    try:
        return int(value.__index__())
    except TypeError:  # an array of no or of several integers
        reject_type(argument, rule, repr(value))


def require_positive_integer(argument: str, value: object) -> int:
    """Return `value` if it is an integer (no bool) of at least 1, else raise."""
    integer = require_integer(argument, value, "a positive integer")
    if integer < 1:
        reject_value(argument, "a positive integer", integer)
    return integer


def require_number(argument: str, value: object) -> float:
    """Return `value` as a float if it is a real number (no bool), else raise `ArgumentTypeError`."""
    if isinstance(value, bool | str | bytes | type) or not hasattr(value, "__float__"):
        reject_type(argument, "a number", repr(value))
    try:
        return float(value)
    except (TypeError, ValueError):  # an array of no or of several numbers
        reject_type(argument, "a number", repr(value))
    except OverflowError:
        reject_value(argument, "a number that float64 holds", repr(value))


def require_flag(argument: str, value: object) -> bool:
    """Return `value` if it is True or False, else raise `ArgumentTypeError`."""
    if not isinstance(value, bool):
        reject_type(argument, "True or False", repr(value))
    return value


def require_record(argument: str, value: object, *kinds: type) -> None:
    """Raise `ArgumentTypeError` unless `value` is a record of one of the given classes."""
    if not isinstance(value, kinds):
        reject_type(argument, " or ".join(kind.__name__ for kind in kinds), type(value).__name__)


def require_one_of(argument: str, value: object, known: Collection[str]) -> str:
    """Return `value` if it is one of the known names, else raise with the list of them."""
    if not isinstance(value, str) or value not in known:
        reject_value(argument, f"one of {', '.join(known)}", repr(value))
    return value


def require_names(argument: str, value: object, rule: str) -> tuple[str, ...]:
    """Return `value` as a tuple of names if it is a sequence of strings that are not empty (no string itself)."""
    if not isinstance(value, list | tuple) or not all(isinstance(name, str) and name for name in value):
        reject_type(argument, rule, repr(value))
    return tuple(value)


def require_items(argument: str, value: object, rule: str) -> list[Any]:
    """Return the items of a sequence (no string, no mapping), else raise `ArgumentTypeError` with the rule."""
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
        reject_type(argument, rule, repr(value))
    try:
        return list(value)
    except TypeError:  # a 0-d array calls itself iterable
        reject_type(argument, rule, repr(value))


def require_mapping(argument: str, value: object, rule: str) -> Mapping[Any, Any]:
    """Return `value` if it is a mapping, else raise `ArgumentTypeError` with the rule."""
    if not isinstance(value, Mapping):
        reject_type(argument, rule, type(value).__name__)
    return value


def require_shape(shape: object, argument: str = "shape") -> tuple[int, ...]:
    """Return a shape as a tuple of Python integers, or raise unless it is one of numbers that are 0 or more."""
    rule = "a sequence of integers"
    sizes = tuple(require_integer(argument, size, rule) for size in require_items(argument, shape, rule))
    if any(size < 0 for size in sizes):
        reject_value(argument, "of sizes that are 0 or more", sizes)
    return sizes


def require_array_shape(shape: object, argument: str = "shape") -> tuple[int, ...]:
    """Return a shape that an array can have: as `require_shape`, of at most 64 axes and fewer than 2^59 elements."""
    sizes = require_shape(shape, argument)
    if len(sizes) > 64 or prod(sizes) >= 2**59:
        reject_value(argument, "the shape of an array: at most 64 axes and fewer than 2^59 elements", sizes)
    return sizes


def require_pair(argument: str, value: object) -> tuple[Any, Any]:
    """Return the two items of a sequence of two, else raise."""
    items = require_items(argument, value, "a pair")
    if len(items) != 2:
        reject_value(argument, "a pair", f"{len(items)} items")
    return items[0], items[1]
