"""Bad input gives the errors of the reference, before anything runs; what else goes wrong names operation and sizes."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from importlib.util import find_spec
from types import ModuleType

import numpy as np
import pytest

import qloracle
import qloracle_gpu.cupy as backend
from qloracle_gpu.cupy.launcher import MOST_CTAS, LaunchFailed, OutOfMemory, require_same_device, using

from .emulator.building import has_compiler
from .emulator.launching import EmulatedLauncher

needs_compiler = pytest.mark.skipif(not has_compiler(), reason="NOT RUN: the emulator needs g++")
HAS_TORCH = find_spec("torch") is not None
if HAS_TORCH:  # the calls are any backend's, but stand with torch's
    from .test_torch_errors import CALLS, Side, error_of
else:
    CALLS = {}


@pytest.fixture
def emulator() -> Iterator[EmulatedLauncher]:
    launcher = EmulatedLauncher()
    with using(launcher):
        yield launcher


@pytest.mark.skipif(not HAS_TORCH, reason="NOT RUN: the calls stand in a module that needs torch")
@needs_compiler
@pytest.mark.parametrize("name", CALLS)
def test_a_bad_argument_gives_the_error_of_the_reference(name: str, emulator: EmulatedLauncher) -> None:
    expected = error_of(CALLS[name], Side(qloracle, np.asarray))
    got = error_of(CALLS[name], Side(backend, np.asarray))
    assert got == expected, f"{name}: {got}, the reference gives {expected}"


BFLOAT16 = {"fmt": "bfloat16"}
ONES = np.ones(3, np.float32)
REFUSED = {
    "a source that is no format": lambda q: q.encode(ONES, "float16", source="float7"),
    "words of another width": lambda q: q.encode(ONES.view(np.uint32), "float16", source="float16"),
    "random bits without stochastic rounding": lambda q: q.encode(ONES, "float16", random_bits=ONES.view(np.uint32)),
    "stochastic rounding without random bits": lambda q: q.encode(ONES, "float16", rounding="stochastic"),
    "random bits of another shape": lambda q: q.encode(
        ONES, "float16", rounding="stochastic", random_bits=np.zeros(2, np.uint32)
    ),
    "random bits of another dtype": lambda q: q.encode(ONES, "float16", rounding="stochastic", random_bits=ONES),
    "NaN where a format has none": lambda q: q.encode(np.array([1, np.nan], np.float32), "float6_e2m3fn"),
    "a rule for NaN of other formats": lambda q: q.encode(ONES, "float6_e2m3fn", nan="payload"),
    "an overflow rule of other formats": lambda q: q.encode(ONES, "float4_e2m1fn", overflow="ieee"),
    "a bit that the format keeps 0": lambda q: q.decode(np.array([0x0F, 0x40], np.uint8), "float6_e2m3fn"),
    "a bit of tfloat32 that is 0": lambda q: q.encode(np.array([1], np.uint32), "float16", source="tfloat32"),
    "quantize words without a format": lambda q: q.quantize_blockwise(np.ones(4, np.uint16)),
    "quantize words of float8": lambda q: q.quantize_blockwise(np.ones(4, np.uint8), fmt="float8_e5m2"),
    "a codebook that is a number": lambda q: q.quantize_blockwise(ONES, codebook=4),
    "a record of another kind": lambda q: q.dequantize_blockwise(q.quantize_int8(ONES)),
    "too large a K": lambda q: q.int8_matmul(*(np.ones((1, 133145), np.int8) for _ in range(2))),
    "too large a K with -128": lambda q: q.int8_matmul(*(np.full((1, 131072), -128, np.int8) for _ in range(2))),
}


@needs_compiler
@pytest.mark.parametrize("name", REFUSED)
def test_what_only_bit_patterns_can_get_wrong_gives_the_message_of_the_reference(
    name: str, emulator: EmulatedLauncher
) -> None:
    messages = []
    for module in (qloracle, backend):
        with pytest.raises(qloracle.errors.QloracleError) as caught:
            REFUSED[name](module)
        messages.append(f"{caught.type.__name__}: {caught.value}")
    assert messages[1] == messages[0]


@needs_compiler
def test_nothing_is_launched_for_a_bad_argument(emulator: EmulatedLauncher) -> None:
    with pytest.raises(qloracle.errors.ArgumentValueError):
        backend.quantize_blockwise(ONES, block_size=0)
    with pytest.raises(qloracle.errors.ArgumentTypeError, match=r"^x must be a NumPy array, got list"):
        backend.block_absmax([1.0], 2)
    assert emulator.launches == []


@needs_compiler
def test_a_device_without_room_names_operation_and_sizes() -> None:
    with (
        using(EmulatedLauncher(room=1000)),
        pytest.raises(
            backend.DeviceMemoryError,
            match=r"^quantize_blockwise with x float32 of shape \(60, 50\): no room for 1500 bytes for uint8 of shape "
            r"\(1500,\): there are 1000 bytes",
        ) as caught,
    ):
        backend.quantize_blockwise(np.ones((60, 50), np.float32))
    assert isinstance(caught.value, MemoryError)


@needs_compiler
def test_a_launch_that_fails_names_operation_kernel_and_grid() -> None:
    broken = {"blocks": 'extern "C" __global__ void another() {}\n'}
    with (
        using(EmulatedLauncher(own_sources=broken)),
        pytest.raises(
            backend.KernelLaunchError,
            match=r"^block_absmax with x float32 of shape \(3,\): kernel absmax_of_parts_float32 on a grid of "
            r"\(1, 1, 1\) CTAs of \(256, 1, 1\) threads: there is no such kernel",
        ),
    ):
        backend.block_absmax(ONES, 2)


class Failing(EmulatedLauncher):
    """A machine on which an earlier kernel failed, or that is full: it says so when it is next waited for."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def at(self, arrays: object) -> AbstractContextManager[None]:
        raise self.error


