"""Affine quantization, observers and LLM.int8() in exact rational arithmetic, written without a look at the code."""

from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from .rationals import exact, round_word

NAN_WORD = 0x7FC00000


def float32_of(value: Fraction) -> np.float32:
    """RN_float32 of a rational."""
    return np.array([round_word(value, "float32")], np.uint32).view(np.float32)[0]


def half_even(value: Fraction) -> int:
    """The nearest integer, ties to even; Python's own rule for fractions."""
    return round(value)


def clip(value: int, low: int, high: int) -> int:
    """The nearest integer from low to high."""
    return max(low, min(high, value))


def scale_and_zero_point(lo: float, hi: float, qmin: int, qmax: int) -> tuple[float, int]:
    """Scale and zero point of a range; scale NaN where an end is not finite."""
    if not (np.isfinite(lo) and np.isfinite(hi)):
        return float("nan"), clip(0, qmin, qmax)
    bottom, top = min(exact(lo), Fraction(0)), max(exact(hi), Fraction(0))
    scale = float32_of((top - bottom) / (qmax - qmin))
    if scale == 0:
        return 1.0, clip(0, qmin, qmax)
    return float(scale), clip(half_even(qmin - bottom / exact(scale)), qmin, qmax)


def affine_code(x: float, scale: float, zero_point: int, qmin: int, qmax: int) -> int:
    """The code of a finite number, given a usable scale."""
    return clip(half_even(exact(x) / exact(scale)) + zero_point, qmin, qmax)


def affine_word(code: int, scale: float, zero_point: int, fmt: str) -> int:
    """The word of RN_fmt(fl32((q − z)·scale))."""
    value = (code - zero_point) * exact(scale)
    if value == 0:
        return 0
    single = float32_of(value)
    beyond = Fraction(2) ** 200 * (1 if value > 0 else -1)  # what became infinite stays so
    return round_word(exact(single) if np.isfinite(single) else beyond, fmt, negative=value < 0)


def percentile(values: Sequence[float], percent: float) -> Fraction:
    """Linear interpolation between order statistics, position p/100·(n − 1)."""
    ordered = sorted(map(exact, values))
    place = Fraction(percent) * (len(ordered) - 1) / 100
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])
