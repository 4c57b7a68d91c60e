"""What tests of the suite share; where torch is absent, the tests that need it say that they did not run."""

from importlib.util import find_spec

import pytest

from .commands import TORCH

collect_ignore = [] if find_spec("PyQt6") else ["browser_probe.py"]  # a test runs it in a process of its own


@pytest.fixture(scope="session")
def torch_backend() -> str:
    if find_spec("torch") is None:
        pytest.skip("NOT RUN: judging the torch backend needs torch, which is not installed here")
    return TORCH
