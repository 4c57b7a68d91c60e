"""The emulator itself: it runs kernels as CUDA does, and shows what a kernel does wrong."""

import numpy as np
import pytest

from qloracle_gpu.cupy.launcher import LaunchFailed

from .emulator.building import has_compiler
from .emulator.launching import ORDERS, EmulatedLauncher

pytestmark = pytest.mark.skipif(not has_compiler(), reason="NOT RUN: the emulator needs g++")

TOYS = """
extern "C" __global__ void where(unsigned* out) {
    unsigned thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
    unsigned block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
    out[block * blockDim.x * blockDim.y * blockDim.z + thread] = 1000 * block + thread;
}
extern "C" __global__ void mirrored(const int* x, int* out) {
    __shared__ int held[64];
    held[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    out[threadIdx.x] = held[63 - threadIdx.x];
}
extern "C" __global__ void mirrored_without_barrier(const int* x, int* out) {
    __shared__ int held[64];
    held[threadIdx.x] = x[threadIdx.x];
    out[threadIdx.x] = held[63 - threadIdx.x];
}
extern "C" __global__ void unset(int* out) {
    __shared__ int held[64];
    out[threadIdx.x] = held[threadIdx.x];
}
extern "C" __global__ void shuffles(const double* x, double* out) {
    double value = x[threadIdx.x];
    out[threadIdx.x] = __shfl_xor_sync(0xffffffffu, value, 5);
    out[64 + threadIdx.x] = __shfl_sync(0xffffffffu, value, 7);
    out[128 + threadIdx.x] = __shfl_down_sync(0xffffffffu, value, 3);
    out[192 + threadIdx.x] = __shfl_up_sync(0xffffffffu, value, 3);
}
extern "C" __global__ void votes(unsigned* out) {
    unsigned odd = __ballot_sync(0xffffffffu, threadIdx.x % 2);
    out[threadIdx.x] = odd + __any_sync(0xffffffffu, threadIdx.x == 9) + 2 * __all_sync(0xffffffffu, threadIdx.x < 9);
}
extern "C" __global__ void half_a_warp(int* out) {
    if (threadIdx.x < 16) out[threadIdx.x] = __shfl_xor_sync(0x0000ffffu, (int)threadIdx.x, 1);
}
extern "C" __global__ void divergent(int* out) {
    if (threadIdx.x < 32) __syncthreads();
    else __syncwarp();
    out[threadIdx.x] = 1;
    if (threadIdx.x < 5) __shfl_sync(0xffffffffu, 1, 0);
    else __syncthreads();
}
extern "C" __global__ void mixed(int* out) {
    if (threadIdx.x % 2) out[threadIdx.x] = __ballot_sync(0xffffffffu, true);
    else out[threadIdx.x] = __shfl_sync(0xffffffffu, 1, 0);
}
extern "C" __global__ void after_leaving(int* out) {
    if (threadIdx.x >= 40) return;
    __syncthreads();
    out[threadIdx.x] = 7;
}
"""


def launched(kernel: str, *arguments: object, order: str = "forward", grid: int = 1, block: int = 64) -> None:
    EmulatedLauncher(order, own_sources={"toys": TOYS}).launch("toys", kernel, (grid, 1, 1), (block, 1, 1), arguments)


@pytest.mark.parametrize("order", ORDERS)
def test_every_thread_of_three_dimensional_blocks_and_grids_knows_its_place(order: str) -> None:
    out = np.zeros(12 * 30, np.uint32)
    EmulatedLauncher(order, own_sources={"toys": TOYS}).launch("toys", "where", (3, 2, 2), (5, 3, 2), (out,))
    assert np.array_equal(out.reshape(12, 30), 1000 * np.arange(12)[:, np.newaxis] + np.arange(30))


@pytest.mark.parametrize("order", ORDERS)
def test_a_barrier_makes_every_order_give_the_same(order: str) -> None:
    x, out = np.arange(64, dtype=np.int32), np.zeros(64, np.int32)
    launched("mirrored", x, out, order=order)
    assert np.array_equal(out, x[::-1])


@pytest.mark.parametrize("order", ORDERS)
def test_a_missing_barrier_shows_in_every_order(order: str) -> None:
    x, out = np.arange(64, dtype=np.int32), np.zeros(64, np.int32)
    launched("mirrored_without_barrier", x, out, order=order)
    assert not np.array_equal(out, x[::-1]), f"{order}: the missing barrier left no trace"


def test_shared_memory_that_nobody_wrote_holds_poison() -> None:
    out = np.zeros(64, np.int32)
    launched("unset", out)
    assert {hex(word) for word in out.view(np.uint32).tolist()} == {"0xfefefefe"}


@pytest.mark.parametrize("order", ORDERS)
def test_shuffles_read_the_lane_that_they_name(order: str) -> None:
    x, out = np.arange(64.0), np.zeros(256)
    launched("shuffles", x, out, order=order)
    lane, warp = np.arange(64) % 32, np.arange(64) // 32 * 32
    down, up = np.where(lane < 29, lane + 3, lane), np.where(lane >= 3, lane - 3, lane)
    assert np.array_equal(out.reshape(4, 64), np.stack([warp + (lane ^ 5), warp + 7, warp + down, warp + up]))


def test_votes_count_the_lanes_of_a_warp() -> None:
    out = np.zeros(64, np.uint32)
    launched("votes", out)
    assert out.tolist() == [0xAAAAAAAA + 1] * 32 + [0xAAAAAAAA] * 32


def test_a_part_of_a_warp_may_exchange_by_its_mask() -> None:
    out = np.full(32, -1, np.int32)
    launched("half_a_warp", out, block=32)
    assert out.tolist() == [lane ^ 1 for lane in range(16)] + [-1] * 16


def test_threads_that_have_left_do_not_hold_up_a_barrier() -> None:
    out = np.zeros(64, np.int32)
    launched("after_leaving", out)
    assert out.tolist() == [7] * 40 + [0] * 24


@pytest.mark.parametrize(
    ("kernel", "message"),
    [
        ("divergent", "a barrier that not all threads reach"),
        ("mixed", "lanes of one warp exchange in different ways"),
        ("nowhere", "there is no such kernel"),
    ],
)
def test_a_wrong_launch_ends_with_a_message_and_the_next_one_runs(kernel: str, message: str) -> None:
    out = np.zeros(64, np.int32)
    with pytest.raises(LaunchFailed, match=message):
        launched(kernel, out)
    launched("after_leaving", out)
    assert out[0] == 7


def test_arguments_of_another_number_or_size_are_refused() -> None:
    with pytest.raises(LaunchFailed, match="takes 1 arguments, got 2"):
        launched("unset", np.zeros(64, np.int32), np.int32(1))
    with pytest.raises(LaunchFailed, match="argument 0 has 8 bytes, got 4"):
        launched("unset", np.int32(1))
