"""Linear integer maps: evenly spaced entries. Clause: ``[linear.table]``.

Sources: ``create_linear_map`` of bitsandbytes, whose words the two 8-bit maps and the unsigned 4-bit one are; the
4-bit integers −8 … 7 of weight-only INT4 kernels. Codes are in ascending order of value, no two's complement numbers.
"""

import numpy as np

from qloracle.codebooks import Codebook, even_spacing, table_from_words
from qloracle.formats import Array

# 255 points from −1 to 1, and 0. What the float32 spacing leaves of its middle point is 2^−28, not 0: the field ships
# that word, so code 127 is 0 and code 128 reads as 2^−28.
LINEAR_SIGNED = Codebook(
    "linear_signed",
    table_from_words("""
        bf800000 bf7dfbf8 bf7bf7f0 bf79f3e8 bf77efe0 bf75ebd8 bf73e7d0 bf71e3c8 bf6fdfc0 bf6ddbb7
        bf6bd7af bf69d3a7 bf67cf9f bf65cb97 bf63c78f bf61c387 bf5fbf7f bf5dbb77 bf5bb76f bf59b367
        bf57af5f bf55ab57 bf53a74f bf51a347 bf4f9f3e bf4d9b36 bf4b972e bf499326 bf478f1e bf458b16
        bf43870e bf418306 bf3f7efe bf3d7af6 bf3b76ee bf3972e6 bf376ede bf356ad6 bf3366ce bf3162c6
        bf2f5ebe bf2d5ab5 bf2b56ad bf2952a5 bf274e9d bf254a95 bf23468d bf214285 bf1f3e7d bf1d3a75
        bf1b366d bf193265 bf172e5d bf152a55 bf13264d bf112245 bf0f1e3c bf0d1a34 bf0b162c bf091224
        bf070e1c bf050a14 bf03060c bf010204 befdfbf8 bef9f3e8 bef5ebd8 bef1e3c8 beeddbb8 bee9d3a7
        bee5cb97 bee1c387 beddbb77 bed9b367 bed5ab57 bed1a347 becd9b36 bec99326 bec58b16 bec18306
        bebd7af6 beb972e6 beb56ad6 beb162c6 bead5ab6 bea952a5 bea54a95 bea14285 be9d3a75 be993265
        be952a55 be912245 be8d1a34 be891224 be850a14 be810204 be79f3e8 be71e3c8 be69d3a8 be61c387
        be59b367 be51a347 be499326 be418306 be3972e6 be3162c6 be2952a6 be214285 be193265 be112245
        be091224 be010204 bdf1e3c8 bde1c388 bdd1a347 bdc18306 bdb162c6 bda14286 bd912245 bd810204
        bd61c388 bd418307 bd214286 bd010205 bcc18308 bc810206 bc010208 00000000 31800000 3c010208
        3c810206 3cc18308 3d010205 3d214286 3d418307 3d61c388 3d810204 3d912245 3da14286 3db162c6
        3dc18306 3dd1a347 3de1c388 3df1e3c8 3e010204 3e091224 3e112245 3e193265 3e214285 3e2952a6
        3e3162c6 3e3972e6 3e418306 3e499326 3e51a347 3e59b367 3e61c387 3e69d3a8 3e71e3c8 3e79f3e8
        3e810204 3e850a14 3e891224 3e8d1a34 3e912245 3e952a55 3e993265 3e9d3a75 3ea14285 3ea54a95
        3ea952a5 3ead5ab6 3eb162c6 3eb56ad6 3eb972e6 3ebd7af6 3ec18306 3ec58b16 3ec99326 3ecd9b36
        3ed1a347 3ed5ab57 3ed9b367 3eddbb77 3ee1c387 3ee5cb97 3ee9d3a7 3eeddbb8 3ef1e3c8 3ef5ebd8
        3ef9f3e8 3efdfbf8 3f010204 3f03060c 3f050a14 3f070e1c 3f091224 3f0b162c 3f0d1a34 3f0f1e3c
        3f112245 3f13264d 3f152a55 3f172e5d 3f193265 3f1b366d 3f1d3a75 3f1f3e7d 3f214285 3f23468d
        3f254a95 3f274e9d 3f2952a5 3f2b56ad 3f2d5ab5 3f2f5ebe 3f3162c6 3f3366ce 3f356ad6 3f376ede
        3f3972e6 3f3b76ee 3f3d7af6 3f3f7efe 3f418306 3f43870e 3f458b16 3f478f1e 3f499326 3f4b972e
        3f4d9b36 3f4f9f3e 3f51a347 3f53a74f 3f55ab57 3f57af5f 3f59b367 3f5bb76f 3f5dbb77 3f5fbf7f
        3f61c387 3f63c78f 3f65cb97 3f67cf9f 3f69d3a7 3f6bd7af 3f6ddbb7 3f6fdfc0 3f71e3c8 3f73e7d0
        3f75ebd8 3f77efe0 3f79f3e8 3f7bf7f0 3f7dfbf8 3f800000"""),
)

