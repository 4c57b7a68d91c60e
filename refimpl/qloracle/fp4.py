"""FP4: a 4-bit float of one sign, two exponent and one mantissa bit. Clause: ``[fp4.table]``.

Source: the FP4 data type of bitsandbytes (1-2-1, ``create_fp8_map(signed=True, exponent_bits=2, precision_bits=1)``);
the words below are the ones that it ships, in the order of its codes. It is not float4_e2m1fn: the exponent runs
backwards and the subnormal is small.
"""

import numpy as np

from qloracle.codebooks import Codebook, table_from_words
from qloracle.formats import Array

# Times 12: 0, 0.0625, 8, 12, 4, 6, 2, 3, then the same negated. Codes 0 and 8 are the same point: 0 is written, 8 reads
# as −0 (the sign of zero is a variant).
FP4 = Codebook(
    "fp4",
    table_from_words("""
        00000000 3baaaaab 3f2aaaab 3f800000 3eaaaaab 3f000000 3e2aaaab 3e800000
        80000000 bbaaaaab bf2aaaab bf800000 beaaaaab bf000000 be2aaaab be800000"""),
)


def derive_fp4() -> Array:
    """Regenerate the FP4 table bit for bit.

    [fp4.table] Code s·8 + e·2 + m stands for (−1)^s · v / 12 with v = (1 + m/2)·2^(4−e) for e = 1, 2, 3, and the
    subnormal v = m/2 · 2^−3 for e = 0.

    Returns
    -------
    array of float32, shape (16,), in code order

    Notes
    -----
    Rounding points, in order: the quotient by 12, the largest v, to float32.

    Examples
    --------
    >>> derive_fp4()[:8] * 12
    array([ 0.    ,  0.0625,  8.    , 12.    ,  4.    ,  6.    ,  2.    ,
            3.    ], dtype=float32)
    """
    exponent, mantissa = np.divmod(np.arange(8), 2)
    normal = (1 + mantissa / 2) * 2.0 ** (4 - exponent)
    magnitude = np.where(exponent > 0, normal, mantissa / 2 * 2.0**-3).astype(np.float32) / np.float32(12)
    return np.concatenate([magnitude, -magnitude])
