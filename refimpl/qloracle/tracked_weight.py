"""Products with a weight, and what else an implementation may do: apply its scale later, or merge the adapter first."""

from dataclasses import replace

import numpy as np

from qloracle.formats import FLOAT32, Array, Format
from qloracle.roundings import Roundings
from qloracle.tracked_adapter import Factors
from qloracle.tracking import Tracked, exact_input, product_sum

SCALE_LATER = 4.0  # see `weight_roundings`
SMALLEST_ENTRY = 2.0**-21  # of any codebook, but for 0; an INT8 code is at least 1
LARGEST_ENTRY = 128.0


def weight_roundings(roundings: Roundings) -> float:
    """Return by how many roundings an implementation's weight may differ from the dequantized one.

    None where a rounding narrower than float32 is declared: that is then made, element by element. Otherwise an
    implementation may add up products with the bare entries of a block or row and multiply by the scale afterwards. It
    lacks the one rounding of the rule itself, and has up to three of its own: the product with the scale, and for INT8
    the scale divided by 127, which a constant 1/127 makes two. (Zero points are subtracted before the product.)
    """
    return SCALE_LATER if roundings.weight == FLOAT32.name else 0.0


def weight_product(left: Array, weight: Array, later: float, fmt: Format) -> Tracked:
    """Track left @ weight; with `later` roundings more, and what a product with a bare entry may underflow by."""
    if not later:
        return product_sum(exact_input(left), exact_input(weight), fmt)
    given = exact_input(weight, FLOAT32.half_smallest_subnormal)
    moved = replace(given, exponent=later * fmt.unit_roundoff)
    # A product of a bare entry that underflows is multiplied by the scale, |W|/entry, afterwards.
    return product_sum(exact_input(left, fmt.half_smallest_subnormal / SMALLEST_ENTRY), moved, fmt)


def later_fits(left: Array, later: float, fmt: Format) -> Array:
    """Return for every row whether a sum of its products with bare entries stays in range."""
    size = np.sum(np.abs(np.where(np.isfinite(left), left, 0.0)), axis=1, keepdims=True) * LARGEST_ENTRY
    fits: Array = (size < fmt.largest_finite) | (later == 0)
    return fits


def once_more(term: Tracked, roundings: float, how: Factors) -> Tracked:
    """Track an operand with roundings of its own: those of a dequantized weight, and one if it is merged first."""
    return Tracked(
        term.value, term.magnitude, term.exponent + roundings * how.fmt.unit_roundoff, term.underflow, term.unsure
    )


def merged_first(term: Tracked, left: Tracked, rank: int, how: Factors) -> Tracked:
    """Track a product with B A also where B A comes first: its r products underflow before they meet the left side."""
    under = left.magnitude.sum(axis=1, keepdims=True) * (rank + 2) * how.fmt.half_smallest_subnormal
    under = term.underflow + np.where(term.magnitude > 0, under * max(1.0, how.largest), 0.0)
    return Tracked(term.value, term.magnitude, term.exponent, under, term.unsure)
