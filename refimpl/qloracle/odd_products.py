"""Products of float32 numbers and a float64 factor, kept so that one later rounding is the only one.

Rounding *to odd*: a product that float64 cannot hold keeps its neighbour with an odd last bit, which no format of 51
bits or fewer can represent or tie at; rounding it once more gives what the exact product gives (Boldo and Melquiond
2008, "Emulation of FMA and Correctly Rounded Sums").
"""

import numpy as np

from qloracle.formats import Array

_SPLIT = 2.0**27 + 1  # Dekker 1971: halves of at most 26 bits each


def odd_product(values: Array, factor: float) -> Array:
    """Return values · factor in float64, rounded to odd.

    Parameters
    ----------
    values : array of float32
        Finite numbers.
    factor : float
        From 2^−126 to 2^127 in magnitude, so that nothing below overflows or underflows.

    Returns
    -------
    array of float64

    Notes
    -----
    With factor = high + low, halves of at most 26 bits, both products with 24 bits are exact; their sum rounded to
    nearest and the error of that rounding (Knuth 1997, "TwoSum") tell on which side the exact product lies.

    Examples
    --------
    >>> odd_product(np.array([3], np.float32), 0.1).item().hex()
    '0x1.3333333333333p-2'
    """
    spread = factor * _SPLIT
    high = spread - (spread - factor)
    large, small = values.astype(np.float64) * high, values.astype(np.float64) * (factor - high)
    total = large + small
    back = total - large
    error = (large - (total - back)) + (small - back)
    even = np.asarray(total).view(np.int64) % 2 == 0
    odd = np.where((error != 0) & even, np.nextafter(total, np.copysign(np.inf, error)), total)
    return np.where(values == 0, large, odd)  # a zero keeps its sign
