"""The works that memory limits: conversions and quantizers, the same list for every backend."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

from qloracle_conformance.benchmark.works import BenchmarkError, Call, Maker, Work

BLOCK = 64
ROW = 4096  # elements that share an absmax of INT8
BYTES = {"float32": 4, "bfloat16": 2, "float8_e4m3fn": 1}
CONVERSIONS = ("bfloat16", "float8_e4m3fn")  # from float32
FORMATS = ("float32", "bfloat16")


@dataclass(frozen=True)
class Quantizer:
    """A pair of functions, quantize_KIND and dequantize_KIND, for one format."""

    name: str
    kind: str
    format: str
    stored: float  # bytes an element, absmax included
    options: Mapping[str, Any] = field(default_factory=dict)

    def shape(self, elements: int) -> tuple[int, ...]:
        """Return the shape of a tensor of so many elements, or of the whole rows among them."""
        return (elements // ROW, ROW) if self.kind == "int8" else (elements,)


QUANTIZERS = (
    *(
        Quantizer(codebook, "blockwise", fmt, code + 4 / BLOCK, {"codebook": codebook, "block_size": BLOCK})
        for codebook, code in (("nf4", 0.5), ("fp4", 0.5), ("dynamic_signed", 1.0))
        for fmt in FORMATS
    ),
    Quantizer("nf4_double", "double", "bfloat16", 0.5 + 1 / BLOCK, {"block_size": BLOCK}),
    *(Quantizer("int8_row", "int8", fmt, 1.0, {"granularity": "row"}) for fmt in FORMATS),
)


class Works(Protocol):
    """The works of one backend on one device; nothing is computed before a maker is called."""

    name: str

    def encode(self, elements: int, target: str) -> Call:
        """Return a conversion of normal numbers of float32."""
        ...

    def quantize(self, quantizer: Quantizer, elements: int) -> Call:
        """Return the quantization of normal numbers."""
        ...

    def dequantize(self, quantizer: Quantizer, elements: int) -> Call:
        """Return the dequantization of what was quantized."""
        ...

    def others(self, quantizer: Quantizer, verb: str, elements: int) -> dict[str, Maker]:
        """Return who else does it."""
        ...

    def products(self, features: int, rows: int, hidden: int) -> Iterator[Work]:
        """Yield products with a weight of `features` squared for one row, of `hidden` squared for `rows`."""
        ...


def elementwise(works: Works, elements: int) -> Iterator[Work]:
    """Yield conversions, quantization and dequantization of a tensor of so many elements."""
    for target in CONVERSIONS:
        makers = {works.name: partial(works.encode, elements, target)}
        yield Work(f"{target}.encode", "float32", elements, makers, bytes=elements * (4.0 + BYTES[target]))
    for quantizer in QUANTIZERS:
        count = elements - elements % ROW if quantizer.kind == "int8" else elements
        moved = count * (quantizer.stored + BYTES[quantizer.format])
        for verb, own in (("quantize", works.quantize), ("dequantize", works.dequantize)):
            found: dict[str, Maker] = {works.name: partial(own, quantizer, count)}
            found |= works.others(quantizer, verb, count)
            yield Work(f"{quantizer.name}.{verb}", quantizer.format, count, found, bytes=moved)


def require_same(outputs: Iterable[tuple[str, bytes, bytes]]) -> None:
    """Refuse to time a backend whose output differs from the reference's in a single bit.

    Raises
    ------
    BenchmarkError
        If it does: `outputs` are what, the backend's bytes, and the reference's.
    """
    for what, got, wanted in outputs:
        if got != wanted:
            raise BenchmarkError(f"not timed: {what} differ between the backend and the reference")
