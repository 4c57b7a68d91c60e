"""Inputs of quantizers: groups that share an absmax, arranged as blocks, rows, columns or a whole tensor."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from qloracle.formats import Array, format_named
from qloracle_conformance.arrays import HostArray
from qloracle_conformance.backend import Claim
from qloracle_conformance.generators.case import Case, admitted, reshaped
from qloracle_conformance.generators.draw import Draw
from qloracle_conformance.generators.values import (
    absmax_with_ties,
    any_exponent,
    near_boundaries,
    normal,
    rounded,
    special_words,
    words,
)

ELEMENTS = 1 << 14  # about as many in a case: enough for every boundary, quick to judge


@dataclass(frozen=True)
class Quantizer:
    """What the generators need to know about a quantizing operation."""

    operation: str
    boundaries: Array  # real numbers in (−1, 1) where the quotient x/absmax changes its code
    tie_unit: int  # an absmax that is a multiple of it times a power of two has exact ties
    options: Mapping[str, Any]  # options that every case has
    granularity: str = "block"  # "block", "row", "column" or "tensor"


def arrange(groups: HostArray, quantizer: Quantizer, tail: int, claim: Claim) -> HostArray:
    """Return groups (one a row) as a tensor of the quantizer's granularity; blocks lose `tail` elements at the end."""
    items = groups.items
    arranged = {
        "block": items.reshape(-1)[: items.size - tail],
        "row": items,
        "column": items.T,
        "tensor": items[0],
    }[quantizer.granularity]
    return reshaped(HostArray(np.ascontiguousarray(arranged), groups.dtype), claim)


