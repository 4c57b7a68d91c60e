"""Layers whose factors, biases and sums leave what 16-bit formats hold, and short sums that show a single rounding.

Every partial sum of the first kind is exact in float32; whether the result overflows its own format is up to it alone.
"""

from dataclasses import replace

import numpy as np

from qloracle.formats import Array, Format, format_named
from qloracle_conformance.backend import Claim
from qloracle_conformance.generators.draw import Draw
from qloracle_conformance.generators.linear import Layer, integer_layer, sizes_for
from qloracle_conformance.generators.values import full_significand, rounded

DROPPED = (17, 12, 20)  # p = 1 − 2^−k: 1/(1 − p) is exact, above float16's range for k ≥ 16, and p itself needs k bits
SCALES = (20, -30, 12)  # s = 2^e, beyond float16's range at either end
ROWS = 260  # more than bfloat16 counts to


def limit_layer(draw: Draw, claim: Claim, dtype: str, backward: bool) -> tuple[Layer, str]:
    """Return a layer with one number at a limit, and the part of the formula that it belongs to."""
    terms: list[str] = [t for t in ("bias", "dropout") if t in claim.features or (backward and t == "bias")]
    if backward:
        terms.append("sums")
    term = draw.choice((*terms, "scale"))
    layer = integer_layer(draw, replace(claim, features=()), "adapter", (4,), sizes_for(draw))
    layer = replace(layer, weight=layer.weight * 0.0, alpha=float(len(layer.lora_a)))
    if term == "bias":
        return _special_bias(draw, layer, dtype, backward), term
    if term == "sums":
        return _cancelling_gradients(draw, claim, layer, dtype), term
    return (_dropped(draw, layer) if term == "dropout" else _scaled(draw, layer)), term


def special_values(random: np.random.Generator, fmt: Format, count: int) -> Array:
    """Return finite numbers at the ends of a format: subnormals, around the smallest normal, the largest."""
    mantissa = (1 << fmt.mantissa_bits) - 1
    bits = np.array([1, 2, mantissa // 3, mantissa, mantissa + 1, mantissa + 2, fmt.infinity_bits - 1], np.int64)
    step = 2.0 ** (fmt.minimum_exponent - fmt.mantissa_bits)
    chosen = random.permutation(np.resize(bits, max(count, 1)))[:count]
    values = np.where(chosen < fmt.infinity_bits - 1, chosen * step, fmt.largest_finite)
    y: Array = values * random.choice([-1.0, 1.0], count)
    return y


def _special_bias(draw: Draw, layer: Layer, dtype: str, backward: bool) -> Layer:
    """The bias alone, or a gradient of the output with one row that is not zero: it comes out as it went in."""
    random, fmt, d_out = draw.random(), format_named(dtype), len(layer.weight)
    values = special_values(random, fmt, d_out)
    silent = replace(layer, x=layer.x * 0.0, lora_b=layer.lora_b * 0.0)
    if not backward:
        return replace(silent, bias=values)
    dy = np.zeros((len(layer.x), d_out))
    dy[random.integers(0, len(dy))] = values
    return replace(silent, dy=dy)


def _cancelling_gradients(draw: Draw, claim: Claim, layer: Layer, dtype: str) -> Layer:
    """Gradients whose partial sums leave float16 and the integers that bfloat16 holds; their sums do not."""
    random, (d_out, _), rank = draw.random(), layer.weight.shape, len(layer.lora_a)
    narrow = "float16" in (dtype, claim.roundings.intermediate)
    large, count = 2.0**15 if narrow else 2.0**100, draw.choice((True, False))
    dy = np.repeat([1.0, 1.0 if count else -1.0], ROWS // 2)[:, np.newaxis] * np.ones((1, d_out))
    dy[ROWS // 2 :: 2] *= random.choice([1.0, 0.5], d_out)
    dy *= 1.0 if count else large
    one = np.ones((ROWS, layer.x.shape[1]))
    b = np.zeros((d_out, rank))
    b[0, 0] = 1.0
    return replace(layer, x=one, lora_a=np.eye(rank, layer.x.shape[1]), lora_b=b, dy=dy)


def _dropped(draw: Draw, layer: Layer) -> Layer:
    """Inputs so small that 1/(1 − p) makes integers of them."""
    power, random = draw.choice(DROPPED), draw.random()
    mask = random.integers(0, 4, layer.x.shape) > 0
    small = 2.0**-power
    return replace(layer, x=layer.x * small, mask=mask, dropout=1 - small)


def _scaled(draw: Draw, layer: Layer) -> Layer:
    """A scale beyond float16; A and B bring the result back."""
    exponent = draw.choice(SCALES)
    first = 2.0 ** (-5 if exponent > 0 else 5)
    second = 2.0 ** (5 - exponent if exponent > 0 else min(10, -exponent - 5))
    return replace(layer, lora_a=layer.lora_a * first, lora_b=layer.lora_b * second, alpha=layer.alpha * 2.0**exponent)


def option_layer(draw: Draw, claim: Claim, backward: bool) -> tuple[Layer, str]:
    """A transposed weight, square or not, mostly under a fresh adapter; a bias of the adapter; or neither."""
    told = (t for t in ("lora_bias", "fan_in_fan_out", "fan_in_fan_out") if t in claim.features)
    term = draw.choice((*told, "whole"))
    plain = replace(claim, features=tuple(f for f in claim.features if f != "lora_bias"))
    size = draw.choice((0, 8, 16))
    sizes = (size, size, 4) if size else sizes_for(draw)
    if term == "fan_in_fan_out":
        layer = replace(integer_layer(draw, plain, "whole", (3,), sizes), fan_in_fan_out=True)
        fresh = draw.choice((False, True, True, True))  # training begins with B = 0, which a path may leave out
        return replace(layer, lora_b=layer.lora_b * 0) if fresh else layer, term
    layer = integer_layer(draw, claim if term == "lora_bias" else plain, term, (3,), sizes)
    return replace(layer, alpha=layer.alpha * draw.choice((4.0, 2.0, 0.5))), term


def few_layer(draw: Draw, claim: Claim, dtype: str) -> Layer:
    """Sums of one or two products of full-significand words: the bound is a few roundings wide.

    In half of the cases the weight cancels the adapter but for its own rounding, so that an output of few bits shows
    roundings far below its unit in the last place.
    """
    random = draw.random()
    rows, d_in, d_out, rank = 12, draw.choice((1, 2)), draw.choice((3, 8)), draw.choice((1, 2, 3))
    masked, p = "dropout" in claim.features and draw.choice((True, False)), draw.choice((0.1, 0.3, 0.05))
    stabilized = "rank_stabilized" in claim.features and draw.choice((False, True))
    x, a = (full_significand(random, shape, dtype).real() for shape in ((rows, d_in), (rank, d_in)))
    b, alpha = full_significand(random, (d_out, rank), dtype).real(), draw.choice((7.3, 0.9, 16.1))
    scale = alpha / (np.sqrt(rank) if stabilized else rank)
    weight = full_significand(random, (d_out, d_in), dtype).real()
    if draw.choice((True, False)):
        weight = rounded(-scale * (b @ a) / (1 - p if masked else 1), dtype).real()
    return Layer(
        x=x,
        weight=weight,
        lora_a=a,
        lora_b=b,
        alpha=alpha,
        mask=random.integers(0, 6, (rows, d_in)) > 0 if masked else None,
        dropout=p if masked else 0.0,
        rank_stabilized=stabilized,
    )
