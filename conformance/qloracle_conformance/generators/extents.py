"""Inputs whose size or place is what matters: long ones with tails, degenerate ones, squares, and peaks at every place.

A length of 2^k + 3 leaves a tail to every vector width and every tile; 70001 elements, and 65539 rows, pass the ends of
16-bit indices and of a grid's second dimension.
"""

import numpy as np

from qloracle.formats import Array, format_named
from qloracle_conformance.arrays import HostArray, host
from qloracle_conformance.backend import Claim
from qloracle_conformance.generators.case import Case, admitted
from qloracle_conformance.generators.conversion_options import own_overflow
from qloracle_conformance.generators.draw import Draw
from qloracle_conformance.generators.quantizing import ELEMENTS, Family, Quantizer, arrange, case_of
from qloracle_conformance.generators.values import (
    any_exponent,
    code_words,
    normal,
    numbers_for,
    rounded,
    special_words,
    words,
)

LENGTHS = (257, 131, 515, 1027, 2051, 4099, 8197, 16387, 33001, 70001)
EXTENTS: tuple[tuple[int, ...], ...] = (*((n,) for n in LENGTHS), (300, 70), (3, 8197), (65539, 1), (5, 3, 1033))
DEGENERATE: tuple[tuple[int, ...], ...] = ((1,), (), (0,), (1, 1), (0, 4), (4, 0), (2, 0, 3), (1, 1, 1, 1))
SQUARES: tuple[tuple[int, ...], ...] = ((8, 8), (16, 16), (3, 3), (64, 64))
TAIL = 24  # elements at the end that are special words, in half of the cases


def signed(random: np.random.Generator, shape: tuple[int, ...], dtype: str) -> HostArray:
    """Return numbers of either sign and any exponent."""
    array = any_exponent(random, shape, dtype)
    sign = random.integers(0, 2, shape).astype(np.uint64) * np.uint64(format_named(dtype).sign_bit)
    return words(array.words() | sign, dtype)


def with_special_tail(random: np.random.Generator, array: HostArray) -> HostArray:
    """Return an array whose last elements are zeros, subnormals, infinities and NaN."""
    bits = array.words().reshape(-1).copy()
    count = min(TAIL, bits.size)
    bits[bits.size - count :] = random.choice(special_words(format_named(array.dtype)), count)
    return words(bits.reshape(array.shape), array.dtype)


def extent_case(draw: Draw, claim: Claim, quantizer: Quantizer) -> Case:
    """Long tensors, of ordinary numbers or of any exponent; the longest in the smallest blocks, so of most blocks."""
    dtype = draw.choice(claim.dtypes)
    shape = draw.choice(admitted(claim, EXTENTS))
    block_size = draw.choice(claim.block_sizes)
    if np.prod(shape) > 1 << 15:
        block_size = min(claim.block_sizes)
    random = draw.random()
    content = draw.choice(("normal", "exponents"))
    x = normal(random, shape, dtype) if content == "normal" else signed(random, shape, dtype)
    return case_of(quantizer, x, block_size)


def degenerate_shapes(claim: Claim, quantizer: Quantizer) -> list[tuple[int, ...]]:
    """Return the shapes without elements, of one element, or without axes that a quantizer takes."""
    smallest = 0 if quantizer.granularity in ("block", "tensor") else 1
    return admitted(claim, [s for s in DEGENERATE if len(s) >= smallest])


def degenerate_case(draw: Draw, claim: Claim, quantizer: Quantizer) -> Case:
    """No element, one element, no axis."""
    x = normal(draw.random(), draw.choice(degenerate_shapes(claim, quantizer)), draw.choice(claim.dtypes))
    return case_of(quantizer, x, draw.choice(claim.block_sizes))


def square_case(draw: Draw, claim: Claim, quantizer: Quantizer) -> Case:
    """Squares in every layout: neither shapes nor errors tell a transposed one from a plain one."""
    layout, shape = draw.choice(claim.layouts), draw.choice(admitted(claim, SQUARES))
    x = normal(draw.random(), shape, draw.choice(claim.dtypes))
    return case_of(quantizer, x, draw.choice(claim.block_sizes), layout)


def peak_places(random: np.random.Generator, groups: int, size: int) -> Array:
    """Return where each group has its peak: at both ends, at the ends of tiles and warps, anywhere."""
    steps = [2**k + d for k in range(1, 17) for d in (-1, 0)] + [size - 2, size - 32, size - 33]
    edges = random.permutation(np.unique([s for s in steps if 0 <= s < size] or [0]))
    known = np.concatenate([[size - 1, 0], edges])[:groups]
    return np.concatenate([known, random.integers(0, size, groups - len(known))])


