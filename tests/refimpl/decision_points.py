"""Numbers at which a rounding to a format decides: its own, the midpoints, one step of the source beside, the ends."""

from fractions import Fraction
from functools import cache

import numpy as np
from numpy.typing import NDArray

from .rational_formats import LAYOUTS, largest_magnitude, magnitude_value

Floats = NDArray[np.floating]


def places(fmt: str, most: int = 600) -> list[int]:
    """Magnitudes of a format: all of a small one, else the ends of its binades and random ones; the last included."""
    width, digits, _ = LAYOUTS[fmt]
    largest = largest_magnitude(fmt)
    if largest < most:
        return list(range(largest + 1))
    rng = np.random.default_rng(41)
    binades = range(0, 2**width, max(2**width // 60, 1))
    edges = {(field << digits) + d for field in (*binades, 1, 2, 2**width - 1) for d in (-2, -1, 0, 1, 2)}
    edges |= {0, 1, 2, largest - 1, largest, *rng.integers(0, largest, most // 3).tolist()}
    return sorted(place for place in edges if 0 <= place <= largest)


@cache
def decision_points(fmt: str, dtype: str) -> Floats:
    """float32 or float64 numbers of both signs around everything where a rounding to `fmt` turns."""
    reals = [Fraction(0)]
    for place in places(fmt):
        low, high = magnitude_value(place, fmt), magnitude_value(place + 1, fmt)
        reals += [low, (low + high) / 2, (3 * low + high) / 4]
    beyond = magnitude_value(largest_magnitude(fmt) + 1, fmt)
    reals += [beyond, beyond * Fraction(5, 4), beyond * 2, beyond * 1024]
    smallest = magnitude_value(0, fmt) or magnitude_value(1, fmt)
    reals += [smallest * Fraction(k, 2**e) for k in (1, 3) for e in (1, 2, 3, 20, 40)]
    largest = Fraction(float(np.finfo(dtype).max))
    exact = np.array([float(min(real, largest)) for real in reals], np.float64)
    with np.errstate(over="ignore", under="ignore"):
        centre = np.unique(exact.astype(dtype))
        below, above = (np.nextafter(centre, dtype_of(dtype, end)) for end in (-1.0, np.inf))
    extremes = np.array([np.finfo(dtype).smallest_subnormal, np.finfo(dtype).tiny, np.finfo(dtype).max], dtype)
    positive = np.concatenate([centre, below, above, extremes])
    positive = positive[np.isfinite(positive) & (positive >= 0)]
    return np.concatenate([positive, -positive])


def dtype_of(dtype: str, value: float) -> np.floating:
    """A scalar of a dtype, so that a neighbour is taken in it."""
    return np.dtype(dtype).type(value)
