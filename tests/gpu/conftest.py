"""Tests of the GPU backends; where a framework is absent, one test says that they did not run."""

from importlib.util import find_spec

NEED_TORCH = ["test_torch_*.py", "test_modules_*.py", "*layers.py", "*judging.py", "operator_cases.py", "words.py"]
collect_ignore_glob = [] if find_spec("torch") else NEED_TORCH
collect_ignore_glob += ["compile_kernels.py", "interpret_*.py"]  # a test runs these in processes of their own
collect_ignore_glob += [] if find_spec("triton") else ["kernel_cases.py"]
