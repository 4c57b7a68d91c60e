"""Numerics of INT8 elements: the nearest code and the value of a code, exact without float64 for every element.

Codes. t = x·fl32(127/absmax) is within 127·2^−23 < 2^−16 of the real 127·x/absmax. Its nearest integer can be wrong
only where t lies that close to a half h; there 127·x and h·absmax, which float64 holds exactly, decide.

Values. The real q·a/127 is never halfway between two float32 numbers: 127 is prime, so that either 127 divides the
significand of a, or |q| = 127, and the quotient is a float32 number; or it has no end. In the latter case it differs
from every such midpoint by at least 2^−33 of itself (|q| = 128 included), since 127 times the difference is a multiple
of a quarter unit. So a/127 is taken as s₁ + s₂ of 17 bits each, off by little more than 2^−34; q·s₁ and q·s₂ are exact,
and their float32 sum is the quotient, rounded once. Below 2^−90 s₂ would lose bits, near the largest float32 127·s₁
might overflow: a tile with such an absmax, or with NaN, takes float64.
"""

import triton
import triton.language as tl


@triton.jit
def nearest_int8(x, absmax):
    """Return the integer nearest to 127·x/absmax, ties to even, as int32; x is zero where absmax is zero or NaN."""
    factor = tl.where(absmax < 2.0**-64, 2.0**64, 1.0)
    known = tl.where(absmax > 0, absmax * factor, 1.0)
    scale = tl.div_rn(tl.full(known.shape, 127.0, tl.float32), known)
    guess = tl.minimum(tl.maximum(x * factor * scale, -127.0), 127.0)
    whole = (guess + 12582912.0) - 12582912.0  # 1.5·2^23: what is added to it is rounded to an integer
    rest = guess - whole
    code = whole.to(tl.int32)
    near = tl.abs(rest) >= 0.5 - 2.0**-15
    if tl.max(tl.max(near.to(tl.int32), axis=1), axis=0) > 0:
        low = tl.where(rest < 0, code - 1, code)
        exact = x.to(tl.float64) * 127.0
        half = (low.to(tl.float64) + 0.5) * absmax.to(tl.float64)
        up = (exact > half) | ((exact == half) & ((low & 1) == 1))
        code = tl.where(near, low + up.to(tl.int32), code)
    return code


@triton.jit
def short_half(x):
    """Return float32 rounded to 17 significant bits."""
    return ((x.to(tl.int32, bitcast=True) + 0x40) & -0x80).to(tl.float32, bitcast=True)


@triton.jit
def scaled_int8(codes, absmax):
    """Return fl32(code·absmax/127), the quotient real; +0 where either is zero."""
    first = short_half(tl.div_rn(absmax, tl.full(absmax.shape, 127.0, tl.float32)))
    left = absmax - first * 127.0  # exact, and so is the product
    second = short_half(tl.div_rn(left, tl.full(absmax.shape, 127.0, tl.float32)))
    q = codes.to(tl.float32)
    value = tl.where(absmax == 0, 0.0, q * first + q * second)
    ordinary = ((absmax >= 2.0**-90) & (absmax < 2.0**127)) | (absmax == 0)
    if tl.min(tl.min(ordinary.to(tl.int32), axis=1), axis=0) == 0:
        quotient = codes.to(tl.float64) * absmax.to(tl.float64) / 127.0
        value = tl.where(quotient == 0, 0.0, quotient).to(tl.float32)
    return value
