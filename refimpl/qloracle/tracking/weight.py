"""Products with a weight, and what else an implementation may do: apply its scale later, or merge the adapter first.

A weight is a bare entry times a scale: entries[code] · absmax, q · absmax/127, or (q − zero_point) · scale. Where its
rounding is declared to be float32, an implementation may add up products with the bare entries of a block or row and
multiply by the scale afterwards. (Zero points are subtracted before the product.) Beside the roundings that
`SCALE_LATER` counts, with η₀ half the smallest subnormal and e a bare entry of a scale up to (|Ŵ| + η₀)/|e|:

- Ŵ itself may have underflowed, even to 0, and is off by η₀ wherever e is not 0; so may the scale of integer steps e be
  (the quotient by 127), and that counts |e| times: max(1, |e|)·η₀ for the weight;
- a product x·e that underflows is multiplied by the scale afterwards: η₀·(|Ŵ| + η₀)/|e|;
- the scale of integer steps may be multiplied into x first, and what that underflows by counts |e| times.

And the sum of the products x·e must not overflow: 2·Σ|x|·max|e|, the 2 for all roundings, is in range.
"""

from dataclasses import dataclass, replace

import numpy as np

from qloracle.affine import QuantizedAffine, dequantize_affine
from qloracle.blocks import block_count
from qloracle.blockwise import QuantizedBlocks, dequantize_blockwise
from qloracle.errors import reject_value
from qloracle.formats import FLOAT32, Array, Format
from qloracle.int8 import QuantizedInt8
from qloracle.qlora import QuantizedWeight
from qloracle.tracking.adapter import Factors
from qloracle.tracking.interval import Tracked, exact_input, largest_result, product_sum, transposed
from qloracle.tracking.roundings import Roundings

# An implementation that applies a scale later lacks the one rounding of the rule itself, and has up to three of its
# own: the product with the scale, and for INT8 the scale divided by 127, which a constant 1/127 makes two.
SCALE_LATER = 4.0


@dataclass(frozen=True)
class WeightOperand:
    """A weight in a product, and what a scale that is applied later does to the products with bare entries."""

    term: Tracked
    scale: Array  # 0 where no scale is applied later
    largest: float  # of the bare entries' magnitudes; 0 where no scale is applied later

    def transposed(self) -> "WeightOperand":
        """Return the operand of the transpose."""
        return WeightOperand(transposed(self.term), self.scale.T, self.largest)


def bare_entries(weight: QuantizedWeight) -> Array:
    """Return what the scales of a stored weight multiply, as float64: table entries, or steps from the zero point.

    Examples
    --------
    >>> from qloracle.affine import quantize_affine
    >>> bare_entries(quantize_affine(np.float32([[-1, 2]]), qmin=0, qmax=15))
    array([[-5., 10.]])
    """
    if isinstance(weight, QuantizedInt8):
        return weight.codes.astype(np.float64)
    if isinstance(weight, QuantizedAffine):
        steps: Array = dequantize_affine(replace(weight, scale=np.ones_like(weight.scale)), dtype=FLOAT32.name)
        return steps.astype(np.float64)
    ones = np.ones(block_count(int(np.prod(weight.shape)), weight.block_size), np.float32)
    unit = QuantizedBlocks(weight.data, ones, weight.codebook, weight.block_size, weight.shape, weight.dtype)
    entries: Array = dequantize_blockwise(unit, dtype=FLOAT32.name)
    return entries.astype(np.float64)


def stored_input(values: Array, bare: Array, underflow: float) -> Tracked:
    """Track dequantized values whose scale may be applied later: off by `underflow` wherever the code is no zero.

    One that has underflowed to 0 is no exact zero; as its magnitude η₀ is counted, which the real product is within.
    """
    given = exact_input(values)
    present = (bare != 0) & np.isfinite(values)
    size = np.where(present, np.maximum(given.magnitude, FLOAT32.half_smallest_subnormal), given.magnitude)
    return replace(given, magnitude=size, underflow=np.where(present, underflow, 0.0))


def weight_operand(
    weight: Array,
    stored: QuantizedWeight | None,
    roundings: Roundings,
    fmt: Format,
    *,
    fan_in_fan_out: bool = False,
    merged: bool = False,
) -> WeightOperand:
    """Track a weight of shape (d_out, d_in) in products, `merged` with an adapter first or not.

    `stored` is the record that it was dequantized from, if the implementation has no more than that. No scale is
    applied later where a rounding narrower than float32 is declared: that is then made, element by element.
    """
    once = fmt.unit_roundoff if merged else 0.0
    if stored is None or roundings.weight != FLOAT32.name:
        return WeightOperand(replace(exact_input(weight), exponent=once), np.zeros(weight.shape), 0.0)
    bare = np.abs(bare_entries(stored))
    bare = bare.T if fan_in_fan_out else bare
    if bare.shape != weight.shape:
        reject_value("stored", f"of the shape of the weight {weight.shape}", bare.shape)
    largest = float(np.nanmax(bare, initial=0.0))
    given = stored_input(weight, bare, max(1.0, largest) * FLOAT32.half_smallest_subnormal)
    scale = np.divide(given.magnitude + FLOAT32.half_smallest_subnormal, bare, out=np.zeros_like(bare), where=bare > 0)
    term = replace(given, exponent=once + SCALE_LATER * fmt.unit_roundoff)
    return WeightOperand(term, scale, max(largest, 1.0))


def weight_product(left: Tracked, weight: WeightOperand, fmt: Format) -> Tracked:
    """Track left @ weight, also where the scale of the weight is applied later."""
    product = product_sum(left, weight.term, fmt)
    if not weight.largest:
        return product
    under = (left.magnitude > 0) @ weight.scale + left.magnitude.shape[1] * weight.largest
    under = np.where(product.magnitude > 0, product.underflow + under * fmt.half_smallest_subnormal, 0.0)
    return replace(product, underflow=under)


def later_fits(left: Tracked, weight: WeightOperand, fmt: Format) -> Array:
    """Return for every row whether a sum of its products with bare entries stays in range."""
    size = largest_result(left).sum(axis=1, keepdims=True) * weight.largest * 2
    fits: Array = (size < fmt.largest_finite) | (weight.largest == 0)
    return fits


def merged_first(term: Tracked, left: Tracked, rank: int, how: Factors) -> Tracked:
    """Track a product with B A also where B A comes first: its r products underflow before they meet the left side."""
    under = left.magnitude.sum(axis=1, keepdims=True) * (rank + 2) * how.fmt.half_smallest_subnormal
    under = term.underflow + np.where(term.magnitude > 0, under * max(1.0, how.largest), 0.0)
    return Tracked(term.value, term.magnitude, term.exponent, under, term.unsure)
