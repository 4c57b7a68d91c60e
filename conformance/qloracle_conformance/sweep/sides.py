"""The two sides of a sweep: functions from float32 arrays to words."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

import qloracle
from qloracle.encoding import nan_rules_of, overflows_of
from qloracle.errors import require_one_of
from qloracle.formats import FORMATS, Array, format_named
from qloracle.rounding import ROUNDINGS, encode
from qloracle_conformance.adapters.libraries import LIBRARIES, library
from qloracle_conformance.arrays import HostArray
from qloracle_conformance.backend import Backend
from qloracle_conformance.loading import BackendLoadError, attribute_named, known_backends, load_backend
from qloracle_conformance.usage import UsageError

Conversion = Callable[[Array], Array]


@dataclass(frozen=True)
class Policies:
    """The conversion that is compared; both sides are asked for it by these names."""

    to: str
    rounding: str
    overflow: str
    nan: str  # what the reference makes of NaN in a format without NaN; "reject" leaves those inputs out


@dataclass(frozen=True)
class Side:
    """One side."""

    name: str
    version: str
    convert: Conversion


def policies(to: str, against: str, rounding: str, overflow: str | None, nan: str | None) -> Policies:
    """Return complete policies: what is not given is the other side's own.

    Raises
    ------
    QloracleError
        If a name is unknown, or the reference has no such conversion.
    """
    require_one_of("to", to, [name for name in FORMATS if name != "float64"])
    require_one_of("rounding", rounding, [name for name in ROUNDINGS if name != "stochastic"])
    if overflow is None:
        overflow = library(against).own_overflow(to)[0] if against in LIBRARIES else overflows_of(to)[0]
    require_one_of("overflow", overflow, overflows_of(to))
    rules = nan_rules_of(to)
    return Policies(to, rounding, overflow, require_one_of("nan", nan or rules[0], rules))


def reference_side(chosen: Policies) -> Side:
    """Return the reference."""
    convert = partial(encode, fmt=chosen.to, rounding=chosen.rounding, overflow=chosen.overflow, nan=chosen.nan)
    return Side("reference", qloracle.SPECIFICATION_VERSION, convert)


def other_side(against: str, chosen: Policies) -> Side:
    """Return a library, a backend by name, or what ``module:attribute`` names; "torch" is the library.

    The attribute is a `Backend`, a function of the device that returns one, or a function of a float32 array and the
    format's name that returns words.

    Raises
    ------
    QloracleError
        If it cannot be had, or has no such conversion.
    """
    if against in LIBRARIES:
        found = library(against)
        return Side(against, found.version, found.conversion(chosen.to, chosen.rounding, chosen.overflow))
    if ":" in against:
        function = attribute_named(against, against)
        if callable(function) and not isinstance(function, Backend) and _takes_two(function):
            return Side(against, "", partial(_words_of_function, function, chosen.to))
    elif against not in known_backends():
        raise UsageError(_known_sides(against))
    return _backend_side(load_backend(against, "cpu"), chosen)


def _known_sides(against: str) -> str:
    """Return what `against` may be: a library is called by its name, a backend of that name by where it is."""
    backends = known_backends()
    hidden = [
        f"; {name} is the library, --against {backends[name]} the backend" for name in LIBRARIES if name in backends
    ]
    names = [*LIBRARIES, *(name for name in backends if name not in LIBRARIES)]
    return f"--against must be one of {', '.join(names)} or module:attribute, got {against!r}{''.join(hidden)}"


def _takes_two(function: Callable[..., object]) -> bool:
    required = [p for p in inspect.signature(function).parameters.values() if p.default is p.empty]
    return len(required) == 2


def _words_of_function(function: Callable[[Array, str], Array], fmt: str, values: Array) -> Array:
    return np.asarray(function(values, fmt)).view(format_named(fmt).word)


def _backend_side(backend: Backend, chosen: Policies) -> Side:
    claim = next((c for c in backend.claims if c.operation == f"{chosen.to}.encode"), None)
    if claim is None or "encode" not in backend.ops:
        raise BackendLoadError(f"backend {backend.name!r} does not claim {chosen.to}.encode")
    options = {"rounding": chosen.rounding, "overflow": chosen.overflow}
    default = {"rounding": "ties_to_even", "overflow": overflows_of(chosen.to)[0]}
    for name, value in options.items():
        if value not in claim.options.get(name, (default[name],)):
            raise BackendLoadError(f"backend {backend.name!r} does not claim {chosen.to}.encode with {name} {value!r}")
    asked = {name: value for name, value in options.items() if name in claim.options}
    return Side(backend.name, backend.version, partial(_words_of_backend, backend, chosen.to, asked))


def _words_of_backend(backend: Backend, fmt: str, options: dict[str, str], values: Array) -> Array:
    native = backend.place(values, "float32", values.shape, (1,), 0)
    items, dtype = backend.fetch(backend.ops["encode"](native, fmt=fmt, **options))
    if dtype != fmt:
        raise BackendLoadError(f"backend {backend.name!r} returned {dtype} where {fmt} was asked for")
    return HostArray(np.asarray(items), dtype).words()
