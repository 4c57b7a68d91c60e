"""NF4: the 4-bit NormalFloat table. Clause: ``[nf4.table]``.

Source: Dettmers, Pagnoni, Holtzman, Zettlemoyer 2023, "QLoRA: Efficient Finetuning of Quantized LLMs", section 3 and
appendix E. The words below are the ones that every implementation in the field ships.
"""

import numpy as np

from qloracle.codebooks import Codebook, even_spacing, table_from_words
from qloracle.formats import Array

NF4 = Codebook(
    "nf4",
    table_from_words("""
        bf800000 bf3239b1 bf066b30 beca32a0 be91a24d be3d353f bdba7871 00000000
        3da2faff 3e24cae3 3e7c04dd 3ead033a 3ee1a4b8 3f1007ab 3f3913b3 3f800000"""),
)

OUTERMOST_PROBABILITY = 0.9677083  # as published; the paper's own derivation gives (1 − 1/32 + 1 − 1/30) / 2


def derive_nf4() -> Array:
    """Regenerate the NF4 table bit for bit from quantiles of the normal distribution.

    [nf4.table] Φ⁻¹ at 9 (upper side) and 8 (lower side, negated) evenly spaced probabilities from 0.9677083 to 0.5,
    the last left out; with 0; sorted, rounded to float32 and divided by the largest in float32.

    Returns
    -------
    array of float32, shape (16,)

    Notes
    -----
    Needs SciPy. Rounding points, in order: the spacing (`even_spacing`); float32 of each quantile; float32 quotient.

    Examples
    --------
    >>> [f"{word:08x}" for word in derive_nf4().view(np.uint32)[[0, 1, 7, 8, 15]]]
    ['bf800000', 'bf3239b1', '00000000', '3da2faff', '3f800000']
    """
    from scipy.special import ndtri  # the only use of SciPy; the package imports NumPy alone

    upper = ndtri(even_spacing(OUTERMOST_PROBABILITY, 0.5, 9)[:-1].astype(np.float64))
    lower = -ndtri(even_spacing(OUTERMOST_PROBABILITY, 0.5, 8)[:-1].astype(np.float64))
    table: Array = np.sort(np.concatenate([lower, [0.0], upper]).astype(np.float32))
    scaled: Array = table / table[-1]
    return scaled
