"""The exact mean of the absmax, rounded once. Clause: ``[double_quant.offset]``."""

import numpy as np

from qloracle.blocks import CHUNK, require_float32
from qloracle.formats import Array


def mean_offset(absmax: Array) -> np.float32:
    """Return the mean of the absmax, rounded once.

    offset = RN_float32(Σ absmax_i / n), the sum exact, over the blocks that are not poisoned; +0 if there is none.

    Parameters
    ----------
    absmax : array of float32
        Any finite numbers, and NaN for poisoned blocks.

    Returns
    -------
    numpy.float32

    Raises
    ------
    ArgumentTypeError
        If `absmax` is not float32.

    Notes
    -----
    Clause ``[double_quant.offset]``. Rounding points: one. A float64 sum divided by n rounds twice or more: the mean
    of [4, 2^−22, 2^−100, 0] lies just above a tie and is 1 + 2^−23.

    Examples
    --------
    >>> float(mean_offset(np.array([4, 2**-22, 2**-100, 0], np.float32))).hex()
    '0x1.0000020000000p+0'
    """
    numbers, total, count = require_float32("absmax", absmax).reshape(-1), 0, 0
    for start in range(0, numbers.size, CHUNK):
        part = numbers[start : start + CHUNK]
        finite = part[np.isfinite(part)]
        total, count = total + exact_sum(finite), count + finite.size
    return round_ratio(total, count, -149) if count else np.float32(0)


def exact_sum(values: Array) -> int:
    """Return Σ values as an integer multiple of 2^−149, exactly; `values` are finite float32."""
    words = values.view(np.uint32)
    field = ((words >> 23) & 0xFF).astype(np.int64)
    significand = (words & 0x7FFFFF).astype(np.int64) | (np.minimum(field, 1) << 23)
    signed = np.where(words >> 31 != 0, -significand, significand)
    total = 0
    # Within one exponent 2^39 significands of 24 bits fit int64.
    for exponent in np.unique(field).tolist():
        total += int(np.sum(signed[field == exponent], dtype=np.int64)) << (max(exponent, 1) - 1)
    return total


def round_ratio(numerator: int, denominator: int, exponent: int) -> np.float32:
    """Return RN_float32(numerator / denominator · 2^exponent) in a single rounding, for integers.

    The quotient is cut to about 50 bits and its last bit set if anything was cut off (rounding to odd); what remains
    fits float64, and the one rounding left is the cast to float32.
    """
    shift = 50 - (abs(numerator).bit_length() - denominator.bit_length())
    scaled = abs(numerator) << max(shift, 0)
    quotient, remainder = divmod(scaled, denominator << max(-shift, 0))
    odd = float(quotient | (remainder != 0))
    magnitude = np.ldexp(np.float64(odd), exponent - shift)
    return np.float32(-magnitude if numerator < 0 else magnitude)
