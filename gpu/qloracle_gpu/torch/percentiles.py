"""Ranges between numbers: percentiles of groups, and moving ranges.

Clauses: ``[observers.percentile]``, ``[observers.moving]``. Interpolation is exact and rounded once. A weight that is a
float64 number makes sums of float64 numbers, which are rounded to odd. That of a percentile has other denominators:
float64 tells how far the real number is from the one that it computes, and where both limits round to one float32
number, this is the result; the few others are decided by ratios of integers.
"""

from collections.abc import Callable
from fractions import Fraction
from functools import partial
from math import frexp, ldexp

import torch
from torch import Tensor

from qloracle.errors import reject_value, require_number, require_pair
from qloracle_gpu.torch.casts import on_capable_device
from qloracle_gpu.torch.compiling import compiles_as_operator
from qloracle_gpu.torch.exact_mean import nearest_float32
from qloracle_gpu.torch.formats import require_device, require_dtype, require_tensor_format
from qloracle_gpu.torch.groups import group_rows, group_shape
from qloracle_gpu.torch.observers import in_group_shape
from qloracle_gpu.torch.odd_sums import exact_sum_to_odd
from qloracle_gpu.torch.pieces import piece_size, spans, work_through

# With m = max(|a|, |b|), weight, difference and product are off by at most 2^−53·2m each and the sum by 2^−53·m: less
# than 2^−50·m in all. As much again covers the rounding of both limits, and the second term products that underflow.
RELATIVE_ERROR = 2.0**-49
LEAST_ERROR = 2.0**-1000
UNIT = 149  # every float32 number is an integer multiple of 2^−149


@compiles_as_operator
def percentile_range(
    x: Tensor, lower: float, upper: float, *, granularity: str = "tensor", group_size: int | None = None
) -> tuple[Tensor, Tensor]:
    """Return two percentiles of every group, by linear interpolation of its order statistics.

    With x_0 ≤ x_1 ≤ … ≤ x_(n−1) and h = p/100·(n − 1): RN_float32(x_i + (h − i)·(x_(i+1) − x_i)), i = ⌊h⌋.

    Parameters
    ----------
    x, granularity, group_size
        As for `minmax_range`.
    lower, upper : float
        The percentiles p, 0 ≤ lower ≤ upper ≤ 100; real numbers as they stand, 99.9 being the float64 next to it.

    Returns
    -------
    lo, hi : tensors of float32
        As for `minmax_range`, which is the same with 0 and 100.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        As `minmax_range`, and if a percentile is no number from 0 to 100, or they are the wrong way round.

    Notes
    -----
    Clause ``[observers.percentile]``. Rounding points: one for each end; position and interpolation are exact. Which
    results integers have to decide has to be looked at, which waits for the device.

    Examples
    --------
    >>> percentile_range(torch.tensor([40.0, 10.0, 20.0, 30.0]), 25, 90)
    (tensor(17.5000), tensor(37.))
    """
    percents = require_number("lower", lower), require_number("upper", upper)
    if not 0 <= percents[0] <= percents[1] <= 100:
        reject_value("lower and upper", "percentiles with 0 <= lower <= upper <= 100", f"{lower} and {upper}")
    values = require_tensor_format("x", x)
    group_shape(values.shape, granularity, group_size)
    found = [_percentiles_of_rows(rows, percents) for rows in group_rows(values, granularity, group_size)]
    return in_group_shape(found, values, granularity, group_size)


@compiles_as_operator
def moving_range(
    previous: tuple[Tensor, Tensor], current: tuple[Tensor, Tensor], weight: float
) -> tuple[Tensor, Tensor]:
    """Move a range towards another one: RN_float32(previous + weight·(current − previous)) for each end.

    Parameters
    ----------
    previous, current : (lo, hi), tensors of float32 of one shape
        A poisoned end, NaN or infinite, makes the result NaN.
    weight : float
        Of the current range, from 0 to 1.

    Returns
    -------
    lo, hi : tensors of float32

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If an end is not float32, shapes or devices differ, or the weight is no number from 0 to 1.

    Notes
    -----
    Clause ``[observers.moving]``. Rounding points: one for each end; the interpolation is exact. Nothing waits for the
    device.

    Examples
    --------
    >>> one, five = torch.tensor(1.0), torch.tensor(5.0)
    >>> moving_range((-one, one), (-2 * one, five), 0.25)
    (tensor(-1.2500), tensor(2.))
    """
    if not 0 <= (part := require_number("weight", weight)) <= 1:
        reject_value("weight", "from 0 to 1", weight)
    ends = []
    pairs = require_pair("previous", previous), require_pair("current", current)
    for argument, first, second in zip(("lo", "hi"), *pairs, strict=True):
        old = require_dtype(f"{argument} of previous", first, torch.float32)
        new = require_dtype(f"{argument} of current", second, torch.float32)
        if old.shape != new.shape:
            rule = f"of the shape of the previous one {tuple(old.shape)}"
            reject_value(f"{argument} of current", rule, tuple(new.shape))
        ends.append((old, require_device(f"{argument} of current", new, old.device)))
    lo, hi = (_moved(old, new, part) for old, new in ends)
    return lo, hi


