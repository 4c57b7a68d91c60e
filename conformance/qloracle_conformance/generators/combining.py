"""Several adapters of one layer: integers with scales that are powers of two, and ordinary numbers."""

from typing import Any

import numpy as np

from qloracle.combining import LoraAdapter
from qloracle.formats import format_named
from qloracle_conformance.arrays import HostArray
from qloracle_conformance.backend import Claim
from qloracle_conformance.generators.case import Case
from qloracle_conformance.generators.draw import Draw
from qloracle_conformance.generators.merging import adapter_format, layouts_of
from qloracle_conformance.generators.values import full_significand, normal, one_not_finite, rounded

LATTICES = ("small_lattice", "single", "wide_lattice", "shapes", "squares", "memory")
FAMILIES = (*LATTICES, "normal")
RANKS = ((2, 4, 8), (4, 4), (16, 1, 4, 2), (8, 64), (1, 4, 2, 1, 4, 2))
_ROOTS = {1: 1.0, 4: 2.0, 16: 4.0, 64: 8.0}


def combine_case(draw: Draw, claim: Claim, *, family: str, operation: str) -> Case:
    """Adapters stacked: the rows of A one after the other, the columns of B side by side."""
    layout, dtype = draw.choice(claim.layouts), draw.choice(claim.dtypes)
    ranks, d_out, d_in = _sizes(draw, claim, family)
    options = _factors(draw, claim, ranks, family)
    arrays = _arrays(draw, claim, (sum(ranks), d_in), (d_out, sum(ranks)), dtype, family)
    inputs: dict[str, HostArray | None] = {"lora_a": arrays[0], "lora_b": arrays[1]}
    layouts = layouts_of(draw, claim, inputs, family, layout)
    return Case(operation, inputs, {"ranks": ranks, **options}, layouts, family in LATTICES, repeat=family == "memory")


def _sizes(draw: Draw, claim: Claim, family: str) -> tuple[tuple[int, ...], int, int]:
    """Return the ranks, d_out and d_in."""
    if family == "squares":
        return (4, 4), 8, 8
    ranks = (draw.choice((8, 4, 1, 16)),) if family == "single" else draw.choice(RANKS)
    if family == "shapes":
        empty = ((0, 5), (5, 0)) if claim.empty else ()
        return ranks, *draw.choice(((1, 33), (7, 1), *empty))
    return ranks, *draw.choice(((5, 9), (24, 33), (17, 64), (130, 300)))


def _factors(draw: Draw, claim: Claim, ranks: tuple[int, ...], family: str) -> dict[str, tuple[Any, ...]]:
    """Return alphas and weights; their products with everything else are exact but for ordinary numbers."""
    roots = tuple(r in _ROOTS and "rank_stabilized" in claim.features and draw.choice((False, True)) for r in ranks)
    units = [_ROOTS[r] if root else float(r) for r, root in zip(ranks, roots, strict=True)]
    alphas = tuple(unit * draw.choice((2.0, 0.5, -4.0, 1.0)) for unit in units)
    choices = {"wide_lattice": (1.0, 0.5, -2.0), "single": (1.0, 0.5)}.get(family, (1.0, 0.5, -2.0, 0.0, 3.0))
    weights = tuple(draw.choice(choices) for _ in ranks)
    if family == "normal":
        random = draw.random()
        alphas = tuple(float(random.uniform(1, 32)) for _ in ranks)
        weights = tuple(float(random.normal()) * draw.choice((1.0, 0.0, 1.0)) for _ in ranks)
    return {"alphas": alphas, "weights": weights, "stabilized": roots}


def _arrays(
    draw: Draw, claim: Claim, a_shape: tuple[int, int], b_shape: tuple[int, int], dtype: str, family: str
) -> tuple[HostArray, HostArray]:
    """Return A and B of all adapters: |B A| stays below 2^8 where an adapter is declared to be rounded."""
    random = draw.random()
    if family == "normal":
        a, b = normal(random, a_shape, dtype), normal(random, b_shape, dtype)
        # A weight of 0 does not take away what is not finite.
        poisoned = draw.choice(("", "a", "b"))
        a, b = one_not_finite(random, a) if poisoned == "a" else a, one_not_finite(random, b) if poisoned == "b" else b
        return a, b
    if family == "wide_lattice":
        lone = np.zeros(b_shape)
        places = random.integers(0, b_shape[1], b_shape[0])
        lone[np.arange(b_shape[0]), places] = random.choice([-1.0, 1.0, 2.0], b_shape[0])
        words = full_significand(random, a_shape, adapter_format(dtype, claim))
        return rounded(words.real(), dtype), rounded(lone, dtype)
    most = 1 if format_named(claim.roundings.adapter).mantissa_bits < 23 else 3
    # Subnormals of float16, whose products are normal numbers.
    small = (
        format_named(dtype).exponent_bits < 8 and family == "small_lattice" and most > 1 and draw.choice((True, False))
    )
    whole = random.integers(-most, most + 1, a_shape) * 2.0 ** (-17 * small)
    signs = random.integers(-1, 2, b_shape) * 2.0 ** (10 * small)
    return rounded(whole, dtype), rounded(signs, dtype)


def adapters_of(case: Case) -> list[LoraAdapter]:
    """Return the adapters of a case."""
    a, b, options = case.array("lora_a").single(), case.array("lora_b").single(), case.options
    ends = np.cumsum(options["ranks"])
    return [
        LoraAdapter(a[end - rank : end], b[:, end - rank : end], alpha, stabilized)
        for rank, end, alpha, stabilized in zip(
            options["ranks"], ends, options["alphas"], options["stabilized"], strict=True
        )
    ]