def group_shape(draw: Draw, claim: Claim, quantizer: Quantizer) -> tuple[int, int, int]:
    """Return number of groups, group size, and how many elements the last block lacks."""
    if quantizer.granularity == "block":
        size = draw.choice(claim.block_sizes)
        groups = max(2, min(256, ELEMENTS // size))
        return groups, size, draw.integer(0, size - 1)
    size = draw.choice((1, 2, 3, 31, 64, 255, 1000))
    return max(2, min(256, ELEMENTS // size)), size, 0


def case_of(
    quantizer: Quantizer, x: HostArray, block_size: int, layout: str = "contiguous", repeat: bool = False
) -> Case:
    """Return the case that quantizes `x`."""
    options = dict(quantizer.options)
    if "block_size" in options:
        options["block_size"] = block_size if quantizer.granularity == "block" else None
    return Case(quantizer.operation, {"x": x}, options, layouts={"x": layout}, repeat=repeat)


def boundary_case(draw: Draw, claim: Claim, quantizer: Quantizer) -> Case:
    """Elements on, and one number either side of, every boundary times an absmax of any exponent."""
    dtype = draw.choice(claim.dtypes)
    groups, size, tail = group_shape(draw, claim, quantizer)
    random = draw.random()
    absmax = absmax_with_ties(random, groups, dtype, quantizer.tie_unit)
    x = near_boundaries(random, absmax, size, quantizer.boundaries, dtype)
    return case_of(quantizer, arrange(x, quantizer, tail, claim), size)


def special_case(draw: Draw, claim: Claim, quantizer: Quantizer) -> Case:
    """Zeros, subnormals, infinities and NaN of every class, at first, middle and last position of their group."""
    dtype = draw.choice(claim.dtypes)
    groups, size, tail = group_shape(draw, claim, quantizer)
    random = draw.random()
    groups = min(groups, 64)
    absmax = any_exponent(random, (groups,), dtype).real()[:, np.newaxis]
    bits = rounded(random.uniform(-1, 1, (groups, size)) * absmax, dtype).words()
    specials = special_words(format_named(dtype)).astype(bits.dtype)
    for group in range(groups):
        special = specials[random.integers(0, len(specials))]
        kind = int(random.integers(0, 4))
        if kind == 0:  # a group of nothing but one special word
            bits[group] = special
        elif kind == 1:  # one special among zeros of either sign
            bits[group] = specials[0] if random.integers(0, 2) else specials[len(specials) // 2]
            bits[group, random.choice([0, size // 2, size - 1])] = special
        elif kind == 2:  # one special among ordinary numbers; the last quarter of the groups stays ordinary
            bits[group, random.choice([0, size // 2, size - 1])] = special
    if quantizer.granularity == "tensor":
        bits = bits[random.integers(0, groups)][np.newaxis]
    return case_of(quantizer, arrange(words(bits, dtype), quantizer, min(tail, bits.size - 1), claim), size)


def ramp_case(draw: Draw, claim: Claim, quantizer: Quantizer) -> Case:
    """Non-square tensors whose row, column and block scales are all distinct: any mix-up of them shows."""
    dtype = draw.choice(claim.dtypes)
    block_size = draw.choice(claim.block_sizes)
    shape = draw.choice(admitted(claim, ((4, 96), (8, 32), (3, 5, 7), (96, 4), (7, 130), (129,), (1, 67))))
    random = draw.random()
    size = int(np.prod(shape))
    position = np.arange(size).reshape(shape)
    row = position // shape[-1]
    scale = 2.0 ** (row % 8) * (1 + (position % shape[-1]) / 64.0) * (1 + (position // block_size % 5) / 4.0)
    return case_of(quantizer, normal(random, shape, dtype, scale), block_size)


def shape_case(draw: Draw, claim: Claim, quantizer: Quantizer) -> Case:
    """Empty, single, odd, around powers of two and multiples of the block, rows that are no multiple, 0-d to 4-d."""
    dtype = draw.choice(claim.dtypes)
    block_size = draw.choice(claim.block_sizes)
    x = normal(draw.random(), draw.choice(shapes_for(claim, quantizer, block_size)), dtype)
    return case_of(quantizer, x, block_size)


def shapes_for(claim: Claim, quantizer: Quantizer, block_size: int) -> list[tuple[int, ...]]:
    """Return the shapes that a claim admits, simple ones first."""
    around = [n for k in (block_size, 2 * block_size, 256) for n in (k - 1, k, k + 1) if n > 0]
    shapes: list[tuple[int, ...]] = [(1,), (2,), (3,), (), (7,), (15,), (16,), (17,), (33,), (0,)]
    shapes += [(n,) for n in sorted(set(around))]
    shapes += [(1, 1), (5, 3), (2, block_size + 1), (3, 1, 5), (2, 3, 5, 7), (0, 4), (4, 0), (2, 0, 3)]
    smallest = 0 if quantizer.granularity in ("block", "tensor") else 1
    return admitted(claim, [s for s in shapes if len(s) >= smallest])


def memory_case(draw: Draw, claim: Claim, quantizer: Quantizer) -> Case:
    """The same kind of tensor in every memory layout, poison around it, called twice."""
    dtype = draw.choice(claim.dtypes)
    layout = draw.choice(claim.layouts)
    block_size = draw.choice(claim.block_sizes)
    shape = draw.choice(admitted(claim, ((6, 10), (5, 67), (67,), (3, 4, 9), (33, 64))))
    return case_of(quantizer, normal(draw.random(), shape, dtype), block_size, layout, repeat=True)


def normal_case(draw: Draw, claim: Claim, quantizer: Quantizer) -> Case:
    """Ordinary numbers: what users have."""
    dtype = draw.choice(claim.dtypes)
    block_size = draw.choice(claim.block_sizes)
    shape = draw.choice(admitted(claim, ((64, 256), (127, 129), (16384,))))
    random = draw.random()
    return case_of(quantizer, normal(random, shape, dtype, 0.02), block_size)


Family = Callable[[Draw, Claim, Quantizer], Case]

FAMILIES: dict[str, Family] = {
    "boundaries": boundary_case,
    "specials": special_case,
    "ramps": ramp_case,
    "shapes": shape_case,
    "memory": memory_case,
    "normal": normal_case,
}


def for_quantizer(families: Mapping[str, Family], quantizer: Quantizer) -> dict[str, Callable[[Draw, Claim], Case]]:
    """Return families for one quantizer."""

    def bound(draw: Draw, claim: Claim, *, family: str) -> Case:
        return families[family](draw, claim, quantizer)

    return {name: partial(bound, family=name) for name in families}
