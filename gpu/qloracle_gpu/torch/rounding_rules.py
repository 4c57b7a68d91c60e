"""Rounding float64 numbers to the words of a narrower format, by integers: every rounding, overflow and NaN.

The positions are those of `qloracle.positions`: a number is a significand of 53 bits, of which the target keeps all but
the last d; d is larger below the target's smallest normal number.
"""

import torch
from torch import Tensor

from qloracle.formats import FLOAT64, Format

_INFINITY = FLOAT64.infinity_bits
_LONGEST = 62  # bits to shift by: beyond the significand nothing is left


def rounded_words(
    values: Tensor, target: Format, rounding: str, overflow: str, nan: str, random: Tensor | None
) -> Tensor:
    """Return the words of float64 numbers in a signed format with −0, as int64.

    Parameters
    ----------
    values : tensor of float64
    target : Format
        Narrower than float64.
    rounding, overflow, nan : str
        As `qloracle.encode`; none of them the default None.
    random : tensor of int64, or None
        32 random bits for each element, for stochastic rounding.

    Returns
    -------
    tensor of int64, the shape of `values`
    """
    words = values.view(torch.int64)
    magnitude, negative = words & FLOAT64.largest_magnitude, words < 0
    gap = target.minimum_exponent - FLOAT64.minimum_exponent
    field = (magnitude >> FLOAT64.mantissa_bits).clamp_(min=1)
    significand = magnitude - ((field - 1) << FLOAT64.mantissa_bits)
    binade = field.clamp(min=gap + 1)
    dropped = binade - field + (FLOAT64.mantissa_bits - target.mantissa_bits)
    short = dropped.clamp(max=_LONGEST)
    below = ((binade - (gap + 1)) << target.mantissa_bits) + (significand >> short)
    fraction = significand & ((1 << short) - 1)
    found = below + _raised(rounding, below, fraction, dropped, negative, random)
    largest, infinite = target.finite_magnitude, magnitude == _INFINITY
    outside, lost = found > largest, magnitude > _INFINITY
    beyond = _ends_outside(rounding, overflow, negative) | (infinite if overflow == "ieee" else False)
    if not target.infinities:
        lost = lost | (outside & beyond)
    found = torch.where(outside, torch.where(beyond, largest + 1, largest), found)
    found = torch.where(lost, _nan_words(magnitude, target, nan), found)
    signed = negative & ~lost if nan == "canonical" else negative
    return torch.where(signed, found | target.sign_bit >> target.padding, found)


def _raised(
    rounding: str, below: Tensor, fraction: Tensor, dropped: Tensor, negative: Tensor, random: Tensor | None
) -> Tensor:
    """Return whether a magnitude goes up: `fraction` is that many parts of 2^dropped."""
    half = 1 << (dropped.clamp(max=_LONGEST) - 1)
    if rounding == "stochastic":
        # The random bits are below fraction · 2^(32 − dropped), that is below the next integer.
        left, right = (32 - dropped).clamp(min=0), (dropped - 32).clamp(0, _LONGEST - 1)
        return random < ((fraction << left) + (1 << right) - 1) >> right  # type: ignore[operator]
    if rounding == "ties_to_even":
        return fraction + (below & 1) > half
    if rounding == "ties_to_away":
        return fraction >= half
    if rounding == "toward_zero":
        return torch.zeros_like(negative)
    return (fraction > 0) & (negative if rounding == "toward_negative" else ~negative)


def _ends_outside(rounding: str, overflow: str, negative: Tensor) -> Tensor:
    """Return where a number beyond the largest finite one leaves the format."""
    if overflow == "saturate" or rounding == "toward_zero":
        return torch.zeros_like(negative)
    directed = {"toward_positive": ~negative, "toward_negative": negative}
    return directed.get(rounding, torch.ones_like(negative))


def _nan_words(magnitude: Tensor, target: Format, nan: str) -> Tensor:
    """Return the word, without sign, of every NaN."""
    quiet = torch.full_like(magnitude, target.quiet_nan_bits >> target.padding)
    if nan != "payload" or target.top_nans == 1:
        return quiet
    leading = magnitude >> (FLOAT64.mantissa_bits - target.mantissa_bits)
    return quiet | (leading & ((1 << target.mantissa_bits) - 1))
