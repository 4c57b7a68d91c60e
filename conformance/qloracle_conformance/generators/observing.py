"""Inputs of observers, and of symmetric quantizers with a clipping range."""

from dataclasses import replace
from fractions import Fraction

import numpy as np

from qloracle.affine import GRANULARITIES
from qloracle.formats import Array, format_named
from qloracle.groups import group_shape as shape_of_groups
from qloracle.symmetric import symmetric_scale
from qloracle_conformance.arrays import HostArray, host
from qloracle_conformance.backend import Claim
from qloracle_conformance.generators.affine import (
    as_quantizer,
    code_range,
    plain_case,
    with_options,
)
from qloracle_conformance.generators.case import Case, reshaped
from qloracle_conformance.generators.draw import Draw
from qloracle_conformance.generators.quantizing import arrange, case_of, group_shape
from qloracle_conformance.generators.values import any_exponent, moved, normal, rounded, special_words, words

PLAIN = ("specials", "ramps", "shapes", "memory", "normal", "peaks", "extents", "degenerate", "squares")
OBSERVE_FAMILIES = ("specials", "ramps", "shapes", "memory", "normal", "peaks", "extents", "degenerate", "squares")
PERCENTILE_FAMILIES = ("normal", "close", "specials", "ramps", "shapes", "memory", "degenerate", "squares")
SYMMETRIC_FAMILIES = ("boundaries", "clipped", "specials", "ramps", "shapes", "memory", "degenerate", "squares")
MOVING_FAMILIES = ("normal", "exponents", "specials", "shapes", "memory")
PERCENTS = (
    (0.0, 100.0),
    (1.0, 99.0),
    (25.0, 75.0),
    (0.1, 99.9),
    (50.0, 50.0),
    (12.5, 87.5),
    (33.3, 66.6),
    (0.0, 99.99),
)
GRANULARITY_ORDER = ("row", "tensor", "column", "group")


def granularity_of(draw: Draw, claim: Claim) -> str:
    """Return one of the claimed granularities."""
    return str(draw.choice(claim.options.get("granularity", GRANULARITY_ORDER)))


def observe_case(draw: Draw, claim: Claim, *, family: str, operation: str) -> Case:
    """Tensors whose range is asked for; for percentiles with order statistics close together, or far apart."""
    quantizer = as_quantizer(operation, granularity_of(draw, claim))
    lower, upper = draw.choice(PERCENTS) if operation == "percentile.observe" else (0.0, 100.0)
    if family == "close":
        case = _close_case(draw, claim, operation, quantizer.granularity, draw.choice((lower, upper)))
        case = replace(case, options={**case.options, "granularity": quantizer.options["granularity"]})
    else:
        case = plain_case(draw, claim, family, quantizer)
    if operation == "minmax.observe":
        return with_options(case)
    return with_options(case, lower=lower, upper=upper)


def _close_case(draw: Draw, claim: Claim, operation: str, granularity: str, percent: float) -> Case:
    """Few elements of one exponent, of exponents far apart, or of two whose mean at a percentile is almost 0."""
    dtype, random = draw.choice(claim.dtypes), draw.random()
    quantizer = as_quantizer(operation, "group" if granularity == "block" else granularity)
    groups, size = 256, draw.choice((2, 3, 5, 11, 64))
    near = 1 + random.integers(0, 4, (groups, size)) * 2.0 ** -format_named(dtype).mantissa_bits
    far = any_exponent(random, (groups, size), dtype).real() * random.choice([-1.0, 1.0], (groups, size))
    kind = random.integers(0, 4, (groups, 1))
    x = rounded(np.select([kind == 0, kind == 1], [near, far], _balanced(random, groups, size, percent)), dtype)
    return case_of(quantizer, arrange(x, quantizer, 0, claim), size)


def _balanced(random: np.random.Generator, groups: int, size: int, percent: float) -> Array:
    """Return groups of two numbers that all but cancel where they are interpolated: what is lost on the way shows."""
    place = Fraction(percent) / 100 * (size - 1)
    below = int(place)
    part = float(place - below)
    high = 1 + random.random((groups, 1))
    low = -(high.astype(np.float32) * part / (1 - part)).astype(np.float32)
    return random.permuted(np.where(np.arange(size) <= below, low, high), axis=1)


