"""Inputs that sit on, and one or two floats beside, every boundary between codes, for absmax of every magnitude."""

import numpy as np

from qloracle.formats import Array

INT8_BOUNDARIES = (np.arange(-127, 127) + 0.5) / 127
SPECIALS = np.array(
    [0, 1, 0x7FFFFF, 0x800000, 0x3F800000, 0x7F7FFFFF, 0x7F800000, 0x7F800001, 0x7FC00000, 0x7FFFFFFF], np.uint32
)


def random_absmax(rng: np.random.Generator, count: int) -> Array:
    """Positive finite float32: any bits, subnormals, a few units of the smallest, near the largest, and around 1."""
    ranges = ((1, 0x7F800000), (1, 0x800000), (1, 4096), (0x7F000000, 0x7F800000), (0x3F000000, 0x40000000))
    choices = [rng.integers(low, high, count, dtype=np.uint32) for low, high in ranges]
    return np.choose(rng.integers(0, len(ranges), count), choices).view(np.float32)


def beside_boundaries(rng: np.random.Generator, boundaries: Array, blocks: int, block_size: int) -> Array:
    """Blocks that begin with ±absmax and go on with floats at most two steps from a boundary times absmax."""
    absmax = random_absmax(rng, blocks)[:, np.newaxis]
    near = (rng.choice(boundaries, (blocks, block_size)) * absmax.astype(np.float64)).astype(np.float32)
    near = (near.view(np.int32) + rng.integers(-2, 3, near.shape, dtype=np.int32)).view(np.float32)
    near = np.where(np.abs(near) <= absmax, near, np.float32(0))
    near[:, :1] = np.where(rng.random((blocks, 1)) < 0.5, absmax, -absmax)
    return near


def with_specials(rng: np.random.Generator, blocks: int, block_size: int) -> Array:
    """Blocks of normal numbers with one special of either sign at the first, middle or last position of most."""
    x = rng.standard_normal((blocks, block_size)).astype(np.float32)
    chosen = rng.choice(SPECIALS, blocks) | rng.integers(0, 2, blocks, dtype=np.uint32) << np.uint32(31)
    position = rng.choice([0, block_size // 2, block_size - 1], blocks)
    x.view(np.uint32)[np.arange(blocks), position] = chosen
    each = max(8, blocks // 8)  # a few blocks of zeros, and none where there are hardly any others
    x[4::each] = 0.0
    x[5::each] = -0.0
    return x
