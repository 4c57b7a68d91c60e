"""Which results of a product with a quantized weight are allowed.

Clause: ``[bounds.matmul]``. The derivation stands in `tracking`.
"""

import numpy as np

from qloracle.formats import Array
from qloracle.operands import as_rows, real_operand, real_rows, real_vector
from qloracle.qlora import QuantizedWeight, qlora_weight
from qloracle.tracking.adapter import reshaped, sum_fits
from qloracle.tracking.interval import Interval, Tracked, exact_input, interval, rounded_to
from qloracle.tracking.roundings import Roundings, accumulation_format
from qloracle.tracking.weight import later_fits, weight_operand, weight_product


def quantized_matmul_bound(
    x: Array, weight: QuantizedWeight, *, bias: Array | None = None, roundings: Roundings = Roundings()
) -> Interval:
    """Bound every evaluation of `quantized_matmul` that has the declared rounding points.

    Parameters
    ----------
    x, weight, bias
        As for `quantized_product.quantized_matmul`; the weight is rounded to the declared format.
    roundings : Roundings

    Returns
    -------
    Interval
        Arrays of the shape of y, before the rounding to the output format.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        As `quantized_matmul`.

    Notes
    -----
    Clause ``[bounds.matmul]``. Roundings on a path: K for x Wᵀ, those of `tracked_weight.SCALE_LATER`, one for the
    bias, and the declared one of the base. Not judged where a sum of products with bare entries could overflow.

    Examples
    --------
    >>> from qloracle import quantize_blockwise
    >>> one = np.ones((1, 1), np.float32)
    >>> found = quantized_matmul_bound(one, quantize_blockwise(3 * one))
    >>> bool(found.lo[0, 0] < 3 < found.hi[0, 0]), bool(found.hi[0, 0] - found.lo[0, 0] < 3 * 11 * 2.0**-24)
    (True, True)
    """
    fmt = accumulation_format(roundings)
    x64, w64 = real_rows(x), real_operand(qlora_weight(weight, weight_rounding=roundings.weight), "weight")
    rows, operand = exact_input(as_rows(x64)), weight_operand(w64, weight, roundings, fmt).transposed()
    base = weight_product(rows, operand, fmt)
    biases: list[Tracked] = []
    if bias is not None:
        biases.append(exact_input(np.broadcast_to(real_vector(bias, len(w64), "bias"), base.value.shape)))
    rounded = [rounded_to(term, roundings.base, fmt, "base") for term in (base, *biases)]
    total = interval(fmt, *zip(rounded, (w64.shape[1], 1), strict=False))
    fit = sum_fits(roundings.base, fmt, base, *biases) & later_fits(rows, operand, fmt)
    return reshaped(total, fit, (*x64.shape[:-1], len(w64)))
