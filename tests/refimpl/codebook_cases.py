"""The codebooks that tests run over: all of the specification, and tables that somebody else might make."""

import numpy as np

from qloracle.codebooks import Codebook
from qloracle.tables import CODEBOOKS

ZERO_CODES = {
    "nf4": 7, "fp4": 0, "linear_signed_4bit": 8, "linear_unsigned_4bit": 0, "dynamic_signed": 127,
    "dynamic_unsigned": 0, "linear_signed": 127, "linear_unsigned": 0, "float8": 0,
}  # fmt: skip
# Codes that are never written: the second spelling of zero, and NaN.
UNWRITTEN = {"fp4": {8}, "float8": {0x7F, 0x80, 0xFF}}


def spread_out(seed: int, size: int) -> Codebook:
    """Random significands at exponents so far apart that midpoints need more bits than float64 has."""
    rng = np.random.default_rng([71, seed])
    significands = rng.integers(1 << 23, 1 << 24, size) | 1
    values = np.ldexp(significands.astype(np.float64), rng.integers(-90, 0, size)) * rng.choice([-1, 1], size)
    return Codebook(f"spread_out_{seed}", values.astype(np.float32))


def hostile_codebooks() -> dict[str, Codebook]:
    """Legal tables that no float64 quotient decides, or that are odd in another way."""
    tiny = np.float32(2.0**-60)
    beside = np.array([-1, -tiny, 0, tiny, 1], np.float32)
    ends = np.array([0x7F7FFFFF, 0xFF7FFFFF, 1, 0x80000001, 0x00800000, 0x3F800001, 0, 0x007FFFFF], np.uint32)
    step = np.float32(2.0**-23)
    rungs = np.ldexp(np.array([0x800001, 0xC00003, 0xFFFFFF, 0xABCDEF, 0x900009, 9, 1, 3]), range(100, -172, -34))
    made = [
        Codebook("ladder", np.concatenate([rungs, -rungs]).astype(np.float32)),
        Codebook("beside_halves", np.concatenate([beside, np.linspace(1.5, 4, 11, dtype=np.float32)])),
        Codebook("ends_of_the_range", np.tile(ends.view(np.float32), 2)),
        Codebook("neighbours", (1 + np.arange(16) * step).astype(np.float32)),
        Codebook("one_value", np.full(16, 0.3, np.float32)),
        Codebook("no_zero", np.arange(-15, 16, 2).astype(np.float32) / 16),
        Codebook("gaps", np.where(np.arange(16) % 3 == 1, np.nan, np.arange(16) - 7).astype(np.float32)),
        *(spread_out(seed, 16) for seed in range(4)),
        spread_out(9, 256),
    ]
    return {codebook.name: codebook for codebook in made}


HOSTILE = hostile_codebooks()
EVERY = {**CODEBOOKS, **HOSTILE}
