"""Judging a step of AdamW: both moments, then the parameter given the backend's own moments."""

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

import numpy as np

from qloracle.bounds.adamw import adamw_moments_bound
from qloracle.bounds.adamw_parameter import adamw_parameter_bound
from qloracle.formats import Array
from qloracle.optim.adamw import adamw_moments, adamw_parameter
from qloracle.optim.clipping import limited_scale, real_norm
from qloracle.optim.options import AdamwOptions, bias_correction
from qloracle.rounding import encode
from qloracle.tracking.interval import Interval
from qloracle_conformance.arrays import HostArray
from qloracle_conformance.backend import Claim
from qloracle_conformance.generators.case import Case
from qloracle_conformance.judge import NAN_ORDINAL, Allowed, StageResult, either_zero, exactly, float_ordinals
from qloracle_conformance.operations.operation import Outputs, anywhere, broken, expect
from qloracle_conformance.operations.sums import bound_stage, lattice_stage

HYPERPARAMETERS = tuple(field.name for field in fields(AdamwOptions))
Moments = tuple[Array | Interval, Array | Interval]


def adamw_options(options: Mapping[str, Any]) -> AdamwOptions:
    """Return the hyperparameters among the options of a call."""
    return AdamwOptions(**{name: options[name] for name in HYPERPARAMETERS if name in options})


def judge_step(case: Case, outputs: Outputs, claim: Claim) -> list[StageResult]:
    """Judge (p', m', v')."""
    return judge_after_gradient(case, case.array("gradient"), outputs, claim)


def judge_after_gradient(
    case: Case, gradient: HostArray, outputs: Outputs, claim: Claim, doubtful: Array | None = None
) -> list[StageResult]:
    """Judge (p', m', v') given a gradient, which `doubtful` says where not to trust."""
    options, shape = adamw_options(case.options), case.array("p").shape
    old = (case.array("m").items, case.array("v").items)
    reals = adamw_moments(gradient.items, *old, options, fmt=gradient.dtype)
    bounds = adamw_moments_bound(gradient.items, *old, options, fmt=gradient.dtype, roundings=claim.roundings)
    results, own, trusted = [], [], np.ones(shape, np.bool_) if doubtful is None else ~doubtful
    for index, (name, real, bound) in enumerate(zip("mv", reals, bounds, strict=True)):
        got = expect(outputs, index + 1, name, "float32", shape)
        if isinstance(got, StageResult):
            results.append(got)
            own.append(encode(real, "float32").view(np.float32))
            trusted = np.zeros(shape, np.bool_)
            continue
        exact = case.lattice or name in case.term
        result = lattice_stage(name, got, real) if exact else bound_stage(name, got, real, bound)
        result = replace(_with_any_class(result, real), blocked=None if doubtful is None else doubtful)
        results.append(result)
        own.append(got.items if name == "m" else np.where(got.items < 0, np.float32(0), got.items))
        trusted = trusted & ~broken(result, claim, name)
    if options.max_update_norm is not None:
        trusted = np.full(shape, trusted.all())
    return [*results, parameter_stage(case, gradient, outputs, (own[0], own[1]), claim, ~trusted)]


def _with_any_class(result: StageResult, real: Array) -> StageResult:
    """Count NaN as infinity where the moment is infinite: m + (1 − β)·(g − m) meets ∞ − ∞ where a sum does not."""
    expected = float_ordinals(encode(real, "float32"), "float32")
    got = np.where(np.isinf(real) & (result.got == NAN_ORDINAL), expected, result.got)
    return replace(result, got=got)


def parameter_stage(
    case: Case, gradient: HostArray, outputs: Outputs, moments: Moments, claim: Claim, blocked: Array | None
) -> StageResult:
    """Judge p' given moments after the step."""
    p, options, step = case.array("p"), adamw_options(case.options), case.options["step"]
    got = expect(outputs, 0, "p", p.dtype, p.shape)
    if isinstance(got, StageResult):
        return got
    interval = adamw_parameter_bound(p.items, *moments, options, step=step, fmt=p.dtype, roundings=claim.roundings)
    value = real_parameter(case, moments)
    kept = np.zeros(p.shape, np.bool_)
    if options.nonfinite != "propagate":
        kept = ~np.isfinite(gradient.real())
        value = np.where(kept, p.real(), value)
        lo, hi = (np.where(kept, p.real(), end) for end in (interval.lo, interval.hi))
        interval = Interval(lo, hi, interval.judged | kept)
    bits = case.inputs.get("random_bits")
    if bits is not None:
        result = _stochastic_stage(got, value, interval, bits.items, case.lattice)
    elif case.lattice:
        result = lattice_stage("p", got, value)
    else:
        result = bound_stage("p", got, value, interval)
    return replace(result, blocked=None if blocked is None or not np.any(blocked) else blocked)


def real_parameter(case: Case, moments: Moments) -> Array:
    """Return p' as real numbers; for intervals of moments that of their centres."""
    centres = (m if isinstance(m, np.ndarray) else ((m.lo + m.hi) / 2).astype(np.float32) for m in moments)
    m, v = centres
    p, options = case.array("p"), adamw_options(case.options)
    return adamw_parameter(
        p.items, m, np.where(v < 0, np.float32(0), v), options, step=case.options["step"], fmt=p.dtype
    )


def _stochastic_stage(got: HostArray, value: Array, interval: Interval, bits: Array, lattice: bool) -> StageResult:
    """Judge a stochastic rounding: given its bits it is monotone, so the ends of the interval bound it."""

    def ordinals(real: Array) -> Array:
        words = encode(real, got.dtype, rounding="stochastic", random_bits=bits)
        return float_ordinals(words, got.dtype)

    result = bound_stage("p", got, value, interval)
    if lattice:
        return replace(result, allowed={"exact": either_zero(exactly(ordinals(value)))}, used=None)
    free = anywhere(got.shape)
    limits = either_zero(Allowed(ordinals(interval.lo), ordinals(interval.hi)))
    lo, hi = (np.where(interval.judged, a, b) for a, b in ((limits.lo, free.lo), (limits.hi, free.hi)))
    return replace(result, allowed={"bound": Allowed(lo, hi)}, used=None)


def step_intermediates(case: Case) -> dict[str, Array]:
    """Return what `explain` prints: moments, corrected moments, the update, the parameter."""
    options, step, gradient = adamw_options(case.options), case.options["step"], case.array("gradient")
    m, v = adamw_moments(gradient.items, case.array("m").items, case.array("v").items, options, fmt=gradient.dtype)
    return after_moments(case, m, v, step)


def after_moments(case: Case, m: Array, v: Array, step: int) -> dict[str, Array]:
    """Return the intermediates of a step from the new moments on."""
    options, p = adamw_options(case.options), case.array("p")
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        single = (m.astype(np.float32), v.astype(np.float32))
        top = m / bias_correction(options.beta1, step)
        root = np.sqrt(v / bias_correction(options.beta2, step))
        update = top / (root + options.eps)
    limit = {}
    if options.max_update_norm is not None:
        norms = {"norm of the update": real_norm(update), "norm of p": real_norm(p.real())}
        limit = {**norms, "c": limited_scale(update, options.max_update_norm, p.real())}
    return {
        **{name: np.asarray(number) for name, number in limit.items()},
        "m'": m,
        "v'": v,
        "m'/(1 - beta1^t)": top,
        "sqrt(v'/(1 - beta2^t)) + eps": root + options.eps,
        "update": update,
        "p (1 - lr wd)": p.real() * (1 - options.lr * options.weight_decay),
        "p'": adamw_parameter(p.items, *single, options, step=step, fmt=p.dtype),
    }
