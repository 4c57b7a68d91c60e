"""Random numbers that adapters start from: the ends of the range, ties of the rounding, ordinary draws."""

import numpy as np

from qloracle.formats import FLOAT32, Array, format_named
from qloracle_conformance.arrays import HostArray, host
from qloracle_conformance.backend import Claim
from qloracle_conformance.generators.case import Case
from qloracle_conformance.generators.draw import Draw
from qloracle_conformance.generators.merging import option
from qloracle_conformance.generators.values import any_exponent

FAMILIES = ("range_ends", "ties", "sizes", "ramps", "memory", "normal")
SIZES = ((2, 9, 33), (4, 64, 24), (8, 100, 40), (3, 7, 5), (16, 768, 16))  # rank, d_in, d_out
SMALL = ((1, 1, 1), (1, 130, 3), (3, 3, 3), (2, 4099, 2), (64, 64, 64), (1, 2, 1031))


def init_case(draw: Draw, claim: Claim, *, family: str) -> Case:
    """Draws for the adapter of a linear layer."""
    layout = draw.choice(claim.layouts)
    random, dtype = draw.random(), draw.choice(claim.out_dtypes)
    initialization = str(option(draw, claim, "initialization", "kaiming"))
    rank, d_in, d_out = draw.choice(SMALL if family == "sizes" else SIZES)
    std = None
    if initialization == "gaussian":
        std = draw.choice((None, 0.02, 1.0, 0.1))
        draws = _normals(random, (rank, d_in), family, dtype, 1 / rank if std is None else std)
    else:
        draws = _uniforms(random, (rank, d_in), family, dtype)
    options = {"d_out": d_out, "initialization": initialization, "std": std, "dtype": dtype}
    return _case("lora.init", layout, family, draws, options)


def embedding_case(draw: Draw, claim: Claim, *, family: str) -> Case:
    """Draws for the adapter of an embedding."""
    layout = draw.choice(claim.layouts)
    random, dtype = draw.random(), draw.choice(claim.out_dtypes)
    rank, dim, tokens = draw.choice(SMALL if family == "sizes" else SIZES)
    draws = _normals(random, (dim, rank), family, dtype, 1.0)
    return _case("embedding.init", layout, family, draws, {"num_embeddings": tokens, "dtype": dtype})


def _case(operation: str, layout: str, family: str, draws: Array, options: dict[str, object]) -> Case:
    inputs: dict[str, HostArray | None] = {"draws": host(draws)}
    chosen = layout if family in ("memory", "ramps") else "contiguous"
    return Case(operation, inputs, options, {"draws": chosen}, repeat=family == "memory")


def _uniforms(random: np.random.Generator, shape: tuple[int, int], family: str, dtype: str) -> Array:
    """Return numbers from 0 to below 1, as generators give them, and some that they rarely give."""
    draws: Array = random.random(shape, dtype=np.float32)
    if family == "range_ends":
        rare = np.array([0.0, 2.0**-24, 2.0**-149, 2.0**-30, 0.5, 0.5 - 2.0**-25, 0.5 + 2.0**-24, 1 - 2.0**-24, 0.25])
        draws = np.where(random.integers(0, 2, shape) == 0, random.choice(rare, shape), draws).astype(np.float32)
    if family == "ties":
        # 2u − 1 of so few bits that the product with a power of two lies on, or beside, a tie of 16 bits.
        bits = format_named(dtype).mantissa_bits + 1
        steps = random.integers(1, 2 ** min(bits + 1, 22), shape) | 1
        draws = (0.5 + steps * 2.0 ** -min(bits + 2, 24)).astype(np.float32)
        draws[draws >= 1] = 0.5
    return draws


def _normals(random: np.random.Generator, shape: tuple[int, int], family: str, dtype: str, std: float) -> Array:
    """Return standard normal numbers; at the boundaries numbers of every exponent, zeros of both signs."""
    draws: Array = random.standard_normal(shape).astype(np.float32)
    if family == "range_ends":
        wide = any_exponent(random, shape, "float32").items * random.choice([-1, 1], shape)
        rare = np.array([0.0, -0.0, 1.0, FLOAT32.largest_finite, 2.0**-149, -(2.0**-126)])
        wide = np.where(random.integers(0, 4, shape) == 0, random.choice(rare, shape), wide)
        draws = np.where(random.integers(0, 2, shape) == 0, wide, draws).astype(np.float32)
    if family == "ties":
        fmt = format_named(dtype)
        words = random.integers(0, 1 << fmt.mantissa_bits, shape) * 2 + 1
        target = (1 + words * 2.0 ** (-fmt.mantissa_bits - 1)) * random.choice([-1.0, 1.0], shape)
        draws = (target / std).astype(np.float32)
    if family == "ramps":
        draws = (np.arange(shape[0])[:, np.newaxis] * 16 + np.arange(shape[1]) + 1).astype(np.float32) / 4
    return draws