# 256 points from 0 to 1. A negative number gets the code of 0.
LINEAR_UNSIGNED = Codebook(
    "linear_unsigned",
    table_from_words("""
        00000000 3b808081 3c008081 3c40c0c2 3c808081 3ca0a0a1 3cc0c0c2 3ce0e0e2 3d008081 3d109091
        3d20a0a1 3d30b0b1 3d40c0c2 3d50d0d2 3d60e0e2 3d70f0f2 3d808081 3d888889 3d909091 3d989899
        3da0a0a1 3da8a8a9 3db0b0b1 3db8b8b9 3dc0c0c2 3dc8c8ca 3dd0d0d2 3dd8d8da 3de0e0e2 3de8e8ea
        3df0f0f2 3df8f8fa 3e008081 3e048485 3e088889 3e0c8c8d 3e109091 3e149495 3e189899 3e1c9c9d
        3e20a0a1 3e24a4a5 3e28a8a9 3e2cacad 3e30b0b1 3e34b4b5 3e38b8b9 3e3cbcbd 3e40c0c2 3e44c4c6
        3e48c8ca 3e4cccce 3e50d0d2 3e54d4d6 3e58d8da 3e5cdcde 3e60e0e2 3e64e4e6 3e68e8ea 3e6cecee
        3e70f0f2 3e74f4f6 3e78f8fa 3e7cfcfe 3e808081 3e828283 3e848485 3e868687 3e888889 3e8a8a8b
        3e8c8c8d 3e8e8e8f 3e909091 3e929293 3e949495 3e969697 3e989899 3e9a9a9b 3e9c9c9d 3e9e9e9f
        3ea0a0a1 3ea2a2a3 3ea4a4a5 3ea6a6a7 3ea8a8a9 3eaaaaab 3eacacad 3eaeaeaf 3eb0b0b1 3eb2b2b3
        3eb4b4b5 3eb6b6b7 3eb8b8b9 3ebababb 3ebcbcbd 3ebebebf 3ec0c0c2 3ec2c2c4 3ec4c4c6 3ec6c6c8
        3ec8c8ca 3ecacacc 3eccccce 3ececed0 3ed0d0d2 3ed2d2d4 3ed4d4d6 3ed6d6d8 3ed8d8da 3edadadc
        3edcdcde 3ededee0 3ee0e0e2 3ee2e2e4 3ee4e4e6 3ee6e6e8 3ee8e8ea 3eeaeaec 3eececee 3eeeeef0
        3ef0f0f2 3ef2f2f4 3ef4f4f6 3ef6f6f8 3ef8f8fa 3efafafc 3efcfcfe 3efeff00 3f008080 3f018181
        3f028282 3f038383 3f048484 3f058585 3f068686 3f078787 3f088888 3f098989 3f0a8a8a 3f0b8b8b
        3f0c8c8c 3f0d8d8d 3f0e8e8e 3f0f8f8f 3f109090 3f119191 3f129292 3f139393 3f149494 3f159595
        3f169696 3f179797 3f189898 3f199999 3f1a9a9a 3f1b9b9b 3f1c9c9c 3f1d9d9d 3f1e9e9e 3f1f9f9f
        3f20a0a0 3f21a1a1 3f22a2a2 3f23a3a3 3f24a4a4 3f25a5a5 3f26a6a6 3f27a7a7 3f28a8a8 3f29a9a9
        3f2aaaaa 3f2babab 3f2cacac 3f2dadad 3f2eaeae 3f2fafaf 3f30b0b0 3f31b1b1 3f32b2b2 3f33b3b3
        3f34b4b4 3f35b5b5 3f36b6b6 3f37b7b7 3f38b8b8 3f39b9b9 3f3ababa 3f3bbbbb 3f3cbcbc 3f3dbdbd
        3f3ebebe 3f3fbfc0 3f40c0c1 3f41c1c2 3f42c2c3 3f43c3c4 3f44c4c5 3f45c5c6 3f46c6c7 3f47c7c8
        3f48c8c9 3f49c9ca 3f4acacb 3f4bcbcc 3f4ccccd 3f4dcdce 3f4ececf 3f4fcfd0 3f50d0d1 3f51d1d2
        3f52d2d3 3f53d3d4 3f54d4d5 3f55d5d6 3f56d6d7 3f57d7d8 3f58d8d9 3f59d9da 3f5adadb 3f5bdbdc
        3f5cdcdd 3f5dddde 3f5ededf 3f5fdfe0 3f60e0e1 3f61e1e2 3f62e2e3 3f63e3e4 3f64e4e5 3f65e5e6
        3f66e6e7 3f67e7e8 3f68e8e9 3f69e9ea 3f6aeaeb 3f6bebec 3f6ceced 3f6dedee 3f6eeeef 3f6feff0
        3f70f0f1 3f71f1f2 3f72f2f3 3f73f3f4 3f74f4f5 3f75f5f6 3f76f6f7 3f77f7f8 3f78f8f9 3f79f9fa
        3f7afafb 3f7bfbfc 3f7cfcfd 3f7dfdfe 3f7efeff 3f800000"""),
)

