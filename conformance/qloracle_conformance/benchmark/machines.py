"""Clocks: the median time of many calls in turn, by events of the device where it has any.

Calls of the CPU are timed one by one. On a GPU several are timed between two events, over inputs that together are
larger than its cache, so that none finds its input there; the launches of a call that can be captured are replayed as
a graph, without the time that Python takes.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib.metadata import version
from math import ceil
from statistics import median
from time import perf_counter
from typing import Any, Protocol

from qloracle_conformance.benchmark.works import Call, Maker, Work

LONG_ENOUGH = 2e-3  # seconds between two events
MOST_CALLS = 200  # between two events
MOST_COPIES = 32  # of the inputs


class Machine(Protocol):
    """A device, as one framework sees it."""

    def series(self, maker: Maker, work: Work) -> Callable[[], float]:
        """Return a function that measures once: seconds a call."""
        ...

    def limits(self, repeat: int) -> Mapping[str, float]:
        """Return the copy bandwidth in bytes a second, and the rate of a bfloat16 matrix product."""
        ...

    def describe(self) -> dict[str, str]:
        """Return the device and the versions."""
        ...


def medians(machine: Machine, work: Work, repeat: int) -> dict[str, float]:
    """Return the median seconds of every implementation of a work; rounds call each in turn, the first warms up."""
    series = {name: machine.series(maker, work) for name, maker in work.makers.items()}
    rounds = [{name: once() for name, once in series.items()} for _ in range(repeat + 1)]
    return {name: median(r[name] for r in rounds[1:]) for name in series}


class TorchMachine:
    """PyTorch on the CPU or on a CUDA device."""

    def __init__(self, device: str) -> None:
        """Keep the device."""
        import torch

        self.torch, self.device = torch, torch.device(device)

    def series(self, maker: Maker, work: Work) -> Callable[[], float]:
        """Return a function that measures once: seconds a call."""
        if self.device.type == "cpu":
            call = maker()
            return lambda: _timed(call)
        cache = self.torch.cuda.get_device_properties(self.device).L2_cache_size
        calls = [maker() for _ in range(copies_beyond(cache, work.bytes))]
        return self._between_events(calls)

    def _between_events(self, calls: Sequence[Call]) -> Callable[[], float]:
        """Return a function that times all calls between two events, as a graph where they can be captured."""
        torch = self.torch
        for call in calls:
            call()
        torch.cuda.synchronize(self.device)
        once = len(calls)
        run: Callable[[], object] = lambda: [call() for call in calls]  # noqa: E731
        kept: list[object] = []  # what a graph writes to
        with suppress(RuntimeError):
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                kept += [call() for call in calls]
            run = graph.replay

        def timed(times: int) -> float:
            first, last = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            first.record()
            for _ in range(times):
                run()
            last.record()
            last.synchronize()
            return float(first.elapsed_time(last)) / 1e3 / (times * once)

        times = times_for(timed(1) * once)
        return lambda: timed(times)

    def limits(self, repeat: int) -> Mapping[str, float]:
        """Return the copy bandwidth in bytes a second, and the rate of a bfloat16 matrix product."""
        torch, device, here = self.torch, self.device, self.device.type == "cpu"
        size, n = (1 << 26, 1024) if here else (1 << 30, 8192)

        def copy() -> Call:
            source, target = (torch.ones(size, dtype=torch.uint8, device=device) for _ in range(2))
            return lambda: target.copy_(source)

        def product() -> Call:
            a, b = (torch.randn(n, n, device=device).to(torch.bfloat16) for _ in range(2))
            return lambda: a @ b

        works = [Work("copy", "", size, {"torch": copy}, bytes=2.0 * size),
                 Work("product", "", n * n, {"torch": product}, bytes=6.0 * n * n, flops=2.0 * n**3)]  # fmt: skip
        return {w.limit: (w.flops or w.bytes) / medians(self, w, repeat)["torch"] for w in works}

    def describe(self) -> dict[str, str]:
        """Return the device and the versions."""
        torch = self.torch
        if self.device.type == "cpu":
            return {"device": f"CPU, {torch.get_num_threads()} threads", "torch": version("torch")}
        name = torch.cuda.get_device_name(self.device)
        return {"device": name, "torch": version("torch"), "cuda": str(torch.version.cuda)}


class CupyMachine:
    """CuPy on a CUDA device."""

    def __init__(self, device: str) -> None:
        """Make the device current."""
        import cupy

        self.cupy = cupy
        cupy.cuda.Device(int(device.partition(":")[2] or 0)).use()

    def series(self, maker: Maker, work: Work) -> Callable[[], float]:
        """Return a function that measures once: seconds a call."""
        cache = self.cupy.cuda.Device().attributes["L2CacheSize"]
        calls = [maker() for _ in range(copies_beyond(cache, work.bytes))]
        for call in calls:
            call()
        self.cupy.cuda.Device().synchronize()

        def timed(times: int) -> float:
            first, last = self.cupy.cuda.Event(), self.cupy.cuda.Event()
            first.record()
            for _ in range(times):
                for call in calls:
                    call()
            last.record()
            last.synchronize()
            return float(self.cupy.cuda.get_elapsed_time(first, last)) / 1e3 / (times * len(calls))

        times = times_for(timed(1) * len(calls))
        return lambda: timed(times)

    def limits(self, repeat: int) -> Mapping[str, float]:
        """Return the copy bandwidth in bytes a second, and the rate of a float16 matrix product, bfloat16's twin."""
        cp, size, n = self.cupy, 1 << 30, 8192

        def copy() -> Call:
            source, target = (cp.ones(size, cp.uint8) for _ in range(2))
            return lambda: cp.copyto(target, source)

        def product() -> Call:
            a, b = (cp.random.standard_normal((n, n), cp.float32).astype(cp.float16) for _ in range(2))
            return lambda: a @ b

        works = [Work("copy", "", size, {"cupy": copy}, bytes=2.0 * size),
                 Work("product", "", n * n, {"cupy": product}, bytes=6.0 * n * n, flops=2.0 * n**3)]  # fmt: skip
        return {w.limit: (w.flops or w.bytes) / medians(self, w, repeat)["cupy"] for w in works}

    def describe(self) -> dict[str, str]:
        """Return the device and the versions."""
        properties: Any = self.cupy.cuda.runtime.getDeviceProperties(self.cupy.cuda.Device().id)
        runtime = str(self.cupy.cuda.runtime.runtimeGetVersion())
        return {"device": properties["name"].decode(), "cupy": self.cupy.__version__, "cuda": runtime}


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
