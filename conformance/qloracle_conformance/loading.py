"""Finding a backend: by the short name of an entry point, or as module:attribute."""

import importlib
import importlib.metadata
import re
import sys
from typing import Any

from qloracle.errors import QloracleError
from qloracle_conformance.backend import Backend

GROUP = "qloracle.backends"


class BackendLoadError(QloracleError):
    """The backend that was asked for cannot be had."""


def known_backends() -> dict[str, str]:
    """Return the short names of all installed backends and where each is defined."""
    return {entry.name: entry.value for entry in sorted(importlib.metadata.entry_points(group=GROUP))}


def load_backend(name: str, device: str) -> Backend:
    """Return the backend called `name` on `device`.

    Parameters
    ----------
    name : str
        A short name of the entry-point group ``qloracle.backends``, or ``module:attribute``. The attribute is a
        `Backend`, or a function that takes the device and returns one. The current folder is searched too.
    device : str
        "cpu", "cuda", "cuda:1", …: handed to the function.

    Raises
    ------
    BackendLoadError
        If the name is unknown, the module cannot be imported, or the attribute is no backend.
    """
    target = name if ":" in name else known_backends().get(name)
    if target is None:
        known = ", ".join(known_backends()) or "none"
        raise BackendLoadError(f"unknown backend {name!r}; known: {known}; or give module:attribute")
    found = attribute_named(target, name)
    try:
        backend = found(device) if callable(found) else found
    except Exception as error:
        raise BackendLoadError(f"backend {name!r} cannot start on device {device!r}: {error}") from error
    if not isinstance(backend, Backend):
        raise BackendLoadError(f"backend {name!r} must be a Backend, or return one; got {type(backend).__name__}")
    return backend


def attribute_named(target: str, name: str) -> Any:
    """Return the attribute that ``module:attribute`` names; the current folder is searched too.

    Raises
    ------
    BackendLoadError
        If the module cannot be imported, or has no such attribute; `name` is what the message calls it.
    """
    if "" not in sys.path and "." not in sys.path:
        sys.path.insert(0, "")
    module_name, _, attribute = target.partition(":")
    return _attribute(_imported(module_name, name), attribute, name)


def _imported(module_name: str, name: str) -> Any:
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise BackendLoadError(f"backend {name!r} needs the module {error.name!r}{_hint(name)}") from error
    except Exception as error:
        raise BackendLoadError(
            f"backend {name!r}: importing {module_name!r} failed: {type(error).__name__}: {error}"
        ) from error


def _hint(name: str) -> str:
    """Return how to install what a backend of ours needs: "torch-layers" needs the extra "torch"."""
    extras = importlib.metadata.metadata("qloracle").get_all("Provides-Extra") or []
    framework = re.split("[-_]", name)[0]
    found = next((extra for extra in (name, framework) if extra in extras), None)
    return "" if found is None else f"; try: pip install 'qloracle[{found}]'"


def _attribute(module: Any, attribute: str, name: str) -> Any:
    found = getattr(module, attribute, None)
    if found is None:
        raise BackendLoadError(f"backend {name!r}: module {module.__name__!r} has no attribute {attribute!r}")
    return found
