"""The examples of the docstrings run, with `np` for NumPy."""

import doctest
import importlib
import pkgutil

import numpy as np
import pytest

import qloracle

MODULES = ["qloracle", *(module.name for module in pkgutil.walk_packages(qloracle.__path__, "qloracle."))]


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_are_true(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name), extraglobs={"np": np})
    assert not result.failed, f"{result.failed} of {result.attempted} examples of {name} are wrong"


def test_every_public_function_has_an_example() -> None:
    finder = doctest.DocTestFinder(exclude_empty=True)
    without = [
        name
        for name in qloracle.__all__
        if callable(getattr(qloracle, name))
        and not isinstance(getattr(qloracle, name), type)
        and not any(test.examples for test in finder.find(getattr(qloracle, name), name))
    ]
    assert set(without) <= WITHOUT_EXAMPLE, f"public functions without an example: {sorted(set(without))}"


# These are compositions: their parts have examples.
WITHOUT_EXAMPLE = {"quantize_double", "dequantize_double", "qlora_forward", "qlora_backward"}
