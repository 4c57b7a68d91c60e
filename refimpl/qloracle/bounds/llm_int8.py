"""Which results of LLM.int8() are allowed, given the decomposition of its input.

Clause: ``[bounds.llm_int8]``. The common derivation stands in `tracking`.
"""

import numpy as np

from qloracle.bounds.int8_linear import free_product, shaped, unscaled_fits
from qloracle.bounds.scale import scales_fit, scaling_underflow
from qloracle.decomposition import Decomposed
from qloracle.formats import FLOAT32, Array, format_named
from qloracle.int8 import QuantizedInt8
from qloracle.int8_product import int8_matmul
from qloracle.llm_int8 import linear_parts, llm_int8_forward
from qloracle.operands import as_rows, real_operand
from qloracle.tracking.interval import Interval, Tracked, exact_input, interval, largest_result, rounded_to
from qloracle.tracking.roundings import Roundings, accumulation_format

_SCALING = 5 + 2 / 16  # roundings of acc · row · column / 127², see `bounds.scale`


def llm_int8_forward_bound(
    x: Array, weight: QuantizedInt8, parts: Decomposed, original: Array | None = None, *,
    outlier_weight: str = "original", bias: Array | None = None, roundings: Roundings = Roundings(),
) -> Interval:  # fmt: skip
    """Bound every evaluation of `llm_int8.llm_int8_forward` that has the declared rounding points.

    Parameters
    ----------
    x, weight, original, outlier_weight, bias
        As for `llm_int8.llm_int8_forward`.
    parts : Decomposed
        The decomposition of x: codes and absmax are exact by their own rules.
    roundings : Roundings
        `accumulate`; `weight`, for outlier weights that are dequantized; `intermediate`, what the INT8 part and the
        part of the outliers are rounded to before they are added.

    Returns
    -------
    Interval
        Arrays of the shape of y, before the rounding to the output format. Not judged where a part, or the sum of
        products of codes, could overflow the accumulator or its declared format.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        As `llm_int8.llm_int8_forward` and `weight_only_forward_bound`.

    Notes
    -----
    Clause ``[bounds.llm_int8]``. Roundings on a path: 5 1/8 for the scales of the INT8 part, which may underflow, see
    `bounds.scale`; as many as there are outlier columns for their products, and where they are
    dequantized the scale of their weights as in `weight_only_forward_bound`; the declared intermediate one for each
    part; in the sum of both parts and the bias one addition for each addend of the others.

    Examples
    --------
    >>> from qloracle.decomposition import decompose
    >>> from qloracle.int8 import quantize_int8
    >>> w, x = np.float32([[127, 1]]), np.float32([[2, 9]])
    >>> weight = quantize_int8(w, granularity="row")
    >>> bound = llm_int8_forward_bound(x, weight, decompose(x, 6.0), w)
    >>> bound.lo <= 263, bound.hi >= 263
    (array([[ True]]), array([[ True]]))
    """
    value = llm_int8_forward(
        x, weight, original, parts=parts, bias=bias, outlier_weight=outlier_weight, weight_rounding=roundings.weight
    )
    scaled_part, rows, dense = linear_parts(x, weight, original, parts, outlier_weight, roundings.weight)
    fmt, exact = accumulation_format(roundings), exact_input(scaled_part)
    acc = int8_matmul(as_rows(parts.codes), weight.codes)
    tiny = scaling_underflow(scaled_part, acc, parts.absmax, weight.absmax, fmt)
    integer = Tracked(scaled_part, exact.magnitude, _SCALING * fmt.unit_roundoff, tiny, exact.unsure)
    free = outlier_weight == "dequantized" and roundings.weight == FLOAT32.name
    floating = free_product(rows, dense.T, weight.codes[:, parts.outliers].T if free else None, fmt)
    halves = [rounded_to(part, roundings.intermediate, fmt) for part in (integer, floating)]
    terms = [(halves[0], 1), (halves[1], rows.shape[1])]
    if bias is not None:
        terms.append((exact_input(np.broadcast_to(real_operand(bias, "bias"), scaled_part.shape)), 1))
    fits = unscaled_fits(rows, fmt) if free else np.ones((1, 1), np.bool_)
    largest = min(fmt.largest_finite, format_named(roundings.intermediate).largest_finite)
    for half in halves:
        fits = fits & (largest_result(half) < largest)
    fits = fits & scales_fit(acc, parts.absmax, weight.absmax, fmt)
    fits = fits & (np.abs(acc.astype(np.float64)) * np.exp(fmt.unit_roundoff) < fmt.largest_finite)
    return shaped(interval(fmt, *terms), fits, value.shape)
