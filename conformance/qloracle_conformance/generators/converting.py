"""Inputs of conversions, of packing and of absmax alone."""

from collections.abc import Callable
from functools import partial

import numpy as np

from qloracle.formats import format_named
from qloracle_conformance.arrays import HostArray, host
from qloracle_conformance.backend import Claim
from qloracle_conformance.generators.case import Case, admitted, fitted, reshaped
from qloracle_conformance.generators.conversion_options import own_overflow
from qloracle_conformance.generators.draw import Draw
from qloracle_conformance.generators.values import (
    any_exponent,
    code_words,
    moved,
    normal,
    numbers_for,
    rounded,
    special_words,
    words,
)

SHAPES: tuple[tuple[int, ...], ...] = (
    (1,), (7,), (8,), (15,), (16,), (17,), (63,), (64,), (65,), (0,), (), (3, 5), (2, 0), (2, 3, 5), (1, 2, 3, 4),
)  # fmt: skip
SLICES = 16  # a sweep over all 2^16 high halves takes as many cases


def _encode(fmt: str, claim: Claim, values: HostArray, layout: str = "contiguous", repeat: bool = False) -> Case:
    values = reshaped(numbers_for(fmt, values), claim)
    options = {"fmt": fmt, **own_overflow(claim, fmt)}
    return Case(f"{fmt}.encode", {"values": values}, options, layouts={"values": layout}, repeat=repeat)


def sweep_case(draw: Draw, claim: Claim, fmt: str) -> Case:
    """One in sixteen of all high halves of float32, each with the low halves where rounding turns."""
    part = draw.choice(range(SLICES))
    high = np.arange(part, 1 << 16, SLICES, dtype=np.uint32) << 16
    low = np.array([0x0000, 0x0001, 0x0FFF, 0x1000, 0x1001, 0x7FFF, 0x8000, 0x8001, 0xFFFF], np.uint32)
    return _encode(fmt, claim, words((high[:, np.newaxis] | low).reshape(-1), "float32"))


def tie_case(draw: Draw, claim: Claim, fmt: str) -> Case:
    """Exact ties between neighbouring numbers of the target, and one float32 either side, at every exponent."""
    random = draw.random()
    target, source = format_named(fmt), format_named("float32")
    dropped = source.mantissa_bits - target.mantissa_bits
    bits = random.integers(0, source.infinity_bits >> dropped, 4096, np.int64) << dropped | 1 << (dropped - 1)
    ties = words(bits | random.integers(0, 2, 4096) * source.sign_bit, "float32")
    lowest = target.minimum_exponent - target.mantissa_bits
    tiny = np.ldexp(random.integers(0, 64, 4096) + 0.5, lowest)  # ties among subnormals of the target
    half_step = np.ldexp(1.0, int(np.log2(target.largest_finite)) - target.mantissa_bits - 1)
    limit = target.largest_finite * np.array([1.0]) + half_step
    below = np.minimum(limit, format_named("float32").largest_finite)
    near = rounded(np.concatenate([tiny, np.repeat(below, 64)]) * random.choice([-1.0, 1.0], 4096 + 64), "float32")
    both = words(np.concatenate([ties.words(), near.words()]), "float32")
    return _encode(fmt, claim, moved(both, random.integers(-1, 2, both.shape)))


def special_case(draw: Draw, claim: Claim, fmt: str) -> Case:
    """Zeros, subnormals, the largest numbers, infinities, NaN with payloads in kept and in dropped bits."""
    random = draw.random()
    specials = special_words(format_named("float32"))
    payloads = (np.uint64(1) << np.arange(23, dtype=np.uint64)) | np.uint64(0x7F800000)
    bits = np.concatenate([specials, payloads, payloads | np.uint64(0x80000000)])
    ordinary = normal(random, (256,), "float32").words()
    mixed = np.concatenate([bits, ordinary])
    return _encode(fmt, claim, words(random.permutation(mixed), "float32"))


