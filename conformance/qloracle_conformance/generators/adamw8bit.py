"""The families of AdamW steps with 8-bit states."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from qloracle.blocks import block_count
from qloracle.formats import Array
from qloracle.optim.adamw8bit import CODEBOOKS_OF_MOMENTS
from qloracle_conformance.arrays import HostArray, host
from qloracle_conformance.backend import Claim
from qloracle_conformance.generators.adamw import drawn_options
from qloracle_conformance.generators.adamw_lattice import Corner, options_of
from qloracle_conformance.generators.case import Case, admitted, each_layout
from qloracle_conformance.generators.draw import Draw
from qloracle_conformance.generators.values import absmax_with_ties, full_significand, near_boundaries, rounded
from qloracle_conformance.operations.adamw8bit import EXACT_STATES

FAMILIES = (
    "small_lattice", "wide_lattice", "boundaries", "heavy_tails", "normal", "ramps", "still", "nonfinite", "shapes",
    "extents", "memory",
)  # fmt: skip
LONGEST = 6000  # elements
SQUARES = ((16, 7, 1), (8, 7, 5))  # absmax of v, S and G with S² = 3·absmax + G², S + 1 a power of two


@dataclass(frozen=True)
class State:
    """8-bit states before the step."""

    codes_m: Array
    absmax_m: Array
    codes_v: Array
    absmax_v: Array


def block_shape(draw: Draw, claim: Claim) -> tuple[int, int]:
    """Return a block size and a number of elements: some blocks and a short one, or less than one."""
    size = draw.choice(claim.block_sizes)
    blocks = draw.choice((3, 1, 2, 5)) if size < LONGEST // 6 else 1
    return size, min(max(1, blocks * size + draw.choice((-1, 1, 0, -size // 3, size // 2))), LONGEST)


def case_of(p: Array, gradient: Array, state: State, options: dict[str, Any], dtype: str, **rest: Any) -> Case:
    """Return the case of a step."""
    inputs: dict[str, HostArray | None] = {"p": rounded(p, dtype), "gradient": rounded(gradient, dtype)}
    inputs |= {name: host(array) for name, array in vars(state).items()}
    chosen = {name: value for name, value in options.items() if name != "max_update_norm"}
    return Case("adamw8bit.step", inputs, chosen, **rest)


def fresh(size: int, block_size: int) -> State:
    """Return the state before the first step."""
    zero = np.zeros(block_count(size, block_size), np.float32)
    codes = [np.full(size, table.zero_code, np.uint8) for table in CODEBOOKS_OF_MOMENTS.values()]
    return State(codes[0], zero, codes[1], zero.copy())


def drawn_state(random: np.random.Generator, size: int, block_size: int) -> State:
    """Return states of any codes, each block of its own scale."""
    count = block_count(size, block_size)
    codes = [random.integers(0, 256, size, np.uint8) for _ in range(2)]
    scales = [np.ldexp(random.uniform(1, 2, count), random.integers(-6, 3, count)) for _ in range(2)]
    return State(codes[0], scales[0].astype(np.float32), codes[1], np.square(scales[1]).astype(np.float32))


def adamw8bit_family(draw: Draw, claim: Claim, *, family: str) -> Case:
    """Generate a step."""
    block_size, size = block_shape(draw, claim)
    maker: dict[str, Callable[..., Case]] = {
        "small_lattice": lattice_case, "wide_lattice": halved_case, "boundaries": boundary_case,
        "heavy_tails": heavy_case, "still": still_case, "nonfinite": nonfinite_case,
    }  # fmt: skip
    case = maker.get(family, ordinary_case)(draw, claim, size, block_size, family)
    return replace(case, options={**case.options, "block_size": block_size})


def lattice_case(draw: Draw, claim: Claim, size: int, block_size: int, family: str) -> Case:
    """States that are 0 or their absmax, a power of two; every result is exact in any form."""
    random, unit, count = draw.random(), draw.integer(-8, 1), block_count(size, block_size)
    kind = random.integers(0, 2, count)
    block = np.arange(size) // block_size
    beside = np.array([g for _, _, g in SQUARES])[kind][block]
    full = random.random(size) < 0.5
    gradient = np.where(full, beside, random.choice([1, 3, 7, 15], size)) * random.choice([-1.0, 1.0], size)
    state = fresh(size, block_size)
    codes_m = np.where(random.random(size) < 0.5, 255, state.codes_m).astype(np.uint8)
    absmax_m = np.ldexp(1.0, random.integers(-2, 4, count) + unit).astype(np.float32)
    absmax_v = np.ldexp(np.array([row[0] for row in SQUARES])[kind], 2 * unit).astype(np.float32)
    lr, decay = draw.choice((0.25, 1.0, 0.5)), draw.choice((0.5, 0.0, 2.0))
    options = options_of(Corner(0.5, 0.75, 1, 3, 1, 1), lr, 2.0**unit, decay)
    made = State(codes_m, absmax_m, np.where(full, 255, 0).astype(np.uint8), absmax_v)
    p = random.integers(-127, 128, size) / 64
    return case_of(p, np.ldexp(gradient, unit), made, options, draw.choice(claim.dtypes), lattice=True)


def halved_case(draw: Draw, claim: Claim, size: int, block_size: int, family: str) -> Case:
    """Any codes and absmax of full significand, no gradient, betas of 1/2: both moments halve exactly."""
    random, count = draw.random(), block_count(size, block_size)
    state = drawn_state(random, size, block_size)
    exponents = [np.ldexp(1.0, random.integers(-20, 20, count)) for _ in range(2)]
    scales = [(np.abs(full_significand(random, (count,), "float32").real()) * e).astype(np.float32) for e in exponents]
    options = options_of(Corner(0.5, 0.5, draw.choice((1, 3)), 0, 0, 1), 0.5, 1e-6, draw.choice((0.0, 0.1)))
    made = replace(state, absmax_m=scales[0], absmax_v=scales[1])
    p = random.standard_normal(size)
    return case_of(p, np.zeros(size), made, options, draw.choice(claim.dtypes), term=EXACT_STATES)


def boundary_case(draw: Draw, claim: Claim, size: int, block_size: int, family: str) -> Case:
    """Moments that are half a gradient, or a quarter of its square: on, and beside, midpoints of their codebook."""
    random, count = draw.random(), block_count(size, block_size)
    dtype = draw.choice(claim.dtypes)
    if draw.choice((True, False)):
        midpoints = CODEBOOKS_OF_MOMENTS["m"].midpoints
        scale = np.clip(absmax_with_ties(random, count, dtype, 1).real(), 2.0**-12, 2.0**12)
        gradient = (
            near_boundaries(random, rounded(scale, dtype), block_size, midpoints, dtype).real().reshape(-1)[:size]
        )
    else:
        # Twelve bits of a root, so that the square is a float32 number.
        midpoints = CODEBOOKS_OF_MOMENTS["v"].midpoints
        target = np.sqrt(midpoints[random.integers(0, len(midpoints), size)])
        target[:: max(1, block_size // 3)] = 1
        mantissa, exponent = np.frexp(target)
        bits = 8 if dtype == "bfloat16" else 11
        gradient = np.ldexp(np.rint(np.ldexp(mantissa, bits)) + random.integers(-1, 2, size), exponent - bits)
        gradient *= random.choice([-1.0, 1.0], size)
    options = options_of(Corner(0.5, 0.75, 1, 3, 1, 1), 0.5, 1e-3, 0.0)
    exact = _exact_if_short(gradient, dtype)
    return case_of(np.zeros(size), gradient, fresh(size, block_size), options, dtype, term=exact)


def _exact_if_short(gradient: Array, dtype: str) -> str:
    """Return the term of exact states where a gradient's square fits float32: 12 bits, which 16-bit formats keep."""
    mantissa = np.ldexp(np.frexp(gradient)[0], 12)
    return EXACT_STATES if dtype != "float32" or np.all(mantissa == np.rint(mantissa)) else ""


