"""Which merged weights are allowed: those that some order of evaluation gives.

Clause: ``[bounds.merge]``. The common derivation stands in `tracking`.
"""

from qloracle.formats import Array
from qloracle.merge_operands import bias_operands, merge_operands
from qloracle.tracking.adapter import Factors, factors, fits, foldable, scaled_by_alpha, tracked_delta
from qloracle.tracking.interval import Interval, Tracked, exact_input, interval
from qloracle.tracking.roundings import Roundings


def lora_merge_bound(
    weight: Array,
    lora_a: Array,
    lora_b: Array,
    *,
    alpha: float,
    rank_stabilized: bool = False,
    fan_in_fan_out: bool = False,
    fmt: str | None = None,
    unmerge: bool = False,
    roundings: Roundings = Roundings(),
) -> Interval:
    """Bound every evaluation of `lora_merge`, or of `lora_unmerge`, that has the declared rounding points.

    Parameters
    ----------
    weight, lora_a, lora_b, alpha, rank_stabilized, fan_in_fan_out, fmt
        As for `merging.lora_merge`.
    unmerge : bool
        Bound W − s B A instead.
    roundings : Roundings
        `adapter` is what B A, and then s B A, are rounded to before they are added.

    Returns
    -------
    Interval
        Arrays of the weight's shape, before the rounding to its format. Not judged where M could overflow the
        accumulator or a declared format.

    Notes
    -----
    Clause ``[bounds.merge]``. Roundings on a path: r for B A; 4 for s, 5 for rsLoRA; two where an adapter's rounding is
    declared; one addition for each addend of the other, for W may be where the accumulation of B A starts.

    Examples
    --------
    >>> import numpy as np
    >>> one = np.ones((1, 1), np.float32)
    >>> found = lora_merge_bound(3 * one, one, one, alpha=1)
    >>> half = (found.hi[0, 0] - found.lo[0, 0]) / 2 * 2**24  # W is rounded once, s·B·A 1 + 4 + 1 times
    >>> print(round(half, 3))
    9.0
    """
    real, a64, b64 = merge_operands(weight, lora_a, lora_b, fan_in_fan_out=fan_in_fan_out, fmt=fmt)
    how = factors(-alpha if unmerge else alpha, len(a64), (), rank_stabilized=rank_stabilized, roundings=roundings)
    delta, fit = tracked_delta(a64, b64, how)
    found = sum_with(real, delta, len(a64), how, fit)
    return Interval(found.lo.T, found.hi.T, found.judged.T) if fan_in_fan_out else found


def merge_bias_bound(
    bias: Array,
    lora_bias: Array,
    *,
    alpha: float,
    rank: int,
    rank_stabilized: bool = False,
    fmt: str | None = None,
    unmerge: bool = False,
    roundings: Roundings = Roundings(),
) -> Interval:
    """Bound every evaluation of `merge_bias` that has the declared rounding points.

    Parameters
    ----------
    bias, lora_bias, alpha, rank, rank_stabilized, fmt, unmerge
        As for `merging.merge_bias`.
    roundings : Roundings

    Returns
    -------
    Interval
        Arrays of the bias's shape, before the rounding to its format.

    Notes
    -----
    Clause ``[bounds.merge]``. Roundings on a path: 4 for s, 5 for rsLoRA, one for the sum; two where an adapter's
    rounding is declared.

    Examples
    --------
    >>> import numpy as np
    >>> one = np.ones(1, np.float32)
    >>> found = merge_bias_bound(one, 0 * one, alpha=1, rank=1)  # one addition
    >>> print(round((found.hi[0] - found.lo[0]) / 2 * 2**24, 3))
    1.0
    """
    real, added = bias_operands(bias, lora_bias, fmt)
    how = factors(-alpha if unmerge else alpha, rank, (), rank_stabilized=rank_stabilized, roundings=roundings)
    term = foldable(added, how)
    return sum_with(real, scaled_by_alpha(term, how, 2), 1, how, fits(term, how, roundings.adapter))


def sum_with(real: Array, delta: Tracked, addends: int, how: Factors, fit: Array) -> Interval:
    """Bound the sum of given numbers and a change of so many addends."""
    found = interval(how.fmt, (exact_input(real), 1), (delta, addends))
    return Interval(found.lo, found.hi, found.judged & fit)
