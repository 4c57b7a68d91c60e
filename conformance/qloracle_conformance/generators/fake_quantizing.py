"""Inputs of fake quantization and of its gradient: scale and zero point given, elements beside what decides."""

from dataclasses import replace

import numpy as np

from qloracle.affine_scale import affine_parameters
from qloracle.formats import format_named
from qloracle.groups import spread_groups
from qloracle.observers import minmax_range
from qloracle_conformance.arrays import HostArray, host
from qloracle_conformance.backend import Claim
from qloracle_conformance.generators.affine import (
    as_quantizer,
    code_range,
    parameters,
    plain_case,
    ranges,
    with_options,
)
from qloracle_conformance.generators.case import Case, each_layout
from qloracle_conformance.generators.draw import Draw
from qloracle_conformance.generators.observing import granularity_of, shape_of
from qloracle_conformance.generators.quantizing import arrange, case_of, group_shape
from qloracle_conformance.generators.values import moved, normal, rounded, special_words, words

FAKE_FAMILIES = ("boundaries", "edges", "scales", "specials", "ramps", "shapes", "memory", "degenerate", "squares")


def fake_case(draw: Draw, claim: Claim, *, family: str, operation: str) -> Case:
    """Tensors with scale and zero point given: of their own range, of half of it, or any; and a gradient."""
    qmin, qmax = code_range(draw, claim)
    quantizer = as_quantizer(operation, granularity_of(draw, claim))
    if family in ("boundaries", "edges", "scales"):
        dtype = draw.choice(claim.dtypes)
        groups, size, tail = group_shape(draw, claim, quantizer)
        random = draw.random()
        plain = case_of(quantizer, arrange(normal(random, (groups, size), dtype), quantizer, tail, claim), size)
    else:
        plain, random = plain_case(draw, claim, family, quantizer), draw.random()
    case = with_options(plain, qmin=qmin, qmax=qmax)
    scale, zero_point = _given_parameters(case, random, family, (qmin, qmax))
    x = case.array("x")
    if family in ("boundaries", "edges", "scales"):
        x = _beside(random, x, (scale, zero_point), case, family)
    backward = operation.endswith("backward")
    inputs: dict[str, HostArray | None] = {"dy": _gradient(random, x)} if backward else {}
    inputs |= {"x": x, "scale": scale, "zero_point": zero_point}
    if backward:
        case = replace(
            case, options={**case.options, "interval": draw.choice(claim.options.get("interval", ("values",)))}
        )
    layout = case.layouts.get("x", "contiguous")
    layouts = each_layout(draw, claim, inputs) if family == "squares" else dict.fromkeys(inputs, layout)
    return replace(case, inputs=inputs, layouts=layouts)


def _gradient(random: np.random.Generator, x: HostArray) -> HostArray:
    """Return gradients of full significands, with zeros of either sign, infinities and NaN among them."""
    fmt = format_named(x.dtype)
    bits = normal(random, x.shape, x.dtype).words().astype(np.uint64)
    special = special_words(fmt)[random.integers(0, 26, x.shape)]
    return words(np.where(random.integers(0, 16, x.shape) == 0, special, bits), x.dtype)


def _given_parameters(
    case: Case, random: np.random.Generator, family: str, codes: tuple[int, int]
) -> tuple[HostArray, HostArray]:
    shape, x = shape_of(case), case.array("x").single()
    if family in ("scales", "specials"):
        return parameters(random, "exponents" if family == "scales" else "specials", shape, codes)
    lo, hi = minmax_range(x, granularity=case.options["granularity"], group_size=case.options["group_size"])
    if family in ("boundaries", "edges"):
        count = int(np.prod(shape, dtype=np.int64))
        lo, hi = (end.reshape(shape) for end in ranges(random, count, case.array("x").dtype, codes[1] - codes[0], ""))
    else:
        lo, hi = lo / np.float32(2), hi / np.float32(2)
    scale, zero_point = affine_parameters(np.asarray(lo), np.asarray(hi), qmin=codes[0], qmax=codes[1])
    return host(np.asarray(scale)), host(np.asarray(zero_point))


def _beside(
    random: np.random.Generator, x: HostArray, given: tuple[HostArray, HostArray], case: Case, family: str
) -> HostArray:
    """Return elements on, or one number beside, boundaries of codes; or of the values of the outermost codes."""
    options, fmt = case.options, format_named(x.dtype)
    spread = (spread_groups(a.items, x.shape, options["granularity"], options["group_size"]) for a in given)
    scale, zero_point = (np.broadcast_to(a, x.shape) for a in spread)
    codes = random.integers(options["qmin"] - 3, options["qmax"] + 3, x.shape) + 0.5
    if family == "edges":
        codes = np.array([options["qmin"] - 0.5, options["qmin"], options["qmax"], options["qmax"] + 0.5])[
            random.integers(0, 4, x.shape)
        ]
    near = np.clip((codes - zero_point) * scale.astype(np.float64), -fmt.largest_finite, fmt.largest_finite)
    return moved(rounded(near, x.dtype), random.integers(-1, 2, x.shape))
