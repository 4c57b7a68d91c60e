"""Gradient accumulation: the gradients of several micro-batches make that of the one big batch.

A loss that is a mean over tokens has to be divided by the number of tokens of *all* micro-batches: a mean of means
weighs the tokens of a short micro-batch more. Clauses: ``[accumulate.mean]``, ``[accumulate.step]``,
``[bounds.accumulate]``.
"""

from functools import partial

import numpy as np

from qloracle.decoding import in_chunks
from qloracle.errors import reject_type, reject_value, require_one_of
from qloracle.formats import Array, format_of
from qloracle.operands import real_operand
from qloracle.optim.adamw import AdamwState, adamw_step
from qloracle.optim.operands import to_single
from qloracle.optim.options import AdamwOptions
from qloracle.rounding import round_to
from qloracle.tracking.interval import Interval
from qloracle.tracking.roundings import Roundings, accumulation_format

REDUCTIONS = ("mean", "sum")


def accumulate_gradients(gradients: Array, counts: Array, *, reduction: str = "mean", fmt: str | None = None) -> Array:
    """Return the gradient of the mean loss over all tokens from the gradients of N micro-batches.

    g = Σ n_i·g_i / Σ n_i for "mean", where g_i is the gradient of the mean over the n_i tokens of micro-batch i;
    g = Σ g_i / Σ n_i for "sum", where g_i is the gradient of the sum over them.

    Parameters
    ----------
    gradients : array of float32, float16 or bfloat16, shape (N, ...)
    counts : array of an integer dtype, shape (N,)
        Tokens of each micro-batch, 0 or more, not all 0.
    reduction : {"mean", "sum"}
        What a micro-batch's gradient is the gradient of.
    fmt : str, optional
        Format of `gradients` where they are given as bit patterns.

    Returns
    -------
    array of float64, shape gradients.shape[1:]
        The real value up to float64 rounding; `accumulate_gradients_bound` says which outputs are allowed.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If a dtype or shape does not fit, a count is negative, all are 0, or the reduction is unknown.

    Notes
    -----
    Clause ``[accumulate.mean]``. A micro-batch without tokens is left out, whatever its gradient holds: a mean over no
    token is NaN. Rounding points of an implementation: see the bound.

    Examples
    --------
    >>> accumulate_gradients(np.array([[1], [5]], np.float32), np.array([3, 1]))
    array([2.])
    >>> accumulate_gradients(np.array([[3], [5]], np.float32), np.array([3, 1]), reduction="sum")
    array([2.])
    """
    weights, total = _weights(gradients, counts, reduction, fmt)
    first, *others = np.flatnonzero(counts)
    result = _addend(gradients[first], weights[first], fmt)
    with np.errstate(invalid="ignore"):
        for batch in others:  # one after another, so that never more than one of them is there as float64
            result += _addend(gradients[batch], weights[batch], fmt)
        result /= total
    return result


def accumulate_gradients_bound(
    gradients: Array,
    counts: Array,
    *,
    reduction: str = "mean",
    fmt: str | None = None,
    roundings: Roundings = Roundings(),
) -> Interval:
    """Bound every evaluation of `accumulate_gradients` that accumulates in the declared format.

    Parameters
    ----------
    gradients, counts, reduction, fmt
        As for `accumulate_gradients`.
    roundings : Roundings
        `accumulate` is the format of the gradient buffer.

    Returns
    -------
    Interval
        Of the shape of one gradient. Not judged where a partial sum, or the number of tokens, could overflow.

    Notes
    -----
    Clause ``[bounds.accumulate]``. Roundings on a path: N − 1 additions in any order; and 1/Σ n_i, a count or its
    quotient, and their product with a gradient or with the sum: N + 2 in all; one more for a count and one for Σ n_i
    that the format cannot hold. A single micro-batch of means costs as much: n·g/n is not g. Underflow: one for each
    product with a gradient and for the last; and one each for 1/Σ n_i and for a count times that, or their quotient,
    which are multiplied by all of Σ n_i·|g_i|: η₀·(N + 1 + 2·Σ n_i·|g_i|).

    Examples
    --------
    >>> bound = accumulate_gradients_bound(np.ones((4, 1), np.float32), np.array([1, 1, 1, 1]))
    >>> float(((bound.hi - bound.lo) / 2 * 2**24).round(3)[0])
    6.0
    """
    work = accumulation_format(roundings)
    weights, total = _weights(gradients, counts, reduction, fmt)
    terms = np.stack([_addend(gradients[batch], weights[batch], fmt) for batch in np.flatnonzero(counts)])
    finite = np.where(np.isfinite(terms), np.abs(terms), 0.0)
    with np.errstate(invalid="ignore", over="ignore"):
        value, magnitude, count = np.sum(terms, axis=0) / total, np.sum(finite, axis=0), len(terms)
        inexact = sum(number * work.unit_roundoff > 1 for number in (float(np.max(counts)), total))
        error = np.expm1((count + 2 + inexact) * work.unit_roundoff)
        under = np.where(magnitude > 0, (count + 1 + 2 * magnitude) * work.half_smallest_subnormal, 0.0)
        under, largest = under * (1 + error), np.maximum(magnitude, total)
        radius = np.where(np.isfinite(value), (error * magnitude / total + under) * (1 + 2.0**-20), 0.0)
        return Interval(value - radius, value + radius, np.asarray(largest * (1 + error) < work.largest_finite))


