"""The families of AdamW steps with float32 moments."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from qloracle.formats import Array, format_named
from qloracle_conformance.arrays import HostArray, host
from qloracle_conformance.backend import Claim
from qloracle_conformance.generators.adamw_lattice import Step, lattice_step, subnormal_step, wide_step
from qloracle_conformance.generators.case import Case, admitted, each_layout
from qloracle_conformance.generators.draw import Draw
from qloracle_conformance.generators.values import full_significand, rounded, special_words, words

FAMILIES = (
    "small_lattice", "wide_lattice", "normal", "near_eps", "exponents", "still", "steps", "shapes", "extents", "memory",
    "subnormals",
)  # fmt: skip
WIDE = ("m", "v", "gradient", "p")  # what a wide lattice singles out
HYPERPARAMETERS = (  # lr, beta1, beta2, eps, weight decay: none is the default of another, none is 1 minus another
    (0.5, 0.9, 0.999, 1e-8, 0.1),
    (0.125, 0.9, 0.95, 1e-6, 0.01),
    (1e-3, 0.95, 0.99, 1e-8, 0.0),
    (0.7, 0.6, 0.7, 0.3, 0.0),
    (1.5, 0.98, 0.9999, 1e-10, 1.3),  # a decay of more than all
    (0.02, 0.0, 0.9, 1e-3, 2.0),
    (0.3, 0.8, 0.0, 1e-5, 0.0),
)
LONG_AFTER, HALF_AFTER = (1 << 16) + 2, (1 << 15) + 3  # steps that 16 bits, signed or not, take for early ones
SHAPES: tuple[tuple[int, ...], ...] = (
    (64,), (1,), (3,), (), (7, 9), (33,), (0,), (257,), (2, 3, 5), (1, 1, 1, 31), (5, 0), (255,), (4, 64),
)  # fmt: skip
EXTENTS: tuple[tuple[int, ...], ...] = ((4099,), (300, 70), (1027,), (2051,), (33001,), (70001,), (65539, 1))


def step_case(
    operation: str, step: Step, dtype: str, *, lattice: bool = False, bits: Array | None = None,
    exact: str = "", repeat: bool = False,
) -> Case:  # fmt: skip
    """Return the case of a step; moments are float32, parameter and gradient of `dtype`.

    `exact` names the moments that are exact in any evaluation where the parameter is not.
    """
    inputs = {
        "p": rounded(step.p, dtype), "gradient": rounded(step.gradient, dtype), "m": rounded(step.m, "float32"),
        "v": rounded(step.v, "float32"), "random_bits": None if bits is None else host(bits),
    }  # fmt: skip
    return Case(operation, inputs, step.options, lattice=lattice, term=exact, repeat=repeat)


def adamw_family(draw: Draw, claim: Claim, *, family: str, operation: str = "adamw.step") -> Case:
    """Generate a step."""
    dtype = draw.choice(claim.dtypes)
    shape = draw.choice(admitted(claim, ((64,), (5, 7), (130,), (3, 4, 9))))
    if family == "small_lattice":
        return step_case(operation, lattice_step(draw, shape), dtype, lattice=True)
    if family == "subnormals":
        return step_case(operation, subnormal_step(draw, shape), dtype, lattice=True)
    if family == "wide_lattice":
        aim = draw.choice(WIDE)
        content = full_significand(draw.random(), shape, dtype if aim in ("p", "gradient") else "float32").real()
        step = wide_step(draw, shape, content, aim)
        # The square of a gradient of full significand is no float32 number: its mean alone is exact.
        return step_case(operation, step, dtype, lattice=aim != "gradient", exact="m" if aim == "gradient" else "")
    if family == "memory":
        step = ordinary_step(draw, shape)
        case = step_case(operation, step, dtype, repeat=True)
        return replace(case, layouts=each_layout(draw, claim, case.inputs))
    if family in ("shapes", "extents"):
        shape = draw.choice(admitted(claim, SHAPES if family == "shapes" else EXTENTS))
    makers: dict[str, Callable[[], Step]] = {
        "near_eps": partial(near_eps_step, draw, shape),
        "exponents": partial(exponent_step, draw, shape, dtype),
        "still": partial(still_step, draw, shape),
        "steps": partial(late_step, draw, shape),
    }
    return step_case(operation, makers.get(family, partial(ordinary_step, draw, shape))(), dtype)


def drawn_options(draw: Draw, step: int | None = None) -> dict[str, Any]:
    """Return hyperparameters and a step number."""
    lr, beta1, beta2, eps, decay = draw.choice(HYPERPARAMETERS)
    return {
        "step": draw.choice((1, 2, 5, 20, 1000, LONG_AFTER)) if step is None else step,
        "lr": lr, "beta1": beta1, "beta2": beta2, "eps": eps, "weight_decay": decay, "nonfinite": "propagate",
        "max_update_norm": None,
    }  # fmt: skip


def ordinary_step(draw: Draw, shape: tuple[int, ...]) -> Step:
    """Ordinary numbers; the parameter is 0 or small in half of the cases, so that the update is seen in full."""
    options, size = drawn_options(draw), draw.choice((1.0, 0.0, 1e-3, 1.0))
    random = draw.random()
    gradient, m = random.standard_normal(shape), random.standard_normal(shape)
    v = np.square(random.standard_normal(shape)) * random.choice([1.0, 1.0, 1e-3, 0.0], shape)
    return Step(random.standard_normal(shape) * size, gradient, m, v, options)


def near_eps_step(draw: Draw, shape: tuple[int, ...]) -> Step:
    """Gradients from a thousandth of eps to a thousand times it: where eps stands decides the result."""
    options, random = drawn_options(draw), draw.random()
    scale = options["eps"] * 10.0 ** random.uniform(-3, 3, shape)
    gradient, m = (random.standard_normal(shape) * scale for _ in range(2))
    v = np.square(random.standard_normal(shape) * scale)
    return Step(random.standard_normal(shape) * draw.choice((0.0, 0.1)), gradient, m, v, options)


def exponent_step(draw: Draw, shape: tuple[int, ...], dtype: str) -> Step:
    """Operands of any exponent, subnormals included; in half of the cases there are squares that leave float32."""
    options, random, fmt = drawn_options(draw), draw.random(), format_named(dtype)
    least, most = fmt.minimum_exponent - fmt.mantissa_bits, min(fmt.bias, draw.choice((60, 100)))

    def spread(low: int, high: int) -> Array:
        sign = random.choice([-1.0, 1.0], shape)
        return np.asarray(sign * np.ldexp(random.uniform(1, 2, shape), random.integers(low, high + 1, shape)))

    p, gradient = spread(max(least, -126), min(fmt.bias - 1, 40)), spread(least, most)
    return Step(p, gradient, spread(-149, 60), np.abs(spread(-149, 120)), options)


def still_step(draw: Draw, shape: tuple[int, ...]) -> Step:
    """No decay, and some elements have neither a gradient nor moments: they must not move by a bit."""
    options, random = {**drawn_options(draw), "weight_decay": 0.0}, draw.random()
    moving = random.random(shape) < draw.choice((0.0, 0.5, 1.0))
    if draw.choice((False, False, True)):  # and with a rate of 0 nothing does, decay or not
        options |= {"lr": 0.0, "weight_decay": 0.1}
    p = np.where(random.random(shape) < 0.5, random.standard_normal(shape), random.choice([0.0, 1e4, 1e-7], shape))
    parts = [random.standard_normal(shape) * moving for _ in range(3)]
    return Step(p, parts[0], parts[1], np.square(parts[2]), options)


def late_step(draw: Draw, shape: tuple[int, ...]) -> Step:
    """The same numbers at step numbers from 1 to a million: only the bias corrections differ."""
    random = draw.random()
    options = drawn_options(draw, draw.choice((1, 2, 3, 10, 100, 1000, 10000, 1000000, HALF_AFTER, LONG_AFTER)))
    parts = [random.standard_normal(shape) for _ in range(3)]
    return Step(np.zeros(shape), parts[0], parts[1], np.square(parts[2]), options)


def special_family(draw: Draw, claim: Claim, *, family: str, operation: str = "adamw.nonfinite") -> Case:
    """NaN and infinities of either sign among ordinary gradients; or, in "states", in a moment or the parameter."""
    dtype, shape = draw.choice(claim.dtypes), draw.choice(admitted(claim, ((64,), (5, 7), (1,), (130,), (4099,))))
    case = step_case(operation, ordinary_step(draw, shape), dtype)
    policy, random = draw.choice(claim.options.get("nonfinite", ("propagate",))), draw.random()
    name = "gradient" if family == "gradients" else draw.choice(("m", "v", "p"))
    bits = case.array(name).words().reshape(-1).copy()
    fmt = format_named(case.array(name).dtype)
    specials = [w for w in special_words(fmt).tolist() if w & (fmt.sign_bit - 1) >= fmt.infinity_bits]
    if name == "p":  # NaN alone: p − lr·wd·p of an infinity is one, p·(1 − lr·wd) is not
        specials = [w for w in specials if w & (fmt.sign_bit - 1) != fmt.infinity_bits]
    if name == "v":
        specials = [w for w in specials if not w & fmt.sign_bit or w != fmt.sign_bit | fmt.infinity_bits]
    places = random.choice(bits.size, min(bits.size, draw.choice((1, 8))), replace=False)
    bits[places] = random.choice(np.array(specials, bits.dtype), places.size)
    changed: dict[str, HostArray | None] = {**case.inputs, name: words(bits.reshape(shape), fmt.name)}
    return Case(operation, changed, {**case.options, "nonfinite": policy})


def families(operation: str) -> dict[str, Callable[[Draw, Claim], Case]]:
    """Return the families of adamw.step."""
    return {name: partial(adamw_family, family=name, operation=operation) for name in FAMILIES}
