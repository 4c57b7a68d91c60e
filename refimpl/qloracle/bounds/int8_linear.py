"""Which results of a layer with a quantized weight are allowed.

Clause: ``[bounds.weight_only]``. The common derivation stands in `tracking`.

A dequantized weight Ŵ is exact by its own rule. Where it is declared to be float32, an implementation may as well leave
it a product and apply the scale anywhere, to the sum or to the other operand: Ŵ itself is one rounding away from the
real (q − zero_point)·scale, or q·absmax/127, and the scale costs three more (the quotient by 127, or the constant 1/127
that is off by u/16; two products). A scale that is subnormal, or a product with it, is off by half the smallest
subnormal times a code of at most 2^8; so is a Ŵ that has underflowed, to 0 too, wherever the code is not that of zero.
The sum of codes times activations then must not overflow.
"""

import numpy as np

from qloracle.formats import FLOAT32, Array, Format
from qloracle.int8_linear import QuantizedMatrix, weight_only_backward, weight_only_forward, weight_values
from qloracle.operands import as_rows, real_operand
from qloracle.tracking.interval import Interval, Tracked, exact_input, interval, product_sum, row_sum
from qloracle.tracking.roundings import Roundings, accumulation_format
from qloracle.tracking.weight import bare_entries, stored_input

LARGEST_STEPS = 2.0**8  # of a code from its zero point
_FREE_SCALE = 4 + 1 / 16  # roundings of a weight whose scale may be applied elsewhere


def weight_only_forward_bound(
    x: Array, weight: QuantizedMatrix, *, bias: Array | None = None, roundings: Roundings = Roundings()
) -> Interval:
    """Bound every evaluation of `int8_linear.weight_only_forward` that has the declared rounding points.

    Parameters
    ----------
    x, weight, bias
        As for `int8_linear.weight_only_forward`.
    roundings : Roundings
        `accumulate`, and `weight`: what the dequantized weight is rounded to.

    Returns
    -------
    Interval
        Arrays of the shape of y, before the rounding to the output format. Not judged where M, or the sum of codes
        times activations, could overflow the accumulator.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        As `int8_linear.weight_only_forward`, and if the accumulation format is unknown or finer than float32.

    Notes
    -----
    Clause ``[bounds.weight_only]``. Roundings on a path: K for x Ŵᵀ; 4 1/16 for the scale, where the weight is declared
    float32; one for the bias.

    Examples
    --------
    >>> from qloracle.int8 import quantize_int8
    >>> bound = weight_only_forward_bound(np.float32([[1, 2]]), quantize_int8(np.float32([[127, 1]])))
    >>> bound.lo <= 129, bound.hi >= 129
    (array([[ True]]), array([[ True]]))
    """
    value = weight_only_forward(x, weight, bias=bias, weight_rounding=roundings.weight)
    fmt, rows = accumulation_format(roundings), as_rows(real_operand(x, "x"))
    product = free_product(rows, _values(weight, roundings).T, _free_codes(weight, roundings, transpose=True), fmt)
    terms = [(product, rows.shape[1])]
    if bias is not None:
        terms.append((exact_input(np.broadcast_to(real_operand(bias, "bias"), product.value.shape)), 1))
    return shaped(interval(fmt, *terms), _judged(rows, roundings, fmt), value.shape)


def weight_only_backward_bound(
    dy: Array, weight: QuantizedMatrix, *, roundings: Roundings = Roundings()
) -> dict[str, Interval]:
    """Bound every evaluation of `int8_linear.weight_only_backward`, and so of `llm_int8.llm_int8_backward`.

    Parameters
    ----------
    dy, weight
        As for `int8_linear.weight_only_backward`.
    roundings : Roundings
        `accumulate`, and `weight`: what the dequantized weight is rounded to.

    Returns
    -------
    dict
        Intervals for "x" and "bias", of the shapes of the gradients.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        As `weight_only_forward_bound`.

    Notes
    -----
    Clause ``[bounds.weight_only]``. Roundings on a path: N for dy Ŵ; 4 1/16 for the scale, where the weight is declared
    float32; one less than there are rows for the bias.

    Examples
    --------
    >>> from qloracle.int8 import quantize_int8
    >>> bounds = weight_only_backward_bound(np.float32([[3]]), quantize_int8(np.float32([[127, 1]])))
    >>> bounds["x"].lo <= [[381, 3]], bounds["bias"].hi
    (array([[ True,  True]]), array([3.]))
    """
    shape = weight_only_backward(dy, weight, weight_rounding=roundings.weight).x.shape
    fmt, rows = accumulation_format(roundings), as_rows(real_operand(dy, "dy"))
    product = free_product(rows, _values(weight, roundings), _free_codes(weight, roundings), fmt)
    total = row_sum(exact_input(rows), fmt)
    whole = interval(fmt, (product, rows.shape[1]))
    return {
        "x": shaped(whole, _judged(rows, roundings, fmt), shape),
        "bias": shaped(interval(fmt, (total, max(len(rows), 1))), np.ones((1, 1), np.bool_), rows.shape[1:]),
    }


def free_product(rows: Array, values: Array, codes: Array | None, fmt: Format) -> Tracked:
    """Track rows @ values, weights whose scale an implementation may apply elsewhere if their codes are given.

    `codes` count from the zero point: only a code of 0 is an exact zero.
    """
    if codes is None:
        return product_sum(exact_input(rows), exact_input(values), fmt)
    term = product_sum(exact_input(rows), stored_input(values, codes, 0.0), fmt)
    lost = LARGEST_STEPS * fmt.half_smallest_subnormal
    # In the weight, for which it is multiplied by the activation; or in the other operand, or in the sum.
    under = np.abs(np.where(np.isfinite(rows), rows, 0.0)).sum(axis=1, keepdims=True) * lost + len(values) * lost
    under = np.where(term.magnitude > 0, term.underflow + under, 0.0)
    exponent = term.exponent + _FREE_SCALE * fmt.unit_roundoff
    return Tracked(term.value, term.magnitude, exponent, under, term.unsure)


def unscaled_fits(rows: Array, fmt: Format) -> Array:
    """Return where the sum of codes times activations cannot overflow the accumulator."""
    magnitude = np.abs(np.where(np.isfinite(rows), rows, 0.0)).sum(axis=1, keepdims=True)
    fits: Array = magnitude * LARGEST_STEPS * 2 < fmt.largest_finite
    return fits


def shaped(whole: Interval, fits: Array, shape: tuple[int, ...]) -> Interval:
    """Return an interval as an array of another shape, judged only where everything fits."""
    judged = whole.judged & fits
    return Interval(whole.lo.reshape(shape), whole.hi.reshape(shape), judged.reshape(shape))


def _judged(rows: Array, roundings: Roundings, fmt: Format) -> Array:
    free = roundings.weight == FLOAT32.name
    return unscaled_fits(rows, fmt) if free else np.ones((1, 1), np.bool_)


def _free_codes(weight: QuantizedMatrix, roundings: Roundings, *, transpose: bool = False) -> Array | None:
    """Return the codes from their zero points, where the scale may be applied elsewhere."""
    if roundings.weight != FLOAT32.name:
        return None
    codes = bare_entries(weight)
    return codes.T if transpose else codes


def _values(weight: QuantizedMatrix, roundings: Roundings) -> Array:
    return weight_values(weight, weight_rounding=roundings.weight).astype(np.float64)
