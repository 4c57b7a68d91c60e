"""On a GPU: what the emulator cannot show. Not run where there is none."""

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest

import qloracle
import qloracle_gpu.cupy as backend


def device_count() -> int:
    """How many GPUs CuPy can use here."""
    if find_spec("cupy") is None:
        return 0
    import cupy

    try:
        return int(cupy.cuda.runtime.getDeviceCount())
    except cupy.cuda.runtime.CUDARuntimeError:
        return 0


COUNT = device_count()
pytestmark = pytest.mark.skipif(COUNT == 0, reason="NOT RUN: these tests need a GPU and CuPy")


@pytest.fixture
def cupy() -> Iterator[Any]:
    import cupy as module

    yield module
    module.get_default_memory_pool().free_all_blocks()


def test_quantizing_and_restoring_give_the_words_of_the_reference(cupy: Any) -> None:
    x = np.random.default_rng(0).standard_normal((300, 1001)).astype(np.float32)
    for block_size in (64, 100, 4096):
        mine = backend.quantize_blockwise(cupy.asarray(x), block_size=block_size)
        wanted = qloracle.quantize_blockwise(x, block_size=block_size)
        assert cupy.asnumpy(mine.data).tobytes() == wanted.data.tobytes()
        values = cupy.asnumpy(backend.dequantize_blockwise(mine, dtype="float16"))
        assert values.tobytes() == qloracle.dequantize_blockwise(wanted, dtype="float16").tobytes()


def test_work_waits_on_the_stream_of_the_caller(cupy: Any) -> None:
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        quantized = backend.quantize_blockwise(cupy.ones(1 << 20, cupy.float32))
    stream.synchronize()
    assert int(cupy.unique(quantized.data)[0]) == 0xFF


@pytest.mark.skipif(find_spec("torch") is None, reason="NOT RUN: torch is not installed here")
def test_tensors_of_torch_are_taken_and_given_without_a_copy(cupy: Any) -> None:
    import torch

    x = torch.randn(1 << 16, device="cuda", dtype=torch.bfloat16)
    with cupy.cuda.ExternalStream(torch.cuda.current_stream().cuda_stream):
        quantized = backend.quantize_blockwise(cupy.from_dlpack(x.view(torch.uint16)), fmt="bfloat16")
        values = backend.dequantize_blockwise(quantized)
    back = torch.from_dlpack(values).view(torch.bfloat16)
    assert back.data_ptr() == values.data.ptr
    wanted = qloracle.quantize_blockwise(x.cpu().view(torch.uint16).numpy(), fmt="bfloat16")
    assert cupy.asnumpy(quantized.data).tobytes() == wanted.data.tobytes()


@pytest.mark.exhaustive
@pytest.mark.skipif(find_spec("torch") is None, reason="NOT RUN: torch is not installed here")
@pytest.mark.parametrize("count", [(1 << 31) + 65, 1 << 31, (1 << 24) + 1])
def test_torch_and_cupy_give_the_same_bits_on_more_elements_than_32_bits_count(count: int, cupy: Any) -> None:
    import torch

    from .frameworks_agree import disagreements, numbers

    x = numbers(count, "cuda")
    given = cupy.from_dlpack(x.view(torch.uint16))
    assert given.data.ptr == x.data_ptr(), "nothing is copied"
    with cupy.cuda.ExternalStream(torch.cuda.current_stream().cuda_stream):
        assert disagreements(x, cupy.from_dlpack, torch.from_dlpack) == []


def test_an_array_that_offers_only_the_cuda_interface_is_taken_without_a_copy(cupy: Any) -> None:
    from types import SimpleNamespace

    x = cupy.arange(256, dtype=cupy.float32)
    given = SimpleNamespace(__cuda_array_interface__=x.__cuda_array_interface__)
    assert cupy.asnumpy(backend.block_absmax(given, 64)).tolist() == [63, 127, 191, 255]
    stored = backend.storage_view(
        SimpleNamespace(__cuda_array_interface__=x.view("u1").__cuda_array_interface__), "float32"
    )
    assert stored.data.ptr == x.data.ptr


