"""Steps of AdamW without any rounding but the last: every form of the formula gives the same bits.

The trick: √v̂ + eps is a power of two where √v̂ = (2^b − 1)·eps, and v̂ is a square where a·V + b·G² = c·S² has integer
solutions. Then the two moments, the corrections, the quotient and the decay are exact numbers of few bits.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from qloracle.formats import Array
from qloracle_conformance.generators.draw import Draw

LATE = 3000  # a step so late that every power of a beta up to 7/8 is 0 beside 1
ROOTS = (1, 3, 7, 15)  # S, so that S + 1 is a power of two


@dataclass(frozen=True)
class Corner:
    """Hyperparameters and a step at which v̂ = (a·V + b·G²)/c with small integers."""

    beta1: float
    beta2: float
    step: int
    a: int
    b: int
    c: int


# beta2 = 3/4 at step 1: 1 − beta2 = 1/4 has an exact root, so corrections may go anywhere; 15/16 likewise.
CORNERS = (
    Corner(0.5, 0.75, 1, 3, 1, 1),
    Corner(0.875, 0.5, LATE, 1, 1, 2),
    Corner(0.75, 0.9375, 1, 15, 1, 1),
    Corner(0.0, 0.75, LATE, 3, 1, 4),
    Corner(0.75, 0.0, 1, 0, 1, 1),
    Corner(0.875, 0.75, 1, 3, 1, 1),
)


@dataclass(frozen=True)
class Step:
    """The arrays of one step as real numbers, and its options."""

    p: Array
    gradient: Array
    m: Array
    v: Array
    options: dict[str, Any]


def solutions(corner: Corner) -> Array:
    """Return all (S, G, V) with a·V + b·G² = c·S², S of ROOTS and V < 2^12, as rows."""
    found = []
    for s in ROOTS:
        for g in range(64):
            rest = corner.c * s * s - corner.b * g * g
            if corner.a == 0 and rest == 0:
                found += [(s, g, v) for v in (0, 1, 5)]
            elif corner.a and rest >= 0 and rest % corner.a == 0:
                found.append((s, g, rest // corner.a))
    return np.array(found)


def options_of(corner: Corner, lr: float, eps: float, weight_decay: float) -> dict[str, Any]:
    """Return the options of a step in the suite's names."""
    return {
        "step": corner.step, "lr": lr, "beta1": corner.beta1, "beta2": corner.beta2, "eps": eps,
        "weight_decay": weight_decay, "nonfinite": "propagate", "max_update_norm": None,
    }  # fmt: skip


def lattice_step(draw: Draw, shape: tuple[int, ...]) -> Step:
    """Small integers in units of eps: gradient, moments and parameter all count, with and without decay."""
    corner, unit = draw.choice(CORNERS), draw.integer(-10, 2)
    lr, decay = draw.choice((0.25, 1.0, 0.03125, 0.5)), draw.choice((0.5, 0.0, 0.25, 2.0))
    random = draw.random()
    chosen = solutions(corner)[random.integers(0, len(solutions(corner)), shape)]
    sign = random.choice([-1.0, 1.0], shape)
    gradient, v = sign * np.ldexp(chosen[..., 1], unit), np.ldexp(chosen[..., 2], 2 * unit)
    m = np.ldexp(random.integers(-63, 64, shape), unit)
    p = random.integers(-127, 128, shape) * 2.0**-6
    return Step(p, gradient, m, v, options_of(corner, lr, 2.0**unit, decay))


def subnormal_step(draw: Draw, shape: tuple[int, ...]) -> Step:
    """Second moments that are subnormal, whose root is beside an eps that is as small."""
    random, unit = draw.random(), draw.integer(-72, -66)
    options = options_of(Corner(0.5, 0.5, LATE, 0, 0, 1), 0.5, draw.choice((1.0, 3.0)) * 2.0**unit, 0.0)
    m = random.integers(-15, 16, shape) * 2.0 ** (unit + 1)
    p = random.integers(-127, 128, shape) * 2.0**-6
    return Step(p, np.zeros(shape), m, np.full(shape, 2.0 ** (2 * unit + 1)), options)


def wide_step(draw: Draw, shape: tuple[int, ...], words: Array, aim: str) -> Step:
    """One operand at a time is a word of full significand, and goes through halvings and exact products alone.

    aim "p": the update is 1, 2 or −1/2 of a unit, no decay; "m", "v", "gradient": the moments are halves of it.
    """
    random, zero = draw.random(), np.zeros(shape)
    # v is halved where it is the aim; elsewhere 1 − beta2 has an exact root.
    options = options_of(Corner(0.5, 0.5 if aim == "v" else 0.75, 1, 0, 0, 1), 0.5, 1.0, 0.0)
    if aim == "p":
        # v̂ = 0 leaves eps: the update is lr·2·m' = m'; m = 2·m'.
        return Step(words, zero, random.choice([0.5, -0.25, 2.0, 0.0], shape), zero, options)
    if aim == "gradient":
        return Step(zero, words, zero, zero, options)
    return Step(zero, zero, words * (aim == "m"), np.abs(words) * (aim == "v"), options)
