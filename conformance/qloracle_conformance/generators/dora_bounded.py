"""DoRA layers that are no lattices: ordinary numbers, short sums, rows whose squares leave the range, a NaN."""

from dataclasses import replace
from typing import Any

import numpy as np

from qloracle.dora import merged_rows, row_norms
from qloracle.formats import format_named
from qloracle.lora import lora_scale
from qloracle_conformance.backend import Claim
from qloracle_conformance.generators.draw import Draw
from qloracle_conformance.generators.linear import Layer
from qloracle_conformance.generators.linear import normal_layer as ordinary
from qloracle_conformance.generators.values import full_significand, rounded


def with_magnitude(random: np.random.Generator, layer: Layer, dtype: str) -> Layer:
    """Return a layer with magnitudes around its norms."""
    scale = lora_scale(layer.alpha, len(layer.lora_a), rank_stabilized=layer.rank_stabilized)
    norms = row_norms(merged_rows(layer.weight, layer.lora_a, layer.lora_b, scale))
    magnitude = rounded(norms * random.uniform(0.25, 2.0, norms.shape), dtype).real()
    return replace(layer, magnitude=magnitude, lora_bias=None)


def normal(draw: Draw, claim: Claim, dtype: str) -> Layer:
    """Ordinary numbers."""
    return with_magnitude(draw.random(), ordinary(draw, claim, dtype), dtype)


def few(draw: Draw, claim: Claim, dtype: str) -> Layer:
    """Sums of one or two products of full-significand words: the bound is a few roundings wide."""
    random = draw.random()
    rows, d_in, d_out, rank = 8, draw.choice((1, 2)), 6, draw.choice((1, 2))
    x, w, a, b = (
        full_significand(random, shape, dtype).real()
        for shape in ((rows, d_in), (d_out, d_in), (rank, d_in), (d_out, rank))
    )
    masked = "dropout" in claim.features and draw.choice((False, True))
    mask = random.integers(0, 6, (rows, d_in)) > 0 if masked else None
    layer = Layer(x, w, a, b, draw.choice((7.3, 0.9)), mask=mask, dropout=0.1 if masked else 0.0)
    return with_magnitude(random, layer, dtype)


def tiny(draw: Draw, claim: Claim, dtype: str) -> Layer:
    """Finite rows so small, or so large, that their squares leave float32: any number is right, but not NaN."""
    random, fmt = draw.random(), format_named(dtype)
    layer = few(draw, replace(claim, features=()), dtype)
    sizes = [fmt.minimum_exponent, fmt.minimum_exponent - fmt.mantissa_bits + 1, -90, 70, 0]
    if fmt.exponent_bits < 8:
        sizes = [fmt.minimum_exponent, fmt.minimum_exponent - 3, -8, 8, 0]
    power = 2.0 ** random.permutation(np.resize(sizes, len(layer.weight)))[:, np.newaxis]
    weight, b = (rounded(values * power, dtype).real() for values in (layer.weight, layer.lora_b))
    magnitude = random.uniform(0.5, 1.0, len(weight)) * random.choice([0.0, 1.0, 1.0], len(weight))
    x = layer.x * random.choice([0.0, 1.0, 1.0], layer.x.shape)
    return replace(layer, x=x, weight=weight, lora_b=b, magnitude=magnitude)


def poisoned(draw: Draw, layer: Layer) -> Layer:
    """A NaN in one operand: it must reach every result that it is a term of, and no other."""
    random, name = draw.random(), draw.choice(("weight", "lora_a", "lora_b", "magnitude", "x"))
    operand = np.array(getattr(layer, name), np.float64)
    operand.reshape(-1)[random.choice([0, operand.size // 2, operand.size - 1])] = np.nan
    changed: dict[str, Any] = {"mask": None, "dropout": 0.0, name: operand}
    return replace(layer, **changed)
