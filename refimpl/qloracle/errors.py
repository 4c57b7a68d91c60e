"""The error types: every rejected argument names itself, the rule that it broke, and its value."""

from typing import NoReturn


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
    got = getattr(value, "dtype", type(value).__name__)
    if got != dtype:
        reject_type(argument, dtype, got)


def require_integer(argument: str, value: object, rule: str) -> int:
    """Return `value` if it is an integer (no bool), else raise `ArgumentTypeError` with the rule."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        reject_type(argument, rule, repr(value))
    return int(value.__index__())


def require_positive_integer(argument: str, value: object) -> int:
    """Return `value` if it is an integer (no bool) of at least 1, else raise."""
    integer = require_integer(argument, value, "a positive integer")
    if integer < 1:
        reject_value(argument, "a positive integer", integer)
    return integer


def require_number(argument: str, value: object) -> float:
    """Return `value` as a float if it is a real number (no bool), else raise `ArgumentTypeError`."""
    if isinstance(value, bool | str | bytes) or not hasattr(value, "__float__"):
        reject_type(argument, "a number", repr(value))
    return float(value)
