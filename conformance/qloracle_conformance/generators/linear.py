"""Inputs of LoRA and QLoRA layers: lattices on which every order of summation is exact, and ordinary numbers."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from qloracle.blocks import block_count
from qloracle.formats import FORMATS, Array, format_named
from qloracle.packing import pack_4bit
from qloracle.tables import codebook_named
from qloracle_conformance.arrays import HostArray, host
from qloracle_conformance.backend import Claim
from qloracle_conformance.generators.case import Case
from qloracle_conformance.generators.draw import Draw
from qloracle_conformance.generators.values import full_significand, normal, rounded, small_integers

WIDE_LENGTHS = (64, 1024, 11008)  # inner dimensions: one block, a layer, and LLaMA's feed-forward layer
PRIMES = np.array([2, 3, 5, 7, 11, 13])
# Rows of x: a kernel for few rows has a path for each number of them; as many as the default profile has cases.
COUNTS = (1, 5, 16, 2, 33, 4, 3, 8, 17, 32, 6, 7, 9, 64, 12, 10, 15, 11, 13, 14)
TERMS = ("base", "bias", "adapter", "scale", "dropout", "whole")


@dataclass(frozen=True)
class Layer:
    """The arrays of one layer and one batch, as real numbers still to be rounded to a format."""

    x: Array
    weight: Array
    lora_a: Array
    lora_b: Array
    alpha: float
    bias: Array | None = None
    mask: Array | None = None
    dropout: float = 0.0
    rank_stabilized: bool = False
    dy: Array | None = None
    lora_bias: Array | None = None
    magnitude: Array | None = None
    fan_in_fan_out: bool = False  # the weight is handed over as (d_in, d_out)


def layer_case(
    operation: str, layer: Layer, dtype: str, *, lattice: bool, term: str, layout: str = "contiguous",
    repeat: bool = False, weight: Mapping[str, HostArray] | None = None, options: Mapping[str, Any] | None = None,
) -> Case:  # fmt: skip
    """Return the case of a layer; `weight` and `options` replace the plain weight by a quantized one."""
    inputs: dict[str, HostArray | None] = {} if layer.dy is None else {"dy": rounded(layer.dy, dtype)}
    inputs["x"] = rounded(layer.x, dtype)
    stored = layer.weight.T if layer.fan_in_fan_out else layer.weight
    inputs |= {"weight": rounded(stored, dtype)} if weight is None else dict(weight)
    inputs |= {"lora_a": rounded(layer.lora_a, dtype), "lora_b": rounded(layer.lora_b, dtype)}
    if layer.magnitude is not None:
        inputs["magnitude"] = rounded(layer.magnitude, dtype)
    if layer.dy is None:
        inputs["bias"] = None if layer.bias is None else rounded(layer.bias, dtype)
    if layer.dy is None and layer.lora_bias is not None:
        inputs["lora_bias"] = rounded(layer.lora_bias, dtype)
    inputs["mask"] = None if layer.mask is None else host(layer.mask)
    chosen = {"alpha": layer.alpha, "dropout": layer.dropout, "rank_stabilized": layer.rank_stabilized}
    chosen |= {"fan_in_fan_out": True} if layer.fan_in_fan_out else {}
    layouts = dict.fromkeys(inputs, layout)
    return Case(operation, inputs, {**chosen, **(options or {})}, layouts, lattice, term, repeat)


def terms_for(claim: Claim) -> tuple[str, ...]:
    """Return the parts of the formula that a claim covers."""
    return tuple(t for t in TERMS if t not in ("bias", "dropout") or t in claim.features)


def integer_layer(draw: Draw, claim: Claim, term: str, rows: tuple[int, ...], sizes: tuple[int, int, int]) -> Layer:
    """Return small integers in which only one part of the formula is at work, or all of them.

    All partial sums are integers (times a power of two) below 2^24, and x_d Aᵀ is below 2^8, so that float16 and
    bfloat16 hold it: any order, and any declared intermediate rounding, gives the exact result.
    """
    d_in, d_out, rank = sizes
    random = draw.random()
    stabilized = "rank_stabilized" in claim.features and term in ("scale", "whole") and draw.choice((False, True))
    rank = {1: 1, 2: 4, 4: 16, 8: 4}.get(rank, rank) if stabilized else rank
    unit = int(np.sqrt(rank)) if stabilized else rank
    alpha = float(unit if term in ("base", "bias", "adapter", "dropout") else unit * draw.choice((2.0, 0.5, 4.0)))
    on = {
        "base": term in ("base", "whole"),
        "adapter": term in ("adapter", "scale", "dropout", "whole"),
        "bias": term == "bias" or (term == "whole" and "bias" in claim.features),
        "mask": term == "dropout" or (term == "whole" and "dropout" in claim.features),
    }
    mask = random.integers(0, 2, (*rows, d_in)).astype(np.bool_) if on["mask"] else None
    dropout = draw.choice((0.5, 0.75, 1.0)) if on["mask"] else 0.0
    sparse = random.integers(0, 8, (rank, d_in)) == 0 if d_in > 32 else np.ones((rank, d_in), np.bool_)
    return Layer(
        x=random.integers(-2, 3, (*rows, d_in)),
        weight=random.integers(-3, 4, (d_out, d_in)) * on["base"],
        lora_a=random.integers(-1, 2, (rank, d_in)) * sparse,
        lora_b=random.integers(-1, 2, (d_out, rank)) * on["adapter"],
        alpha=alpha,
        bias=random.integers(-7, 8, d_out) if on["bias"] else None,
        mask=mask,
        dropout=dropout,
        rank_stabilized=stabilized,
        lora_bias=random.integers(-7, 8, d_out) if _shifted(claim, term) else None,
    )


def _shifted(claim: Claim, term: str) -> bool:
    return "lora_bias" in claim.features and term in ("whole", "lora_bias")


def batch_shapes(claim: Claim) -> list[tuple[int, ...]]:
    """Return the leading dimensions of x that a claim admits."""
    shapes: tuple[tuple[int, ...], ...] = ((3,), (1,), (7,), (), (2, 3), (17,), (0,), (2, 0), (2, 1, 3))
    return [s for s in shapes if len(s) + 1 in claim.ndims and (claim.empty or 0 not in s)]


def sizes_for(draw: Draw) -> tuple[int, int, int]:
    """Return d_in, d_out and rank, rarely square."""
    return draw.choice((8, 1, 3, 17, 33, 64, 100)), draw.choice((5, 1, 3, 16, 24)), draw.choice((2, 1, 4, 8))


def ramp_layer(draw: Draw, claim: Claim) -> Layer:
    """Every row of x times its own prime, every entry of W, A, B told apart by its place; integers throughout."""
    rows, d_in, d_out, rank = 6, 8, 5, 4
    row, column = np.arange(rows)[:, np.newaxis], np.arange(d_in)
    weight = (np.arange(d_out)[:, np.newaxis] * 31 + column * 17) % 23 - 11
    a = (np.arange(rank)[:, np.newaxis] * 5 + column * 3) % 3 - 1
    b = (np.arange(d_out)[:, np.newaxis] * 2 + np.arange(rank)) % 3 - 1
    bias = np.arange(d_out) * 3 + 1 if "bias" in claim.features else None
    x = PRIMES[row] * ((row + column) % 3 - 1)
    return Layer(x=x, weight=weight, lora_a=a, lora_b=b, alpha=rank * draw.choice((2.0, 0.5, 4.0)), bias=bias)


def one_hot(random: np.random.Generator, rows: int, columns: int, exponents: tuple[int, int]) -> Array:
    """Return rows with one nonzero ±2^e each; the last and first columns and those at tile edges come first."""
    edges = [
        columns - 1,
        0,
        columns - 2,
        *(columns // 2 + d for d in (-1, 0)),
        *(m + d for d in (-1, 0) for m in (16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)),
    ]
    chosen = random.permutation(columns)[:rows]
    known = np.array([e for e in edges if 0 <= e < columns][: max(1, rows // 2)])[:rows]
    chosen = np.resize(chosen, rows)
    chosen[: len(known)] = known
    matrix = np.zeros((rows, columns))
    sign = random.choice([-1.0, 1.0], rows)
    matrix[np.arange(rows), chosen] = np.ldexp(sign, random.integers(exponents[0], exponents[1] + 1, rows))
    return matrix


def narrowest(dtype: str, claim: Claim) -> str:
    """Return the format of fewest significand bits among the operands' and the declared intermediate one."""
    return min((dtype, claim.roundings.intermediate), key=lambda name: format_named(name).mantissa_bits)