def accumulated_step(
    p: Array,
    gradients: Array,
    counts: Array,
    state: AdamwState,
    options: AdamwOptions,
    *,
    reduction: str = "mean",
    fmt: str | None = None,
) -> tuple[Array, Array, AdamwState]:
    """Accumulate the gradients of N micro-batches and make one step of AdamW with them.

    Parameters
    ----------
    p, state, options, fmt
        As for `optim.adamw_step`; `fmt` is also that of `gradients`.
    gradients, counts, reduction
        As for `accumulate_gradients`.

    Returns
    -------
    tuple of array, array and AdamwState
        The gradient, rounded once to the format of `p`; the parameter and its state after *one* step.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        As `accumulate_gradients` and `optim.adamw_step`.

    Notes
    -----
    Clause ``[accumulate.step]``. N micro-batches are one step: the parameter, its moments and the step number change
    once, after the last of them. Rounding points, in order: the gradient to its format; then those of the step.

    Examples
    --------
    >>> p, zero = np.ones(1, np.float32), AdamwState(np.zeros(1, np.float32), np.zeros(1, np.float32), 0)
    >>> gradients, counts = np.array([[1], [5]], np.float32), np.array([3, 1])
    >>> g, p, state = accumulated_step(p, gradients, counts, zero, AdamwOptions(lr=0.25))
    >>> g, p, state.step
    (array([2.], dtype=float32), array([0.75], dtype=float32), 1)
    """
    real = accumulate_gradients(gradients, counts, reduction=reduction, fmt=fmt)
    name = format_of(gradients, fmt, "gradients").name
    with np.errstate(over="ignore"):
        gradient = to_single(real) if name == "float32" else round_to(real, name)
    new, after = adamw_step(p, gradient, state, options, fmt=fmt)
    return gradient, new, after


def _weights(gradients: Array, counts: Array, reduction: str, fmt: str | None) -> tuple[Array, float]:
    """Return what each micro-batch's gradient is multiplied by, and the number of all tokens."""
    format_of(gradients, fmt, "gradients")
    require_one_of("reduction", reduction, REDUCTIONS)
    dtype = getattr(counts, "dtype", None)
    if not isinstance(dtype, np.dtype) or dtype.kind not in "iu":
        reject_type("counts", "an array of integers", dtype or type(counts).__name__)
    if gradients.ndim == 0 or counts.shape != gradients.shape[:1]:
        reject_value("counts", f"of shape {gradients.shape[:1]}, one number a micro-batch", counts.shape)
    numbers = counts.astype(np.int64)
    if np.any(numbers < 0) or not np.any(numbers):
        reject_value("counts", "numbers of tokens, 0 or more and not all 0", counts.tolist())
    weights = numbers if reduction == "mean" else np.ones_like(numbers)
    return weights, float(sum(numbers.tolist()))  # Python's integers: 2^62 tokens twice are 2^63


def _addend(gradient: Array, weight: np.int64, fmt: str | None) -> Array:
    """Return a micro-batch's addend of the sum as float64."""
    with np.errstate(invalid="ignore"):
        part = partial(_product, weight=weight, fmt=fmt)
        return in_chunks(part, np.dtype(np.float64), np.asarray(gradient))


def _product(gradient: Array, weight: np.int64, fmt: str | None) -> Array:
    return real_operand(gradient, "gradients", fmt) * weight
