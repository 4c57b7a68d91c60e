"""The nearest entry of a codebook, exactly. Clause: ``[blockwise.quantize]``.

Lemma (float64 decides exactly). Let x and a > 0 be float32 numbers and m ≠ 0 a midpoint of at most 29 significant
bits. Then x/a > m if and only if RN_float64(x/a) > m. *Proof.* Rounding is monotone and m is a float64 number, so
x/a ≤ m gives RN(x/a) ≤ m. For x/a > m write x = X·2^i, a = A·2^j, m = M·2^k with integers |X|, A < 2^24, |M| < 2^29:
x − a·m is a nonzero multiple of 2^min(i, j+k). If i ≥ j+k, then |x/a − m| / |m| ≥ 2^(j+k) / (A·|M|·2^(j+k)) > 2^−53;
else it is at least 2^i / (|X|·2^i)·|x/a|/|m|, which also exceeds 2^−53. So x/a lies beyond m by more than |m|·2^−53,
at least half a unit in the last place of m, and rounds to a number above m. Exponents are no matter: quotients and
midpoints of float32 numbers lie between 2^−277 and 2^277, well inside the normal range of float64. ∎ For m = 0 the
sign of x decides.

A codebook whose midpoints need more bits is decided by `_beyond`, which compares 2x with a·(v_i + v_{i+1}) exactly.
"""

import numpy as np

from qloracle.blocks import rectangles
from qloracle.codebooks import Codebook
from qloracle.formats import Array
from qloracle.rounding import widen


def quantize_codes(x: Array, absmax: Array, codebook: Codebook, block_size: int, *, fmt: str | None = None) -> Array:
    """Return the code of every element, given the absmax of its block.

    code = the entry nearest to the real number x/absmax; at an exact midpoint the lower entry. Where absmax is 0, NaN
    or ±inf, or x is NaN: the code of zero. Beyond the outermost entries the codes saturate.

    Parameters
    ----------
    x : array of float32, float16 or bfloat16, any shape
    absmax : array of float32, one for each flat block of `x`
        Any numbers: the rule is total, so that codes can be judged given somebody else's absmax.
    codebook : Codebook
        Any table of float32 entries.
    block_size : int
    fmt : str, optional
        Format of `x` where it is given as bit patterns.

    Returns
    -------
    array of uint8, shape (x.size,)

    Notes
    -----
    Clause ``[blockwise.quantize]``. Rounding points: none; the float64 quotient, or for a table whose midpoints have
    more than 29 bits an exact comparison, decides (lemma above).

    Examples
    --------
    >>> from qloracle.fp4 import FP4
    >>> quantize_codes(np.array([4, -3, 2, 0.5, 0], np.float32), np.array([4], np.float32), FP4, 64)
    array([ 3, 10,  5,  6,  0], dtype=uint8)
    """
    flat = x.reshape(-1)
    codes = np.empty(flat.size, np.uint8)
    with np.errstate(invalid="ignore", over="ignore"):
        for elements, blocks in rectangles(flat.size, block_size):
            part = widen(flat[elements], fmt, "x").astype(np.float64).reshape(blocks.stop - blocks.start, -1)
            scale = absmax[blocks, np.newaxis].astype(np.float64)
            scale = np.where(np.isfinite(scale) & (scale != 0), scale, np.inf)
            quotient = part / scale
            quotient[np.isnan(quotient)] = 0.0
            ranks = _count_below(codebook.midpoints, quotient)
            if not codebook.quotient_decides:
                numbers = np.where(np.isnan(part) | np.isinf(scale), 0.0, part * np.sign(scale))
                divisors = np.broadcast_to(np.where(np.isinf(scale), 1.0, np.abs(scale)), part.shape)
                ranks = _corrected(ranks, numbers, divisors, codebook)
            codes[elements] = codebook.value_order[ranks].reshape(-1)
    return codes


def _count_below(midpoints: Array, quotient: Array) -> Array:
    """Return for each quotient how many midpoints lie below it: its rank among the values."""
    if midpoints.size > 15:
        return np.searchsorted(midpoints, quotient, side="left")
    # So few comparisons, each over a whole array, are several times faster than bisection.
    rank = np.zeros(quotient.shape, np.uint8)
    for midpoint in midpoints:
        rank += quotient > midpoint
    return rank


def _corrected(ranks: Array, x: Array, absmax: Array, codebook: Codebook) -> Array:
    """Return the exact ranks where rounded ones are off by one at most; `absmax` finite and positive, float64.

    By no more than one: neighbouring midpoints differ by at least 2^−26 of the larger, far more than float64 rounds.
    """
    values = codebook.entries[codebook.value_order].astype(np.float64)
    last = len(values) - 1
    rank = ranks.astype(np.int64)
    lower = np.maximum(rank - 1, 0)
    rank -= (rank > 0) & ~_beyond(x, absmax, values[lower], values[np.minimum(lower + 1, last)])
    upper = np.minimum(rank + 1, last)
    rank += (rank < last) & _beyond(x, absmax, values[rank], values[upper])
    return rank


def _beyond(x: Array, absmax: Array, low: Array, high: Array) -> Array:
    """Return whether the real number x/absmax exceeds (low + high)/2, for float32 numbers held as float64.

    2x > absmax·low + absmax·high: both products have 48 bits and are exact; their sum is total + error exactly (Knuth's
    TwoSum), and total is the float64 number nearest to it, so the error matters only where 2x equals total.
    """
    first, second = absmax * low, absmax * high
    total = first + second
    shifted = total - first
    error = (first - (total - shifted)) + (second - shifted)
    beyond: Array = (2 * x > total) | ((2 * x == total) & (error < 0))
    return beyond
