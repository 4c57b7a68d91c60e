"""Comparison of bit patterns with a message that stands alone."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from .rationals import FIELDS

Words = NDArray[np.unsignedinteger]


def is_nan(words: Words, fmt: str) -> NDArray[np.bool_]:
    """Whether each bit pattern is a NaN of `fmt`."""
    width, digits = FIELDS[fmt]
    infinity = ((1 << width) - 1) << digits
    return (words.astype(np.uint64) & np.uint64((1 << (width + digits)) - 1)) > np.uint64(infinity)


def require_same_words(got: Words, expected: Words, fmt: str, rule: str, source: Callable[[int], str]) -> None:
    """Fail with the first difference of two arrays of bit patterns; every NaN equals every NaN."""
    assert got.shape == expected.shape, f"{rule}: got shape {got.shape}, expected {expected.shape}"
    same = (got == expected.astype(got.dtype)) | (is_nan(got, fmt) & is_nan(expected, fmt))
    wrong = np.flatnonzero(~same)
    if wrong.size:
        first = int(wrong[0])
        raise AssertionError(
            f"{rule}: {wrong.size} of {got.size} differ; first at index {first}, input {source(first)}: "
            f"got {fmt} word {int(got.flat[first]):#x}, expected {int(expected.flat[first]):#x}"
        )


def require_same_codes(got: NDArray[np.integer], expected: list[int], rule: str, source: Callable[[int], str]) -> None:
    """Fail with the first difference of two lists of codes."""
    assert got.size == len(expected), f"{rule}: got {got.size} codes, expected {len(expected)}"
    wrong = [i for i, (g, e) in enumerate(zip(got.tolist(), expected, strict=True)) if g != e]
    if wrong:
        first = wrong[0]
        raise AssertionError(
            f"{rule}: {len(wrong)} of {got.size} differ; first at index {first}, input {source(first)}: "
            f"got code {got.flat[first]}, expected {expected[first]}"
        )


def hex_of(values: NDArray[np.floating]) -> Callable[[int], str]:
    """A `source` for the two functions above: the exact value of an element."""
    return lambda index: f"{float(values.flat[index]).hex()} ({values.flat[index]!r})"
