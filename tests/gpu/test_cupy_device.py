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
