"""What the tests of containment share: how operands are drawn."""

from collections.abc import Callable, Iterator

import numpy as np

from qloracle.bounds import Interval
from qloracle.formats import Array

from .evaluations import ROUNDINGS

RANGES = {"float32": (-149, 127), "float16": (-24, 15), "bfloat16": (-133, 127)}
Judged = Iterator[tuple[str, Interval, Array]]
Draw = Callable[..., Array]


def drawer(rng: np.random.Generator, fmt: str, lattice: bool) -> Draw:
    """Return what draws numbers of a format: small integers, or a random band of all exponents."""
    if lattice:
        return lambda *shape: rng.integers(-15, 16, shape).astype(np.float32)

    def wide(*shape: int) -> Array:
        low, high = sorted(rng.integers(RANGES[fmt][0], RANGES[fmt][1] + 1, 2))
        values = rng.uniform(1, 2, shape) * rng.choice([-1, 1], shape)
        return np.asarray(ROUNDINGS[fmt](np.ldexp(values, rng.integers(low, high + 1, shape)))).astype(np.float32)

    return wide
