"""Which results of scaling an integer product are allowed.

Clause: ``[bounds.scale]``. The derivation stands in `tracking`.
"""

import numpy as np

from qloracle.formats import FLOAT32, Array, Format
from qloracle.int8_product import scale_int8_matmul
from qloracle.operands import real_operand
from qloracle.tracking.interval import Interval, Tracked, exact_input, interval


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
    intermediate result may overflow or underflow where the product itself is finite and normal; below that any may
    underflow, see `scaling_underflow`. A product of 0 is not judged where the scale alone overflows.
    """
    with_bias = scale_int8_matmul(acc, row_absmax, column_absmax, bias)
    value = with_bias if bias is None else scale_int8_matmul(acc, row_absmax, column_absmax)
    exact = exact_input(value)
    tiny = scaling_underflow(value, acc, row_absmax, column_absmax, FLOAT32)
    terms = [(Tracked(value, exact.magnitude, (5 + 2 / 16) * FLOAT32.unit_roundoff, tiny, exact.unsure), 1)]
    if bias is not None:
        terms.append((exact_input(np.broadcast_to(real_operand(bias, "bias"), value.shape)), 1))
    found = interval(FLOAT32, *terms)
    return Interval(found.lo, found.hi, found.judged & scales_fit(acc, row_absmax, column_absmax, FLOAT32))


def scales_fit(acc: Array, row: Array, column: Array, fmt: Format) -> Array:
    """Return where an accumulator of 0 does not meet a row · column / 127² that overflows."""
    with np.errstate(invalid="ignore"):
        scale = row.astype(np.float64).reshape(-1, 1) * column.astype(np.float64).reshape(1, -1) / 127**2
        fit: Array = ~(scale * (1 + 2.0**-6) >= fmt.largest_finite) | ~np.isfinite(scale) | (acc != 0)
    return fit


def scaling_underflow(value: Array, acc: Array, row: Array, column: Array, fmt: Format) -> Array:
    """Return by how much operations that underflow may move acc · row · column / 127², where that is subnormal.

    Half the smallest subnormal for each, times the factors that are multiplied in later: |acc| after the product of row
    and column, max(row, 1) and max(column, 1) after that of the accumulator with the other, and 1 for each of the last
    two. The scale of a row alone, even by 127², underflows only below 127² times the smallest normal number, and is
    multiplied by |acc|·column then; the scale of a column likewise.
    """
    smallest = 2.0**fmt.minimum_exponent
    count = np.abs(acc.astype(np.float64))
    r, c = (np.abs(np.where(np.isfinite(v), v, 0.0)).astype(np.float64) for v in (row, column))
    r, c = r.reshape(-1, 1), c.reshape(1, -1)
    alone = np.where(r < 127**2 * smallest, c, 0.0) + np.where(c < 127**2 * smallest, r, 0.0)
    under = count * (1 + alone) + np.maximum(r, 1) + np.maximum(c, 1) + 2
    small = (value != 0) & (np.abs(value) < smallest)
    return np.where(small, under * fmt.half_smallest_subnormal, 0.0)
