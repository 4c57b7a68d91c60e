"""Inputs of dequantization, and of double quantization of given absmax."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from qloracle.blocks import block_count
from qloracle.formats import Array, format_named
from qloracle.int8 import int8_absmax
from qloracle.nested_absmax import NESTED_BLOCK_SIZE, NESTED_CODEBOOK
from qloracle.packing import pack_4bit
from qloracle.tables import codebook_named
from qloracle_conformance.arrays import HostArray, host
from qloracle_conformance.backend import Claim
from qloracle_conformance.generators.case import Case, admitted, each_layout, reshaped
from qloracle_conformance.generators.draw import Draw
from qloracle_conformance.generators.extents import EXTENTS, LENGTHS, degenerate_shapes
from qloracle_conformance.generators.quantizing import Quantizer, shapes_for
from qloracle_conformance.generators.values import any_exponent, near_boundaries, rounded, special_words, words

FAMILIES = ("table", "exponents", "specials", "ramps", "shapes", "memory", "extents", "layouts", "degenerate")
NESTED_INPUTS = ("absmax_codes", "nested_absmax", "offset")
NESTED_LENGTHS = (1, 2, 255, 256, 257, 511, 512, 513, 1000)


def scales(random: np.random.Generator, count: int, family: str) -> HostArray:
    """Return the absmax of blocks for a family of dequantization."""
    if family == "table":
        return host(np.ones(count, np.float32))
    if family == "ramps":
        return rounded(np.ldexp(1 + np.arange(count) % 7 / 8.0, np.arange(count) % 64 - 32), "float32")
    array = any_exponent(random, (count,), "float32")
    if family != "specials":
        return array
    specials = special_words(format_named("float32"))[:8]  # finite and not negative
    chosen = np.concatenate([specials, np.array([0x7FC00000, 0], np.uint64)])[random.integers(0, 10, count)]
    bits = np.where(random.integers(0, 2, count) == 0, chosen, array.words())
    return words(bits, "float32")


def target(draw: Draw, claim: Claim, family: str, quantizer: Quantizer) -> tuple[tuple[int, ...], int, str]:
    """Return shape, block size and layout of a tensor to restore."""
    block_size = draw.choice(claim.block_sizes)
    if family == "memory":
        return draw.choice(admitted(claim, ((6, 10), (5, 67), (256,)))), block_size, "memory"
    if family == "shapes":
        return draw.choice(shapes_for(claim, quantizer, block_size)), block_size, ""
    if family == "degenerate":
        return draw.choice(degenerate_shapes(claim, quantizer)), block_size, ""
    if family == "layouts":
        return draw.choice(admitted(claim, ((8, 8), (5, 67), (64, 64)))), block_size, ""
    if family == "extents":
        shape = draw.choice(admitted(claim, EXTENTS))
        return shape, min(claim.block_sizes) if np.prod(shape) > 1 << 15 else block_size, ""
    return draw.choice(admitted(claim, ((48, 96), (33, 130), (4096,)))), block_size, ""


def dequantize_case(
    draw: Draw, claim: Claim, *, family: str, quantizer: Quantizer, codebook: str, nested: bool
) -> Case:
    """Random codes, every one of them, with absmax of the family."""
    shape, block_size, memory = target(draw, claim, family, quantizer)
    layout = draw.choice(claim.layouts) if memory else "contiguous"
    random, size = draw.random(), int(np.prod(shape))
    table = codebook_named(codebook)
    codes = random.integers(0, len(table.entries), size, np.uint8)
    data = pack_4bit(codes, int(random.integers(0, 16))) if table.code_bits == 4 else codes
    blocks = block_count(size, block_size)
    options = {"codebook": codebook, "block_size": block_size, "shape": shape, "dtype": draw.choice(claim.out_dtypes)}
    names = ("data", *(NESTED_INPUTS if nested else ("absmax",)))
    layouts = each_layout(draw, claim, names) if family == "layouts" else dict.fromkeys(names, layout)
    if nested:
        options["nested_codebook"] = inner = nested_codebook(draw, claim, "nested_codebook")
        absmax = nested_scales(random, blocks, family, inner)
    elif family == "ties":
        first = codes[::block_size][:blocks]
        absmax = {"absmax": tie_scales(random, table.entries[first], str(options["dtype"]))}
    else:
        absmax = {"absmax": scales(random, blocks, family)}
    inputs: dict[str, HostArray | None] = {"data": host(data), **absmax}
    return Case(quantizer.operation, inputs, options, layouts=layouts, repeat=bool(memory))


def tie_scales(random: np.random.Generator, entries: Array, dtype: str) -> HostArray:
    """Return absmax whose float32 products with one entry each lie halfway between two numbers of the output format.

    The real product lies beside the tie: who rounds it once gets another number than who rounds to float32 first.
    """
    target, single = format_named("bfloat16" if dtype == "float32" else dtype), format_named("float32")
    dropped = single.mantissa_bits - target.mantissa_bits
    exponent = random.integers(single.bias - 8, single.bias + 8, entries.size) << single.mantissa_bits
    bits = exponent | random.integers(0, 1 << target.mantissa_bits, entries.size) << dropped | 1 << (dropped - 1)
    usable = np.where(np.isfinite(entries) & (entries != 0), entries, np.float32(1))
    tie = np.copysign(bits.astype(np.uint32).view(np.float32), usable)
    near = tie / usable
    beside = np.stack([near, np.nextafter(near, np.float32(0)), np.nextafter(near, np.float32(np.inf))])
    hits = beside * usable == tie
    return host(beside[np.argmax(hits, axis=0), np.arange(entries.size)])


def nested_codebook(draw: Draw, claim: Claim, option: str) -> str:
    """Return one of the claimed codebooks of nested absmax; drawn last, so that other choices do not depend on it."""
    return str(draw.choice(claim.options.get(option, (NESTED_CODEBOOK,))))


def nested_scales(random: np.random.Generator, count: int, family: str, codebook: str) -> dict[str, HostArray]:
    """Return quantized absmax: all codes; nested scales of the family, kept where sums stay finite; an offset."""
    codes = random.integers(0, codebook_named(codebook).entries.size, count, np.uint8)
    groups = block_count(count, NESTED_BLOCK_SIZE)
    nested = scales(random, groups, family)
    if family == "specials" and groups and random.integers(0, 2):
        nested.items[random.integers(0, groups)] = np.nan
    bounded = np.where(np.abs(nested.items) > 2.0**126, np.float32(1), nested.items)
    offset = any_exponent(random, (), "float32").items if family == "exponents" else np.float32(random.uniform(0, 3))
    small = np.asarray(np.minimum(offset, np.float32(2.0**126)), np.float32)
    return {"absmax_codes": host(codes), "nested_absmax": host(bounded), "offset": host(small)}


def restore_absmax_case(draw: Draw, claim: Claim, *, family: str) -> Case:
    """Quantized absmax alone."""
    layout = draw.choice(claim.layouts) if family == "memory" else "contiguous"
    count = draw.choice(LENGTHS if family == "extents" else NESTED_LENGTHS)
    each = each_layout(draw, claim, NESTED_INPUTS) if family == "layouts" else dict.fromkeys(NESTED_INPUTS, layout)
    codebook = nested_codebook(draw, claim, "codebook")
    inputs: dict[str, HostArray | None] = {**nested_scales(draw.random(), count, family, codebook)}
    return Case("absmax.dequantize", inputs, {"codebook": codebook}, layouts=each, repeat=family == "memory")


def absmax_values(random: np.random.Generator, count: int, family: str, codebook: str = NESTED_CODEBOOK) -> Array:
    """Return absmax to quantize.

    boundaries: pairs of opposite sign, so that the mean is exactly 0 and residuals lie next to the midpoints of the
    map; offsets: exponents far apart, whose mean two roundings get wrong; tails: heavy-tailed; specials: poisoned
    blocks and zeros; otherwise like those of real weights.
    """
    if family == "boundaries":
        midpoints = codebook_named(codebook).midpoints
        largest = any_exponent(random, (block_count(count, NESTED_BLOCK_SIZE),), "float32")
        capped = host(np.minimum(largest.items, np.float32(2.0**120)))
        near = near_boundaries(random, capped, NESTED_BLOCK_SIZE // 2, midpoints, "float32").items
        return np.stack([near, -near], axis=2).reshape(-1)[:count] if count % 2 == 0 else near.reshape(-1)[:count]
    if family == "offsets":
        close = np.ldexp(1.0 + random.integers(0, 1 << 23, count) / 2.0**23, random.integers(-40, 40, count))
        trap = np.array([4, 2.0**-22, 2.0**-100, 0])
        if random.integers(0, 2):
            return trap.astype(np.float32) if count < 8 else np.tile(trap, count // 4).astype(np.float32)
        return close.astype(np.float32)
    values = np.exp(random.standard_normal(count) * (2.0 if family == "tails" else 0.3)) * 0.05
    if family == "specials":
        values = np.where(random.integers(0, 40, count) == 0, np.nan, values)
        values = np.where(random.integers(0, 20, count) == 0, 0.0, values)
        values = np.full(count, random.choice([np.nan, 0.0, 1.0])) if random.integers(0, 4) == 0 else values
    return values.astype(np.float32)


def quantize_absmax_case(draw: Draw, claim: Claim, *, family: str) -> Case:
    """Absmax alone, to be quantized."""
    layout = draw.choice(claim.layouts) if family == "memory" else "contiguous"
    lengths = (0, *NESTED_LENGTHS) if claim.empty and family == "shapes" else NESTED_LENGTHS
    count = draw.choice({"boundaries": (2, 256, 512, 1024), "extents": LENGTHS}.get(family, lengths))
    codebook = nested_codebook(draw, claim, "codebook")
    values = np.ascontiguousarray(absmax_values(draw.random(), count, family, codebook))
    inputs, options, layouts = {"absmax": host(values)}, {"codebook": codebook}, {"absmax": layout}
    return Case("absmax.quantize", inputs, options, layouts=layouts, repeat=family == "memory")


def quantize_double_case(draw: Draw, claim: Claim, *, family: str, quantizer: Quantizer) -> Case:
    """Tensors whose blocks have the absmax of the family."""
    dtype = draw.choice(claim.dtypes)
    block_size = draw.choice(claim.block_sizes)
    layout = draw.choice(claim.layouts) if family == "memory" else "contiguous"
    lengths = (0, *NESTED_LENGTHS) if claim.empty and family == "shapes" else NESTED_LENGTHS
    blocks = min(draw.choice(lengths), max(3, (1 << 16) // block_size))
    random = draw.random()
    absmax = np.abs(absmax_values(random, max(blocks, 1), family))[:blocks].astype(np.float64)
    fractions = random.uniform(-1, 1, (len(absmax), block_size))
    fractions[:, 0] = 1.0
    x: Array = (fractions * absmax[:, np.newaxis]).reshape(-1)
    x = x[: max(x.size - draw.integer(0, block_size - 1), 1 if x.size else 0)]
    if 2 in claim.ndims and x.size % 2 == 0 and family != "shapes":
        x = x.reshape(2, -1)
    inputs: dict[str, HostArray | None] = {"x": reshaped(rounded(x, dtype), claim)}
    inner = nested_codebook(draw, claim, "nested_codebook")
    options = {**quantizer.options, "block_size": block_size, "nested_codebook": inner}
    return Case(quantizer.operation, inputs, options, layouts={"x": layout}, repeat=family == "memory")


def dequantize_int8_case(draw: Draw, claim: Claim, *, family: str, quantizer: Quantizer) -> Case:
    """All INT8 codes with absmax of the family."""
    shape, block_size, memory = target(draw, claim, family, quantizer)
    layout = draw.choice(claim.layouts) if memory else "contiguous"
    random = draw.random()
    block = block_size if quantizer.granularity == "block" else None
    codes = random.integers(-128 if "minus_128" in claim.features else -127, 128, shape, np.int8)
    like = int8_absmax(np.empty(shape, np.float32), quantizer.granularity, block).shape
    absmax = host(scales(random, int(np.prod(like)), family).items.reshape(like))
    options: Mapping[str, Any] = {
        "granularity": quantizer.granularity, "block_size": block, "dtype": draw.choice(claim.out_dtypes),
    }  # fmt: skip
    inputs: dict[str, HostArray | None] = {"codes": host(codes), "absmax": absmax}
    layouts = each_layout(draw, claim, inputs) if family == "layouts" else dict.fromkeys(inputs, layout)
    return Case(quantizer.operation, inputs, options, layouts=layouts, repeat=bool(memory))


def families(
    generate: Callable[..., Case], names: tuple[str, ...], **fixed: Any
) -> dict[str, Callable[[Draw, Claim], Case]]:
    """Return families of a generator that takes the family's name."""
    return {name: partial(generate, family=name, **fixed) for name in names}
