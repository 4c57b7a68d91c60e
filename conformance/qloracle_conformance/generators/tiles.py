"""Layers larger than a tile, square ones, ones near the end of the exponents, and ones with a NaN in any operand."""

from dataclasses import replace
from typing import Any

import numpy as np

from qloracle.formats import Array, format_named
from qloracle_conformance.backend import Claim
from qloracle_conformance.generators.draw import Draw
from qloracle_conformance.generators.linear import Layer, integer_layer, normal_layer

# Ranks are powers of 4, so that alpha/r and alpha/sqrt(r) are exact however they are computed.
SIZES = (
    (333, 300, 64),
    (200, 129, 16),
    (131, 67, 64),
    (520, 40, 4),
    (1031, 20, 16),
    (40, 24, 256),
)  # d_in, d_out, rank
ROWS: tuple[tuple[int, ...], ...] = ((130,), (33,), (67,), (2, 40), (1,), (260,))
FACTOR = 16.0  # of operands against subnormals: products are normal, and x_d Aᵀ fits float16
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
    lowest = fmt.minimum_exponent - 3
    exponents = np.where(np.arange(rows) % 2 == 0, largest, lowest)
    if (
        backward
    ):  # the gradient of the bias adds up all rows: one exponent, and only those whose sum is a normal float32
        exponents = np.full(rows, largest if fmt.exponent_bits == 8 else draw.choice((largest, lowest)))
    power = np.ldexp(1.0, exponents)[:, np.newaxis]
    x = random.integers(-2, 3, (rows, d_in))
    return Layer(
        x=x * (1.0 if backward else power),
        weight=random.integers(-3, 4, (d_out, d_in)) * WEIGHT,
        lora_a=np.zeros((rank, d_in)),
        lora_b=np.zeros((d_out, rank)),
        alpha=float(rank),
        dy=random.integers(-1, 2, (rows, d_out)) * power if backward else None,
    )


def subnormal_layer(draw: Draw, claim: Claim, dtype: str, backward: bool) -> Layer:
    """Integers, those of one operand subnormal; factors of the others make normal float32 of all products.

    Subnormal float16 are normal float32 by themselves: there the bias, or the gradient of the output, is one as well.
    """
    fmt, random = format_named(dtype), draw.random()
    rows, d_in, d_out, rank = 5, draw.choice((8, 33)), draw.choice((3, 16)), 2
    last_name = "dy" if backward else "bias"
    small = (last_name,) if fmt.exponent_bits < 8 and (backward or "bias" in claim.features) else ()
    # An intermediate of fewer exponents than the operands would lose what is subnormal in theirs.
    narrow = format_named(claim.roundings.intermediate).exponent_bits < fmt.exponent_bits
    name = draw.choice(("weight",) if narrow else ("weight", "lora_a", "lora_b", "x", *small))
    shapes = {"x": (rows, d_in), "weight": (d_out, d_in), "lora_a": (rank, d_in), "lora_b": (d_out, rank)}
    arrays = {n: random.integers(-1, 2, shape).astype(np.float64) for n, shape in shapes.items()}
    last = random.integers(-1, 2, (rows, d_out) if backward else (d_out,)).astype(np.float64)
    if backward or "bias" in claim.features:
        arrays[last_name] = last if backward or name == "bias" else last * 0.0
    base = name in ("weight", "dy") or (name == "x" and not backward)
    for absent in ("weight", "lora_b") if name == "bias" else ("lora_b",) if base else ("weight",):
        arrays[absent] *= 0.0
    for other in ("dy", "x", "lora_a", "weight") if backward else ("x", "weight"):
        arrays[other] *= 1.0 if other == name else FACTOR
    arrays[name] *= 2.0 ** (fmt.minimum_exponent - 3)
    parts: dict[str, Any] = arrays
    return Layer(**parts, alpha=float(rank))


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
    changed: dict[str, Any] = {name: operand}
    return replace(layer, **changed)