@pytest.mark.skipif(find_spec("ml_dtypes") is None, reason="NOT RUN: ml_dtypes is not installed here")
def test_arrays_of_ml_dtypes_on_the_gpu_are_read_as_what_they_are(cupy: Any) -> None:
    import ml_dtypes

    words = np.arange(2**16, dtype=np.uint16)
    mine = backend.decode(cupy.asarray(words.view(ml_dtypes.bfloat16)))
    assert np.array_equal(cupy.asnumpy(mine), qloracle.decode(words, "bfloat16"), equal_nan=True)


def test_affine_codes_and_ranges_are_those_of_the_reference_down_to_subnormals(cupy: Any) -> None:
    rng = np.random.default_rng(1)
    x = rng.integers(0, 0x7F800000, (300, 257), dtype=np.uint32).view(np.float32) * rng.choice(np.float32([-1, 1]), 257)
    x[:100] *= np.float32(2.0**-126)
    on_device = cupy.asarray(x)
    with np.errstate(all="ignore"):
        mine, wanted = (
            backend.quantize_affine(on_device, granularity="row"),
            qloracle.quantize_affine(x, granularity="row"),
        )
        restored, own = backend.dequantize_affine(mine), qloracle.dequantize_affine(wanted)
    for name in ("codes", "scale", "zero_point"):
        assert cupy.asnumpy(getattr(mine, name)).tobytes() == getattr(wanted, name).tobytes(), name
    assert cupy.asnumpy(restored).tobytes() == own.tobytes()
    ranges = backend.percentile_range(on_device, 0.1, 99.9, granularity="column")
    for got, expected in zip(ranges, qloracle.percentile_range(x, 0.1, 99.9, granularity="column"), strict=True):
        assert cupy.asnumpy(got).tobytes() == expected.tobytes()


def test_states_leave_the_device_and_come_back_bit_for_bit(cupy: Any) -> None:
    states = {name: backend.state_arrays(backend.adamw_init((1000,))) for name in "ab"}
    size = sum(array.nbytes for array in states["a"].values())
    paged, first = backend.fetch_state(backend.page_states(states, size), "a")
    first["m"][...] = cupy.arange(1000)
    paged = backend.store_state(paged, "a", first)
    paged, _ = backend.fetch_state(paged, "b")
    assert paged.plan.resident == ("b",)
    assert int(backend.fetch_state(paged, "a")[1]["m"].sum()) == 499500


def test_a_kernel_that_is_launched_wrongly_is_an_error_that_names_the_operation(cupy: Any) -> None:
    from qloracle_gpu.cupy.launcher import operation

    codes = cupy.ones(8, cupy.uint8)
    arguments = (codes, np.int64(8), np.int32(0), cupy.empty(4, cupy.uint8))
    with (
        operation("pack", codes=codes) as run,
        pytest.raises(backend.KernelLaunchError, match=r"^pack with codes uint8 of shape \(8,\): kernel .* 4096"),
    ):
        run.launch("packing", "pack_4bit", 1, arguments, block=(4096, 1, 1))  # more threads than a CTA can have


def test_too_large_an_allocation_is_an_error_that_names_the_operation(cupy: Any) -> None:
    cupy.get_default_memory_pool().set_limit(size=1 << 20)
    try:
        with pytest.raises(backend.DeviceMemoryError, match=r"^unpack_4bit with packed uint8"):
            backend.unpack_4bit(cupy.zeros(1 << 19, cupy.uint8), 1 << 20)
    finally:
        cupy.get_default_memory_pool().set_limit(size=0)


@pytest.mark.skipif(COUNT < 2, reason="NOT RUN: needs two GPUs")
def test_arguments_on_two_devices_are_refused(cupy: Any) -> None:
    quantized = backend.quantize_blockwise(cupy.ones(64, cupy.float32))
    with cupy.cuda.Device(1):
        data = cupy.asarray(cupy.asnumpy(quantized.data))
    moved = backend.QuantizedBlocks(data, quantized.absmax, "nf4", 64, (64,), "float32")
    with pytest.raises(qloracle.errors.ArgumentValueError, match="on one device"):
        backend.dequantize_blockwise(moved)