def peak_case(draw: Draw, claim: Claim, quantizer: Quantizer) -> Case:
    """One element of each group, at every place in turn, is far larger than all others, or poison.

    In half of the cases the last block is short, and its last element is the large one: no whole vector covers it.
    """
    dtype, random = draw.choice(claim.dtypes), draw.random()
    sizes = claim.block_sizes if quantizer.granularity == "block" else (64, 1, 257, 1027, 4099, 70001)
    size = draw.choice(sizes)
    groups = max(32 if size <= 1 << 12 else 2, min(256, ELEMENTS // size))
    place = peak_places(random, groups, size)
    place = random.permutation(place) if quantizer.granularity == "tensor" else place
    lacking = draw.integer(0, size - 1) if quantizer.granularity == "block" and draw.choice((False, True)) else 0
    place[-1] = size - 1 - lacking if lacking else place[-1]
    x = random.uniform(-0.25, 0.25, (groups, size))
    peak = random.choice([-1.0, 1.0, -1.0, 1.0, np.nan, np.inf, -np.inf], groups)
    x[np.arange(groups), place] = np.where(np.isfinite(peak), peak * random.uniform(0.5, 1, groups), peak)
    scale = np.ldexp(1.0, random.integers(-8, 8, (groups, 1)))
    return case_of(quantizer, arrange(rounded(x * scale, dtype), quantizer, lacking, claim), size)


FAMILIES: dict[str, Family] = {
    "peaks": peak_case,
    "extents": extent_case,
    "degenerate": degenerate_case,
    "squares": square_case,
}


def encode_case(draw: Draw, claim: Claim, *, family: str, fmt: str) -> Case:
    """Rounding of long arrays with special tails and ties all over; of degenerate ones; of squares in every layout."""
    random, layout = draw.random(), "contiguous"
    if family == "extents":
        shape = draw.choice(admitted(claim, EXTENTS))
        values = _ties(random, shape, fmt) if draw.choice((True, False)) else signed(random, shape, "float32")
        values = with_special_tail(random, values) if draw.choice((True, False)) else values
    elif family == "degenerate":
        values = signed(random, draw.choice(admitted(claim, DEGENERATE)), "float32")
    else:
        layout, values = draw.choice(claim.layouts), normal(random, draw.choice(admitted(claim, SQUARES)), "float32")
    options = {"fmt": fmt, **own_overflow(claim, fmt)}
    return Case(f"{fmt}.encode", {"values": numbers_for(fmt, values)}, options, layouts={"values": layout})


def _ties(random: np.random.Generator, shape: tuple[int, ...], fmt: str) -> HostArray:
    """Return ties between neighbouring normal numbers of the target."""
    target, source = format_named(fmt), format_named("float32")
    dropped = source.mantissa_bits - target.mantissa_bits
    reach = min(14, max(-target.minimum_exponent, 1))
    field = random.integers(source.bias - reach, source.bias + reach + 1, shape) << source.mantissa_bits
    bits = field | random.integers(0, 1 << target.mantissa_bits, shape) << dropped | 1 << (dropped - 1)
    return words(bits | random.integers(0, 2, shape) * source.sign_bit, "float32")


def decode_case(draw: Draw, claim: Claim, *, family: str, fmt: str) -> Case:
    """Widening of long arrays of any words with special tails; of degenerate ones; of squares in every layout."""
    random, layout = draw.random(), "contiguous"
    shapes = {"extents": EXTENTS, "degenerate": DEGENERATE, "squares": SQUARES}[family]
    codes = random.integers(0, 1 << format_named(fmt).code_bits, draw.choice(admitted(claim, shapes)))
    array = code_words(codes, fmt)
    if family == "extents" and draw.choice((True, False)):
        array = with_special_tail(random, array)
    if family == "squares":
        layout = draw.choice(claim.layouts)
    return Case(f"{fmt}.decode", {"bits": array}, {"dtype": draw.choice(claim.out_dtypes)}, layouts={"bits": layout})


def pack_case(draw: Draw, claim: Claim, *, family: str) -> Case:
    """Many codes; squares in every layout."""
    layout = draw.choice(claim.layouts) if family == "squares" else "contiguous"
    shape = draw.choice(admitted(claim, SQUARES if family == "squares" else EXTENTS))
    codes = host(draw.random().integers(0, 16, shape, np.uint8))
    return Case("packing.pack", {"codes": codes}, {"pad_code": draw.choice((0, 7, 15))}, layouts={"codes": layout})


def unpack_case(draw: Draw, claim: Claim, *, family: str) -> Case:
    """Many bytes."""
    size = draw.choice(LENGTHS)
    packed = draw.random().integers(0, 256, (size + 1) // 2, np.uint8)
    return Case("packing.unpack", {"packed": host(packed)}, {"size": size})
