"""Inputs of affine quantizers: values on and beside every change of code, scales of all magnitudes, special ranges."""

from typing import Any

import numpy as np
import torch

from qloracle import encode
from qloracle.formats import Array

from .boundaries import SPECIALS, random_absmax

CODE_RANGES = ((-128, 127), (0, 255), (-8, 7), (0, 15), (-127, 127), (-7, 7), (3, 5))
GROUPS: tuple[tuple[str, int | None], ...] = (
    ("tensor", None), ("row", None), ("column", None), ("group", 7), ("group", 64), ("group", 1000),
)  # fmt: skip
FORMATS = ("float32", "float16", "bfloat16")


def any_words(rng: np.random.Generator, *shape: int) -> Array:
    """float32 of any bits, a third of them special."""
    words = rng.integers(0, 2**32, shape, dtype=np.uint64).astype(np.uint32)
    special = rng.choice(SPECIALS, shape) | (words & np.uint32(0x80000000))
    return np.where(rng.integers(0, 3, shape) == 0, special, words).view(np.float32)


def scales(rng: np.random.Generator, count: int) -> Array:
    """Scales of all magnitudes; among them 0, NaN, ±inf and negative ones."""
    found = random_absmax(rng, count)
    odd = np.array([0, -0.0, np.nan, np.inf, -np.inf, -0.25, 1e-45], np.float32)
    return np.where(rng.integers(0, 6, count) == 0, rng.choice(odd, count), found)


def beside_codes(rng: np.random.Generator, per_element: Array) -> Array:
    """Values at most two floats from a multiple of half a scale, up to 300 steps from zero; some are special."""
    with np.errstate(all="ignore"):
        near = (rng.integers(-600, 601, per_element.shape) / 2 * per_element.astype(np.float64)).astype(np.float32)
    near = (near.view(np.int32) + rng.integers(-2, 3, near.shape, dtype=np.int32)).view(np.float32)
    return np.where(rng.integers(0, 12, near.shape) == 0, any_words(rng, *near.shape), near)


def groups_of(rng: np.random.Generator, size: int, steps: int) -> Array:
    """A row of finite values whose range is such that the zero point, or the scale, is a tie or beside one."""
    unit = np.ldexp(1.0, int(rng.integers(-140, 100)))
    below = rng.integers(0, steps + 1) + rng.choice([0.0, 0.5])
    x = (rng.integers(-int(below) - 1, steps, size) + 0.5).clip(-below, steps - below) * unit
    x[:2] = -below * unit, (steps - below) * unit
    found = x.astype(np.float32)
    return (found.view(np.int32) + rng.integers(-1, 2, size, dtype=np.int32)).view(np.float32)


def in_format(values: Array, dtype: str) -> tuple[torch.Tensor, Array]:
    """Numbers rounded to a format, as a tensor and as the reference takes them."""
    with np.errstate(all="ignore"):
        words: Any = encode(values, dtype)
    if dtype == "bfloat16":
        return torch.from_numpy(words.view(np.int16).copy()).view(torch.bfloat16), words
    array = words.view(dtype)
    return torch.from_numpy(array.copy()), array
