"""Layers larger than a tile, square ones, ones near the end of the exponents, and ones with a NaN in any operand."""

from dataclasses import replace

import numpy as np

from qloracle.formats import Array, format_named
from qloracle_conformance.backend import Claim
from qloracle_conformance.generators.draw import Draw
from qloracle_conformance.generators.linear import Layer, integer_layer, normal_layer

# Ranks are powers of 4, so that alpha/r and alpha/sqrt(r) are exact however they are computed.
SIZES = ((333, 300, 64), (200, 129, 16), (131, 67, 64), (520, 40, 4), (1031, 20, 16), (40, 24, 256))  # d_in, d_out, rank
ROWS: tuple[tuple[int, ...], ...] = ((130,), (33,), (67,), (2, 40), (1,))
WEIGHT = 256.0  # factor of weights against subnormals
ENTRIES = 16  # nonzero ones in a row of A: x_d Aᵀ stays below 2^8


def tile_layer(draw: Draw, claim: Claim) -> Layer:
    """Small integers in more rows, columns and ranks than a tile has, no multiples of one."""
    layer = integer_layer(draw, claim, "whole", draw.choice(ROWS), draw.choice(SIZES))
    random = draw.random()
    return replace(layer, lora_a=_sparse(random, *layer.lora_a.shape))


def _sparse(random: np.random.Generator, rank: int, d_in: int) -> Array:
    """Return rows of a few ±1; the last column is among them."""
    matrix = np.zeros((rank, d_in))
    for row in matrix:
        row[random.choice(d_in - 1, ENTRIES - 1, replace=False)] = random.choice([-1.0, 1.0], ENTRIES - 1)
        row[-1] = random.choice([-1.0, 1.0])
    return matrix


def square_layer(draw: Draw, claim: Claim) -> Layer:
    """One size for rows, inputs, outputs and rank: a transposed operand has the right shape and the wrong elements."""
    plain = replace(claim, features=tuple(f for f in claim.features if f != "rank_stabilized"))
    size = draw.choice((8, 4, 16))
    return integer_layer(draw, plain, "whole", (size,), (size, size, size))


def exponent_layer(draw: Draw, claim: Claim, dtype: str, backward: bool) -> Layer:
    """The base alone: rows of subnormals, and rows so large that sums in a narrower range overflow on the way.

    float32 holds every partial sum; whether the result overflows its format is up to the result alone. The weight has a
    factor `WEIGHT`, so that subnormals give normal numbers.
    """
    fmt, random = format_named(dtype), draw.random()
    rows, d_in, d_out, rank = 6, draw.choice((33, 8)), draw.choice((16, 3)), 2
    largest = fmt.bias - draw.choice((10, 12)) - (10 if fmt.exponent_bits == 8 else 0)
    power = np.ldexp(1.0, np.where(np.arange(rows) % 2 == 0, largest, fmt.minimum_exponent - 3))[:, np.newaxis]
    x = random.integers(-2, 3, (rows, d_in))
    return Layer(
        x=x * (1.0 if backward else power),
        weight=random.integers(-3, 4, (d_out, d_in)) * WEIGHT,
        lora_a=np.zeros((rank, d_in)),
        lora_b=np.zeros((d_out, rank)),
        alpha=float(rank),
        dy=random.integers(-1, 2, (rows, d_out)) * power if backward else None,
    )


def poisoned_layer(draw: Draw, claim: Claim, dtype: str, backward: bool) -> Layer:
    """A NaN in one operand: it must reach every result that it is a term of, and no other."""
    layer = replace(normal_layer(draw, claim, dtype), mask=None, dropout=0.0)
    random = draw.random()
    names = ["weight", "lora_a", "lora_b", "x"]
    if backward:
        layer = replace(layer, dy=random.standard_normal((len(layer.x), len(layer.weight))))
        names.append("dy")
    elif layer.bias is not None:
        names.append("bias")
    name = draw.choice(names)
    operand = np.array(getattr(layer, name), np.float64)
    place = random.choice([0, operand.size // 2, operand.size - 1])
    operand.reshape(-1)[place] = np.nan
    return replace(layer, **{name: operand})
