"""Sums of float64 numbers rounded to odd, after which a rounding to float32 equals that of the real sum.

Rounding to odd keeps a number that fits, and else takes the neighbour whose last bit is set; so the result is on the
same side of every number of fewer bits as the real sum is (Boldo and Melquiond 2008, "Emulation of FMA and Correctly
Rounded Sums").
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def sum_to_odd(a: Tensor, b: Tensor) -> Tensor:
    """Return a + b of float64, rounded to odd."""
    total, lost = _two_sum(a, b)
    words = total.view(torch.int64)
    away = (lost.sign() * total.sign()).to(torch.int64)  # a word counts magnitudes, whatever the sign
    return torch.where(words & 1 == 0, words + away, words).view(torch.float64)


def exact_sum_to_odd(terms: Sequence[Tensor]) -> Tensor:
    """Return the sum of several float64 tensors, rounded to odd; a sum of zero is +0.

    An expansion holds the real sum as numbers that do not overlap, in ascending order (Shewchuk 1997, "Adaptive
    Precision Floating-Point Arithmetic", theorem 10). Added up in that order, each one to odd, they cancel one bit at
    most: what comes out is on the same side of every number of 26 bits as the real sum.

    Examples
    --------
    >>> big, small = torch.tensor(2.0**60, dtype=torch.float64), torch.tensor(2.0**-60, dtype=torch.float64)
    >>> exact_sum_to_odd([small, big, -big]) == small, exact_sum_to_odd([small, big]) > big
    (tensor(True), tensor(True))
    """
    expansion: list[Tensor] = []
    for term in terms:
        carried, lower = term, []
        for part in expansion:
            carried, lost = _two_sum(carried, part)
            lower.append(lost)
        expansion = [*lower, carried]
    total = expansion[0]
    for part in expansion[1:]:
        total = sum_to_odd(total, part)
    return total + 0.0


def _two_sum(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Return the rounded sum and its exact error (Knuth)."""
    total = a + b
    back = total - a
    return total, (a - (total - back)) + (b - back)
