"""Gradients under a limit on their norm, and gradients of micro-batches with unequal numbers of tokens."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Any

import numpy as np

from qloracle.formats import Array
from qloracle_conformance.arrays import HostArray, host
from qloracle_conformance.backend import Claim
from qloracle_conformance.generators.adamw import drawn_options
from qloracle_conformance.generators.adamw_lattice import lattice_step
from qloracle_conformance.generators.case import Case, admitted, each_layout
from qloracle_conformance.generators.draw import Draw
from qloracle_conformance.generators.values import full_significand, rounded

CLIP = ("small_lattice", "wide_lattice", "normal", "near", "peaks", "specials", "memory", "extents")
ACCUMULATE = (
    "small_lattice", "wide_lattice", "normal", "many", "empty_batches", "specials", "shapes", "memory", "extents",
)  # fmt: skip
STEPS = ("small_lattice", "normal", "memory", "extents")
LONG = ((4099,), (300, 70), (1027,), (2051,), (33001,))
COUNTS = ((3, 13), (1,), (1, 7), (2, 6), (5, 11, 16), (4, 4, 4, 4), (1, 3, 5, 7))  # the first and others sum to 2^k
TOKENS = ((20000, 30000), ((1 << 32) + 7, 1 << 31), ((1 << 24) + 1, 5))  # beyond 16 bits, 32 bits, and float32


def clip_family(draw: Draw, claim: Claim, *, family: str) -> Case:
    """Two tensors with one norm: at the limit, on either side of it, far beyond."""
    dtype, random = draw.choice(claim.dtypes), draw.random()
    shapes = [
        draw.choice(admitted(claim, ((64,), (3, 50), (1,), (7, 9)))),
        draw.choice(admitted(claim, ((5, 7), (33,), (0,)) if family == "normal" else ((5, 7), (33,)))),
    ]
    if family == "extents":
        shapes = [draw.choice(admitted(claim, LONG)), draw.choice(admitted(claim, ((1027,), (7, 9))))]
    times = draw.choice((1.0, 0.5, 2.0, 0.125) if family == "small_lattice" else (0.7, 0.37, 1.0, 0.0817, 2.0))
    if family == "small_lattice":
        tensors, norm = _four_ones(draw, shapes)
    elif family == "wide_lattice":  # a norm within the limit changes no bit
        tensors = [full_significand(random, shape, dtype).real() for shape in shapes]
        norm, times = _norm(tensors), draw.choice((1.01, 2.0))
    else:
        scale = draw.choice((1.0, 1e-3, 30.0))
        tensors = [random.standard_normal(shape) * scale for shape in shapes]
        if family in ("peaks", "extents"):  # one element, at the end or anywhere, is nearly all of the norm
            peak = tensors[draw.choice((0, 1))].reshape(-1)
            peak[draw.choice((-1, int(random.integers(0, peak.size))))] = 1000 * scale
        tensors = [rounded(tensor, dtype).real() for tensor in tensors]
        norm = _norm(tensors)
        times = draw.choice((1 - 1e-3, 1 + 1e-3, 1.0)) if family == "near" else times
    if family == "specials":
        tensors[draw.choice((0, 1))].reshape(-1)[0] = draw.choice((np.nan, np.inf, -np.inf))
    lattice = family in ("small_lattice", "wide_lattice")
    inputs: dict[str, HostArray | None] = {
        name: rounded(tensor, dtype) for name, tensor in zip(("first", "second"), tensors, strict=True)
    }
    case = Case("gradient.clip", inputs, {"max_norm": float(norm * times)}, lattice=lattice, repeat=family == "memory")
    return replace(case, layouts=each_layout(draw, claim, case.inputs)) if family == "memory" else case


def _four_ones(draw: Draw, shapes: list[tuple[int, ...]]) -> tuple[list[Array], float]:
    """Return zeros but for 4 or 16 elements of one magnitude, some in either tensor, and their norm."""
    random, size = draw.random(), 2.0 ** draw.integer(-4, 4)
    counts = [int(np.prod(shape)) for shape in shapes]
    whole, number = np.zeros(sum(counts)), draw.choice((4, 16, 1, 0))
    places = np.concatenate([[counts[0] - 1, sum(counts) - 1], random.permutation(sum(counts) - 1)])
    whole[list(dict.fromkeys(places.tolist()))[:number]] = size
    whole *= random.choice([-1.0, 1.0], whole.size)
    parts = np.split(whole, [counts[0]])
    norm = size * (number or 1) ** 0.5  # a limit for zeros, too, which have none
    return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)], norm


def _norm(tensors: list[Array]) -> float:
    return float(np.sqrt(sum(np.sum(np.square(tensor)) for tensor in tensors)))


def accumulate_family(draw: Draw, claim: Claim, *, family: str) -> Case:
    """Gradients of micro-batches."""
    dtype, reduction = draw.choice([*product(claim.dtypes, map(str, claim.options.get("reduction", ("mean",))))])
    inputs, lattice = _batches(draw, claim, family, dtype, reduction)
    case = Case("gradient.accumulate", inputs, {"reduction": reduction}, lattice=lattice, repeat=family == "memory")
    return replace(case, layouts=each_layout(draw, claim, case.inputs)) if family == "memory" else case


def _batches(
    draw: Draw, claim: Claim, family: str, dtype: str, reduction: str, inner: tuple[int, ...] | None = None
) -> tuple[dict[str, HostArray | None], bool]:
    """Return gradients and counts, and whether every partial sum and the quotient are exact."""
    random = draw.random()
    shape = draw.choice(((5, 7), (64,), (1,))) if inner is None else inner
    if family == "extents":
        shape = draw.choice(LONG)
    if family == "shapes":
        shapes = ((33,), (), (1,), (2, 3, 5), (257,), (7, 1), (0,), (3, 0))
        shape = draw.choice(tuple(shape for shape in shapes if claim.empty or 0 not in shape))
    counts = np.array(draw.choice((*COUNTS, *TOKENS) if family == "normal" else COUNTS), np.int64)
    lattice = family in ("small_lattice", "wide_lattice")
    if lattice:
        counts = np.array(draw.choice((COUNTS[0], COUNTS[3], COUNTS[2], COUNTS[4], COUNTS[5], COUNTS[6])), np.int64)
    if family == "many":
        size, most = draw.choice(((16, 2000), (100, 600), (257, 200)))  # their sum is finite in float16, and not exact
        counts = random.integers(1, most, size)
    if family == "empty_batches":
        counts = np.append(counts, 0)[random.permutation(counts.size + 1)]
    full, gradients = (counts.size, *shape), np.zeros(0)
    if family == "small_lattice":
        gradients = random.integers(-15, 16, full).astype(np.float64) * np.ldexp(
            1.0, np.arange(counts.size) % 2
        ).reshape(-1, *[1] * len(shape))
    elif family == "wide_lattice":  # one micro-batch at a time is not zero, and has the weight of a power of two
        counts = np.array([4, 8, 2, 2], np.int64)
        gradients = np.zeros((4, *shape))
        gradients[draw.choice((3, 0, 1, 2))] = full_significand(random, shape, dtype).real()
    else:
        gradients = random.standard_normal(full)
    if family == "specials" and gradients.size:
        gradients.reshape(-1)[random.integers(0, gradients.size)] = draw.choice((np.nan, np.inf, -np.inf))
    if family == "empty_batches" and reduction == "mean":
        gradients[counts == 0] = draw.choice((np.nan, 1e4))  # the mean over no token
    return {"gradients": rounded(gradients, dtype), "counts": host(counts)}, lattice


def accumulated_family(draw: Draw, claim: Claim, *, family: str) -> Case:
    """Micro-batches, then one step; on the lattice the accumulated gradient is that of a lattice of steps."""
    dtype = draw.choice(claim.dtypes)
    reduction = str(draw.choice(claim.options.get("reduction", ("mean",))))
    shape = draw.choice(admitted(claim, LONG if family == "extents" else ((64,), (5, 7))))
    if family == "small_lattice":
        step = lattice_step(draw, shape)
        counts = np.array(draw.choice(((3, 13), (2, 6), (1, 7))), np.int64)
        gradients = _split(draw.random(), step.gradient, counts, reduction, float(step.options["eps"]))
        inputs = {"p": step.p, "gradients": gradients, "m": step.m, "v": step.v}
        options: dict[str, Any] = step.options
    else:
        random, options = draw.random(), drawn_options(draw)
        batches, _ = _batches(
            draw, claim, draw.choice(("normal", "empty_batches", "specials")), dtype, reduction, shape
        )
        counts = batches["counts"].items  # type: ignore[union-attr]
        gradients = batches["gradients"].real()  # type: ignore[union-attr]
        inputs = {"p": random.standard_normal(shape) * 1e-3, "gradients": gradients}
        inputs |= {"m": random.standard_normal(shape), "v": np.square(random.standard_normal(shape))}
    arrays: dict[str, HostArray | None] = {
        name: rounded(array, "float32" if name in "mv" else dtype) for name, array in inputs.items()
    }
    kept = {name: value for name, value in options.items() if name not in ("nonfinite", "max_update_norm")}
    case = Case(
        "accumulate.step", {**arrays, "counts": host(counts)}, {**kept, "reduction": reduction},
        lattice=family == "small_lattice", repeat=family == "memory",
    )  # fmt: skip
    return replace(case, layouts=each_layout(draw, claim, case.inputs)) if family == "memory" else case


def _split(random: np.random.Generator, gradient: Array, counts: Array, reduction: str, unit: float) -> Array:
    """Return gradients of two micro-batches whose mean over all tokens is `gradient`, a multiple of `unit`."""
    total, (first, second) = int(counts.sum()), (int(count) for count in counts)
    if reduction == "sum":
        part = random.integers(-8, 9, gradient.shape) * unit
        return np.stack([part, total * gradient - part])
    shift = random.integers(-2, 3, gradient.shape) * unit
    return np.stack([gradient + second * shift, gradient - first * shift])


def clip_families() -> dict[str, Callable[[Draw, Claim], Case]]:
    """Return the families of gradient.clip."""
    return {name: partial(clip_family, family=name) for name in CLIP}


def accumulate_families() -> dict[str, Callable[[Draw, Claim], Case]]:
    """Return the families of gradient.accumulate."""
    return {name: partial(accumulate_family, family=name) for name in ACCUMULATE}


def accumulated_families() -> dict[str, Callable[[Draw, Claim], Case]]:
    """Return the families of accumulate.step."""
    return {name: partial(accumulated_family, family=name) for name in STEPS}
