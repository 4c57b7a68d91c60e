"""Which way a real number goes that lies between two numbers of a format.

A rule sees the magnitude below the number (a count of the format's magnitudes, see `formats`), the fraction of the
step to the magnitude above, and the sign; it answers whether the magnitude goes up. Nothing is compared but integers,
so that every answer is exact. Clauses: ``[format.rounding]``, ``[format.stochastic]``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from qloracle.formats import Array

RANDOM_BITS = 32


@dataclass(frozen=True)
class Position:
    """Where the magnitudes of real numbers lie between those of a format: ``below + fraction / 2^fraction_bits``."""

    below: Array  # unsigned integers: magnitudes of the format, or beyond its end
    fraction: Array  # unsigned integers, the shape and dtype of `below`, smaller than 2^fraction_bits
    fraction_bits: int  # 0 where every number is on a magnitude
    negative: Array  # whether the number is below zero
    random_bits: Array | None  # uint32, for stochastic rounding


def ties_to_even(at: Position) -> Array:
    """Go up above the half, and at the half from an odd code."""
    half = at.fraction.dtype.type(1 << at.fraction_bits >> 1)
    odd = at.below & at.below.dtype.type(1)
    up: Array = (at.fraction + odd) > half
    return up


def ties_to_away(at: Position) -> Array:
    """Go up from the half on."""
    up: Array = at.fraction >= at.fraction.dtype.type(1 << at.fraction_bits >> 1)
    return up


def toward_zero(at: Position) -> Array:
    """Never go up."""
    return np.zeros(at.fraction.shape, np.bool_)


def toward_positive(at: Position) -> Array:
    """Go up from anything above zero."""
    return (at.fraction > 0) & ~at.negative


def toward_negative(at: Position) -> Array:
    """Go up, in magnitude, from anything below zero."""
    return (at.fraction > 0) & at.negative


def stochastic(at: Position) -> Array:
    """Go up where the random bits are below the fraction.

    ``[format.stochastic]`` The magnitude goes up if and only if R < frac · 2^32, with 32 random bits R for each
    element, an argument, and the exact fraction frac.

    Parameters
    ----------
    at : Position
        With `random_bits`.

    Returns
    -------
    array of bool

    Notes
    -----
    For R uniform a magnitude goes up with probability ⌈frac · 2^32⌉/2^32. Where frac = 0 it never does: a number of
    the format does not move, whatever R. Rounding points: none; the two sides are brought to the finer of their units.
    What then lies beyond the largest finite number is treated as by every other rule; infinities and NaN ignore R.

    References
    ----------
    Gupta et al. 2015, "Deep Learning with Limited Numerical Precision", section 3.1.

    Examples
    --------
    >>> quarter = Position(np.array([8] * 3, np.uint32), np.array([1] * 3, np.uint32), 2, np.array([False] * 3),
    ...                    np.array([0, 2**30 - 1, 2**30], np.uint32))
    >>> stochastic(quarter)
    array([ True,  True, False])
    """
    random: Any = at.random_bits
    finer = at.fraction_bits - RANDOM_BITS
    if finer < 0:
        up: Array = at.fraction << np.uint64(-finer) > random
    else:
        up = at.fraction > random.astype(np.uint64) << np.uint64(finer)
    return up


@dataclass(frozen=True)
class Rounding:
    """A rule of rounding.

    ``[format.rounding]`` With two neighbouring numbers of the format around the exact value, by magnitude `below` and
    `above`, and frac = (|value| − below)/(above − below):

    - ties_to_even: `above` if frac > 1/2, or frac = 1/2 and the code of `below` is odd;
    - ties_to_away: `above` if frac ≥ 1/2;
    - toward_zero: `below`;
    - toward_positive: `above` if frac > 0 and the value is positive;
    - toward_negative: `above` if frac > 0 and the value is negative;
    - stochastic: by random bits, see `stochastic`.

    Beyond the largest finite number the magnitudes count on, as if the exponent range had no end. A value has no two
    neighbours only below the smallest number of a format without zero: every rule gives that number.

    Rounding points: one, to the format. Source: IEEE 754-2019, section 4.3.
    """

    up: Callable[[Position], Array]  # whether a magnitude goes up
    ends_inside: Callable[[Array], Array]  # negative → whether the largest finite number takes what lies beyond it
    tells_beyond: int  # bits of a fraction that the rule needs where a part below them is ORed into the last one


def _never(negative: Array) -> Array:
    return np.zeros(negative.shape, np.bool_)


# Bits: a half and what is below it; R · 2^−32 and what is below it. The proof is in `positions.float_positions`.
ROUNDINGS: dict[str, Rounding] = {
    "ties_to_even": Rounding(ties_to_even, _never, 2),
    "ties_to_away": Rounding(ties_to_away, _never, 2),
    "toward_zero": Rounding(toward_zero, lambda negative: np.ones(negative.shape, np.bool_), 1),
    "toward_positive": Rounding(toward_positive, lambda negative: negative, 1),
    "toward_negative": Rounding(toward_negative, lambda negative: ~negative, 1),
    "stochastic": Rounding(stochastic, _never, RANDOM_BITS + 1),
}
