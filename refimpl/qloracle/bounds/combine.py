"""Which combinations of adapters are allowed.

Clause: ``[bounds.combine]``. The common derivation stands in `tracking`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from qloracle.combining import LoraAdapter, combined_operands
from qloracle.formats import Array, Format, format_named
from qloracle.tracking.adapter import is_held
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
    for adapter, weight, (a64, b64, factor) in _operands(adapters, weights):
        a, b = (exact_input(matrix, fmt.half_smallest_subnormal) for matrix in (a64, b64))
        product = product_sum(b, a, fmt)
        term = _scaled(rounded_to(product, roundings.adapter, fmt, "adapter"), adapter, weight, factor, fmt)
        terms.append((rounded_to(term, roundings.adapter, fmt), len(a64)))
        largest = min(fmt.largest_finite, format_named(roundings.adapter, "adapter").largest_finite)
        inner = [largest_result(part) * _most(weight, factor) < largest for part in (product, a, b)]
        usable = inner[1].all() & inner[2].all() & _in_range(adapter, weight, factor, fmt)
        fits.append(inner[0] & usable)
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
    for adapter, weight, (a64, _, factor) in _operands(adapters, weights):
        term = exact_input(a64, fmt.half_smallest_subnormal)
        for _ in range(2):  # before the product with w s, which then multiplies what they lose
            term = rounded_to(term, roundings.adapter, fmt, "adapter")
        part = interval(fmt, (_scaled(term, adapter, weight, factor, fmt), 1))
        largest = min(fmt.largest_finite, format_named(roundings.adapter).largest_finite)
        fit = (largest_result(term) * _most(weight, factor) < largest) & _in_range(adapter, weight, factor, fmt)
        found.append(Interval(part.lo, part.hi, part.judged & fit))
    ends = (np.concatenate([getattr(part, name) for part in found]) for name in ("lo", "hi", "judged"))
    return Interval(*ends)


def _operands(
    adapters: Sequence[LoraAdapter], weights: Sequence[float]
) -> Iterator[tuple[LoraAdapter, float, tuple[Array, Array, float]]]:
    return zip(adapters, weights, combined_operands(adapters, weights), strict=True)


def _scaled(term: Tracked, adapter: LoraAdapter, weight: float, factor: float, fmt: Format) -> Tracked:
    """Track w s · term. Where w, alpha or s underflow, w s is off by η₀ times what multiplies them, |s| + 2|w|."""
    rank = 0.0 if is_held(float(len(adapter.lora_a)), fmt) else 1.0
    count = _FACTOR + (_ROOT + rank / 2 if adapter.rank_stabilized else rank)
    made = scaled(term, factor, count, fmt, _most(weight, factor))
    more = 3 * _most(weight, factor) * fmt.half_smallest_subnormal * term.magnitude if factor else 0.0
    return replace(made, underflow=made.underflow + more)


def _most(weight: float, factor: float) -> float:
    """Return the most that a term may be multiplied by before the last factor: 1, w, s or w s."""
    return max(1.0, abs(weight), abs(factor), abs(factor / weight) if weight else 0.0)


def _in_range(adapter: LoraAdapter, weight: float, factor: float, fmt: Format) -> bool:
    """Return whether the format can hold w, alpha, s, w·alpha and w s."""
    given = max(abs(adapter.alpha), abs(weight * adapter.alpha), float(len(adapter.lora_a)))
    return max(given, _most(weight, factor)) < fmt.largest_finite
