"""Scale and zero point: what an affine quantizer makes of a range.

Clauses: ``[affine.scale]``, ``[affine.zero_point]``.

Lemma (scale). Let lo ≤ 0 ≤ hi be float32 numbers, n < 2^9 a positive integer, and d the real hi − lo rounded to odd in
float64. Then RN_float32(RN_float64(d/n)) = RN_float32((hi − lo)/n). *Proof.* A midpoint m of neighbouring float32
numbers has at most 25 bits, and p = m·n at most 34, so rounding to odd keeps hi − lo on its side of p, and d = p only
if hi − lo = p (Boldo and Melquiond 2008). A float64 number d ≠ p differs from p by more than 2^−53·p, for p is no
power of two unless the sum is so small that it is exact; so d/n differs from m by more than 2^−53·m, which is at least
half a unit in the last place of m, and does not round to it. ∎
Lemma (zero point). For t = −lo/scale, float64 decides on which side of k + ½ the real t lies, and whether it is equal:
the argument of `blockwise`, for k + ½ has at most 29 bits where the result is not clipped. The integer and the fraction
of RN_float64(t) are exact, so qmin is added to the integer, and the parity of the sum decides a tie. ∎
"""

import numpy as np

from qloracle.blocks import CHUNK
from qloracle.errors import reject_value, require_dtype, require_integer
from qloracle.formats import Array


def require_code_range(qmin: int, qmax: int) -> tuple[int, int]:
    """Return qmin and qmax if codes from one to the other fit int8 or uint8 and are at least three, else raise."""
    low, high = require_integer("qmin", qmin, "an integer"), require_integer("qmax", qmax, "an integer")
    if high - low < 2:
        reject_value("qmax", f"at least qmin + 2, here {low + 2}", high)
    if low < -128 or high > (127 if low < 0 else 255):
        reject_value("qmin and qmax", "within -128 to 127, or 0 to 255", f"{low} and {high}")
    return low, high


def affine_parameters(lo: Array, hi: Array, *, qmin: int, qmax: int) -> tuple[Array, Array]:
    """Return scale and zero point of the codes qmin to qmax for values from lo to hi.

    scale = fl32((max(hi, 0) − min(lo, 0))/(qmax − qmin));
    zero_point = clip(RN_int(qmin − min(lo, 0)/scale), qmin, qmax), ties to even.

    Parameters
    ----------
    lo, hi : array of float32, of one shape
        The range of each group, lo ≤ hi; it is widened to contain 0, so that 0 has a code of its own. NaN in either
        end, or an infinite one, marks a poisoned group.
    qmin, qmax : int
        The smallest and the largest code: −128 and 127, 0 and 255, −8 and 7, 0 and 15, or others of at most 8 bits.

    Returns
    -------
    scale : array of float32
        Real quotients rounded once. 1 where that is 0: the range has no width, or one of at most
        2^−150·(qmax − qmin). NaN for a poisoned group.
    zero_point : array of int32
        The code of 0; clip(0, qmin, qmax) where the scale is such a 1 or NaN.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If a range is not float32, its ends differ in shape or are the wrong way round, or the codes do not fit 8 bits.

    Notes
    -----
    Clauses ``[affine.scale]``, ``[affine.zero_point]``. Rounding points, in order: the scale to float32; the zero point
    to an integer, its quotient real given the stored scale.

    References
    ----------
    Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference",
    sections 2.1 and 3.

    Examples
    --------
    >>> scale, zero_point = affine_parameters(np.float32([-1.0]), np.float32([3.0]), qmin=0, qmax=255)
    >>> scale, zero_point
    (array([0.01568628], dtype=float32), array([64], dtype=int32))
    """
    low, high = require_code_range(qmin, qmax)
    lo, hi = require_range(lo, hi)
    scale, zero_point = np.empty(lo.shape, np.float32), np.empty(lo.shape, np.int32)
    ends, found = (lo.reshape(-1), hi.reshape(-1)), (scale.reshape(-1), zero_point.reshape(-1))
    for start in range(0, lo.size, CHUNK):
        part = slice(start, start + CHUNK)
        found[0][part] = _scale_or_one(ends[0][part], ends[1][part], high - low)
        found[1][part] = zero_point_of(ends[0][part], ends[1][part], found[0][part], low, high)
    return scale, zero_point


def zero_point_of(lo: Array, hi: Array, scale: Array, qmin: int, qmax: int) -> Array:
    """Return clip(RN_int(qmin − min(lo, 0)/scale)), ties to even, given any scale; see `affine_parameters`.

    clip(0, qmin, qmax) where the range or the scale is not finite, the scale is 0, or the range has no width: none
    that float32 can divide by qmax − qmin.

    Notes
    -----
    Clause ``[affine.zero_point]``. Rounding points: one, to an integer; float64 decides exactly (second lemma).
    """
    wide = _scale(lo, hi, qmax - qmin) > 0
    usable = wide & np.isfinite(scale) & (scale != 0)
    divisor = np.where(usable, scale, np.float32(np.inf)).astype(np.float64)
    quotient = -np.where(usable, np.minimum(lo, 0), 0).astype(np.float64) / divisor
    whole = np.floor(quotient)
    fraction, below = quotient - whole, whole + qmin
    up = (fraction > 0.5) | ((fraction == 0.5) & (np.mod(below, 2) == 1))
    return np.asarray(np.clip(np.where(usable, below + up, 0), qmin, qmax).astype(np.int32))


def require_range(lo: Array, hi: Array) -> tuple[Array, Array]:
    """Return both ends of a range as arrays in the machine's byte order, or raise."""
    for argument, end in (("lo", lo), ("hi", hi)):
        require_dtype(argument, end, "float32")
    lo, hi = (np.asarray(end, np.float32) for end in (lo, hi))
    if lo.shape != hi.shape:
        reject_value("hi", f"of the shape of lo {lo.shape}", hi.shape)
    if np.any(lo > hi):
        first = np.flatnonzero(lo > hi)[0]
        reject_value("hi", f"not below lo, here {lo.flat[first]}", hi.flat[first])
    return lo, hi


def _scale_or_one(lo: Array, hi: Array, steps: int) -> Array:
    """Return the scale of each range: 1 where the quotient rounds to 0, NaN where an end is not finite."""
    scale = _scale(lo, hi, steps)
    poisoned = ~(np.isfinite(lo) & np.isfinite(hi))
    return np.where(poisoned, np.float32(np.nan), np.where(scale == 0, np.float32(1), scale))


def _scale(lo: Array, hi: Array, steps: int) -> Array:
    """Return RN_float32((max(hi, 0) − min(lo, 0))/steps); 0 where an end is not finite.

    The float64 difference is rounded to odd before it is divided (first lemma).
    """
    usable = np.isfinite(lo) & np.isfinite(hi)
    top = np.where(usable, np.maximum(hi, 0), 0).astype(np.float64)
    bottom = -np.where(usable, np.minimum(lo, 0), 0).astype(np.float64)
    total = np.asarray(top + bottom)
    kept = total - top
    lost = (top - (total - kept)) + (bottom - kept)  # the exact error of the sum (Knuth, TwoSum)
    words = total.view(np.int64)
    odd = words + np.where(words & 1 == 0, np.sign(lost), 0).astype(np.int64)
    return (odd.view(np.float64) / steps).astype(np.float32)
