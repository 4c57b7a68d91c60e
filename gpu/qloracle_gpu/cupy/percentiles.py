"""Ranges between two numbers: percentiles of a group, and moving averages of ranges.

Both interpolate exactly and round once: w and 1 − w are ratios of integers, and so is every float32 number.
Clauses: ``[observers.percentile]``, ``[observers.moving]``.
"""

from dataclasses import dataclass
from fractions import Fraction
from math import prod

import numpy as np

from qloracle.errors import reject_value, require_number, require_pair
from qloracle.formats import Format
from qloracle_gpu.cupy.arrays import flat_items, flat_words, require_dtype, require_tensor
from qloracle_gpu.cupy.groups import FLAT, group_shape
from qloracle_gpu.cupy.launcher import Array, Operation, operation
from qloracle_gpu.cupy.observers import GRANULARITIES
from qloracle_gpu.cupy.operands import zeros

WEIGHT_LIMBS = 34  # of 32 bits, as the kernels read them: a float64 weight has at most 1075, times 100 or less


def percentile_range(
    x: Array, lower: float, upper: float, *, granularity: str = "tensor", group_size: int | None = None,
    fmt: str | None = None,
) -> tuple[Array, Array]:  # fmt: skip
    """Return two percentiles of every group, by linear interpolation of its order statistics.

    With x_0 ≤ x_1 ≤ … ≤ x_(n−1) and h = p/100·(n − 1): RN_float32(x_i + (h − i)·(x_(i+1) − x_i)), i = ⌊h⌋.

    Parameters
    ----------
    x, granularity, group_size, fmt
        As for `minmax_range`.
    lower, upper : float
        The percentiles p, 0 ≤ lower ≤ upper ≤ 100; real numbers as they stand, 99.9 being the float64 next to it.

    Returns
    -------
    lo, hi : arrays of float32
        As for `minmax_range`, which is the same with 0 and 100.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        As `minmax_range`, and if a percentile is no number from 0 to 100, or they are the wrong way round.

    Notes
    -----
    Clause ``[observers.percentile]``. Rounding points: one for each end; position and interpolation are exact. The
    groups are sorted, as integers in the order of the values, in four bytes an element.
    """
    percents = [require_number(name, p) for name, p in (("lower", lower), ("upper", upper))]
    if not 0 <= percents[0] <= percents[1] <= 100:
        reject_value("lower and upper", "percentiles with 0 <= lower <= upper <= 100", f"{lower} and {upper}")
    array, named = require_tensor("x", x, fmt)
    shape = group_shape(array.shape, granularity, group_size, GRANULARITIES)
    with operation("percentile_range", x=array) as run:
        ends = zeros(run, prod(shape)), zeros(run, prod(shape))
        first = 0
        for keys in _sorted_groups(run, flat_words(run, array), named, array.shape, granularity, group_size):
            for end, percent in zip(ends, percents, strict=True):
                _percentiles(run, keys, percent, end[first : first + len(keys)])
            first += len(keys)
        return ends[0].reshape(shape), ends[1].reshape(shape)


def moving_range(previous: tuple[Array, Array], current: tuple[Array, Array], weight: float) -> tuple[Array, Array]:
    """Move a range towards another one: RN_float32(previous + weight·(current − previous)) for each end.

    Parameters
    ----------
    previous, current : (lo, hi), arrays of float32 of one shape
        A poisoned end, NaN or infinite, makes the result NaN.
    weight : float
        Of the current range, from 0 to 1.

    Returns
    -------
    lo, hi : arrays of float32

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If an end is not float32, shapes differ, or the weight is no number from 0 to 1.

    Notes
    -----
    Clause ``[observers.moving]``. Rounding points: one for each end; the interpolation is exact.
    """
    if not 0 <= (part := require_number("weight", weight)) <= 1:
        reject_value("weight", "from 0 to 1", weight)
    ends = []
    pairs = require_pair("previous", previous), require_pair("current", current)
    for argument, first, second in zip(("lo", "hi"), *pairs, strict=True):
        old = require_dtype(f"{argument} of previous", first, "float32")
        new = require_dtype(f"{argument} of current", second, "float32")
        if old.shape != new.shape:
            reject_value(f"{argument} of current", f"of the shape of the previous one {old.shape}", new.shape)
        ends.append(_moved(old, new, Fraction(part)))
    return ends[0], ends[1]


@dataclass(frozen=True)
class Weight:
    """A weight N/D, 0 ≤ N ≤ D, as the kernels read it: D = divisor · 2^below, below ≥ 1."""

    near: int  # D − N
    far: int  # N
    divisor: int
    below: int

    def arguments(self, run: Operation) -> tuple[object, ...]:
        """Return the limbs of both weights, and D."""
        limbs = run.resident(self, lambda: np.array([*_limbs(self.near), *_limbs(self.far)], np.uint32))
        return limbs, np.int32(self.divisor), np.int32(self.below)


def weight_of(fraction: Fraction) -> Weight:
    """Return a weight for the kernels; D keeps a factor 2, for the half on which rounding turns."""
    numerator, denominator = 2 * fraction.numerator, 2 * fraction.denominator
    below = (denominator & -denominator).bit_length() - 1
    return Weight(denominator - numerator, numerator, denominator >> below, below)


def _limbs(number: int) -> list[int]:
    return [number >> 32 * k & 0xFFFFFFFF for k in range(WEIGHT_LIMBS)]


def _moved(old: Array, new: Array, weight: Fraction) -> Array:
    with operation("moving_range", previous=old, current=new) as run:
        out = run.empty(old.size, "float32")
        parts = (flat_items(run, old), flat_items(run, new), np.int64(old.size))
        run.launch("order", "interpolate", old.size, (*parts, *weight_of(weight).arguments(run), out))
        return out.reshape(old.shape)


def _sorted_groups(
    run: Operation, words: Array, named: Format, shape: tuple[int, ...], granularity: str, group_size: int | None
) -> list[Array]:
    """Return the groups as rows of ascending keys: one matrix, and a second one for a short last group."""
    if words.size == 0:
        return []
    if granularity not in FLAT:
        width = words.size if granularity == "tensor" else shape[-1]
        return [_sorted_keys(run, words, named, (words.size // width, width), transposed=granularity == "column")]
    width = min(group_size or 1, words.size)
    full = words.size - words.size % width
    parts = [(words[:full], width), (words[full:], words.size - full)]
    return [_sorted_keys(run, part, named, (part.size // size, size)) for part, size in parts if part.size]


def _sorted_keys(
    run: Operation, words: Array, named: Format, shape: tuple[int, int], *, transposed: bool = False
) -> Array:
    keys = run.empty(shape[::-1] if transposed else shape, "int32")
    arguments = (words, np.int64(shape[0]), np.int64(shape[1]), np.int32(transposed), keys)
    run.launch("order", f"keys_of_{named.name}", words.size, arguments)
    return run.sort(keys)


def _percentiles(run: Operation, keys: Array, percent: float, out: Array) -> None:
    rows, columns = keys.shape
    position = Fraction(percent) * (columns - 1) / 100
    place = position.numerator // position.denominator
    places = map(np.int64, (rows, columns, place, min(place + 1, columns - 1)))
    run.launch("order", "percentiles", rows, (keys, *places, *weight_of(position - place).arguments(run), out))
