"""The table of conditional means that NF4 is often explained by, beside NF4, and how much worse it is.

Course notes describe NF4 as the mean of each sixteenth of the normal distribution, scaled to [−1, 1]. That is not the
published table (`nf4`): it has no zero, and what is the best point for each bin of the normal distribution itself is
not the best after scaling by the absmax of a block.
"""

from statistics import NormalDist

import numpy as np

from qloracle.blocks import spread
from qloracle.blockwise import dequantize_blockwise, quantize_blockwise
from qloracle.codebooks import Codebook
from qloracle.formats import Array


def conditional_means() -> Codebook:
    """Return the table of the course notes: the mean of each of 16 equally likely bins, scaled to [−1, 1].

    E[X | q_i < X < q_{i+1}] = 16·(φ(q_i) − φ(q_{i+1})), with q_i the quantile of i/16 and φ the normal density; all
    divided by the largest.

    Returns
    -------
    Codebook
        Symmetric, without zero.

    Notes
    -----
    No clause: nothing in the field is stored with this table. Rounding points: one, to float32, of numbers that float64
    computes.

    Examples
    --------
    >>> conditional_means().entries[8:].round(4)
    array([0.0399, 0.1207, 0.2047, 0.2947, 0.3953, 0.5147, 0.6738, 1.    ],
          dtype=float32)
    """
    normal = NormalDist()
    inner = [normal.pdf(normal.inv_cdf(bound / 16)) for bound in range(9, 16)]
    density = np.array([normal.pdf(0), *inner, 0.0])
    means = (density[:-1] - density[1:]) * 16
    positive = (means / means[-1]).astype(np.float32)
    return Codebook("conditional_means", np.concatenate([-positive[::-1], positive]))


def relative_error(x: Array, codebook: str | Codebook, block_size: int = 64) -> float:
    """Return the mean squared error of quantizing a tensor, each error relative to the absmax of its block.

    mean of ((x_i − restored_i) / absmax)², over blocks that are neither poisoned nor zero.

    Parameters
    ----------
    x : array of float32, any shape
    codebook : str or Codebook
    block_size : int

    Returns
    -------
    float
        A statistic, not a rule: float64 arithmetic as it comes.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        As `quantize_blockwise`.

    Examples
    --------
    NF4 against the conditional means, on normal data in blocks of 64:

    >>> x = np.random.default_rng(1).standard_normal(1 << 22).astype(np.float32)
    >>> f"{relative_error(x, 'nf4'):.5f} {relative_error(x, conditional_means()):.5f}"
    '0.00130 0.00143'
    """
    quantized = quantize_blockwise(x, codebook=codebook, block_size=block_size)
    absmax = spread(quantized.absmax, x.size, quantized.block_size).astype(np.float64)
    usable = absmax > 0
    error = x.reshape(-1).astype(np.float64) - dequantize_blockwise(quantized).reshape(-1)
    return float(np.mean((error[usable] / absmax[usable]) ** 2)) if usable.any() else 0.0
