"""The mean of float32 numbers, exact and then rounded once. Clause: ``[double_quant.offset]``."""

from math import copysign, ldexp

import torch
from torch import Tensor

from qloracle_gpu.torch.kernels.availability import kernels_run_on


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
    Clause ``[double_quant.offset]``. Rounding points: one. Kernels add and divide integers on the device. Without them
    the device adds the integer significands of each exponent in int64 (2^39 of them fit), and one copy of 256 integers
    to the host ends in Python's integers.
    """
    if kernels_run_on(absmax.device.type):
        from qloracle_gpu.torch.kernels.exact_mean import mean_on_device

        return mean_on_device(absmax.contiguous())
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


def nearest_float32(numerator: int, denominator: int) -> float:
    """Return RN_float32(numerator / denominator · 2^−149) for an integer and a positive integer."""
    magnitude = abs(numerator)
    dropped_bits = max(0, (magnitude // denominator).bit_length() - 24)
    quantum = denominator << dropped_bits
    quotient, remainder = divmod(magnitude, quantum)
    quotient += 2 * remainder > quantum or (2 * remainder == quantum and quotient % 2 == 1)
    return copysign(ldexp(quotient, dropped_bits - 149), numerator)
