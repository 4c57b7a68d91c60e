"""Tests of the GPU backends; where a framework is absent, one test says that they did not run."""

from importlib.util import find_spec

import pytest

NEED_TORCH = [
    "test_torch_*.py", "test_modules_*.py", "*layers.py", "*judging.py", "affine_inputs.py", "frameworks_agree.py",
    "operator_cases.py", "words.py",
]  # fmt: skip
collect_ignore_glob = [] if find_spec("torch") else NEED_TORCH
# A test runs these in processes of their own.
collect_ignore_glob += ["compile_kernels.py", "interpret_*.py", "sanitized_loops.py"]
collect_ignore_glob += [] if find_spec("triton") else ["kernel_cases.py"]

# Of what has C loops and eager code beside them, both are tested by everything.
BOTH_CODES = ("blocks", "conversions", "dequantize", "double_quant", "layouts", "nearest")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run the tests of some files twice: the second time, with what a user here would not meet, among the slow ones."""
    if metafunc.module.__name__.rpartition("test_torch_")[2] in BOTH_CODES:
        from qloracle_gpu.torch.kernels.compiled_loops import loops

        second = [] if loops() is None else [pytest.mark.slow]
        metafunc.parametrize("cpu_code", ["loops", pytest.param("eager", marks=second)], indirect=True)


@pytest.fixture(autouse=True)
def cpu_code(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the torch backend run its C loops, or the eager code beside them, where a test is run with both."""
    chosen = getattr(request, "param", None)
    if chosen is None:
        return
    import torch

    from qloracle_gpu.torch.kernels import compiled_loops

    if chosen == "eager":
        monkeypatch.setattr(compiled_loops, "loops", lambda: None)
    elif compiled_loops.loops() is None:
        pytest.skip("NOT RUN: no C compiler that knows the loops")
    assert compiled_loops.loops_take(torch.empty(1)) == (chosen == "loops"), "the other code would be tested"
