"""The operations that are judged on large tensors: those of which a block depends on nothing but itself."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from qloracle.packing import pack_4bit
from qloracle_conformance.arrays import STORAGE, HostArray, host
from qloracle_conformance.backend import Claim
from qloracle_conformance.generators.draw import CounterDraw
from qloracle_conformance.generators.values import normal
from qloracle_conformance.large.extent import Extent, windows_of

FAMILY = "huge"
PERIOD = 8191  # blocks after which the inputs repeat: a prime
SMALL_BLOCK, USUAL_BLOCK = 32, 64

_ONE, _HALF = Fraction(1), Fraction(1, 2)
Random = np.random.Generator


@dataclass(frozen=True)
class Large:
    """One operation on a large tensor of one axis."""

    inputs: Callable[[Random, Claim, int, int], dict[str, HostArray]]  # from a claim, elements of the period, block
    shares: Callable[[int], tuple[dict[str, Fraction], tuple[Fraction, ...]]]  # items for an element, from the block
    types: Callable[[Claim], tuple[str, ...]]  # of the outputs
    options: Callable[[Claim, int, int], dict[str, Any]]  # from a claim, the elements, the block


def _blocks(block: int) -> Fraction:
    return Fraction(1, block)


def narrowest(dtypes: tuple[str, ...]) -> str:
    """Return the type of the fewest bytes: twice as many elements fit."""
    return min(dtypes, key=lambda name: np.dtype(STORAGE[name]).itemsize)


def _quantize(codebook: str, share: Fraction) -> Large:
    return Large(
        lambda random, claim, period, block: {"x": normal(random, (period,), narrowest(claim.dtypes))},
        lambda block: ({"x": _ONE}, (share, _blocks(block))),
        lambda claim: ("uint8", "float32"),
        lambda claim, elements, block: {"codebook": codebook, "block_size": block},
    )


def _dequantize(codebook: str, share: Fraction) -> Large:
    def inputs(random: Random, claim: Claim, period: int, block: int) -> dict[str, HostArray]:
        codes = random.integers(0, 16 if share == _HALF else 256, period).astype(np.uint8)
        scales = random.uniform(0.01, 2.0, period // block).astype(np.float32)
        return {"data": host(pack_4bit(codes, 0) if share == _HALF else codes), "absmax": host(scales)}

    def options(claim: Claim, elements: int, block: int) -> dict[str, Any]:
        dtype = narrowest(claim.out_dtypes)
        return {"codebook": codebook, "block_size": block, "shape": (elements,), "dtype": dtype}

    return Large(inputs, lambda block: ({"data": share, "absmax": _blocks(block)}, (_ONE,)),
                 lambda claim: (narrowest(claim.out_dtypes),), options)  # fmt: skip


def _codes(random: Random, claim: Claim, period: int, block: int) -> dict[str, HostArray]:
    return {"codes": host(random.integers(0, 16, period).astype(np.uint8))}


def _packed(random: Random, claim: Claim, period: int, block: int) -> dict[str, HostArray]:
    return {"packed": host(random.integers(0, 256, period // 2).astype(np.uint8))}


LARGE: dict[str, Large] = {
    "packing.pack": Large(_codes, lambda block: ({"codes": _ONE}, (_HALF,)), lambda claim: ("uint8",),
                          lambda claim, elements, block: {"pad_code": 7}),
    "packing.unpack": Large(_packed, lambda block: ({"packed": _HALF}, (_ONE,)), lambda claim: ("uint8",),
                            lambda claim, elements, block: {"size": elements}),
    "blocks.absmax": Large(
        lambda random, claim, period, block: {"x": normal(random, (period,), narrowest(claim.dtypes))},
        lambda block: ({"x": _ONE}, (_blocks(block),)), lambda claim: ("float32",),
        lambda claim, elements, block: {"block_size": block},
    ),
    "nf4.quantize": _quantize("nf4", _HALF),
    "nf4.dequantize": _dequantize("nf4", _HALF),
    "fp4.quantize": _quantize("fp4", _HALF),
    "fp4.dequantize": _dequantize("fp4", _HALF),
    "dynamic_signed.quantize": _quantize("dynamic_signed", _ONE),
    "dynamic_signed.dequantize": _dequantize("dynamic_signed", _ONE),
}  # fmt: skip


@dataclass(frozen=True)
class LargeCase:
    """A large call before it is made: the inputs are one period of the pattern."""

    inputs: Mapping[str, HostArray]
    options: Mapping[str, Any]
    extent: Extent
    bytes_in: int
    bytes_out: int


def block_of(claim: Claim) -> int:
    """Return the block size: the usual one, else the smallest that is not tiny."""
    if USUAL_BLOCK in claim.block_sizes:
        return USUAL_BLOCK
    return min((size for size in claim.block_sizes if size >= SMALL_BLOCK), default=max(claim.block_sizes))


def large_case(name: str, claim: Claim, elements: int, seed: int) -> LargeCase:
    """Return the call of an operation on so many elements: a pure function of its arguments."""
    large, block = LARGE[name], block_of(claim)
    aligned = 2 * block  # an even number of elements: packed bytes end with windows
    period = PERIOD * aligned
    random = CounterDraw(f"{name}.{FAMILY}", 0, seed).random()
    inputs, (shares, outputs) = large.inputs(random, claim, period, block), large.shares(block)
    extent = Extent(elements, period, shares, outputs, windows_of(elements, aligned))
    bytes_in = sum(int(elements * share) * inputs[n].items.dtype.itemsize for n, share in shares.items())
    widths = (np.dtype(STORAGE[dtype]).itemsize for dtype in large.types(claim))
    bytes_out = sum(int(elements * share) * width for share, width in zip(outputs, widths, strict=True))
    return LargeCase(inputs, large.options(claim, elements, block), extent, bytes_in, bytes_out)
