"""How a large tensor is worked through: in pieces; on a CPU one thread takes a piece from the first step to the last.

Torch by itself divides every single step of an eager algorithm among its threads and waits for the slowest of them.
On a machine that does anything else meanwhile, these hundreds of waits cost ten times the work itself. So the threads
are ours, as many as `torch.get_num_threads()` says, and within them torch uses one.
"""

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from threading import Barrier
from typing import TypeVar

import torch
from torch import Tensor

Piece = TypeVar("Piece")

# Elements in a piece: on a CPU its intermediate results stay in the cache, elsewhere they stay modest.
CPU_PIECE = 1 << 18
LOOP_PIECE = 1 << 20  # where one C loop has no intermediate results
DEVICE_PIECE = 1 << 24
WORTH_A_THREAD = 1 << 15  # torch divides no step on fewer elements


def piece_size(device: torch.device) -> int:
    """Return how many elements a piece has."""
    return CPU_PIECE if device.type == "cpu" else DEVICE_PIECE


def work_through(pieces: Iterable[Piece], work: Callable[[Piece], object], tensor: Tensor) -> None:
    """Call `work` on every piece of `tensor`, in any order and on a CPU in several threads; raise what it raises."""
    workers = torch.get_num_threads() if tensor.device.type == "cpu" else 1
    if workers == 1 or tensor.numel() <= WORTH_A_THREAD:
        for piece in pieces:
            work(piece)
        return
    inference = torch.is_inference_mode_enabled()  # a thread's own state

    def work_as_caller(piece: Piece) -> None:
        with torch.inference_mode(inference):
            work(piece)

    for _ in _thread_pool(workers).map(work_as_caller, pieces):
        pass


def spans(size: int, step: int) -> list[slice]:
    """Return the slices of `step` elements that make up `size`, the last one maybe shorter."""
    return [slice(start, min(start + step, size)) for start in range(0, size, step)]


def tiles(matrix: Tensor, size: int | None = None) -> list[tuple[slice, slice]]:
    """Return rows and columns of the pieces of a matrix: whole rows, or parts of one long row."""
    rows, columns = matrix.shape
    piece = size or piece_size(matrix.device)
    width = max(1, min(columns, piece))
    return [(row, column) for row in spans(rows, max(1, piece // width)) for column in spans(columns, width)]


def shared_by(tile: tuple[slice, slice], values: Tensor) -> Tensor:
    """Return what a piece of a matrix reads of a matrix that broadcasts to it."""
    rows, columns = (part if size > 1 else slice(None) for part, size in zip(tile, values.shape, strict=True))
    return values[rows, columns]


@cache
def _thread_pool(workers: int) -> ThreadPoolExecutor:
    """Return threads in which torch works alone."""
    pool = ThreadPoolExecutor(workers, "qloracle", initializer=torch.set_num_threads, initargs=(1,))
    # Torch counts threads for each thread, but new ones inherit the last count that anybody set: set it back.
    started = Barrier(workers + 1)
    for _ in range(workers):
        pool.submit(started.wait)
    started.wait()
    torch.set_num_threads(workers)
    return pool


if hasattr(os, "register_at_fork"):  # threads do not survive a fork
    os.register_at_fork(after_in_child=_thread_pool.cache_clear)
