"""Steps of AdamW whose parameter is rounded stochastically, or whose update has a limited norm."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from qloracle.formats import Array, format_named
from qloracle.optim.adamw import adamw_moments, adamw_parameter
from qloracle.optim.options import AdamwOptions
from qloracle_conformance.backend import Claim
from qloracle_conformance.generators.adamw import SHAPES, ordinary_step, step_case
from qloracle_conformance.generators.adamw_lattice import Corner, Step, lattice_step, options_of
from qloracle_conformance.generators.case import Case, admitted, each_layout
from qloracle_conformance.generators.draw import Draw
from qloracle_conformance.generators.values import rounded
from qloracle_conformance.operations.adamw import adamw_options

STOCHASTIC = ("small_lattice", "small_updates", "normal", "shapes", "memory", "extents")
LIMITED = ("small_lattice", "normal", "near", "memory", "extents")
LONG = ((4099,), (300, 70), (1027,), (33001,))
ROUNDED_FORMATS = ("float16", "bfloat16")  # of parameters that random bits round
_FULL = 2.0**32


def stochastic_family(draw: Draw, claim: Claim, *, family: str) -> Case:
    """Random bits on, and one to either side of, the part of the way to the next number; the ends of their range."""
    dtype = draw.choice([dtype for dtype in claim.dtypes if dtype in ROUNDED_FORMATS])
    sizes = {"shapes": SHAPES, "extents": LONG}.get(family, ((64,), (5, 7), (257,)))
    shape = draw.choice(admitted(claim, sizes))
    lattice = family in ("small_lattice", "small_updates")
    if family == "small_lattice":
        step = lattice_step(draw, shape)
    else:
        step = small_update_step(draw, shape) if lattice else ordinary_step(draw, shape)
    if family == "normal":
        step = _not_finite(draw, step)
        step.options["nonfinite"] = draw.choice(claim.options.get("nonfinite", ("propagate",)))
    case = step_case("adamw.stochastic", step, dtype)
    bits = threshold_bits(draw.random(), part_of_the_way(case), lattice)
    case = step_case("adamw.stochastic", step, dtype, lattice=lattice, bits=bits, repeat=family == "memory")
    return replace(case, layouts=each_layout(draw, claim, case.inputs)) if family == "memory" else case


def small_update_step(draw: Draw, shape: tuple[int, ...]) -> Step:
    """Parameters of about 1 and updates far below half a unit in the last place, which rounding to nearest loses."""
    random = draw.random()
    corner = Corner(0.5, 0.0, 1, 0, 1, 1)  # v̂ = g², and √v̂ + eps = 2·|g| for |g| = eps
    sign = random.choice([-1.0, 1.0], shape)
    p = random.integers(64, 128, shape) / 64 * random.choice([-1.0, 1.0], shape)
    return Step(
        p, sign / 8, np.zeros(shape), np.zeros(shape), options_of(corner, 2.0 ** -draw.integer(9, 15), 0.125, 0.0)
    )


def _not_finite(draw: Draw, step: Step, *, parameter: bool = False) -> Step:
    """Return a step, in some cases with a NaN or an infinity in its gradient, or with a NaN in its parameter.

    No infinity there: p − lr·wd·p of one is NaN, p·(1 − lr·wd) is not.
    """
    special = draw.choice((0.0, np.nan, np.inf, -np.inf))
    name = draw.choice(("gradient", "p")) if parameter and np.isnan(special) else "gradient"
    array = np.array(getattr(step, name))
    if special and array.size:
        array.reshape(-1)[draw.integer(0, array.size - 1)] = special
    changed: dict[str, Any] = {name: array}
    return replace(step, **changed)


def part_of_the_way(case: Case) -> Array:
    """Return how far p' is on the way from the number of its format below it in magnitude to the next one."""
    options, p = adamw_options(case.options), case.array("p")
    arrays = (case.array("gradient").items, case.array("m").items, case.array("v").items)
    m, v = (real.astype(np.float32) for real in adamw_moments(*arrays, options, fmt=p.dtype))
    real = adamw_parameter(p.items, m, v, options, step=case.options["step"], fmt=p.dtype)
    fmt = format_named(p.dtype)
    exponent = np.maximum(np.frexp(real)[1] - 1, fmt.minimum_exponent)
    steps = np.ldexp(np.abs(real), fmt.mantissa_bits - exponent)
    with np.errstate(invalid="ignore"):
        part: Array = np.nan_to_num(steps - np.floor(steps))
    return part


