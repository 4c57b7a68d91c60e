"""Inputs of DoRA merges: rows of whole norms, whose gains are powers of two; ordinary numbers."""

from dataclasses import replace

import numpy as np

from qloracle.dora_merging import dora_merge
from qloracle.formats import Array, format_named
from qloracle_conformance.arrays import HostArray, host
from qloracle_conformance.backend import Claim
from qloracle_conformance.generators.case import Case
from qloracle_conformance.generators.draw import Draw
from qloracle_conformance.generators.merging import Merge, case_of, merge_arrays
from qloracle_conformance.generators.values import normal, rounded

FAMILIES = ("small_lattice", "ramps", "squares", "sizes", "large", "zero_rows", "memory", "tiles", "normal", "specials")
_WHOLE = ((3, 4), (2, 3, 6), (1, 2, 2), (1, 4, 8), (6, 8), (2, 5, 14), (1, 1, 1, 1), (7,), (2, 4, 5, 6))


def dora_case(draw: Draw, claim: Claim, *, family: str, operation: str) -> Case:
    """A weight, an adapter and magnitudes; for unmerging the merged weight and its norms."""
    layout, dtype = draw.choice(claim.layouts), draw.choice(claim.dtypes)
    if family in ("normal", "specials"):
        merge = merge_arrays(draw, claim, family, dtype)
        magnitude = normal(draw.random(), (len(merge.weight),), dtype).real()
    else:
        merge, magnitude = whole_norms(draw, claim, family, dtype)
    more: dict[str, HostArray] = {"magnitude": rounded(magnitude, dtype)}
    if operation == "dora.unmerge":
        merge, norms = _merged(merge, magnitude)
        more = {"norms": host(norms), **more}
    case = case_of(draw, claim, operation, merge, family, dtype, layout, **more)
    return replace(case, lattice=family not in ("normal", "specials"))


def whole_norms(draw: Draw, claim: Claim, family: str, dtype: str) -> tuple[Merge, Array]:
    """Return W = V − s B A for rows V of whole norms, and m = n·2^k: every step of a merge is exact."""
    random = draw.random()
    d_out, d_in, rank = draw.choice(((9, 7, 2), (5, 16, 4), (24, 33, 8)))
    if family == "squares":
        d_out = d_in = rank = draw.choice((8, 16))
    elif family == "sizes":
        d_out, d_in, rank = draw.choice(((1, 9, 1), (7, 4, 1), (3, 130, 2), (70, 8, 2)))
    elif family == "tiles":
        d_out, d_in, rank = draw.choice(((131, 67, 8), (33, 1031, 4), (70, 300, 8)))
    stabilized = "rank_stabilized" in claim.features and rank == 4 and draw.choice((False, True))
    unit = float(np.sqrt(rank)) if stabilized else float(rank)
    scale = draw.choice((2.0, 0.5, -1.0))
    rows = np.zeros((d_out, d_in))
    norms = np.zeros(d_out)
    for index in range(d_out):
        pattern = np.array(_WHOLE[int(random.integers(0, len(_WHOLE)))])
        if len(pattern) <= d_in:
            places = random.permutation(d_in)[: len(pattern)]
            rows[index, places] = pattern * random.choice([-1, 1], len(pattern))
            norms[index] = np.sqrt(np.sum(pattern**2))
    if family == "zero_rows":
        gone = random.integers(0, 2, d_out) == 0
        rows[gone], norms[gone] = 0.0, 0.0
    a = random.integers(-1, 2, (rank, d_in))
    b = random.integers(-2, 3, (d_out, rank))
    power = 2.0 ** (min(10, format_named(dtype).bias - 10)) if family == "large" else 1.0
    weight = rows - scale * (b @ a)
    if family == "zero_rows":
        weight[::3], b[::3], norms[::3] = 0.0, 0, 0.0  # nothing at all, beside rows that cancel
    exponents = np.arange(d_out) % 5 - 2 if family == "ramps" else random.integers(-2, 3, d_out)
    magnitude = np.where(
        norms == 0, 3.0 * (np.arange(d_out) % 2), norms * power * 2.0**exponents * random.choice([-1.0, 1.0], d_out)
    )
    return Merge(weight * power, a, b * power, unit * scale, stabilized), magnitude


def _merged(merge: Merge, magnitude: Array) -> tuple[Merge, Array]:
    """Return the merged weight in place of W, and its norms; magnitudes of 0 do not occur."""
    arrays = (np.asarray(m, np.float32) for m in (merge.weight, merge.lora_a, merge.lora_b, magnitude))
    with np.errstate(all="ignore"):
        state = dora_merge(*arrays, alpha=merge.alpha, rank_stabilized=merge.rank_stabilized)
    moved = Merge(state.weight.astype(np.float64), merge.lora_a, merge.lora_b, merge.alpha, merge.rank_stabilized)
    return moved, state.norms
