"""Optional libraries as second opinions: where one is absent, the tests that need it say that they did not run."""

import importlib
from types import ModuleType

import pytest


def optional_library(name: str) -> ModuleType:
    """Return the library, or report the test as not run."""
    try:
        return importlib.import_module(name)
    except ImportError:
        pytest.skip(f"NOT RUN: the second opinion of {name} needs {name}, which is not installed here")


@pytest.fixture(scope="session")
def ml_dtypes() -> ModuleType:
    return optional_library("ml_dtypes")


@pytest.fixture(scope="session")
def torch() -> ModuleType:
    return optional_library("torch")


@pytest.fixture(scope="session")
def bitsandbytes_functional() -> ModuleType:
    return optional_library("bitsandbytes.functional")
