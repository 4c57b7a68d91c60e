"""The mean of float32 numbers, exact and then rounded once. Clause: ``[double_quant.offset]``."""

from math import ldexp

import torch
from torch import Tensor

from qloracle_gpu.torch.kernels.availability import kernels_run_on

DIGIT = 24  # bits
MASK = (1 << DIGIT) - 1
DIGITS = 14  # of a sum of 2^39 numbers in units of 2^−149: 316 bits


def mean_offset(absmax: Tensor) -> Tensor:
    """Return the mean of the absmax, rounded once.

    offset = RN_float32(Σ absmax_i / n), the sum exact, over the blocks that are not poisoned; +0 if there is none.

    Parameters
    ----------
    absmax : tensor of float32, 1-d
        Any finite numbers, and NaN for poisoned blocks.

    Returns
    -------
    tensor of float32, 0-d, on the device of `absmax`

    Notes
    -----
    Clause ``[double_quant.offset]``. Rounding points: one. Everywhere integers are added and divided: on a CPU int64
    adds the significands of each exponent (2^39 of them fit), and Python's integers do the rest; on a GPU kernels do
    it; and elsewhere tensors of single integers, so that nothing waits for the device.
    """
    if kernels_run_on(absmax.device.type):
        from qloracle_gpu.torch.kernels.exact_mean import mean_on_device

        return mean_on_device(absmax.contiguous())
    if absmax.device.type != "cpu":
        return mean_by_tensors(absmax)
    words = absmax.view(torch.int32)
    field = (words >> 23) & 0xFF
    finite = field != 0xFF
    significand = (words & 0x7FFFFF) | (field.clamp(max=1) << 23)
    signed = torch.where(finite, torch.where(words < 0, -significand, significand), 0)
    sums = torch.zeros(256, dtype=torch.int64, device=absmax.device).index_add_(0, field, signed.to(torch.int64))
    # No finite number has the exponent field 255, so that its place is free for their count.
    sums[255] = finite.sum()
    *limbs, count = sums.tolist()
    total = sum(limb << max(exponent, 1) - 1 for exponent, limb in enumerate(limbs))
    return torch.tensor(nearest_float32(total, count) if count else 0.0, dtype=torch.float32, device=absmax.device)


def mean_by_tensors(absmax: Tensor) -> Tensor:
    """Return `mean_offset` by the algorithm of `kernels.exact_mean`: digits of 24 bits, divided one by one."""
    words = absmax.view(torch.int32)
    field = (words >> 23) & 0xFF
    finite = field != 0xFF
    significand = ((words & 0x7FFFFF) | (field.clamp(max=1) << 23)).to(torch.int64)
    power = (field.clamp(min=1) - 1).to(torch.int64)
    value, lowest = torch.where(finite, significand, 0) << power % DIGIT, power // DIGIT
    sign = torch.where(words < 0, -1, 1)
    sums = torch.zeros(DIGITS, dtype=torch.int64, device=absmax.device)
    sums.index_add_(0, lowest, (value & MASK) * sign).index_add_(0, lowest + 1, (value >> DIGIT) * sign)
    (positive, beyond), (negated, _), count = _carried(sums), _carried(-sums), finite.sum()
    remainder, quotients = count * 0, []
    for digit in [*torch.where(beyond < 0, negated, positive).flip(0), remainder]:  # the last one is behind the point
        partial = (remainder << DIGIT) | digit
        quotients.append(partial // count.clamp(min=1))
        remainder = partial % count.clamp(min=1)
    word = _rounded_quotient(torch.stack(quotients), remainder)
    word = torch.where(count > 0, torch.where(beyond < 0, word - (1 << 31), word), 0)
    return word.to(torch.int32).view(torch.float32)


def _carried(sums: Tensor) -> tuple[Tensor, Tensor]:
    """Return digits from 0 to 2^24 − 1 and what is carried beyond them, below 0 for a negative sum."""
    digits, carry = [], sums[0] * 0
    for digit in sums:
        total = carry + digit
        digits.append(total & MASK)
        carry = total >> DIGIT
    return torch.stack(digits), carry


def _rounded_quotient(digits: Tensor, remainder: Tensor) -> Tensor:
    """Return the bits of RN_float32 of a quotient in units of 2^−149, from its digits and one behind the point."""
    places = torch.arange(DIGITS + 1, device=digits.device)
    first = ((digits != 0) | (places == DIGITS - 1)).to(torch.int8).argmax()
    leading, following = digits.gather(0, torch.stack([first, first + 1]))
    rest = ((places > first + 1) & (digits != 0)).any() | (remainder != 0)
    rank = DIGITS - 1 - first
    length = (leading.to(torch.float32).view(torch.int32) >> 23).to(torch.int64) - 126  # in bits, where it is not 0
    dropped = torch.where(rank > 0, length, DIGIT)
    both = (leading << DIGIT) | following
    one = torch.ones_like(both)
    kept = both >> dropped
    fraction = ((both & ((one << dropped) - 1)) << 1) | rest.to(torch.int64)
    kept = kept + (fraction + (kept & 1) > (one << dropped)).to(torch.int64)
    return torch.where(rank > 0, kept + (((rank - 1) * DIGIT + dropped) << 23), kept)


def nearest_float32(numerator: int, denominator: int) -> float:
    """Return RN_float32(numerator / denominator · 2^−149) for an integer and a positive integer."""
    magnitude = abs(numerator)
    dropped_bits = max(0, (magnitude // denominator).bit_length() - 24)
    quantum = denominator << dropped_bits
    quotient, remainder = divmod(magnitude, quantum)
    quotient += 2 * remainder > quantum or (2 * remainder == quantum and quotient % 2 == 1)
    nearest = ldexp(quotient, dropped_bits - 149)
    return -nearest if numerator < 0 else nearest
