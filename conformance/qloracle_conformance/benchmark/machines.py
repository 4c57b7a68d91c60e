"""Clocks: the median time of many calls in turn, by events of the device where it has any.

Calls of the CPU are timed one by one. On a GPU several are timed between two events, over inputs that together are
larger than its cache, so that none finds its input there; the launches of a call that can be captured are replayed as
a graph, without the time that Python takes.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from importlib.metadata import version
from math import ceil
from statistics import median
from time import perf_counter
from typing import Any, Protocol

from qloracle_conformance.benchmark.works import Call, Maker, Work

LONG_ENOUGH = 2e-3  # seconds between two events
MOST_CALLS = 200  # between two events
MOST_COPIES = 32  # of the inputs
ON_CPU, ON_GPU = (1 << 26, 1024), (1 << 30, 8192)  # bytes of a copy, rows of a product, that reach the limit


class Machine(Protocol):
    """A device, as one framework sees it."""

    sizes: tuple[int, int]  # bytes of a copy, rows of a product

    def series(self, maker: Maker, work: Work) -> Callable[[], float]:
        """Return a function that measures once: seconds a call."""
        ...

    def copy(self, size: int) -> Call:
        """Return a copy of so many bytes."""
        ...

    def product(self, rows: int) -> Call:
        """Return a product of two square matrices of 16 bits."""
        ...

    def describe(self) -> dict[str, str]:
        """Return the device and the versions."""
        ...


def medians(machine: Machine, work: Work, repeat: int) -> dict[str, float]:
    """Return the median seconds of every implementation of a work; rounds call each in turn, the first warms up."""
    series = {name: machine.series(maker, work) for name, maker in work.makers.items()}
    rounds = [{name: once() for name, once in series.items()} for _ in range(repeat + 1)]
    return {name: median(r[name] for r in rounds[1:]) for name in series}


def limits(machine: Machine, repeat: int) -> Mapping[str, float]:
    """Return the copy bandwidth in bytes a second, and the rate of a matrix product of 16 bits."""
    size, n = machine.sizes
    copy = Work("copy", "", size, {"": partial(machine.copy, size)}, bytes=2.0 * size)
    product = Work("product", "", n * n, {"": partial(machine.product, n)}, bytes=6.0 * n * n, flops=2.0 * n**3)
    return {work.limit: (work.flops or work.bytes) / medians(machine, work, repeat)[""] for work in (copy, product)}


class TorchMachine:
    """PyTorch on the CPU or on a CUDA device."""

    def __init__(self, device: str) -> None:
        """Keep the device."""
        import torch

        self.torch, self.device = torch, torch.device(device)
        self.sizes = ON_CPU if self.device.type == "cpu" else ON_GPU

    def series(self, maker: Maker, work: Work) -> Callable[[], float]:
        """Return a function that measures once: seconds a call."""
        if self.device.type == "cpu":
            call = maker()
            return lambda: _timed(call)
        torch = self.torch
        cache = torch.cuda.get_device_properties(self.device).L2_cache_size
        calls = [maker() for _ in range(copies_beyond(cache, work.bytes))]
        for call in calls:
            call()
        torch.cuda.synchronize(self.device)
        run: Callable[[], object] = lambda: [call() for call in calls]  # noqa: E731
        with suppress(RuntimeError):
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                kept = [call() for call in calls]  # the graph writes there
            run = lambda: (graph.replay(), kept)  # noqa: E731
        event = partial(torch.cuda.Event, enable_timing=True)
        return between_events(run, len(calls), event, lambda first, last: float(first.elapsed_time(last)))

    def copy(self, size: int) -> Call:
        """Return a copy of so many bytes."""
        source, target = (self.torch.ones(size, dtype=self.torch.uint8, device=self.device) for _ in range(2))
        return lambda: target.copy_(source)

    def product(self, rows: int) -> Call:
        """Return a product of two square matrices of bfloat16."""
        a, b = (self.torch.randn(rows, rows, device=self.device).to(self.torch.bfloat16) for _ in range(2))
        return lambda: a @ b

    def describe(self) -> dict[str, str]:
        """Return the device and the versions."""
        torch = self.torch
        if self.device.type == "cpu":
            return {"device": f"CPU, {torch.get_num_threads()} threads", "torch": version("torch")}
        name = torch.cuda.get_device_name(self.device)
        return {"device": name, "torch": version("torch"), "cuda": str(torch.version.cuda)}


class CupyMachine:
    """CuPy on a CUDA device."""

    sizes = ON_GPU

    def __init__(self, device: str) -> None:
        """Make the device current."""
        import cupy

        self.cupy = cupy
        cupy.cuda.Device(int(device.partition(":")[2] or 0)).use()

    def series(self, maker: Maker, work: Work) -> Callable[[], float]:
        """Return a function that measures once: seconds a call."""
        cuda = self.cupy.cuda
        calls = [maker() for _ in range(copies_beyond(cuda.Device().attributes["L2CacheSize"], work.bytes))]
        for call in calls:
            call()
        cuda.Device().synchronize()
        return between_events(lambda: [call() for call in calls], len(calls), cuda.Event, cuda.get_elapsed_time)

    def copy(self, size: int) -> Call:
        """Return a copy of so many bytes."""
        source, target = (self.cupy.ones(size, self.cupy.uint8) for _ in range(2))
        return lambda: self.cupy.copyto(target, source)

    def product(self, rows: int) -> Call:
        """Return a product of two square matrices of float16, bfloat16's twin in speed."""
        cp = self.cupy
        a, b = (cp.random.standard_normal((rows, rows), cp.float32).astype(cp.float16) for _ in range(2))
        return lambda: a @ b

    def describe(self) -> dict[str, str]:
        """Return the device and the versions."""
        properties: Any = self.cupy.cuda.runtime.getDeviceProperties(self.cupy.cuda.Device().id)
        runtime = str(self.cupy.cuda.runtime.runtimeGetVersion())
        return {"device": properties["name"].decode(), "cupy": self.cupy.__version__, "cuda": runtime}


def between_events(
    run: Callable[[], object], calls: int, event: Callable[[], Any], elapsed: Callable[[Any, Any], float]
) -> Callable[[], float]:
    """Return a function that measures once: seconds of each of the `calls` that `run` makes.

    `event` makes an event, and `elapsed` tells the milliseconds between two.
    """

    def timed(times: int) -> float:
        first, last = event(), event()
        first.record()
        for _ in range(times):
            run()
        last.record()
        last.synchronize()
        return elapsed(first, last) / 1e3 / (times * calls)

    times = times_for(timed(1) * calls)
    return lambda: timed(times)


def copies_beyond(cache: int, needed: float) -> int:
    """Return how many copies of inputs and outputs of `needed` bytes are twice a cache, one at least."""
    return min(MOST_COPIES, max(1, ceil(2 * cache / max(needed, 1.0))))


def times_for(seconds: float) -> int:
    """Return how often what takes so long is repeated, to be long enough for the clock."""
    return max(1, min(MOST_CALLS, ceil(LONG_ENOUGH / max(seconds, 1e-9))))


def _timed(call: Call) -> float:
    start = perf_counter()
    call()
    return perf_counter() - start
