"""The families of an embedding with LoRA: lattices, repeated and far indices, and ordinary numbers."""

from collections.abc import Callable
from functools import partial

import numpy as np

from qloracle.formats import Array
from qloracle_conformance.arrays import HostArray, host
from qloracle_conformance.backend import Claim
from qloracle_conformance.generators.case import Case, each_layout, fitted
from qloracle_conformance.generators.draw import Draw
from qloracle_conformance.generators.linear import narrowest, one_hot
from qloracle_conformance.generators.values import full_significand, normal, rounded

FAMILIES = (
    "small_lattice", "wide_lattice", "repeated", "shapes", "squares", "far", "sums", "normal", "few", "specials",
    "memory",
)  # fmt: skip
TERMS = ("base", "adapter", "scale", "whole")
REACHED = {
    **dict.fromkeys(FAMILIES, ("whole",)), "small_lattice": TERMS, "wide_lattice": ("base", "adapter"),
}  # fmt: skip
BOUNDED = ("normal", "few", "specials")
FAR = 70000  # rows of a table that 16-bit indices do not reach
MANY = 300  # occurrences of one index, more than bfloat16 counts to


def embedding_case(draw: Draw, claim: Claim, *, family: str, operation: str) -> Case:
    """Generate a case of an embedding, forward or backward."""
    dtype, random, backward = draw.choice(claim.dtypes), draw.random(), operation.endswith("backward")
    count, dimension, rank, shape = _sizes(draw, claim, family)
    term, options = "whole", {"alpha": float(rank) * draw.choice((2.0, 0.5, 4.0)), "rank_stabilized": False}
    shape = shape if len(shape) in claim.ndims else fitted(shape, claim)
    ids = _indices(random, family, count, shape)
    if family in ("small_lattice", "wide_lattice"):
        term = draw.choice(TERMS if family == "small_lattice" else ("base", "adapter"))
        options["alpha"] = float(rank) if term != "scale" else options["alpha"]
    if "rank_stabilized" in claim.features and family in ("small_lattice", "normal") and draw.choice((False, True)):
        options["rank_stabilized"] = True
        options["alpha"] *= 1.0 if family == "normal" else int(np.sqrt(rank)) / rank
    parts = _tables(random, claim, dtype, family, term, (count, dimension, rank))
    if family in BOUNDED:
        options["alpha"] = draw.choice((7.3, 0.9))
    inputs: dict[str, HostArray | None] = {}
    if backward:
        inputs["dy"] = _gradient(random, claim, dtype, family, (*ids.shape, dimension))
    inputs |= {"ids": host(ids), **{n: rounded(values, dtype) for n, values in parts.items()}}
    layout = draw.choice(claim.layouts) if family == "memory" else "contiguous"
    layouts = each_layout(draw, claim, inputs) if family == "squares" else dict.fromkeys(inputs, layout)
    term = "" if backward else term
    return Case(operation, inputs, options, layouts, family not in BOUNDED, term, repeat=family == "memory")


def _sizes(draw: Draw, claim: Claim, family: str) -> tuple[int, int, int, tuple[int, ...]]:
    """Return rows of the table, their length, the rank, and the shape of the indices; ranks are powers of 4."""
    if family == "squares":
        size = draw.choice((4, 16))
        return size, size, size, draw.choice(((size,), (size, size)))
    if family == "far":
        return FAR, 2, 1, (12,)
    if family == "repeated":
        return draw.choice((3, 40)), draw.choice((5, 8, 130)), 4, (draw.choice((MANY, 2 * MANY + 7)),)
    if family == "sums":
        return 3, 4, 4, (MANY,)
    if family == "few":
        return 7, 3, draw.choice((1, 2)), (9,)
    shapes: tuple[tuple[int, ...], ...] = ((6,), (1,), (2, 3), (17,), (), (0,), (2, 0), (2, 1, 3))
    allowed = [s for s in shapes if (len(s) in claim.ndims or len(s) == 1) and (claim.empty or 0 not in s)]
    shape = draw.choice(allowed) if family == "shapes" else (9,)
    rank = draw.choice((3, 8, 5, 17, 40)) if family == "normal" else draw.choice((4, 1, 16, 64))
    return draw.choice((11, 33, 7)), draw.choice((5, 8, 1, 64, 130)), rank, shape


