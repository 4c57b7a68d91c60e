"""Norms of tensors, and the factor that limits one: sums of squares in float64, a part for each CTA, then one for all.

Nothing waits for the device: the factor stays there.
"""

import numpy as np

from qloracle.formats import Format
from qloracle_gpu.cupy.blocks import block_count
from qloracle_gpu.cupy.launcher import Array, Operation

SUMMED_PART = 8192  # elements whose sum one CTA makes at a time, as in sums.cuh
CTA = (256, 1, 1)


def parts_of(run: Operation, size: int) -> Array:
    """Return room for the partial sums of so many elements."""
    return run.empty(block_count(size, SUMMED_PART), "float64")


def sum_squares(run: Operation, words: Array, named: Format, parts: Array) -> None:
    """Write the partial sums of the squares of 1-d words."""
    arguments = (words, np.int64(words.size), parts)
    run.launch("gradients", f"sum_squares_{named.name}", CTA[0] * parts.size, arguments, block=CTA)


def limit_factor(run: Operation, parts: Array, limit: float, *, times: Array | None = None) -> Array:
    """Return, on the device, what keeps a norm to at most `limit`, or to that times another norm; 1 if it is there."""
    factor = run.empty(1, "float64")
    others = (parts, np.int64(0)) if times is None else (times, np.int64(times.size))
    arguments = (parts, np.int64(parts.size), *others, np.float64(limit), factor)
    run.launch("gradients", "limit_factor", 1, arguments, block=CTA)
    return factor