def moving_case(draw: Draw, claim: Claim, *, family: str) -> Case:
    """Ranges that move towards others, by weights that are dyadic fractions and by others."""
    shapes: dict[str, tuple[tuple[int, ...], ...]] = {
        "shapes": ((1,), (), (0,), (2, 3), (65,)), "memory": ((6, 10), (65,)),
    }  # fmt: skip
    shape = draw.choice([s for s in shapes.get(family, ((300,),)) if claim.empty or 0 not in s])
    random, count = draw.random(), int(np.prod(shape, dtype=np.int64))
    layout = draw.choice(claim.layouts) if family == "memory" else "contiguous"
    inputs: dict[str, HostArray | None] = {}
    for name in ("previous_lo", "previous_hi", "current_lo", "current_hi"):
        if family == "exponents":
            sign = random.choice([-1.0, 1.0], shape)
            array = rounded(any_exponent(random, shape, "float32").real() * sign, "float32")
        elif family == "specials":
            array = words(
                special_words(format_named("float32"))[random.integers(0, 26, count)].reshape(shape), "float32"
            )
        else:
            array = normal(random, shape, "float32")
        inputs[name] = reshaped(array, claim)
    options = {"weight": draw.choice((0.01, 0.5, 0.25, 0.1, 1.0, 0.0, 0.75))}
    return Case("moving.observe", inputs, options, dict.fromkeys(inputs, layout), repeat=family == "memory")


def symmetric_case(draw: Draw, claim: Claim, *, family: str) -> Case:
    """Tensors with a clipping range of every group: beside code boundaries, or clipped to a part of their range."""
    qmin, qmax = code_range(draw, claim)
    quantizer = as_quantizer("symmetric.quantize", granularity_of(draw, claim))
    dtype = draw.choice(claim.dtypes)
    if family in PLAIN:
        case = with_options(plain_case(draw, claim, family, quantizer), qmin=qmin, qmax=qmax)
        return replace(
            case,
            inputs={**case.inputs, "clip": _clip_of(case, draw.random(), family)},
            layouts=_alike(draw, claim, case),
        )
    groups, size, tail = group_shape(draw, claim, quantizer)
    random = draw.random()
    clip = _clips(random, groups, dtype, qmax)
    scale = symmetric_scale(clip, qmax=qmax)[:, np.newaxis].astype(np.float64)
    steps = random.integers(qmin - 2, qmax + 2, (groups, size)) + 0.5
    near = moved(rounded(np.clip(steps * scale, -3e38, 3e38), dtype), random.integers(-1, 2, steps.shape)).real()
    beyond = (
        random.choice([-1.0, 1.0], near.shape) * clip[:, np.newaxis] * random.choice([1.0, 1.25, 2.0, 40.0], near.shape)
    )
    limit = format_named(dtype).largest_finite
    x = rounded(np.where(random.integers(0, 2, near.shape) == 0, near, np.clip(beyond, -limit, limit)), dtype)
    case = case_of(quantizer, arrange(x, quantizer, tail, claim), size)
    case = with_options(case, qmin=qmin, qmax=qmax)
    found = shape_of(case)
    return replace(case, inputs={**case.inputs, "clip": host(np.resize(clip, found))}, layouts={})


def _clips(random: np.random.Generator, count: int, dtype: str, qmax: int) -> Array:
    """Return clipping ranges: multiples of qmax times powers of two, where exact ties exist, and any others."""
    fmt = format_named(dtype)
    power = 2.0 ** random.integers(-(fmt.bias // 2), fmt.bias // 2 - 8, count)
    usual = any_exponent(random, (count,), dtype).real()
    return np.where(random.integers(0, 2, count) == 0, qmax * power, usual).astype(np.float32)


def _clip_of(case: Case, random: np.random.Generator, family: str) -> HostArray:
    shape = shape_of(case)
    clip = any_exponent(random, shape, "float32").items if family == "specials" else random.uniform(0.5, 3, shape)
    clip = np.asarray(clip, np.float32)
    if family == "specials":
        specials = np.array([0, np.nan, np.inf, 1e-45, 3.4028235e38], np.float32)
        chosen = specials[random.integers(0, len(specials), shape)]
        clip = np.where(random.integers(0, 2, shape) == 0, chosen, clip)
    if family == "ramps":
        clip = np.ldexp(clip, np.arange(clip.size).reshape(shape) % 16 - 8).astype(np.float32)
    return host(np.asarray(clip))


def shape_of(case: Case) -> tuple[int, ...]:
    """Return the shape of an array with one number for each group of x."""
    return shape_of_groups(
        case.array("x").shape, case.options["granularity"], case.options["group_size"], GRANULARITIES
    )


def _alike(draw: Draw, claim: Claim, case: Case) -> dict[str, str]:
    """Return the layout of x, and in a case of layouts any for the clipping range."""
    layout = case.layouts.get("x", "contiguous")
    return {"x": layout, "clip": draw.choice(claim.layouts) if layout != "contiguous" else layout}
