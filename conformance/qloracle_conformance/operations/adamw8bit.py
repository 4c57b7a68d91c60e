"""Judging a step of AdamW with 8-bit states: absmax of the moments, codes given the absmax, the parameter."""

import numpy as np

from qloracle.blocks import block_absmax, block_count
from qloracle.bounds.adamw import adamw_moments_bound
from qloracle.formats import Array
from qloracle.nearest import quantize_codes
from qloracle.optim.adamw import AdamwState, adamw_moments
from qloracle.optim.adamw8bit import CODEBOOKS_OF_MOMENTS, Adamw8bitState, dequantize_moments, quantize_moments
from qloracle.rounding import encode
from qloracle.tracking.interval import Interval
from qloracle_conformance.backend import Claim
from qloracle_conformance.generators.case import Case
from qloracle_conformance.judge import Allowed, StageResult, blocked_stage, float_ordinals
from qloracle_conformance.operations.adamw import adamw_options, after_moments, parameter_stage
from qloracle_conformance.operations.operation import Outputs, broken, expect

EXACT_STATES = "mv"  # the term of a case whose moments are exact in any evaluation, while the parameter is not
_TIE = 3 * 2.0**-24 * (1 + 2.0**-20)  # what an approximate quotient by absmax may be off, see `codes`
_NORMAL_RECIPROCAL = (2.0**-126, 2.0**126)


def judge_step_8bit(case: Case, outputs: Outputs, claim: Claim) -> list[StageResult]:
    """Judge (p', codes and absmax of m', codes and absmax of v')."""
    gradient, state, options = case.array("gradient"), restored(case), adamw_options(case.options)
    reals = adamw_moments(gradient.items, state.m, state.v, options, fmt=gradient.dtype)
    bounds = adamw_moments_bound(
        gradient.items, state.m, state.v, options, fmt=gradient.dtype, roundings=claim.roundings
    )
    exact = case.lattice or case.term == EXACT_STATES
    if exact:
        bounds = (Interval(r, r, np.ones(r.shape, np.bool_)) for r in reals)  # type: ignore[assignment]
    results, intervals = [], []
    for name, bound, first_output in zip("mv", bounds, (1, 3), strict=True):
        results += _state_stages(name, bound, case.options["block_size"], outputs, first_output, claim, exact)
        intervals.append(bound)
    p = parameter_stage(case, gradient, outputs, (intervals[0], intervals[1]), claim, None)
    return [*results, p]


def _state_stages(
    name: str, bound: Interval, block_size: int, outputs: Outputs, index: int, claim: Claim, exact: bool
) -> list[StageResult]:
    size, stages = bound.lo.size, (f"absmax_{name}", f"codes_{name}")
    absmax = expect(outputs, index + 1, stages[0], "float32", (block_count(size, block_size),))
    codes = expect(outputs, index, stages[1], "uint8", (size,))
    lo, hi = (encode(end.reshape(-1), "float32").view(np.float32) for end in (bound.lo, bound.hi))
    judged = bound.judged.reshape(-1)
    if isinstance(absmax, StageResult):
        return [absmax, codes if isinstance(codes, StageResult) else blocked_stage(stages[1])]
    limits = _absmax_limits(lo, hi, judged, block_size)
    level = "exact" if exact else "bound"
    first = StageResult(
        stages[0], float_ordinals(absmax.words(), "float32"), {level: limits}, words=absmax.words(), dtype="float32"
    )
    if isinstance(codes, StageResult):
        return [first, codes]
    table, blocked = CODEBOOKS_OF_MOMENTS[name], np.repeat(broken(first, claim, stages[0]), block_size)[:size]
    ends = []
    for end, sign in ((lo, -1), (hi, 1)):
        near = end if exact else _widened(end, absmax.items, block_size, sign)
        ends.append(table.position[quantize_codes(near, absmax.items, table, block_size)])
    unsure = ~judged
    ends[0][unsure], ends[1][unsure] = 0, table.entries.size
    poisoned = ~np.isfinite(np.repeat(absmax.items, block_size)[:size])
    zero = table.position[table.zero_code]
    allowed = Allowed(*(np.where(poisoned & judged, zero, end) for end in ends))
    second = StageResult(
        stages[1], table.position[codes.items], {level: allowed}, blocked=blocked if blocked.any() else None,
        words=codes.words(), dtype="uint8", block_size=block_size,
    )  # fmt: skip
    return [first, second]


def _absmax_limits(lo: Array, hi: Array, judged: Array, block_size: int) -> Allowed:
    """Return what the absmax of each block may be, given the interval of every element."""
    straddles = (lo <= 0) & (hi >= 0)
    with np.errstate(invalid="ignore"):
        smallest = np.where(straddles, np.float32(0), np.minimum(np.abs(lo), np.abs(hi)))
    largest = np.maximum(np.abs(lo), np.abs(hi))
    ends = [float_ordinals(block_absmax(end, block_size).view(np.uint32), "float32") for end in (smallest, largest)]
    unsure = block_absmax(np.where(judged, np.float32(0), np.float32(1)), block_size) > 0
    info = np.iinfo(np.int64)
    return Allowed(np.where(unsure, info.min, ends[0]), np.where(unsure, info.max, ends[1]))


def _widened(end: Array, absmax: Array, block_size: int, sign: int) -> Array:
    """Return an end moved by what a reciprocal of absmax and float32 midpoints may be off."""
    scale = np.repeat(absmax, block_size)[: end.size]
    usable = (scale >= _NORMAL_RECIPROCAL[0]) & (scale <= _NORMAL_RECIPROCAL[1])
    wide = end.astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        moved = np.where(usable, wide + sign * _TIE * np.abs(wide), wide)
        # Rounded outwards: a boundary lies between the exact end and the float32 number.
        single = moved.astype(np.float32)
        inside = single > moved if sign < 0 else single < moved
        return np.where(inside, np.nextafter(single, np.float32(sign * np.inf)), single)


def restored(case: Case) -> AdamwState:
    """Return the dequantized state before the step."""
    arrays = {name: case.array(name).items for name in ("codes_m", "absmax_m", "codes_v", "absmax_v")}
    state = Adamw8bitState(**arrays, step=case.options["step"] - 1, block_size=case.options["block_size"])
    return dequantize_moments(state, case.array("p").shape)


def step_8bit_intermediates(case: Case) -> dict[str, Array]:
    """Return what `explain` prints: restored moments, new ones, their codes, the parameter."""
    state, gradient, options = restored(case), case.array("gradient"), adamw_options(case.options)
    m, v = adamw_moments(gradient.items, state.m, state.v, options, fmt=gradient.dtype)
    with np.errstate(over="ignore", invalid="ignore"):
        new = AdamwState(m.astype(np.float32), v.astype(np.float32), case.options["step"])
    codes = quantize_moments(new, block_size=case.options["block_size"])
    return {
        "m": state.m,
        "v": state.v,
        **after_moments(case, m, v, case.options["step"]),
        "code of m'": codes.codes_m,
        "code of v'": codes.codes_v,
        "absmax of m'": codes.absmax_m,
        "absmax of v'": codes.absmax_v,
    }
