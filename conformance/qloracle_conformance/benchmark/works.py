"""What is measured: operations by name, what each moves or multiplies, and who does it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from types import ModuleType
from typing import Any

from qloracle.errors import QloracleError

Call = Callable[[], Any]
Maker = Callable[[], Call]  # makes inputs of its own, and the call that works on them


class BenchmarkError(QloracleError):
    """Something cannot be measured here; the message says what and why."""


@dataclass(frozen=True)
class Work:
    """One operation at one size."""

    name: str  # "nf4.quantize"
    format: str  # of the reals
    elements: int  # of the tensor that is quantized, restored or converted; of the weight of a product
    makers: Mapping[str, Maker]  # by implementation: the backend's name first
    bytes: float = 0.0  # read and written, at least
    flops: float = 0.0  # 0 where memory is the limit

    @property
    def limit(self) -> str:
        """Which of the machine's limits the work is held against."""
        return "product" if self.flops else "copy"


@dataclass(frozen=True)
class Measured:
    """What came of a work."""

    name: str
    format: str
    elements: int
    seconds: Mapping[str, float]  # median, by implementation
    rate: float  # of the backend: GB/s, or TFLOP/s where `limit` is "product"
    limit: str
    fraction: float  # of the copy bandwidth, or of the rate of the matrix product, of the same run
    ratios: Mapping[str, float] = field(default_factory=dict)  # speed over that of the other implementations


def measured(work: Work, seconds: Mapping[str, float], limits: Mapping[str, float]) -> Measured:
    """Return what the medians of a work mean.

    Parameters
    ----------
    work : Work
    seconds : mapping
        Median of each implementation; the backend's first.
    limits : mapping
        "copy" in bytes a second, "product" in operations a second.
    """
    own, *others = seconds
    amount = work.flops or work.bytes
    speed = amount / seconds[own]
    return Measured(
        work.name, work.format, work.elements, dict(seconds), speed / (1e12 if work.flops else 1e9), work.limit,
        speed / limits[work.limit], {name: seconds[name] / seconds[own] for name in others},
    )  # fmt: skip


def needed(name: str, extra: str) -> ModuleType:
    """Import a module.

    Raises
    ------
    BenchmarkError
        If it is not there, with the command that installs it.
    """
    try:
        return import_module(name)
    except ImportError as error:
        raise BenchmarkError(f"{name} cannot be imported ({error}); pip install 'qloracle[{extra}]'") from error
