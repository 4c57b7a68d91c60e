"""Observers: the range of values that a quantizer is to cover.

Clauses: ``[observers.minmax]``, ``[observers.percentile]``, ``[observers.moving]``.
"""

from fractions import Fraction
from functools import partial

import numpy as np

from qloracle.errors import reject_value, require_dtype, require_number, require_pair
from qloracle.formats import Array
from qloracle.groups import reduce_groups
from qloracle.mean_offset import round_ratio
from qloracle.rounding import widen

GRANULARITIES = ("tensor", "row", "column", "group")
_SMALLEST = 149  # every float32 number is an integer multiple of 2^−149


def minmax_range(
    x: Array, *, granularity: str = "tensor", group_size: int | None = None, fmt: str | None = None
) -> tuple[Array, Array]:
    """Return the smallest and the largest value of every group.

    Parameters
    ----------
    x : array of float32, float16 or bfloat16
    granularity : {"tensor", "row", "column", "group"}
        See `quantize_affine`.
    group_size : int, optional
        For "group" only.
    fmt : str, optional
        Format of `x` where it is given as bit patterns.

    Returns
    -------
    lo, hi : arrays of float32
        One number a group. Both NaN where the group holds a NaN or an infinity, both 0 for an empty group; a zero is
        +0.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        For another dtype, or a granularity that does not go with the shape or the group size.

    Notes
    -----
    Clause ``[observers.minmax]``. Rounding points: none.

    Examples
    --------
    >>> minmax_range(np.array([[1, -2], [3, 4]], np.float32), granularity="row")
    (array([-2.,  3.], dtype=float32), array([1., 4.], dtype=float32))
    """
    wide = widen(x, fmt, "x")
    ends = (partial(_extreme, largest=False), partial(_extreme, largest=True))
    lo, hi = (reduce_groups(wide, granularity, group_size, GRANULARITIES, end) for end in ends)
    return lo, hi


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
    Clause ``[observers.percentile]``. Rounding points: one for each end; position and interpolation are exact.

    References
    ----------
    Hyndman and Fan 1996, "Sample Quantiles in Statistical Packages", definition 7.

    Examples
    --------
    >>> percentile_range(np.array([40, 10, 20, 30], np.float32), 25, 90)
    (array(17.5, dtype=float32), array(37., dtype=float32))
    """
    percents = [require_number(n, p) for n, p in (("lower", lower), ("upper", upper))]
    if not 0 <= percents[0] <= percents[1] <= 100:
        reject_value("lower and upper", "percentiles with 0 <= lower <= upper <= 100", f"{lower} and {upper}")
    wide = widen(x, fmt, "x")
    ends = (partial(_percentile, percent=p) for p in percents)
    lo, hi = (reduce_groups(wide, granularity, group_size, GRANULARITIES, end) for end in ends)
    return lo, hi


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

    Examples
    --------
    >>> moving_range((np.float32(-1), np.float32(1)), (np.float32(-2), np.float32(5)), 0.25)
    (array(-1.25, dtype=float32), array(2., dtype=float32))
    """
    if not 0 <= (part := require_number("weight", weight)) <= 1:
        reject_value("weight", "from 0 to 1", weight)
    ends = []
    pairs = require_pair("previous", previous), require_pair("current", current)
    for argument, first, second in zip(("lo", "hi"), *pairs, strict=True):
        for name, end in (("previous", first), ("current", second)):
            require_dtype(f"{argument} of {name}", end, "float32")
        old, new = np.asarray(first), np.asarray(second)
        if old.shape != new.shape:
            reject_value(f"{argument} of current", f"of the shape of the previous one {old.shape}", new.shape)
        ends.append(_interpolated(old.reshape(-1), new.reshape(-1), Fraction(part)).reshape(old.shape))
    return ends[0], ends[1]


def _extreme(groups: Array, *, largest: bool) -> Array:
    """Return the maximum or minimum of every row; NaN where a number is not finite, +0 for zeros and empty rows."""
    if not groups.shape[1]:
        return np.zeros(len(groups), np.float32)
    extreme = np.max(groups, axis=1) if largest else np.min(groups, axis=1)
    extreme = np.where(extreme == 0, np.float32(0), extreme)
    return np.where(np.isfinite(groups).all(axis=1), extreme, np.float32(np.nan))


def _percentile(groups: Array, *, percent: float) -> Array:
    """Return one percentile of every row."""
    if not groups.size:
        return _extreme(groups, largest=True)
    position = Fraction(percent) * (groups.shape[1] - 1) / 100
    below = position.numerator // position.denominator
    above = min(below + 1, groups.shape[1] - 1)
    ordered = np.partition(groups, (below, above), axis=1)
    found = _interpolated(ordered[:, below], ordered[:, above], position - below)
    return np.where(np.isfinite(groups).all(axis=1), found, np.float32(np.nan))


def _interpolated(first: Array, second: Array, weight: Fraction) -> Array:
    """Return RN_float32(first + weight·(second − first)) for 1-d float32 arrays; NaN where one is not finite.

    One rounding of a ratio of integers: every number is a multiple of 2^−149.
    """
    result = np.full(first.shape, np.nan, np.float32)
    for place in np.flatnonzero(np.isfinite(first) & np.isfinite(second)):
        a, b = (int(Fraction(float(end[place])) * 2**_SMALLEST) for end in (first, second))
        numerator = a * weight.denominator + weight.numerator * (b - a)
        result[place] = round_ratio(numerator, weight.denominator, -_SMALLEST)
    return result
