"""Which combinations of adapters are allowed.

Clause: ``[bounds.combine]``. The common derivation stands in `tracking`.
"""

from collections.abc import Sequence

import numpy as np

from qloracle.combining import LoraAdapter, combined_operands
from qloracle.formats import Array
from qloracle.tracking.interval import (
    Interval,
    Tracked,
    exact_input,
    interval,
    largest_result,
    product_sum,
    rounded_to,
    scaled,
)
from qloracle.tracking.roundings import Roundings, accumulation_format

_FACTOR = 6.0  # roundings of w s: w, alpha, 1/r and the two products, and the product with the term
_ROOT = 1.0  # and of √r


def combine_bound(
    adapters: Sequence[LoraAdapter], weights: Sequence[float], *, roundings: Roundings = Roundings()
) -> Interval:
    """Bound every evaluation of `combine_adapters` that has the declared rounding points.

    Parameters
    ----------
    adapters, weights
        As for `combining.combine_adapters`.
    roundings : Roundings
        `adapter` is what each B A, and its multiple, is rounded to.

    Returns
    -------
    Interval
        Arrays of shape (d_out, d_in), before the rounding to an output format.

    Notes
    -----
    Clause ``[bounds.combine]``. Roundings on a path: r_i for B_i A_i; 6 for w_i s_i, 7 for rsLoRA; two where an
    adapter's rounding is declared; one addition for each addend of the other adapters.

    Examples
    --------
    >>> one = np.ones((1, 1), np.float32)
    >>> found = combine_bound([LoraAdapter(one, one, alpha=1)], [1.0])
    >>> print(round((found.hi[0, 0] - found.lo[0, 0]) / 2 * 2**24, 3))
    7.0
    """
    fmt = accumulation_format(roundings)
    terms: list[tuple[Tracked, int]] = []
    fits: list[Array] = []
    for adapter, (a64, b64, factor) in zip(adapters, combined_operands(adapters, weights), strict=True):
        a, b = (exact_input(matrix, fmt.half_smallest_subnormal) for matrix in (a64, b64))
        product = rounded_to(product_sum(b, a, fmt), roundings.adapter, fmt, "adapter")
        count, largest = _FACTOR + _ROOT * adapter.rank_stabilized, max(1.0, abs(factor))
        terms.append((rounded_to(scaled(product, factor, count, fmt, largest), roundings.adapter, fmt), len(a64)))
        fits.append(largest_result(product) * largest < fmt.largest_finite)
    found = interval(fmt, *terms)
    return Interval(found.lo, found.hi, found.judged & np.all(fits, axis=0))


def concatenate_bound(
    adapters: Sequence[LoraAdapter], weights: Sequence[float], *, roundings: Roundings = Roundings()
) -> Interval:
    """Bound every evaluation of the A of `concatenate_adapters`.

    Parameters
    ----------
    adapters, weights
        As for `combining.concatenate_adapters`.
    roundings : Roundings
        `adapter` is what each product is rounded to on the way.

    Returns
    -------
    Interval
        Arrays of shape (Σ r_i, d_in), before the rounding to the format of the result.

    Notes
    -----
    Clause ``[bounds.combine]``. 6 roundings for w_i s_i and its product, 7 for rsLoRA; two where an adapter's rounding
    is declared.

    Examples
    --------
    >>> one = np.ones((1, 1), np.float32)
    >>> found = concatenate_bound([LoraAdapter(one, one, alpha=1)], [1.0])
    >>> print(round((found.hi[0, 0] - found.lo[0, 0]) / 2 * 2**24, 3))
    6.0
    """
    fmt = accumulation_format(roundings)
    found = []
    for adapter, (a64, _, factor) in zip(adapters, combined_operands(adapters, weights), strict=True):
        term = scaled(exact_input(a64), factor, _FACTOR + _ROOT * adapter.rank_stabilized, fmt, max(1.0, abs(factor)))
        for _ in range(2):
            term = rounded_to(term, roundings.adapter, fmt, "adapter")
        found.append(interval(fmt, (term, 1)))
    ends = (np.concatenate([getattr(part, name) for part in found]) for name in ("lo", "hi", "judged"))
    return Interval(*ends)
