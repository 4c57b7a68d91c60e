"""The clauses of the specification: which there are, and which functions and records of the reference carry each."""

import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from functools import cache
from types import ModuleType
from typing import Any

import qloracle

LABEL = re.compile(r"\[([a-z][a-z0-9_]*\.[a-z0-9_]*[a-z][a-z0-9_]*)\]")
_ARRAY = re.compile(r"numpy\.ndarray\[tuple\[typing\.Any, \.\.\.\], numpy\.dtype\[typing\.Any\]\]")


def reference_modules() -> Iterator[ModuleType]:
    """Yield the modules of the reference."""
    for found in pkgutil.walk_packages(qloracle.__path__, "qloracle."):
        yield importlib.import_module(found.name)


def members(module: ModuleType) -> dict[str, Any]:
    """Return the functions and classes that a module defines, in the order in which they stand in it."""
    return {
        name: thing
        for name, thing in vars(module).items()
        if getattr(thing, "__module__", None) == module.__name__
        and (inspect.isfunction(thing) or inspect.isclass(thing))
    }


@cache
def clauses() -> dict[str, list[str]]:
    """Return all clauses and the full names of the functions that carry each, the most specific first."""
    carried: dict[str, list[tuple[int, str]]] = {}
    for module in reference_modules():
        for label in LABEL.findall(module.__doc__ or ""):
            carried.setdefault(label, [])
        for name, thing in members(module).items():
            labels = set(LABEL.findall(thing.__doc__ or ""))
            for label in labels:
                carried.setdefault(label, []).append((len(labels), f"{module.__name__}.{name}"))
    return {label: [name for _, name in sorted(carriers)] for label, carriers in sorted(carried.items())}


def carrier(name: str) -> Any:
    """Return the function, class or module of a full name."""
    modules = {module.__name__: module for module in reference_modules()}
    module_name, _, attribute = name.rpartition(".")
    return modules[name] if name in modules else getattr(modules[module_name], attribute)


@cache
def carriers_of(label: str) -> list[str]:
    """Return what carries a clause; the module whose docstring states it where no function does."""
    return clauses()[label] or [m.__name__ for m in reference_modules() if f"[{label}]" in (m.__doc__ or "")]


def signature_of(thing: Any) -> str:
    """Return the signature of a function as a reader wants it: an array is an array."""
    return _ARRAY.sub("array", str(inspect.signature(thing)))