def _moved(old: Tensor, new: Tensor, weight: float) -> Tensor:
    """Return RN_float32(old + weight·(new − old)): a sum of products that float64 holds."""
    a, b = (on_capable_device(end).to(torch.float64) for end in (old, new))
    high, low = _split(weight)
    moved = exact_sum_to_odd([a, b * high, b * low, a * -high, a * -low]).to(torch.float32)
    return torch.where(a.isfinite() & b.isfinite(), moved, torch.nan).to(old.device)


def _split(weight: float) -> tuple[float, float]:
    """Return a weight as the sum of two numbers of at most 29 bits, which times float32 numbers fit float64.

    One below 2^−300 moves nothing but a zero, and that by less than half of the smallest number, as 2^−300 does.
    """
    fraction, exponent = frexp(max(weight, 2.0**-300) if weight else 0.0)
    high = ldexp(round(ldexp(fraction, 24)), exponent - 24)
    return high, ldexp(fraction, exponent) - high


def _percentiles_of_rows(matrix: Tensor, percents: tuple[float, float]) -> tuple[Tensor, Tensor]:
    rows, columns = matrix.shape
    lo, hi = (matrix.new_zeros(rows, dtype=torch.float32) for _ in range(2))
    if columns:
        step = max(1, piece_size(matrix.device) // columns)
        write: Callable[[slice], None] = partial(_write_percentiles, matrix, percents, (lo, hi))
        work_through(spans(rows, step), write, matrix)
    return lo, hi


def _write_percentiles(matrix: Tensor, percents: tuple[float, float], ends: tuple[Tensor, Tensor], rows: slice) -> None:
    ordered, last = matrix[rows].to(torch.float32).sort(dim=1).values, matrix.shape[1] - 1
    # Sorting brings −inf to the front and inf or NaN to the end.
    finite = ordered[:, 0].isfinite() & ordered[:, last].isfinite()
    for percent, end in zip(percents, ends, strict=True):
        position = Fraction(percent) * last / 100
        below = int(position)
        # At a whole position the next number counts for nothing, and must not blur the one that counts.
        above = below + 1 if position > below else below
        found = _interpolated(ordered[:, below], ordered[:, above], position - below)
        end[rows] = torch.where(finite, found, torch.nan)


def _interpolated(first: Tensor, second: Tensor, weight: Fraction) -> Tensor:
    """Return RN_float32(first + weight·(second − first)) of 1-d float32 tensors; NaN where one is not finite."""
    a, b = (on_capable_device(end).to(torch.float64) for end in (first, second))
    finite = a.isfinite() & b.isfinite()
    middle = a + float(weight) * (b - a)
    error = torch.maximum(a.abs(), b.abs()) * RELATIVE_ERROR + LEAST_ERROR
    lower, upper = ((middle + side * error).to(torch.float32) for side in (-1, 1))
    same = a == b
    result = torch.where(finite, torch.where(same, a.to(torch.float32) + 0.0, lower), torch.nan)
    # Signs of zero count: the limits of a sum near zero may round to −0 and +0.
    places = (finite & ~same & (lower.view(torch.int32) != upper.view(torch.int32))).nonzero().reshape(-1)
    if len(places):
        pairs = zip(a[places].tolist(), b[places].tolist(), strict=True)
        exact = [_ratio(*pair, weight) for pair in pairs]
        result[places] = torch.tensor(exact, dtype=torch.float32, device=result.device)
    return result.to(first.device)


def _ratio(first: float, second: float, weight: Fraction) -> float:
    """Return one interpolated number as a rounded ratio of integers."""
    a, b = (int(Fraction(end) * 2**UNIT) for end in (first, second))
    return nearest_float32(a * weight.denominator + weight.numerator * (b - a), weight.denominator)