def random_case(draw: Draw, claim: Claim, fmt: str) -> Case:
    """Random words."""
    return _encode(fmt, claim, words(draw.random().integers(0, 1 << 32, 8192, np.uint64), "float32"))


def length_case(draw: Draw, claim: Claim, fmt: str) -> Case:
    """Lengths around vector widths: a tail must be rounded as the body is."""
    return _encode(fmt, claim, any_exponent(draw.random(), draw.choice(admitted(claim, SHAPES)), "float32"))


def memory_case(draw: Draw, claim: Claim, fmt: str) -> Case:
    """Every memory layout, poison around the array, called twice."""
    shape = draw.choice(admitted(claim, ((6, 10), (65,), (3, 4, 9))))
    return _encode(fmt, claim, normal(draw.random(), shape, "float32"), draw.choice(claim.layouts), repeat=True)


def decode_case(draw: Draw, claim: Claim, fmt: str, *, family: str) -> Case:
    """All words of a format of at most 16 bits, several times if they are few; or shapes and layouts of some."""
    random = draw.random()
    layout, shape = "contiguous", fitted((1 << 16,), claim)
    codes = np.resize(random.permutation(1 << format_named(fmt).code_bits), 1 << 16)
    if family == "shapes":
        shape = draw.choice(admitted(claim, SHAPES))
    elif family == "memory":
        shape, layout = draw.choice(admitted(claim, ((6, 10), (65,), (3, 4, 9)))), draw.choice(claim.layouts)
    array = code_words(codes[: int(np.prod(shape))].reshape(shape), fmt)
    dtype = draw.choice(claim.out_dtypes)
    repeat = family == "memory"
    return Case(f"{fmt}.decode", {"bits": array}, {"dtype": dtype}, layouts={"bits": layout}, repeat=repeat)


def encode_families(fmt: str) -> dict[str, Callable[[Draw, Claim], Case]]:
    """Return the families of a conversion to `fmt`."""
    families = {
        "sweep": sweep_case,
        "ties": tie_case,
        "specials": special_case,
        "random": random_case,
        "shapes": length_case,
        "memory": memory_case,
    }
    return {name: partial(family, fmt=fmt) for name, family in families.items()}


def decode_families(fmt: str) -> dict[str, Callable[[Draw, Claim], Case]]:
    """Return the families of a conversion from `fmt`."""
    return {family: partial(decode_case, fmt=fmt, family=family) for family in ("words", "shapes", "memory")}


def pack_case(draw: Draw, claim: Claim, *, family: str) -> Case:
    """Random codes, so that no byte is a palindrome of nibbles throughout; odd and even lengths."""
    layout, shape = "contiguous", draw.choice(admitted(claim, ((2,), (1,), (3,), (0,), (255,), (256,), (257,), (7, 9))))
    if family == "memory":
        layout, shape = draw.choice(claim.layouts), draw.choice(admitted(claim, ((6, 10), (65,))))
    codes = draw.random().integers(0, 16, shape, np.uint8)
    options = {"pad_code": draw.choice((0, 7, 15))}
    return Case("packing.pack", {"codes": host(codes)}, options, layouts={"codes": layout}, repeat=family == "memory")


def unpack_case(draw: Draw, claim: Claim, *, family: str) -> Case:
    """Random bytes; after an odd length the last nibble is garbage that readers must ignore."""
    size = draw.choice((2, 1, 3, 255, 256, 257, 1000, 130) + ((0,) if claim.empty else ()))
    layout = draw.choice(claim.layouts) if family == "memory" else "contiguous"
    packed = draw.random().integers(0, 256, (size + 1) // 2, np.uint8)
    inputs: dict[str, HostArray | None] = {"packed": host(packed)}
    return Case("packing.unpack", inputs, {"size": size}, layouts={"packed": layout}, repeat=family == "memory")