@pytest.mark.parametrize(
    ("error", "kind"),
    [(OutOfMemory("full"), backend.DeviceMemoryError), (LaunchFailed("gone"), backend.KernelLaunchError)],
)
def test_what_the_machine_itself_raises_names_the_operation_too(error: Exception, kind: type[Exception]) -> None:
    with (
        using(Failing(error)),
        pytest.raises(kind, match=rf"^block_absmax with x float32 of shape \(3,\): {error}$"),
    ):
        backend.block_absmax(ONES, 2)


def test_arguments_on_two_devices_are_named_with_their_devices() -> None:
    require_same_device({"data": 1, "absmax": 1})
    with pytest.raises(
        qloracle.errors.ArgumentValueError,
        match=r"^arguments must be on one device, got data on device 0, absmax on device 1$",
    ):
        require_same_device({"data": 0, "absmax": 1})


def test_a_grid_has_a_limit_and_kernels_stride_over_the_rest() -> None:
    assert MOST_CTAS < 2**31 - 1


def run_without(modules: str) -> str:
    """What an operation on a NumPy array says in a process that cannot import some modules."""
    program = (
        f"import sys\nfor name in {modules.split()!r}: sys.modules[name] = None\n"
        "import numpy as np\nimport qloracle_gpu.cupy as q\n"
        "try: q.block_absmax(np.ones(2, np.float32), 2)\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    variables = {"PYTHONPATH": os.pathsep.join(sys.path[1:])}
    return subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, env=os.environ | variables,
        timeout=180,
    ).stdout  # fmt: skip


def test_without_cupy_the_message_names_what_to_install() -> None:
    message = run_without("cupy")
    assert message.startswith("NoDeviceError CuPy cannot be loaded"), message
    assert "pip install 'qloracle[cupy]'" in message


@pytest.mark.skipif(find_spec("cupy") is None, reason="NOT RUN: CuPy is not installed here")
def test_without_a_driver_or_device_the_message_names_what_is_missing() -> None:
    import cupy

    try:
        if cupy.cuda.runtime.getDeviceCount() > 0:
            pytest.skip("NOT RUN: there is a device here")
    except cupy.cuda.runtime.CUDARuntimeError:
        pass
    message = run_without("")
    assert message.startswith("NoDeviceError CUDA "), message
    assert "qloracle_gpu.torch run without" in message


def test_importing_the_backend_loads_no_cupy() -> None:
    program = "import sys, qloracle_gpu.cupy\nprint('cupy' in sys.modules)"
    variables = {"PYTHONPATH": os.pathsep.join(sys.path[1:])}
    result = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, env=os.environ | variables,
        timeout=180,
    )  # fmt: skip
    assert result.stdout.strip() == "False"
    assert isinstance(backend, ModuleType)
