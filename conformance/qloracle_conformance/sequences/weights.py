"""Where the weights of a sequence come from: plain ones, stored ones and adapters that a claim admits."""

from typing import Any

import numpy as np

from qloracle.groups import group_shape
from qloracle_conformance.arrays import HostArray, host
from qloracle_conformance.backend import Claim
from qloracle_conformance.generators.affine import CODE_RANGES
from qloracle_conformance.generators.case import fitted
from qloracle_conformance.generators.draw import Draw
from qloracle_conformance.generators.requantizing import quantized
from qloracle_conformance.generators.values import normal
from qloracle_conformance.sequences.bench import RANKS, Bench, Slot

GROUPED = ("block", "group")  # granularities with a size of their own


class Weights:
    """How the walk stores weights: by which quantizer, with which settings."""

    def __init__(self, kind: str, codebook: str = "") -> None:
        """Keep the kind ("blocks", "double", "int8", "affine", or "" for none) and the codebook."""
        self.kind, self.codebook = kind, codebook

    def granularity(self, operation: str, claim: Claim, draw: Draw) -> str:
        """Return the granularity that an operation works at: by its name, or one of its options."""
        if self.kind not in ("int8", "affine"):
            return ""
        named = operation.partition(".")[0].partition("_")[2]
        if named in ("tensor", "column", "block", "group"):
            return named
        return str(draw.choice(claim.options.get("granularity", ("row",))))

    def settings(self, operation: str, claim: Claim, bench: Bench, draw: Draw) -> dict[str, Any]:
        """Return the options of a quantizer for a new stored weight."""
        if self.kind in ("blocks", "double"):
            nested = {"nested_codebook": "dynamic_signed"} if self.kind == "double" else {}
            return {
                "codebook": self.codebook,
                "block_size": bench.usual(draw, "block size", claim.block_sizes),
                **nested,
            }
        granularity = self.granularity(operation, claim, draw)
        size = bench.usual(draw, "block size", claim.block_sizes) if granularity in GROUPED else None
        if self.kind == "int8":
            return {"granularity": granularity, "block_size": size}
        low, high = CODE_RANGES[str(draw.choice(claim.options.get("code_range", ("-128..127",))))]
        return {"qmin": low, "qmax": high, "granularity": granularity, "group_size": size}

    def fits(self, slot: Slot, operation: str, claim: Claim) -> bool:
        """Return whether a claim admits a stored weight."""
        options = slot.options
        size = options.get("block_size", options.get("group_size"))
        admitted = size is None or size in claim.block_sizes
        if self.kind in ("blocks", "double"):
            return admitted
        named = operation.partition(".")[0].partition("_")[2]
        listed = tuple(map(str, claim.options.get("granularity", ("row",))))
        known = (named,) if named in ("tensor", "row", "column", "block", "group") else listed
        ranges = [CODE_RANGES[str(name)] for name in claim.options.get("code_range", ("-128..127",))]
        within = self.kind == "int8" or (options["qmin"], options["qmax"]) in ranges
        return admitted and within and options["granularity"] in known


def weight(bench: Bench, draw: Draw, claim: Claim, *, matrix: bool) -> Slot:
    """Return a weight that a claim admits."""

    def make() -> Slot:
        shape = bench.matrix_shape(draw) if matrix else fitted(bench.matrix_shape(draw), claim)
        dtype = bench.usual(draw, "dtype", claim.dtypes)
        array = normal(draw.random(), shape, dtype, 0.25)
        return bench.fresh("weight", {"weight": array}, shape=shape, dtype=dtype)

    def fits(slot: Slot) -> bool:
        axes = len(slot.shape)
        return slot.dtype in claim.dtypes and (axes == 2 if matrix else axes in claim.ndims)

    return bench.pick(draw, "weight", make, fits)


def stored(bench: Bench, draw: Draw, operation: str, weights: Weights, *, matrix: bool) -> Slot:
    """Return a stored weight that the claim of an operation admits."""
    claim = bench.claims[operation]

    def make() -> Slot:
        plain = bench.matrix_shape(draw)
        shape = plain if matrix or weights.kind not in ("blocks", "double") else fitted(plain, claim)
        options = weights.settings(operation, claim, bench, draw)
        arrays = stored_arrays(draw, weights.kind, shape, options)
        return bench.fresh("stored", arrays, shape=shape, options=options)

    def fits(slot: Slot) -> bool:
        return (len(slot.shape) == 2 or not matrix) and weights.fits(slot, operation, claim)

    return bench.pick(draw, "stored", make, fits)


def stored_arrays(draw: Draw, kind: str, shape: tuple[int, ...], options: dict[str, Any]) -> dict[str, HostArray]:
    """Return the arrays of a stored weight with given settings: any codes, ordinary scales."""
    random = draw.random()
    if kind in ("blocks", "double"):
        claim = Claim("blocks.merge", {}, block_sizes=(options["block_size"],),
                      options={"codebook": (options["codebook"],)})  # fmt: skip
        arrays, _ = quantized(draw, claim, (1, int(np.prod(shape))), kind, False)
        return arrays
    size = options.get("block_size", options.get("group_size"))
    groups = group_shape(shape, options["granularity"], size, (options["granularity"],))
    scale = host(np.asarray(random.uniform(0.01, 2.0, groups), np.float32))
    low, high = options.get("qmin", -127), options.get("qmax", 127)
    codes = host(random.integers(low, high + 1, shape).astype(np.int8 if low < 0 else np.uint8))
    if kind == "int8":
        return {"codes": codes, "absmax": scale}
    zero_point = host(np.asarray(random.integers(low, high + 1, groups), np.int32))
    return {"codes": codes, "scale": scale, "zero_point": zero_point}


def adapter(bench: Bench, draw: Draw, shape: tuple[int, ...], dtype: str) -> Slot:
    """Return an adapter for a weight of (d_out, d_in)."""

    def make() -> Slot:
        rank, random = bench.usual(draw, "rank", RANKS), draw.random()
        parts = {"lora_a": normal(random, (rank, shape[1]), dtype), "lora_b": normal(random, (shape[0], rank), dtype)}
        return bench.fresh("adapter", parts, shape=shape, dtype=dtype, options={"rank": rank})

    return bench.pick(draw, "adapter", make, lambda slot: slot.shape == shape and slot.dtype == dtype)
