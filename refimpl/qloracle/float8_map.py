"""Normalised float8: the numbers of float8_e4m3fn over the largest of them. Clause: ``[float8.table]``.

Source: Micikevicius et al. 2022, "FP8 Formats for Deep Learning", section 3; scaling by the absmax of a block, so that
the largest magnitude becomes 448, is what float8 weight storage does.
"""

import numpy as np

from qloracle.codebooks import Codebook, table_from_words
from qloracle.formats import Array

# In the order of the bit patterns. Codes 0x7F and 0xFF are the NaN of the format: never written, read as NaN. Code 0x80
# is −0: 0 is written for zeros of either sign, 0x80 reads as −0.
FLOAT8 = Codebook(
    "float8",
    table_from_words("""
        00000000 36924925 37124925 375b6db7 37924925 37b6db6e 37db6db7 38000000 38124925 38249249
        3836db6e 38492492 385b6db7 386db6db 38800000 38892492 38924925 38a49249 38b6db6e 38c92492
        38db6db7 38edb6db 39000000 39092492 39124925 39249249 3936db6e 39492492 395b6db7 396db6db
        39800000 39892492 39924925 39a49249 39b6db6e 39c92492 39db6db7 39edb6db 3a000000 3a092492
        3a124925 3a249249 3a36db6e 3a492492 3a5b6db7 3a6db6db 3a800000 3a892492 3a924925 3aa49249
        3ab6db6e 3ac92492 3adb6db7 3aedb6db 3b000000 3b092492 3b124925 3b249249 3b36db6e 3b492492
        3b5b6db7 3b6db6db 3b800000 3b892492 3b924925 3ba49249 3bb6db6e 3bc92492 3bdb6db7 3bedb6db
        3c000000 3c092492 3c124925 3c249249 3c36db6e 3c492492 3c5b6db7 3c6db6db 3c800000 3c892492
        3c924925 3ca49249 3cb6db6e 3cc92492 3cdb6db7 3cedb6db 3d000000 3d092492 3d124925 3d249249
        3d36db6e 3d492492 3d5b6db7 3d6db6db 3d800000 3d892492 3d924925 3da49249 3db6db6e 3dc92492
        3ddb6db7 3dedb6db 3e000000 3e092492 3e124925 3e249249 3e36db6e 3e492492 3e5b6db7 3e6db6db
        3e800000 3e892492 3e924925 3ea49249 3eb6db6e 3ec92492 3edb6db7 3eedb6db 3f000000 3f092492
        3f124925 3f249249 3f36db6e 3f492492 3f5b6db7 3f6db6db 3f800000 7fc00000 80000000 b6924925
        b7124925 b75b6db7 b7924925 b7b6db6e b7db6db7 b8000000 b8124925 b8249249 b836db6e b8492492
        b85b6db7 b86db6db b8800000 b8892492 b8924925 b8a49249 b8b6db6e b8c92492 b8db6db7 b8edb6db
        b9000000 b9092492 b9124925 b9249249 b936db6e b9492492 b95b6db7 b96db6db b9800000 b9892492
        b9924925 b9a49249 b9b6db6e b9c92492 b9db6db7 b9edb6db ba000000 ba092492 ba124925 ba249249
        ba36db6e ba492492 ba5b6db7 ba6db6db ba800000 ba892492 ba924925 baa49249 bab6db6e bac92492
        badb6db7 baedb6db bb000000 bb092492 bb124925 bb249249 bb36db6e bb492492 bb5b6db7 bb6db6db
        bb800000 bb892492 bb924925 bba49249 bbb6db6e bbc92492 bbdb6db7 bbedb6db bc000000 bc092492
        bc124925 bc249249 bc36db6e bc492492 bc5b6db7 bc6db6db bc800000 bc892492 bc924925 bca49249
        bcb6db6e bcc92492 bcdb6db7 bcedb6db bd000000 bd092492 bd124925 bd249249 bd36db6e bd492492
        bd5b6db7 bd6db6db bd800000 bd892492 bd924925 bda49249 bdb6db6e bdc92492 bddb6db7 bdedb6db
        be000000 be092492 be124925 be249249 be36db6e be492492 be5b6db7 be6db6db be800000 be892492
        be924925 bea49249 beb6db6e bec92492 bedb6db7 beedb6db bf000000 bf092492 bf124925 bf249249
        bf36db6e bf492492 bf5b6db7 bf6db6db bf800000 7fc00000"""),
)


def derive_float8() -> Array:
    """Regenerate the table of normalised float8 bit for bit.

    [float8.table] Code s·128 + e·8 + m stands for (−1)^s · v / 448 with v = (1 + m/8)·2^(e−7) for e > 0 and the
    subnormal v = m/8 · 2^−6 for e = 0; e = 15 with m = 7 is NaN.

    Returns
    -------
    array of float32, shape (256,), in code order

    Notes
    -----
    Rounding points: the quotient by 448, the largest v, to float32.

    Examples
    --------
    >>> derive_float8()[[0x00, 0x01, 0x38, 0x7E, 0x7F]] * 448
    array([0.000000e+00, 1.953125e-03, 1.000000e+00, 4.480000e+02,
                    nan], dtype=float32)
    """
    exponent, mantissa = np.divmod(np.arange(128), 8)
    normal = (1 + mantissa / 8) * 2.0 ** (exponent - 7)
    magnitude = np.where(exponent > 0, normal, mantissa / 8 * 2.0**-6).astype(np.float32) / np.float32(448)
    table = np.concatenate([magnitude, -magnitude])
    table[127::128] = np.nan
    return table
