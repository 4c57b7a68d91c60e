"""Arrays of others, streams, bit patterns, and failures of a device: what of them can be shown without a GPU.

The launcher of GPUs is real; what needs a driver underneath it is replaced by a stand-in that notes how it is called.
"""

import re
from collections.abc import Iterator
from contextlib import nullcontext
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import qloracle
import qloracle_gpu.cupy as backend
from qloracle.formats import FORMATS
from qloracle_gpu.cupy.launcher import LaunchFailed, OutOfMemory, using

from .emulator.building import has_compiler
from .emulator.launching import EmulatedLauncher

needs_compiler = pytest.mark.skipif(not has_compiler(), reason="NOT RUN: the emulator needs g++")
needs_cupy = pytest.mark.skipif(find_spec("cupy") is None, reason="NOT RUN: CuPy is not installed here")
needs_ml_dtypes = pytest.mark.skipif(find_spec("ml_dtypes") is None, reason="NOT RUN: ml_dtypes is not installed here")
needs_torch = pytest.mark.skipif(find_spec("torch") is None, reason="NOT RUN: torch is not installed here")


@pytest.fixture
def emulator() -> Iterator[EmulatedLauncher]:
    launcher = EmulatedLauncher()
    with using(launcher):
        yield launcher


@pytest.fixture
def cuda_launcher() -> Any:
    from qloracle_gpu.cupy.cuda_launcher import CudaLauncher

    return CudaLauncher()


class OnTheGpu:
    """Another library's array with DLPack: it says that its memory is on a device of some kind."""

    def __init__(self, kind: int) -> None:
        self.kind = kind

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.kind, 0

    def __dlpack__(self, **_: object) -> object:
        raise AssertionError("nobody but CuPy may take it")


@needs_cupy
def test_an_array_with_the_cuda_interface_is_wrapped_by_cupy(cuda_launcher: Any, monkeypatch) -> None:
    import cupy

    taken: list[object] = []
    monkeypatch.setattr(cupy, "asarray", lambda value: taken.append(value) or "wrapped")
    given = SimpleNamespace(__cuda_array_interface__={"version": 3})
    assert cuda_launcher.adopt(given) == "wrapped"
    assert taken == [given]


@needs_cupy
@pytest.mark.parametrize(("kind", "adopted"), [(2, "taken"), (13, "taken"), (1, None), (10, None)])
def test_dlpack_is_taken_from_memory_of_cuda_and_of_nothing_else(
    kind: int, adopted: object, cuda_launcher: Any, monkeypatch
) -> None:
    import cupy

    monkeypatch.setattr(cupy, "from_dlpack", lambda _: "taken")
    assert cuda_launcher.adopt(OnTheGpu(kind)) == adopted


@needs_cupy
@pytest.mark.parametrize("error", [TypeError, ValueError, BufferError, RuntimeError])
def test_what_cupy_cannot_take_is_no_array(error: type[Exception], cuda_launcher: Any, monkeypatch) -> None:
    import cupy

    def refuse(_: object) -> None:
        raise error("a dtype without a name in CuPy")

    monkeypatch.setattr(cupy, "asarray", refuse)
    assert cuda_launcher.adopt(SimpleNamespace(__cuda_array_interface__={})) is None
    assert cuda_launcher.adopt(np.ones(2, np.float32)) is None, "memory of the host is not copied silently"


@needs_cupy
@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("empty", lambda launcher: launcher.empty((3,), np.dtype(np.float32))),
        ("array", lambda launcher: launcher.from_host(np.ones(3))),
        ("sort", lambda launcher: launcher.sort(np.ones(3, np.int32))),
    ],
)
def test_every_allocation_of_cupy_that_fails_is_out_of_memory(
    name: str, call: Any, cuda_launcher: Any, monkeypatch
) -> None:
    import cupy

    def full(*_: object, **__: object) -> None:
        raise cupy.cuda.memory.OutOfMemoryError(12, 34)

    monkeypatch.setattr(cupy, name, full)
    with pytest.raises(OutOfMemory, match="12 bytes"):
        call(cuda_launcher)


@needs_cupy
def test_a_launch_that_the_driver_refuses_is_a_failed_launch(cuda_launcher: Any, monkeypatch) -> None:
    import cupy

    class Module:
        def get_function(self, _: str) -> Any:
            raise cupy.cuda.runtime.CUDARuntimeError(9)  # invalid configuration

    monkeypatch.setattr(cuda_launcher, "_module", lambda _: Module())
    monkeypatch.setattr(cupy.cuda.runtime, "CUDARuntimeError", cupy.cuda.runtime.CUDARuntimeError)
    with pytest.raises(LaunchFailed, match="cudaErrorInvalidConfiguration"):
        cuda_launcher.launch("blocks", "absmax_of_parts_float32", (1, 1, 1), (256, 1, 1), ())


