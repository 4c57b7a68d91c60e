"""Which results of scaling an integer product are allowed.

Clause: ``[bounds.scale]``. The derivation stands in `tracking`.
"""

import numpy as np

from qloracle.formats import FLOAT32, Array
from qloracle.int8_product import scale_int8_matmul
from qloracle.operands import real_operand
from qloracle.tracking import Interval, Tracked, exact_input, interval


def scale_int8_matmul_bound(acc: Array, row_absmax: Array, column_absmax: Array, bias: Array | None = None) -> Interval:
    """Bound every evaluation of `scale_int8_matmul` in float32 with at most five roundings, and one for the bias.

    Parameters
    ----------
    acc, row_absmax, column_absmax, bias
        As for `int8.scale_int8_matmul`.

    Returns
    -------
    Interval
        Arrays of shape (M, N).

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        As `int8.scale_int8_matmul`.

    Notes
    -----
    Clause ``[bounds.scale]``. Roundings on a path: the accumulator as float32; row/127 and column/127; the product of
    the two, and that with the accumulator; the bias. With constants instead of quotients the float32 number nearest to
    1/127 is off by u/16, and that counts twice; 1/127² is off by less than a third of u, but needs a product less. No
    intermediate result may overflow or underflow where the product itself is finite and normal; below that the last two
    operations may underflow.
    """
    with_bias = scale_int8_matmul(acc, row_absmax, column_absmax, bias)
    value = with_bias if bias is None else scale_int8_matmul(acc, row_absmax, column_absmax)
    exact = exact_input(value)
    small = (exact.magnitude > 0) & (exact.magnitude < 2.0**FLOAT32.minimum_exponent)
    tiny = np.where(small, 2 * FLOAT32.half_smallest_subnormal, 0.0)
    terms = [(Tracked(value, exact.magnitude, (5 + 2 / 16) * FLOAT32.unit_roundoff, tiny, exact.unsure), 1)]
    if bias is not None:
        terms.append((exact_input(np.broadcast_to(real_operand(bias, "bias"), value.shape)), 1))
    return interval(FLOAT32, *terms)
