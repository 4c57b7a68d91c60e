"""The public interface is complete: every function has a registered call, a clause or an example, and pure imports."""

import doctest
import inspect
from pathlib import Path

import pytest

import qloracle

from .public_calls import VALID

SOURCES = sorted(Path(qloracle.__file__).parent.rglob("*.py"))
MOST_LINES = 230
FUNCTIONS = [name for name in qloracle.__all__ if inspect.isfunction(getattr(qloracle, name))]


def test_every_public_function_has_a_registered_call() -> None:
    assert set(FUNCTIONS) - set(VALID) == set(), "public functions without a valid call in public_calls.py"
    assert set(VALID) - set(FUNCTIONS) == set(), "calls of what is no public function"


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_public_function_has_an_example_that_runs_and_all_sections(name: str) -> None:
    function = getattr(qloracle, name)
    documentation = inspect.getdoc(function) or ""
    assert any(test.examples for test in doctest.DocTestFinder().find(function, name)), f"{name} has no example"
    if inspect.signature(function).parameters:
        assert "Raises\n------" in documentation, f"{name} does not say what it raises"


def test_the_public_names_are_sorted_and_exist() -> None:
    assert sorted(set(qloracle.__all__)) == sorted(qloracle.__all__), "a name occurs twice"
    assert all(hasattr(qloracle, name) for name in qloracle.__all__)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_no_file_of_the_reference_is_longer_than_about_two_hundred_lines(path: Path) -> None:
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= MOST_LINES, f"{path.name} has {lines} lines"