def heavy_case(draw: Draw, claim: Claim, size: int, block_size: int, family: str) -> Case:
    """One gradient of 1 in a block, the others from 10^−4 to 10^−1: the mean square keeps seven decades."""
    random = draw.random()
    gradient = random.choice([-1.0, 1.0], size) * 10.0 ** random.uniform(-4, -1, size)
    gradient[random.integers(0, min(block_size, size)) :: block_size] = 1.0
    options = {**drawn_options(draw), "eps": 1e-8, "lr": 0.1}
    state = fresh(size, block_size) if draw.choice((True, False)) else drawn_state(random, size, block_size)
    return case_of(np.zeros(size), gradient, state, options, draw.choice(claim.dtypes))


def still_case(draw: Draw, claim: Claim, size: int, block_size: int, family: str) -> Case:
    """Fresh states and no decay: an element without a gradient does not move, alone or in a block of such."""
    random = draw.random()
    moving = random.random(size) < 0.5
    moving &= (np.arange(size) // block_size) % 2 == draw.choice((0, 1))
    options = {**drawn_options(draw, 1), "weight_decay": 0.0}
    if draw.choice((False, False, True)):
        options |= {"lr": 0.0, "weight_decay": 0.1}
    gradient = random.standard_normal(size) * moving * draw.choice((1.0, 1e-6, 1e-19))  # the last: v is subnormal
    return case_of(random.standard_normal(size), gradient, fresh(size, block_size), options, draw.choice(claim.dtypes))


def nonfinite_case(draw: Draw, claim: Claim, size: int, block_size: int, family: str) -> Case:
    """One NaN or infinite gradient, or a poisoned block of the state."""
    random = draw.random()
    case = ordinary_case(draw, claim, size, block_size, family)
    policy = draw.choice(claim.options.get("nonfinite", ("propagate",)))
    name = draw.choice(("absmax_m", "absmax_v"))
    gradient, absmax = case.array("gradient").real().reshape(-1), case.array(name).items.copy()
    if draw.choice((True, True, False)):
        gradient[random.integers(0, size)] = random.choice([np.nan, np.inf, -np.inf])
    else:
        absmax[random.integers(0, absmax.size)] = np.nan
    changed = {"gradient": rounded(gradient, case.array("p").dtype), name: host(absmax)}
    return replace(case, inputs={**case.inputs, **changed}, options={**case.options, "nonfinite": policy})


def ordinary_case(draw: Draw, claim: Claim, size: int, block_size: int, family: str) -> Case:
    """Ordinary numbers; on ramps every block has a scale of its own; parameters of several axes have flat blocks."""
    random, options = draw.random(), drawn_options(draw)
    shape: tuple[int, ...] = (size,)
    if family == "shapes":
        shape = draw.choice(admitted(claim, ((1,), (7,), (3, 100), (5, 67), (0,), (2, 3, 50), (257,), (), (1, 300))))
        size = int(np.prod(shape))
    elif family == "extents":
        shape = draw.choice(admitted(claim, ((70001,), (300, 70), (16387,), (3, 8197))))
        size = int(np.prod(shape))
    elif family == "memory":
        shape = draw.choice(admitted(claim, ((6, 10), (67,), (5, 67), (3, 4, 9))))
        size = int(np.prod(shape))
    state = drawn_state(random, size, block_size)
    scale = 2.0 ** (np.arange(size) // block_size % 9 - 4) if family == "ramps" else np.ones(size)
    if family == "ramps" and draw.choice((False, True)):  # the second moment is subnormal
        scale = scale * 2.0**-65
        state = replace(
            state, absmax_m=state.absmax_m * np.float32(2.0**-65), absmax_v=state.absmax_v * np.float32(2.0**-130)
        )
    gradient = (random.standard_normal(size) * scale).reshape(shape)
    p = random.standard_normal(shape) * draw.choice((0.0, 1.0))
    case = case_of(p, gradient, state, options, draw.choice(claim.dtypes), repeat=family == "memory")
    return replace(case, layouts=each_layout(draw, claim, case.inputs)) if family == "memory" else case


def families() -> dict[str, Callable[[Draw, Claim], Case]]:
    """Return the families of adamw8bit.step."""
    return {name: partial(adamw8bit_family, family=name) for name in FAMILIES}
