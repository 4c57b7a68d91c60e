"""Weights as they are stored, by every quantizer: on lattices small integers or words times powers of two."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from qloracle.blocks import block_count
from qloracle.formats import Array
from qloracle.packing import pack_4bit
from qloracle.tables import codebook_named
from qloracle_conformance.arrays import HostArray, host

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
    """Return a weight of a kind: "blocks", "double", "int8" or "affine".

    `contents`: "integers", small ones times powers of two that differ from group to group; "words", entries of full
    significand times powers of two; "large", small integers times large powers of two; "normal", any codes and
    scales; "zeros".
    """
    if kind in ("blocks", "double"):
        return _in_blocks(random, kind, shape, block_size, contents, codebook)
    return _in_codes(random, kind, shape, block_size, contents)


def _in_blocks(
    random: np.random.Generator, kind: str, shape: tuple[int, int], block_size: int, contents: str, codebook: str
) -> Stored:
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


def _in_codes(random: np.random.Generator, kind: str, shape: tuple[int, int], block_size: int, contents: str) -> Stored:
    """Return a weight with a scale for every row; INT8 codes count 1/127 of the absmax each, affine ones a scale."""
    largest = 3 if contents == "integers" else 127
    steps = random.integers(-largest, largest + 1, shape)
    scale = _scales(random, shape[0], contents)
    if kind == "int8":
        absmax = scale if contents == "normal" else scale * np.float32(127)
        arrays = {"codes": host(steps.astype(np.int8)), "absmax": host(absmax)}
        return Stored(arrays, {"granularity": "row", "block_size": None})
    zero_point = random.integers(1, 120, shape[0]).astype(np.int32)
    codes = np.clip(steps + zero_point[:, np.newaxis], 0, 255).astype(np.uint8)
    arrays = {"codes": host(codes), "scale": host(scale), "zero_point": host(zero_point)}
    return Stored(arrays, {"granularity": "row", "group_size": None, "qmin": 0, "qmax": 255})
