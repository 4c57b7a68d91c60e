"""Weights as they are stored, by every quantizer: on lattices small integers or words times powers of two."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from qloracle.blocks import block_count
from qloracle.formats import Array
from qloracle.groups import spread_groups
from qloracle.packing import pack_4bit
from qloracle.tables import codebook_named
from qloracle_conformance.arrays import HostArray, host
from qloracle_conformance.backend import Claim
from qloracle_conformance.generators.affine import code_range
from qloracle_conformance.generators.draw import Draw
from qloracle_conformance.generators.grouping import claimed_groups

NESTED = 256  # blocks in a nested group
WORD = 10  # exponent of words: their products with subnormal activations are normal


@dataclass(frozen=True)
class Stored:
    """A stored weight."""

    arrays: dict[str, HostArray]
    options: dict[str, Any]


def stored_weight(
    random: np.random.Generator,
    kind: str,
    shape: tuple[int, int],
    block_size: int,
    contents: str,
    codebook: str = "nf4",
) -> Stored:
    """Return a weight of kind "blocks" or "double".

    `contents`: "integers", small ones times powers of two that differ from group to group; "words", entries of full
    significand times powers of two; "large", small integers times large powers of two; "normal", any codes and
    scales; "zeros".
    """
    table, size = codebook_named(codebook), shape[0] * shape[1]
    whole = np.flatnonzero(np.isin(table.entries, (-1.0, 0.0, 1.0)))
    codes = (
        random.choice(whole, size)
        if contents in ("integers", "large")
        else random.integers(0, table.entries.size, size)
    )
    blocks = block_count(size, block_size)
    data = codes.astype(np.uint8)
    arrays = {"data": host(pack_4bit(data, table.zero_code) if table.code_bits == 4 else data)}
    if kind == "double":
        arrays |= _nested(random, blocks, contents)
    else:
        arrays["absmax"] = host(_scales(random, blocks, contents))
    return Stored(arrays, {"codebook": codebook, "block_size": block_size, "shape": shape})


def _scales(random: np.random.Generator, count: int | tuple[int, ...], contents: str) -> Array:
    if contents == "zeros":
        return np.zeros(count, np.float32)
    if contents == "normal":
        return random.uniform(0.01, 0.1, count).astype(np.float32)
    exponents = random.integers(-1, 2, count) + (WORD if contents in ("words", "large") else 0)
    return np.ldexp(np.float32(1), exponents).astype(np.float32)


def _nested(random: np.random.Generator, blocks: int, contents: str) -> dict[str, HostArray]:
    """Return absmax that are quantized themselves: on a lattice 2, or 2 and the 1 or 2 of their own group."""
    table, groups = codebook_named("dynamic_signed"), block_count(blocks, NESTED)
    whole = np.flatnonzero(np.isin(table.entries, (0.0, 1.0)))
    codes = random.integers(0, 256, blocks) if contents == "normal" else random.choice(whole, blocks)
    nested = random.uniform(0.01, 0.05, groups) if contents == "normal" else 2.0 ** random.integers(0, 2, groups)
    offset = 0.06 if contents == "normal" else 2.0
    if contents in (
        "words",
        "large",
        "zeros",
    ):  # one power of two for all: entries are words of full significand already
        nested, offset = nested * 0, 2.0**WORD * (contents != "zeros")
    return {
        "absmax_codes": host(codes.astype(np.uint8)),
        "nested_absmax": host(np.asarray(nested, np.float32)),
        "offset": host(np.array(offset, np.float32)),
    }


def weight_in_codes(draw: Draw, claim: Claim, shape: tuple[int, int], kind: str, contents: str) -> Stored:
    """Return a weight of kind "int8" or "affine"; INT8 codes count 1/127 of the absmax each, affine ones a scale."""
    random, largest = draw.random(), 3 if contents == "integers" else 127
    granularity, size, groups = claimed_groups(draw, claim, shape)
    scale, steps = _scales(random, groups, contents), random.integers(-largest, largest + 1, shape)
    if kind == "int8":
        if largest == 127 and "minus_128" in claim.features:
            steps = np.where(random.integers(0, 16, shape) == 0, -128, steps)
        absmax = scale if contents == "normal" else scale * np.float32(127)
        arrays = {"codes": host(steps.astype(np.int8)), "absmax": host(absmax)}
        return Stored(arrays, {"granularity": granularity, "block_size": size})
    qmin, qmax = code_range(draw, claim)
    zero_point = np.asarray(random.integers(qmin, qmax + 1, groups), np.int32)
    codes = np.clip(steps + spread_groups(zero_point, shape, granularity, size), qmin, qmax)
    arrays = {
        "codes": host(codes.astype(np.int8 if qmin < 0 else np.uint8)), "scale": host(scale),
        "zero_point": host(zero_point),
    }  # fmt: skip
    return Stored(arrays, {"granularity": granularity, "group_size": size, "qmin": qmin, "qmax": qmax})
