"""Conversions with one step of them changed: the parts that mutants of conversions are made of."""

from collections.abc import Callable
from typing import Any

import numpy as np

from qloracle.formats import Array, format_named
from qloracle.rounding import encode, overflows_of
from qloracle_conformance.adapters.reference import OPS
from qloracle_conformance.arrays import HostArray, host
from qloracle_conformance.mutants.mutant import Mutant

Change = Callable[[HostArray, str], HostArray]
NEAREST = "ties_to_even"


def right(values: HostArray, random_bits: HostArray | None = None, **options: Any) -> HostArray:
    """Return what the reference makes of a call."""
    result: HostArray = OPS["encode"](
        values, **({} if random_bits is None else {"random_bits": random_bits}), **options
    )
    return result


def before(change: Change) -> Callable[..., HostArray]:
    """Return a conversion whose values go through `change` before they are rounded."""

    def op(values: HostArray, random_bits: HostArray | None = None, *, fmt: str, **options: Any) -> HostArray:
        return right(change(values, fmt), random_bits, fmt=fmt, **options)

    return op


def instead(**taken_for: dict[str, str]) -> Callable[..., HostArray]:
    """Return a conversion that takes one value of an option for another: ``rounding={"ties_to_even": ...}``."""

    def op(values: HostArray, random_bits: HostArray | None = None, *, fmt: str, **options: Any) -> HostArray:
        chosen = {"rounding": NEAREST, "overflow": overflows_of(fmt)[0], **options}
        for name, taken in taken_for.items():
            if chosen.get(name) in taken:
                chosen[name] = taken[chosen[name]]
        return right(values, random_bits, fmt=fmt, **chosen)

    return op


def through(middle: str) -> Change:
    """Return a change that rounds to another format first."""

    def change(values: HostArray, fmt: str) -> HostArray:
        if values.is_float and format_named(values.dtype).mantissa_bits <= format_named(middle).mantissa_bits:
            return values
        source = values.dtype if values.is_float else None
        return host(encode(values.items, middle, source=source), middle)

    return change


def real_of(values: HostArray) -> Array:
    """Return the numbers that values are, as float64."""
    return values.real() if values.is_float else values.items.astype(np.float64)


def replaced(values: HostArray, changed: Array, replacement: Array) -> HostArray:
    """Return values, some of them replaced by real numbers of their own type."""
    if not values.is_float:
        return values
    other = encode(np.broadcast_to(replacement, values.shape).astype(np.float64), values.dtype)
    words = np.where(changed, other, values.words())
    return HostArray(words.view(values.items.dtype), values.dtype)


def on_words(change: Callable[[Array, HostArray, str], Array]) -> Callable[..., HostArray]:
    """Return a conversion whose last step, from a magnitude and a class to a word, goes another way."""

    def op(values: HostArray, random_bits: HostArray | None = None, *, fmt: str, **options: Any) -> HostArray:
        words = right(values, random_bits, fmt=fmt, **options).words()
        changed = change(words, values, fmt).astype(words.dtype)
        return HostArray(changed if (numpy := format_named(fmt).numpy) is None else changed.view(numpy), fmt)

    return op


def only_if(option: str, value: str, op: Callable[..., HostArray]) -> Callable[..., HostArray]:
    """Return a conversion that is wrong only where an option has a value."""

    def chosen(values: HostArray, random_bits: HostArray | None = None, *, fmt: str, **options: Any) -> HostArray:
        wrong = options.get(option, {"rounding": NEAREST, "overflow": "ieee"}.get(option)) == value
        return (op if wrong else right)(values, random_bits, fmt=fmt, **options)

    return chosen


def wrong_encode(name: str, fault: str, op: Callable[..., Any], stages: tuple[str, ...], fmt: str = "") -> Mutant:
    """Return a mutant of `encode`, or of the conversion to one format."""
    return Mutant(f"encode-{name}", fault, {"encode": op}, stages, operations=f"{fmt}.encode" if fmt else "")
