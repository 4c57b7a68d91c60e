"""What did not run is reported as not run."""

from importlib.util import find_spec

import pytest


def test_torch_is_installed() -> None:
    if find_spec("torch") is None:
        pytest.skip("NOT RUN: tests/gpu/test_torch_*.py need torch, which is not installed here")
