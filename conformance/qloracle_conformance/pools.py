"""Work on several processes, which use one thread each and end with the process that asked, however that ends."""

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from multiprocessing import get_context, parent_process
from threading import Thread
from typing import Any, TypeVar

from threadpoolctl import threadpool_limits

T = TypeVar("T")


def results(
    function: Callable[..., T], jobs: Sequence[tuple[Any, ...]], processes: int, *, in_order: bool = True
) -> Iterator[T]:
    """Yield function(*job) of every job; what is left when the caller stops is not begun.

    Parameters
    ----------
    function : function
        From the top of a module, as its arguments and results must be such that they can be pickled.
    jobs : sequence of tuple
    processes : int
        1, or a single job, means this process.
    in_order : bool
        Whether results come in the order of the jobs, or each as soon as it is there.
    """
    if processes == 1 or len(jobs) < 2:
        yield from (function(*job) for job in jobs)
        return
    context = get_context("spawn")  # a fork of a process with threads can hang
    pool = ProcessPoolExecutor(min(processes, len(jobs)), mp_context=context, initializer=_begin)
    try:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # held until `_begin` ignores it
        try:
            futures: list[Future[T]] = [pool.submit(function, *job) for job in jobs]
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        for future in futures if in_order else as_completed(futures):
            yield future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _begin() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    threadpool_limits(limits=1)
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this process once its parent is gone: a parent that is killed cannot shut its pool down."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