@needs_compiler
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda q, x: q.percentile_range(x, 1, 99),
            r"^percentile_range with x float32 of shape \(60, 50\): no room for ",
        ),
        (
            lambda q, x: q.lora_merge(x, x[:2], x[:, :2].copy(), alpha=1),
            r"^lora_merge with weight float32 .* no room for ",
        ),
        (
            lambda q, x: q.clip_by_norm([x, x], 1.0),
            r"^clip_by_norm with values\[0\] float32 .* no room for 12000 bytes",
        ),
        (
            lambda q, x: q.fetch_state(q.page_states({"a": {"m": x}}, 10**6), "a"),
            r"^page_in with no arrays: no room for 12000 bytes from the host",
        ),
    ],
)
def test_a_device_without_room_names_operation_and_sizes(call: Any, message: str) -> None:
    with using(EmulatedLauncher(room=500)), pytest.raises(backend.DeviceMemoryError, match=message):
        call(backend, np.ones((60, 50), np.float32))


@needs_ml_dtypes
@needs_compiler
@pytest.mark.parametrize(
    "name", [name for name, fmt in FORMATS.items() if fmt.word.itemsize == 1 or name == "bfloat16"]
)
def test_every_format_of_ml_dtypes_is_taken_as_its_dtype_and_as_bit_patterns(
    name: str, emulator: EmulatedLauncher
) -> None:
    import ml_dtypes

    named = FORMATS[name]
    words = np.arange(named.filled_bits + 1, dtype=np.uint32).astype(named.word)
    typed = words.view(getattr(ml_dtypes, name))
    values = backend.decode(typed)
    assert values.tobytes() == backend.decode(words, name).tobytes()
    assert np.array_equal(values, qloracle.decode(words, name), equal_nan=True)
    with np.errstate(invalid="ignore"):  # a signalling NaN
        own = typed.astype(np.float64)
    assert np.array_equal(values, own, equal_nan=True), "what ml_dtypes itself says"


@needs_compiler
def test_results_leave_by_dlpack_and_come_back_without_a_copy(emulator: EmulatedLauncher) -> None:
    quantized = backend.quantize_affine(np.arange(12, dtype=np.float32).reshape(3, 4), granularity="row")
    back = np.from_dlpack(quantized.scale)
    assert np.shares_memory(back, quantized.scale)
    again = backend.dequantize_affine(backend.QuantizedAffine(**(vars(quantized) | {"scale": OwnDlpack(back)})))
    assert again.tobytes() == backend.dequantize_affine(quantized).tobytes()


class OwnDlpack:
    """An array of a library that offers nothing but DLPack."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __dlpack__(self, **options: Any) -> object:
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.array.__dlpack_device__()


def documented_example() -> str:
    """The lines of the example for PyTorch in the package's docstring."""
    found = re.search(r"From PyTorch[^:]*::\n\n((?:    [^\n]*\n|\n)+)", backend.__doc__ or "")
    assert found, "the docstring shows no example for PyTorch"
    return re.sub(r"^    ", "", found[1], flags=re.MULTILINE)


@needs_torch
@needs_compiler
def test_the_documented_example_for_pytorch_runs(emulator: EmulatedLauncher, monkeypatch) -> None:
    import sys

    import torch

    streams: list[int] = []
    stand_in = SimpleNamespace(
        from_dlpack=np.from_dlpack,
        cuda=SimpleNamespace(ExternalStream=lambda pointer: streams.append(pointer) or nullcontext()),
    )
    monkeypatch.setitem(sys.modules, "cupy", stand_in)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: SimpleNamespace(cuda_stream=123))
    program = documented_example().replace('device="cuda"', 'device="cpu"').replace("4096, 4096", "64, 96")
    names: dict[str, Any] = {}
    exec(program, names)  # noqa: S102  # the text of the package itself
    assert streams == [123], "the work goes to the stream of the caller"
    wanted = qloracle.quantize_blockwise(names["w"].view(torch.uint16).numpy(), fmt="bfloat16")
    assert names["quantized"].data.tobytes() == wanted.data.tobytes()
    assert names["restored"].dtype == torch.bfloat16
    assert names["restored"].view(torch.uint16).numpy().tobytes() == qloracle.dequantize_blockwise(wanted).tobytes()


@needs_torch
@needs_compiler
@pytest.mark.parametrize("count", [1, 64, 4099, (1 << 16) + 65])
def test_torch_and_cupy_give_the_same_bits(count: int, emulator: EmulatedLauncher) -> None:
    import torch

    from .frameworks_agree import disagreements, numbers

    assert disagreements(numbers(count, "cpu"), np.from_dlpack, torch.from_dlpack) == []


@needs_torch
@needs_compiler
@pytest.mark.parametrize("wrong", ["data", "absmax", "values"])
def test_a_backend_that_differs_in_its_last_element_is_named(
    wrong: str, emulator: EmulatedLauncher, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from .frameworks_agree import disagreements, numbers

    name = "dequantize_blockwise" if wrong == "values" else "quantize_blockwise"
    right = getattr(backend, name)

    def changed(*arguments: Any, **options: Any) -> Any:
        found = right(*arguments, **options)
        array = found if wrong == "values" else getattr(found, wrong)
        array[-1] = -array[-1] if wrong == "absmax" else array[-1] ^ 1
        return found

    monkeypatch.setattr(backend, name, changed)
    assert wrong in disagreements(numbers(4099, "cpu"), np.from_dlpack, torch.from_dlpack)
