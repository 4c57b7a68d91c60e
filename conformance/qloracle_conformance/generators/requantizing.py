"""Inputs of merges into quantized weights: weights of few dyadic values and integer adapters; ordinary numbers."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from qloracle.affine import QuantizedAffine
from qloracle.blocks import block_count
from qloracle.blockwise import QuantizedBlocks
from qloracle.double_quant import DoubleQuantized
from qloracle.formats import Array, format_named
from qloracle.int8 import QuantizedInt8
from qloracle.nested_absmax import NESTED_BLOCK_SIZE, QuantizedAbsmax
from qloracle.packing import pack_4bit
from qloracle.qlora import QuantizedWeight
from qloracle.tables import codebook_named
from qloracle_conformance.arrays import HostArray, host
from qloracle_conformance.backend import Claim
from qloracle_conformance.generators.affine import code_range
from qloracle_conformance.generators.case import Case
from qloracle_conformance.generators.draw import Draw
from qloracle_conformance.generators.grouping import claimed_groups
from qloracle_conformance.generators.merging import layouts_of, option
from qloracle_conformance.generators.values import normal, one_not_finite, rounded

LATTICES = ("small_lattice", "ramps", "squares", "shapes", "poison", "memory", "tiles")
FAMILIES = (*LATTICES, "normal")
CYCLES = ("normal", "memory", "tiles")  # families of cycles, none of which is exact in every order
SIZES = ((6, 9, 2), (5, 33, 4), (24, 16, 8), (3, 129, 1), (17, 100, 4))
TILES = ((131, 67, 16), (70, 257, 32), (33, 1031, 4), (300, 129, 64))  # d_out, d_in, rank: no multiples of a tile
SHAPES = ((1, 1, 1), (1, 67, 1), (7, 1, 1), (2, 300, 2), (0, 5, 1), (65, 3, 2))
ROOTS = {1: 1, 4: 2, 16: 4, 64: 8}  # ranks whose root is a power of two
_DYADIC = (-1.0, -0.5, -0.25, 0.0, 0.25, 0.5, 1.0)  # entries whose multiples by powers of two have few bits


def requantize_case(draw: Draw, claim: Claim, *, family: str, kind: str, operation: str) -> Case:
    """A quantized weight and an adapter; for merges into the original also the weight before it was quantized."""
    layout, dtype, out = draw.choice(claim.layouts), draw.choice(claim.dtypes), draw.choice(claim.out_dtypes)
    d_out, d_in, rank = sizes(draw, claim, family)
    random = draw.random()
    fan = bool(option(draw, claim, "fan_in_fan_out", False))
    shape = (d_in, d_out) if fan else (d_out, d_in)
    lattice = family in LATTICES and operation != "blocks.merge_cycles"
    weight, options = quantized(draw, claim, shape, kind, lattice)
    # With large entries the merged weight has more bits than any 16-bit format.
    narrow = format_named(claim.roundings.adapter).mantissa_bits < 23
    # Those beyond 2^8 have more bits than bfloat16; few of them, so that sums stay within float16.
    largest = 2 if narrow else draw.choice((2, 60, 900 if rank <= 8 else 60))
    a, b = _adapter(random, (d_out, d_in, rank), dtype, family, largest)
    if family == "poison":
        poisoned = draw.choice(("weight", "a", "b"))
        weight = _poisoned(random, weight, kind) if poisoned == "weight" else weight
        a, b = one_not_finite(random, a) if poisoned == "a" else a, one_not_finite(random, b) if poisoned == "b" else b
    stabilized = "rank_stabilized" in claim.features and (rank in ROOTS or not lattice) and draw.choice((False, True))
    unit = ROOTS.get(rank, rank) if stabilized else rank
    alpha = unit * draw.choice((2.0, 0.5, -1.0)) if lattice else draw.choice((7.3, 16.0, -2.7))
    inputs: dict[str, HostArray | None] = dict(weight)
    if operation == "blocks.merge_original":
        original = random.integers(-200, 201, shape) / 8.0 if lattice else random.standard_normal(shape) * 0.1
        inputs["original"] = rounded(original, out)
    inputs |= {"lora_a": a, "lora_b": b}
    options |= {
        "alpha": float(alpha),
        "rank_stabilized": stabilized,
        "fan_in_fan_out": fan,
        "dtype": out,
        "shape": shape,
    }
    if operation == "blocks.merge_cycles":
        options |= {"cycles": draw.choice((1, 3))}
    else:
        options |= {"scales": option(draw, claim, "scales", "fresh")}
    layouts = layouts_of(draw, claim, inputs, family, layout)
    return Case(operation, inputs, options, layouts, lattice, repeat=family == "memory")


def sizes(draw: Draw, claim: Claim, family: str) -> tuple[int, int, int]:
    """Return d_out, d_in and the rank."""
    if family == "squares":
        side = draw.choice((8, 16))
        return side, side, side
    if family == "tiles":
        return draw.choice(TILES)
    if family == "shapes":
        return draw.choice(SHAPES if claim.empty else tuple(s for s in SHAPES if s[0]))
    return draw.choice(SIZES)


def quantized(
    draw: Draw, claim: Claim, shape: tuple[int, int], kind: str, lattice: bool
) -> tuple[dict[str, HostArray], dict[str, Any]]:
    """Return the arrays and settings of a quantized weight."""
    random, size = draw.random(), int(np.prod(shape))
    if kind in ("blocks", "double"):
        name, block_size = str(option(draw, claim, "codebook", "nf4")), draw.choice(claim.block_sizes)
        data = _codes(random, name, size, lattice)
        options: dict[str, Any] = {"codebook": name, "block_size": block_size}
        blocks = block_count(size, block_size)
        scale = _powers(random, (blocks,)) if lattice else random.uniform(0.01, 2.0, blocks)
        if kind == "blocks":
            return {"data": data, "absmax": host(scale.astype(np.float32))}, options
        return {"data": data, **_nested(random, blocks)}, options
    granularity, group, per_group = claimed_groups(draw, claim, shape)
    scale = _powers(random, per_group) if lattice else np.asarray(random.uniform(0.01, 2.0, per_group))
    if kind == "int8":
        # 127·2^k: the quotients by 127 are exact.
        codes = host(random.integers(-127, 128, shape).astype(np.int8))
        stored = host(np.asarray(127 * scale if lattice else scale, np.float32))
        return {"codes": codes, "absmax": stored}, {"granularity": granularity, "block_size": group}
    low, high = code_range(draw, claim)
    codes = host(random.integers(low, high + 1, shape).astype(np.int8 if low < 0 else np.uint8))
    zero = host(np.asarray(random.integers(low, high + 1, per_group), np.int32))
    options = {"granularity": granularity, "group_size": group, "qmin": low, "qmax": high}
    return {"codes": codes, "scale": host(np.asarray(scale, np.float32)), "zero_point": zero}, options


def _powers(random: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return np.asarray(np.ldexp(1.0, random.integers(-1, 3, shape)))


def _codes(random: np.random.Generator, name: str, size: int, lattice: bool) -> HostArray:
    table = codebook_named(name)
    usable = np.flatnonzero(np.isin(table.entries, _DYADIC)) if lattice else np.arange(table.entries.size)
    codes = random.choice(usable.astype(np.uint8), size)
    return host(pack_4bit(codes, table.zero_code) if table.code_bits == 4 else codes)


def _nested(random: np.random.Generator, blocks: int) -> dict[str, HostArray]:
    """Return nested absmax whose restored values are dyadic: the codes of 0 and 1, a power of two, an offset."""
    table = codebook_named("dynamic_signed")
    usable = np.flatnonzero(np.isin(table.entries, (0.0, 1.0))).astype(np.uint8)
    groups = block_count(blocks, NESTED_BLOCK_SIZE)
    return {
        "absmax_codes": host(random.choice(usable, blocks)),
        "nested_absmax": host(_powers(random, (groups,)).astype(np.float32)),
        "offset": host(np.asarray(2.0 ** random.integers(0, 2), np.float32)),
    }


def _adapter(
    random: np.random.Generator, size: tuple[int, int, int], dtype: str, family: str, largest: int
) -> tuple[HostArray, HostArray]:
    d_out, d_in, rank = size
    if family == "normal":
        return normal(random, (rank, d_in), dtype, 0.3), normal(random, (d_out, rank), dtype, 0.3)
    a = random.integers(-largest, largest + 1, (rank, d_in))
    b = random.integers(-1, 2, (d_out, rank))
    if family == "ramps":
        a = (np.arange(rank)[:, np.newaxis] + np.arange(d_in)) % 7 - 3
        b = np.arange(d_out)[:, np.newaxis] % 3 + np.arange(rank) % 2
    return rounded(a, dtype), rounded(b, dtype)


def _poisoned(random: np.random.Generator, weight: Mapping[str, HostArray], kind: str) -> dict[str, HostArray]:
    name = {"blocks": "absmax", "int8": "absmax", "affine": "scale", "double": "nested_absmax"}[kind]
    scale = weight[name].items.copy()
    if scale.size:
        scale.reshape(-1)[random.integers(0, scale.size)] = np.nan
    return {**weight, name: host(scale)}


def record_of(kind: str, arrays: Mapping[str, HostArray], options: Mapping[str, Any]) -> QuantizedWeight:
    """Return the record of the reference."""
    shape, dtype = tuple(options["shape"]), options["dtype"]
    items = {name: array.items for name, array in arrays.items()}
    if kind == "blocks":
        return QuantizedBlocks(items["data"], items["absmax"], options["codebook"], options["block_size"], shape, dtype)
    if kind == "double":
        offset = np.float32(items["offset"])
        nested = QuantizedAbsmax(items["absmax_codes"], items["nested_absmax"], offset)
        return DoubleQuantized(items["data"], nested, options["codebook"], options["block_size"], shape, dtype)
    if kind == "int8":
        return QuantizedInt8(items["codes"], items["absmax"], options["granularity"], options["block_size"], dtype)
    return QuantizedAffine(items["codes"], items["scale"], items["zero_point"], options["qmin"], options["qmax"],
                           options["granularity"], options["group_size"], dtype)  # fmt: skip


STORED = {
    "blocks": ("data", "absmax"),
    "double": ("data", "absmax_codes", "nested_absmax", "offset"),
    "int8": ("codes", "absmax"),
    "affine": ("codes", "scale", "zero_point"),
}  # the arrays of each kind, in the order in which a merge returns them


def stored_of(case: Case, kind: str) -> QuantizedWeight:
    """Return the quantized weight of a case."""
    return record_of(kind, {name: case.array(name) for name in STORED[kind]}, case.options)