def threshold_bits(random: np.random.Generator, part: Array, lattice: bool) -> Array:
    """Return random bits, many of them where one more or less decides."""
    threshold = np.floor(part * _FULL)
    moved = threshold + random.integers(-1, 2, part.shape)
    anywhere = random.integers(0, 1 << 32, part.shape).astype(np.float64)
    ends = random.choice([0.0, _FULL - 1], part.shape)
    kind = random.integers(0, 4, part.shape) if lattice else np.full(part.shape, 3)
    chosen = np.where(kind < 2, moved, np.where(kind == 2, ends, anywhere))
    return np.asarray(np.clip(chosen, 0, _FULL - 1)).astype(np.uint32)


def limited_family(draw: Draw, claim: Claim, *, family: str) -> Case:
    """Updates whose norm is a limit, a little more or less, or twice that; norms that are exact on the lattice."""
    dtype = draw.choice(claim.dtypes)
    lattice = family in ("small_lattice", "extents")
    plain = ((64,), (16, 3), (1000,)) if lattice else ((64,), (300, 7), (2000,))
    shape = draw.choice(admitted(claim, LONG if family == "extents" else plain))
    step = limited_lattice_step(draw, shape) if lattice else _ordinary_limited(draw, shape, family)
    if family == "normal":  # a norm that is not finite limits nothing
        step = _not_finite(draw, step, parameter=True)
    case = step_case("adamw.limited", step, dtype, lattice=lattice, repeat=family == "memory")
    return replace(case, layouts=each_layout(draw, claim, case.inputs)) if family == "memory" else case


def limited_lattice_step(draw: Draw, shape: tuple[int, ...]) -> Step:
    """A few equal updates and a few equal parameters, so that both norms are powers of two."""
    size, random = int(np.prod(shape)), draw.random()
    gradient, p = np.zeros(size), np.zeros(size)
    places = np.concatenate([[size - 1], random.permutation(size - 1)])
    used = places[: draw.choice((1, 4, 16, 0))]
    # Without memory √v̂ = |g| = 1 = eps: the update is ±1/2.
    gradient[used] = random.choice([-1.0, 1.0], used.size)
    p[random.permutation(size)[: draw.choice((1, 4))]] = draw.choice((0.5, 1.0, 4.0, 0.0))
    options = options_of(Corner(0.0, 0.0, 1, 0, 1, 1), 0.5, 1.0, draw.choice((0.0, 0.5)))
    times, norm = draw.choice((0.5, 1.0, 2.0, 0.125)), np.sqrt(np.sum(p * p))
    limit = 0.5 * np.sqrt(used.size) / norm * times if norm and used.size else times  # else one of them stays still
    still, chosen = np.zeros(shape), {**options, "max_update_norm": float(limit)}
    return Step(p.reshape(shape), gradient.reshape(shape), still, still, chosen)


def _ordinary_limited(draw: Draw, shape: tuple[int, ...], family: str) -> Step:
    step = ordinary_step(draw, shape)
    random = draw.random()
    p = rounded(random.standard_normal(shape) * 0.1, "bfloat16").real()
    options: AdamwOptions = adamw_options(step.options)
    gradient, m, v = (rounded(part, "float32").items for part in (step.gradient, step.m, step.v))
    new_m, new_v = (real.astype(np.float32) for real in adamw_moments(gradient, m, v, options))
    zero = AdamwOptions(lr=1.0, beta1=options.beta1, beta2=options.beta2, eps=options.eps)
    update = adamw_parameter(np.zeros(shape, np.float32), new_m, new_v, zero, step=step.options["step"])
    ratio = float(np.linalg.norm(update) / np.linalg.norm(p))
    times = draw.choice((1 - 1e-3, 1 + 1e-3, 1.0)) if family == "near" else draw.choice((0.1, 0.5, 2.0))
    return replace(step, p=p, options={**step.options, "max_update_norm": ratio * times})


def stochastic_families() -> dict[str, Callable[[Draw, Claim], Case]]:
    """Return the families of adamw.stochastic."""
    return {name: partial(stochastic_family, family=name) for name in STOCHASTIC}


def limited_families() -> dict[str, Callable[[Draw, Claim], Case]]:
    """Return the families of adamw.limited."""
    return {name: partial(limited_family, family=name) for name in LIMITED}
