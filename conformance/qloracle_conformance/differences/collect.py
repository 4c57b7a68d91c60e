"""Measuring everything: the quick domains of every library, and all float32 inputs where that takes minutes."""

import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from typing import Any

import qloracle
from qloracle.formats import Array
from qloracle_conformance.adapters.libraries import LIBRARIES, Library, library
from qloracle_conformance.differences.domains import (
    float32_classes,
    float32_words,
    float64_boundaries,
    int64_boundaries,
)
from qloracle_conformance.differences.measure import Conversion, Tally, compared, record
from qloracle_conformance.differences.special import SPECIAL, STOCHASTIC, stochastic

KIND = "qloracle differences 1"
CLASSES = "every pattern of the upper 20 bits, six patterns below"
ALL = "all 2^32 inputs"
AROUND = "around every value, tie and end"
SWEPT = ("ml_dtypes", "numpy", "torch")  # fast enough for all inputs
_UNIT = 1 << 24

Domain = Callable[[], Iterator[Array]]


def conversions(name: str) -> list[Conversion]:
    """Return every conversion of a library under every policy that it has; not what it leaves to NumPy."""
    return [c for c in _all_conversions(name) if (name, c.to) != ("ml_dtypes", "float16")]


def _all_conversions(name: str) -> list[Conversion]:
    found = library(name)
    sources = ("float32", "float64") if name == "gfloat" else ("float32", "float64", "int64")
    return [
        Conversion(name, source, fmt, rounding, overflow)
        for fmt in found.formats
        for source in sources
        for rounding in found.roundings
        for overflow in found.own_overflow(fmt)
    ]


def domain_of(conversion: Conversion) -> tuple[str, Domain]:
    """Return the quick domain of a conversion."""
    if conversion.source == "float32":
        return CLASSES, float32_classes
    around = float64_boundaries if conversion.source == "float64" else int64_boundaries
    return AROUND, partial(around, conversion.to)


def quick_record(conversion: Conversion) -> dict[str, Any]:
    """Measure a conversion on its quick domain."""
    found = library(conversion.library)
    name, parts = domain_of(conversion)
    return record(conversion, found.version, name, compared(found, conversion, parts()))


def full_record(conversion: Conversion, processes: int | None) -> dict[str, Any]:
    """Measure a conversion on all float32 inputs; the record says of which specification it is."""
    units = [(conversion, first, first + _UNIT - 1) for first in range(0, 1 << 32, _UNIT)]
    tally = Tally()
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes or os.cpu_count(), mp_context=context) as pool:
        for part in pool.map(_unit, units):
            tally.merge(part)
    found = record(conversion, library(conversion.library).version, ALL, tally)
    return {**found, "specification": qloracle.SPECIFICATION_VERSION}


def _unit(job: tuple[Conversion, int, int]) -> Tally:
    conversion, first, last = job
    return compared(_library(conversion.library), conversion, float32_words(first, last))


@cache
def _library(name: str) -> Library:
    return library(name)


def to_sweep() -> list[Conversion]:
    """Return the conversions that are measured on all inputs, ml_dtypes to float16 among them."""
    return [c for name in SWEPT for c in _all_conversions(name) if c.source == "float32"]


def quick(on_record: Callable[[str], None]) -> dict[str, Any]:
    """Measure all quick domains."""
    libraries = [library(name) for name in LIBRARIES]
    found: dict[str, Any] = {
        "kind": KIND,
        "specification": qloracle.SPECIFICATION_VERSION,
        "versions": {each.name: each.version for each in libraries},
        "conversions": [],
    }
    for conversion in (c for name in LIBRARIES for c in conversions(name)):
        on_record(conversion.id)
        found["conversions"].append(quick_record(conversion))
    for topic, measure in SPECIAL.items():
        on_record(topic)
        records = [measure(each, fmt) for each in libraries for fmt in each.formats]
        found[topic] = [each for each in records if each is not None]
    on_record("stochastic")
    found["stochastic"] = [stochastic(fmt, mode) for fmt in library("gfloat").formats for mode in STOCHASTIC]
    return found
