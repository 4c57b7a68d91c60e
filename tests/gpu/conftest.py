"""Tests of the GPU backends; where a framework is absent, one test says that they did not run."""

from importlib.util import find_spec

collect_ignore_glob = [] if find_spec("torch") else ["test_torch_*.py", "words.py"]
collect_ignore_glob += [] if find_spec("triton") else ["compile_kernels.py"]  # which a test runs where it can
