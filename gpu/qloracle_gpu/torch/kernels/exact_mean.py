"""The mean of float32 numbers on the device itself: the exact sum in integers, divided and rounded once.

A finite float32 is an integer times 2^−149. The sum of such integers is kept in digits of 24 bits, each in an int64
that takes 2^39 of them without overflow; integers add in any order, so that atomic additions are deterministic. The
digits are carried, divided by the count in long division, and the quotient is rounded to nearest, ties to even.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from qloracle_gpu.torch.kernels.availability import OPTIONS, on_device_of, tile_size

_TILE = tile_size(1024)
DIGIT = 24  # bits
SUMS = 12  # digits of a float32 as an integer: 277 bits
DIGITS = 14  # of a sum of 2^39: 316 bits
COUNT = 14  # where the number of summands stands
SIGN = 15  # where −1 stands if the sum is negative, else 0
SLOTS = 16


@triton.jit
def sum_kernel(x_ptr, sums_ptr, size, TILE: tl.constexpr, DIGIT: tl.constexpr, SUMS: tl.constexpr,
               COUNT: tl.constexpr):  # fmt: skip
    """Add the digits of TILE numbers, NaN and infinities left out, and count them."""
    places = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)
    words = tl.load(x_ptr + places, mask=places < size, other=float("nan")).to(tl.int32, bitcast=True)
    field = (words >> 23) & 0xFF
    finite = field != 0xFF
    significand = ((words & 0x7FFFFF) | (tl.minimum(field, 1) << 23)).to(tl.int64)
    power = tl.maximum(field, 1) - 1
    lowest = power // DIGIT
    value = significand << (power % DIGIT).to(tl.int64)
    sign = tl.where(words < 0, -1, 1).to(tl.int64)
    low = tl.where(finite, (value & ((1 << DIGIT) - 1)) * sign, 0)
    high = tl.where(finite, (value >> DIGIT) * sign, 0)
    for digit in tl.static_range(SUMS):
        total = tl.sum(tl.where(lowest == digit, low, 0) + tl.where(lowest == digit - 1, high, 0), axis=0)
        tl.atomic_add(sums_ptr + digit, total, mask=total != 0, sem="relaxed")
    tl.atomic_add(sums_ptr + COUNT, tl.sum(finite.to(tl.int64), axis=0), sem="relaxed")


@triton.jit
def carry_kernel(sums_ptr, digits_ptr, DIGIT: tl.constexpr, DIGITS: tl.constexpr, COUNT: tl.constexpr,
                 SIGN: tl.constexpr):  # fmt: skip
    """Carry from digit to digit, for the sum and for its negative, which follows it; one of them is positive."""
    for negative in tl.static_range(2):
        carry = tl.load(sums_ptr + COUNT) * 0
        for digit in tl.static_range(DIGITS):
            total = carry + tl.load(sums_ptr + digit) * (1 - 2 * negative)
            tl.store(digits_ptr + negative * (SIGN + 1) + digit, total & ((1 << DIGIT) - 1))
            carry = total >> DIGIT
        tl.store(digits_ptr + negative * (SIGN + 1) + SIGN, carry)


@triton.jit
def rounded_quotient(leading, following, rank, rest, DIGIT: tl.constexpr):
    """Return the bits of RN_float32 of a quotient in units of 2^−149, from its first two digits."""
    one = leading * 0 + 1
    length = (leading.to(tl.float32).to(tl.int32, bitcast=True) >> 23) - 126  # bits, at least 1 where rank > 0
    dropped = tl.where(rank > 0, length.to(tl.int64), DIGIT)
    both = (leading << DIGIT) | following
    kept = both >> dropped
    fraction = ((both & ((one << dropped) - 1)) << 1) | rest
    kept += (fraction + (kept & 1) > (one << dropped)).to(tl.int64)
    return kept + tl.where(rank > 0, ((rank - 1) * DIGIT + dropped) << 23, 0)


@triton.jit
def mean_kernel(sums_ptr, digits_ptr, out_ptr, DIGIT: tl.constexpr, DIGITS: tl.constexpr, COUNT: tl.constexpr,
                SIGN: tl.constexpr):  # fmt: skip
    """Divide the digits of the magnitude by the count, and round the quotient to float32."""
    count = tl.load(sums_ptr + COUNT)
    divisor = tl.maximum(count, 1)
    negative = tl.load(digits_ptr + SIGN) < 0
    chosen = tl.where(negative, SIGN + 1, 0)
    remainder = count * 0
    leading = count * 0  # the first digit of the quotient that is not 0, and the one behind it
    following = count * 0
    rank = count * 0  # of the leading digit
    seen = count * 0  # 0, 1 or 2 of the two
    rest = count * 0  # whether anything but 0 follows them
    for step in tl.static_range(DIGITS + 1):  # the last one is the first digit behind the point
        digit = tl.load(digits_ptr + chosen + (DIGITS - 1 - step)) if step < DIGITS else remainder * 0
        partial = (remainder << DIGIT) | digit
        quotient = partial // divisor
        remainder = partial % divisor
        starts = (seen == 0) & ((quotient != 0) | (step == DIGITS - 1))
        rest = tl.where((seen == 2) & (quotient != 0), 1, rest)
        following = tl.where(seen == 1, quotient, following)
        leading = tl.where(starts, quotient, leading)
        rank = tl.where(starts, DIGITS - 1 - step, rank)
        seen = tl.where(starts, 1, tl.where(seen == 1, 2, seen))
    rest = tl.where(remainder != 0, 1, rest)
    word = rounded_quotient(leading, following, rank, rest, DIGIT)
    word = tl.where(negative, word | 0x80000000, word)  # −0 too, of what is rounded to it
    word = tl.where(count > 0, word, 0)
    tl.store(out_ptr, word.to(tl.int32).to(tl.float32, bitcast=True))


def mean_on_device(values: Tensor) -> Tensor:
    """Return RN_float32 of the exact mean of the finite elements of a contiguous 1-d float32 tensor, +0 of none."""
    sums, digits = (torch.zeros(slots, dtype=torch.int64, device=values.device) for slots in (SLOTS, 2 * SLOTS))
    offset = torch.empty((), dtype=torch.float32, device=values.device)
    shape = {"DIGIT": DIGIT, "COUNT": COUNT}
    with on_device_of(values):
        if values.numel():
            programs = triton.cdiv(values.numel(), _TILE)
            sum_kernel[(programs,)](values, sums, values.numel(), TILE=_TILE, SUMS=SUMS, **shape, **OPTIONS)
        carry_kernel[(1,)](sums, digits, DIGITS=DIGITS, SIGN=SIGN, **shape, num_warps=1, **OPTIONS)
        mean_kernel[(1,)](sums, digits, offset, DIGITS=DIGITS, SIGN=SIGN, **shape, num_warps=1, **OPTIONS)
    return offset
