"""The modules package: what it offers, and that the examples in its docstrings hold."""

import doctest
import importlib
import pkgutil

import pytest

from qloracle_gpu.torch import modules

NAMES = [f"{modules.__name__}.{info.name}" for info in pkgutil.iter_modules(modules.__path__)]


@pytest.mark.parametrize("name", NAMES)
def test_the_examples_in_the_docstrings_hold(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name))
    assert result.failed == 0, f"{name}: {result.failed} of {result.attempted} examples fail"


def test_everything_that_is_offered_has_a_docstring() -> None:
    assert [name for name in modules.__all__ if not (getattr(modules, name).__doc__ or "").strip()] == []
