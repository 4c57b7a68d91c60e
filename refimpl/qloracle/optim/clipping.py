"""Limits on norms: of a gradient before the step, and of an update within it.

Clauses: ``[clip.norm]``, ``[clip.update]``. The norm is a real number: no format rounds it before it is compared.
Sources: Pascanu, Mikolov and Bengio 2013, "On the difficulty of training recurrent neural networks", algorithm 1; the
limit relative to the parameter is that of bitsandbytes' ``max_unorm``.
"""

from collections.abc import Sequence

import numpy as np

from qloracle.errors import reject_type, reject_value, require_number
from qloracle.formats import Array
from qloracle.operands import real_operand
from qloracle.tracking.interval import Interval
from qloracle.tracking.roundings import Roundings, accumulation_format


def real_norm(values: Array) -> float:
    """Return ‖values‖ = √Σ values_i² of real numbers; scaled by a power of two first, so that no square overflows."""
    largest = float(np.max(np.abs(values), initial=0.0))
    if largest == 0 or not np.isfinite(largest):
        return largest
    exponent = int(np.frexp(largest)[1])
    # Below 2^-500 of the largest nothing counts: its square underflows and is lost in the sum anyway.
    squares = np.asarray(np.ldexp(values, -exponent))
    np.square(squares, out=squares)
    return float(np.ldexp(np.sqrt(np.sum(squares)), exponent))


def limited_scale(update: Array, max_update_norm: float, p: Array) -> float:
    """Return the factor c that keeps ‖c·update‖ to at most max_update_norm·‖p‖.

    c = 1 if ‖update‖ ≤ L or a norm is not finite, else L/‖update‖, with L = max_update_norm·‖p‖.

    Parameters
    ----------
    update, p : array of float64
    max_update_norm : float

    Returns
    -------
    float

    Notes
    -----
    Clause ``[clip.update]``. Rounding points: none. A parameter of zeros has L = 0, so it stays where it is.

    Examples
    --------
    >>> limited_scale(np.array([3.0, 4.0]), 0.5, np.array([2.0, 0.0]))
    0.2
    """
    norm, limit = real_norm(update), max_update_norm * real_norm(p)
    return limit / norm if np.isfinite(norm) and np.isfinite(limit) and norm > limit else 1.0


def clip_by_norm(values: Sequence[Array], max_norm: float, *, fmt: str | None = None) -> list[Array]:
    """Scale tensors down together until their common norm is at most `max_norm`.

    values ← c·values, with c = min(1, max_norm/‖values‖) and ‖values‖ = √Σ values_i² over all elements of all tensors.

    Parameters
    ----------
    values : sequence of arrays of float32, float16 or bfloat16
    max_norm : float
        Positive and finite.
    fmt : str, optional
        Format of arrays that are given as bit patterns.

    Returns
    -------
    list of arrays of float64
        The real values up to float64 rounding; `clip_by_norm_bound` says which outputs are allowed.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If `values` is no sequence of tensors, or `max_norm` no positive finite number.

    Notes
    -----
    Clause ``[clip.norm]``. Nothing is added to the norm, so that a norm of exactly `max_norm` changes nothing. If an
    element is not finite nothing is scaled: what becomes of it is the optimizer's own rule. Rounding points of an
    implementation: see the bound.

    Examples
    --------
    >>> clip_by_norm([np.array([3], np.float32), np.array([[4]], np.float32)], 2.5)
    [array([1.5]), array([[2.]])]
    """
    if not isinstance(values, list | tuple):
        reject_type("values", "a list or tuple of arrays", type(values).__name__)
    max_norm = require_number("max_norm", max_norm)
    if not 0 < max_norm < np.inf:
        reject_value("max_norm", "positive and finite", max_norm)
    wide = [real_operand(tensor, "values", fmt) for tensor in values]
    norm = real_norm(np.concatenate([tensor.reshape(-1) for tensor in wide])) if wide else 0.0
    scale = max_norm / norm if np.isfinite(norm) and norm > max_norm else 1.0
    return [np.asarray(tensor * scale) for tensor in wide]


def clip_by_norm_bound(
    values: Sequence[Array], max_norm: float, *, fmt: str | None = None, roundings: Roundings = Roundings()
) -> list[Interval]:
    """Bound every evaluation of `clip_by_norm` that accumulates in the declared format.

    Parameters
    ----------
    values, max_norm, fmt
        As for `clip_by_norm`.
    roundings : Roundings
        `accumulate` is what counts here.

    Returns
    -------
    list of Interval
        Not judged where the sum of squares could overflow, or be so small that squares that matter underflow.

    Notes
    -----
    Clause ``[bounds.clip]``. Roundings on a path, n elements in all: half of 1 + (n − 1) for squares and their sum in
    any order, √, the constant, the quotient, the product with a value, and one for a norm that is a root of partial
    norms: n/2 + 5. Underflow: one for the product; one for the factor c, which the whole value then multiplies; and one
    for a `max_norm` below the normal range, divided by the norm and multiplied by a value, which is at most the norm:
    η₀·(2 + |value|) in all. Where the norm could be either side of `max_norm` both results lie in the interval, for the
    factor is continuous. Below the bound, less those n/2 + 5, nothing is rounded.

    Examples
    --------
    >>> bound, = clip_by_norm_bound([np.ones(4, np.float32)], 1.0)
    >>> float(((bound.hi - bound.lo) / 2 * 2**24).round(3)[0])
    3.5
    """
    work, real = accumulation_format(roundings), clip_by_norm(values, max_norm, fmt=fmt)
    wide = [real_operand(tensor, "values", fmt) for tensor in values]
    terms = sum(tensor.size for tensor in wide)
    norm = real_norm(np.concatenate([tensor.reshape(-1) for tensor in wide])) if wide else 0.0
    exponent = (terms / 2 + 5) * work.unit_roundoff
    active = np.isfinite(norm) and norm * np.exp(exponent) > max_norm
    small = terms * work.half_smallest_subnormal * 2.0**26
    judged = norm == 0 or not np.isfinite(norm) or small < norm * norm < work.largest_finite / 2
    found = []
    for value, given in zip(real, wide, strict=True):
        size, before = (np.where(np.isfinite(part), np.abs(part), 0.0) for part in (value, given))
        under = np.where(before > 0, (2 + before) * work.half_smallest_subnormal, 0.0)
        radius = active * (np.expm1(exponent) * size + np.exp(exponent) * under) * (1 + 2.0**-20)
        found.append(Interval(value - radius, value + radius, np.full(value.shape, judged)))
    return found