def _indices(random: np.random.Generator, family: str, count: int, shape: tuple[int, ...]) -> Array:
    """Return int64 indices; the first and the last row of the table are among them where there is room."""
    ids = random.integers(0, count, shape)
    if family == "repeated":
        ids = np.where(random.integers(0, 2, shape) == 0, ids, random.integers(0, count))
    if family == "sums":
        ids = np.ones(shape, np.int64)
    flat = ids.reshape(-1)
    known = [count - 1, 0, count // 2, *(v for v in (255, 256, 32768, 65535, 65536) if v < count)]
    if family not in ("repeated", "sums") and flat.size > 2:
        flat[random.permutation(flat.size)[: len(known)]] = known[: flat.size]
    return ids


def _tables(
    random: np.random.Generator, claim: Claim, dtype: str, family: str, term: str, sizes: tuple[int, int, int]
) -> dict[str, Array]:
    count, dimension, rank = sizes
    shapes = {"weight": (count, dimension), "lora_a": (rank, count), "lora_b": (dimension, rank)}
    if family in ("normal", "specials"):
        parts = {name: normal(random, shape, dtype).real() for name, shape in shapes.items()}
    elif family == "few":
        parts = {name: full_significand(random, shape, dtype).real() for name, shape in shapes.items()}
    else:
        parts = {name: random.integers(-2, 3, shape).astype(np.float64) for name, shape in shapes.items()}
    if family == "wide_lattice":
        parts["weight"] = full_significand(random, shapes["weight"], dtype).real()
        parts["lora_a"] = full_significand(random, shapes["lora_a"], narrowest(dtype, claim)).real()
        parts["lora_b"] = one_hot(random, dimension, rank, (-1, 1))
    if term == "base":
        parts["lora_b"] = parts["lora_b"] * 0
    elif term in ("adapter", "scale"):
        parts["weight"] = parts["weight"] * 0
    if family == "specials":
        name = ("weight", "lora_a", "lora_b")[int(random.integers(0, 3))]
        flat = parts[name].reshape(-1)
        flat[random.choice([0, flat.size // 2, flat.size - 1])] = np.nan
    return parts


def _gradient(random: np.random.Generator, claim: Claim, dtype: str, family: str, shape: tuple[int, ...]) -> HostArray:
    if family in ("normal", "specials", "few"):
        values = normal(random, shape, dtype).real()
        if family == "specials" and values.size:  # in one row: it reaches one index alone
            values.reshape(-1)[random.integers(0, values.size)] = random.choice([0.0, np.nan, np.inf])
        return rounded(values, dtype)
    rows = (int(np.prod(shape[:-1])), shape[-1])
    whole = random.integers(-1, 2, shape).astype(np.float64)
    if family == "wide_lattice":  # every row one power of two: dy B and dyᵀ Aᵀ are words of A and B times it
        whole = one_hot(random, *rows, (-2, 2)) * (np.arange(rows[0]) == 0)[:, np.newaxis]
    if family == "sums":  # partial sums that leave float16, or the integers that bfloat16 holds
        large = 2.0**13 if "float16" in (dtype, claim.roundings.intermediate) else 2.0**60
        whole = np.ones(rows) if random.integers(0, 2) else large * np.repeat([1.0, -1.0], rows[0] // 2)[:, np.newaxis]
        whole = np.broadcast_to(whole, rows) * (np.arange(rows[1]) == 0)
    return rounded(whole.reshape(shape), dtype)


def embedding_families(operation: str) -> dict[str, Callable[[Draw, Claim], Case]]:
    """Return the families of an embedding operation."""
    names = tuple(f for f in FAMILIES if operation.endswith("backward") or f != "sums")
    return {name: partial(embedding_case, family=name, operation=operation) for name in names}