# The integers −8 … 7 over 8: no code is lost and every entry is exact, but a positive absmax becomes 7/8 of itself.
LINEAR_SIGNED_4BIT = Codebook(
    "linear_signed_4bit",
    table_from_words("""
        bf800000 bf600000 bf400000 bf200000 bf000000 bec00000 be800000 be000000
        00000000 3e000000 3e800000 3ec00000 3f000000 3f200000 3f400000 3f600000"""),
)

# 16 points from 0 to 1. A negative number gets the code of 0.
LINEAR_UNSIGNED_4BIT = Codebook(
    "linear_unsigned_4bit",
    table_from_words("""
        00000000 3d888889 3e088889 3e4cccce 3e888889 3eaaaaab 3eccccce 3eeeeef0
        3f088888 3f199999 3f2aaaaa 3f3bbbbc 3f4ccccd 3f5dddde 3f6eeeef 3f800000"""),
)


def derive_linear(*, signed: bool, bits: int) -> Array:
    """Regenerate a linear map bit for bit.

    [linear.table] Unsigned: 2^bits points from 0 to 1. Signed with 8 bits: 255 points from −1 to 1, and 0. Signed with
    4 bits: k/8 for k = −8 … 7.

    Parameters
    ----------
    signed : bool
    bits : {4, 8}

    Returns
    -------
    array of float32, shape (2^bits,), ascending

    Notes
    -----
    Rounding points: those of the spacing (`even_spacing`); none for −8 … 7.

    Examples
    --------
    >>> derive_linear(signed=True, bits=4)[[0, 7, 8, 15]]
    array([-1.   , -0.125,  0.   ,  0.875], dtype=float32)
    >>> derive_linear(signed=True, bits=8)[126:130] * 127
    array([-1.0000005e+00,  0.0000000e+00,  4.7311187e-07,  1.0000005e+00],
          dtype=float32)
    """
    if not signed:
        return even_spacing(0.0, 1.0, 2**bits)
    if bits == 4:
        return np.arange(-8, 8).astype(np.float32) / np.float32(8)
    return np.sort(np.append(even_spacing(-1.0, 1.0, 255), np.float32(0)))