def wide_layer(draw: Draw, claim: Claim, dtype: str, term: str) -> Layer:
    """One nonzero power of two in each row against words of full significand: exact in any order of summation."""
    random, fmt = draw.random(), FORMATS[dtype]
    d_in = draw.choice(WIDE_LENGTHS)
    rows, d_out, rank = min(d_in, 96), 3, 2
    tiny = term == "base" and draw.choice((False, True))
    lowest = fmt.minimum_exponent - 3
    x = one_hot(random, rows, d_in, (lowest, lowest + 2) if tiny else (-3, 3))
    words = full_significand(random, (d_out, d_in), dtype).real() * (2.0 ** min(10, fmt.bias // 2) if tiny else 1.0)
    a = full_significand(random, (rank, d_in), narrowest(dtype, claim)).real()
    adapter = term != "base"
    return Layer(
        x=x,
        weight=words * (not adapter),
        lora_a=a if adapter else a * 0,
        lora_b=one_hot(random, d_out, rank, (-1, 1)) * adapter,
        alpha=rank * (1.0 if term != "scale" else 4.0),
    )


def normal_layer(draw: Draw, claim: Claim, dtype: str) -> Layer:
    """Ordinary numbers and factors that are not powers of two: judged by the bound."""
    random = draw.random()
    d_in, d_out, rank = draw.choice((64, 200, 1000)), draw.choice((24, 7, 130)), draw.choice((3, 8, 5, 17, 40))
    rows = draw.choice((5, 1, 16, 70, 140))
    masked = "dropout" in claim.features and draw.choice((False, True))
    return Layer(
        x=normal(random, (rows, d_in), dtype).real(),
        weight=normal(random, (d_out, d_in), dtype, 0.05).real(),
        lora_a=normal(random, (rank, d_in), dtype, 0.05).real(),
        lora_b=normal(random, (d_out, rank), dtype).real(),
        alpha=draw.choice((7.3, 16.0, 1.0)),
        bias=normal(random, (d_out,), dtype).real() if "bias" in claim.features else None,
        mask=random.integers(0, 10, (rows, d_in)) > 0 if masked else None,
        dropout=0.1 if masked else 0.0,
        rank_stabilized="rank_stabilized" in claim.features and draw.choice((False, True)),
        lora_bias=normal(random, (d_out,), dtype).real() if "lora_bias" in claim.features else None,
    )


def with_gradient(layer: Layer, random: np.random.Generator, dtype: str = "") -> Layer:
    """Add a gradient of the output: small integers, or ordinary numbers of `dtype`."""
    shape = (*layer.x.shape[:-1], layer.weight.shape[0])
    dy = normal(random, shape, dtype).real() if dtype else small_integers(random, shape, "float32", 1).real()
    return replace(layer, dy=dy)


def quantized_weight(
    random: np.random.Generator, shape: tuple[int, ...], block_size: int, lattice: bool
) -> dict[str, HostArray]:
    """Return packed NF4 data and absmax of a weight; on a lattice only −1, 0 and 1 times powers of two."""
    table, size = codebook_named("nf4"), int(np.prod(shape))
    codes = random.choice(np.array([0, 7, 15], np.uint8), size) if lattice else random.integers(0, 16, size, np.uint8)
    blocks = block_count(size, block_size)
    absmax = np.ldexp(1.0, random.integers(-1, 2, blocks)) if lattice else random.uniform(0.01, 0.1, blocks)
    return {"data": host(pack_4bit(codes, table.zero_code)), "absmax": host(absmax.astype(np.float32))}
