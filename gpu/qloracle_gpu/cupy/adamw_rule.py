"""A step of AdamW in parts: the moments, the norms that may limit the update, and the parameter.

The formulas stand at the head of `adamw`. Clauses: ``[adamw.moments]``, ``[adamw.parameter]``, ``[adamw.nonfinite]``,
``[clip.update]``.
"""

from dataclasses import dataclass
from math import expm1, log, log1p

import numpy as np

from qloracle.errors import reject_value, require_positive_integer, require_record
from qloracle.formats import Format
from qloracle_gpu.cupy.adamw_options import AdamwOptions
from qloracle_gpu.cupy.arrays import carrier, flat_items, flat_words, require_dtype, require_tensor
from qloracle_gpu.cupy.launcher import Array, Operation, operation
from qloracle_gpu.cupy.norms import limit_factor, parts_of
from qloracle_gpu.cupy.sources import ROUNDINGS

NONFINITE = {"propagate": 0, "skip": 1, "reset": 2}  # as the kernels number them


@dataclass(frozen=True)
class StepOperands:
    """Checked operands of a step."""

    p: Array
    gradient: Array
    named: Format
    number: int  # of the step, from 1
    random_bits: Array | None


def adamw_moments(
    gradient: Array, m: Array, v: Array, options: AdamwOptions, *, fmt: str | None = None
) -> tuple[Array, Array]:
    """Return both moments after a step: fl32(β₁·m + (1 − β₁)·g) and fl32(β₂·v + (1 − β₂)·g²).

    Parameters
    ----------
    gradient : array of float32, float16 or bfloat16
    m, v : array of float32, the shape of `gradient`
        The moments before the step; no element of `v` below zero (this is not looked at).
    options : AdamwOptions
    fmt : str, optional
        Format of `gradient` where it is given as bit patterns.

    Returns
    -------
    tuple of two arrays of float32

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If a dtype or shape does not fit.

    Notes
    -----
    Clauses ``[adamw.moments]``, ``[adamw.nonfinite]``. Computed in float64; rounding points: one each, to float32.
    """
    require_record("options", options, AdamwOptions)
    array, named = require_tensor("gradient", gradient, fmt)
    old = require_moments(m, v, array.shape)
    with operation("adamw_moments", gradient=array, m=old[0], v=old[1]) as run:
        flat = tuple(flat_items(run, moment) for moment in old)
        new = moments_after(run, flat_words(run, array), named, flat, step_numbers(options, 1))
        return new[0].reshape(array.shape), new[1].reshape(array.shape)


def adamw_parameter(p: Array, m: Array, v: Array, options: AdamwOptions, *, step: int, fmt: str | None = None) -> Array:
    """Return the parameter after a step, given the moments after that step.

    p' = RN_f(p·(1 − lr·wd) − lr·c·m̂ / (√v̂ + eps)), with m̂ = m/(1 − β₁^t) and v̂ = v/(1 − β₂^t). c keeps
    ‖m̂/(√v̂ + eps)‖ to at most max_update_norm·‖p‖; 1 without that option.

    Parameters
    ----------
    p : array of float32, float16 or bfloat16
        The parameter before the step.
    m, v : array of float32, the shape of `p`
        The moments *after* the step.
    options : AdamwOptions
    step : int
        The number t of this step, from 1.
    fmt : str, optional
        Format of `p` where it is given as bit patterns.

    Returns
    -------
    array of the format of `p`; bfloat16 as uint16 words

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If a dtype or shape does not fit, or `step` is no positive integer.

    Notes
    -----
    Clauses ``[adamw.parameter]``, ``[clip.update]``. Computed in float64; rounding points: one, to the format of `p`.
    """
    require_record("options", options, AdamwOptions)
    array, named = require_tensor("p", p, fmt)
    number = require_positive_integer("step", step)
    after = require_moments(m, v, array.shape)
    with operation("adamw_parameter", p=array, m=after[0], v=after[1]) as run:
        flat = tuple(flat_items(run, moment) for moment in after)
        given = StepOperands(array, array, named, number, None)
        return parameter_after(run, given, flat, options, look_at_gradient=False)


def require_moments(m: object, v: object, shape: tuple[int, ...]) -> tuple[Array, Array]:
    """Return both moments if they are float32 of one shape, else raise."""
    found = []
    for argument, moment in (("m", m), ("v", v)):
        found.append(require_dtype(argument, moment, "float32"))
        if found[-1].shape != shape:
            reject_value(argument, f"of shape {shape}", found[-1].shape)
    return found[0], found[1]


def limited_step(
    run: Operation, given: StepOperands, moments: tuple[Array, ...], options: AdamwOptions
) -> tuple[Array, Array, Array]:
    """Return p', m' and v' in the shape of p after a step whose update is limited by its norm."""
    numbers, shape = step_numbers(options, given.number), given.p.shape
    m, v = moments_after(run, flat_words(run, given.gradient), given.named, moments, numbers)
    new = parameter_after(run, given, (m, v), options, look_at_gradient=True)
    return new, m.reshape(shape), v.reshape(shape)


def moments_after(
    run: Operation, gradient: Array, named: Format, moments: tuple[Array, ...], numbers: tuple[object, ...]
) -> tuple[Array, Array]:
    """Return both moments after a step, 1-d."""
    m, v = run.empty(gradient.size, "float32"), run.empty(gradient.size, "float32")
    arguments = (gradient, *moments, np.int64(gradient.size), *numbers, m, v)
    run.launch("adamw_parts", f"adamw_moments_{named.name}", gradient.size, arguments)
    return m, v


def parameter_after(
    run: Operation, given: StepOperands, moments: tuple[Array, ...], options: AdamwOptions, *, look_at_gradient: bool
) -> Array:
    """Return p' given the moments after the step."""
    p, name, size = flat_words(run, given.p), given.named.name, np.int64(given.p.size)
    numbers, factor = step_numbers(options, given.number), None
    if options.max_update_norm is not None:
        updates, parameters = parts_of(run, p.size), parts_of(run, p.size)
        arguments = (p, *moments, size, *numbers, updates, parameters)
        run.launch("adamw_parts", f"update_squares_{name}", p.size, arguments)
        factor = limit_factor(run, updates, options.max_update_norm, times=parameters)
    new = run.empty(p.size, carrier(given.named))
    limit = (moments[0] if factor is None else factor, np.int32(factor is not None))  # else a pointer that is not read
    looks = (flat_words(run, given.gradient), np.int32(look_at_gradient))
    rounding = rounding_arguments(run, given.random_bits, p)
    arguments = (p, *looks, *moments, size, *numbers, *limit, *rounding, new)
    run.launch("adamw_parts", f"adamw_parameter_{name}", p.size, arguments)
    return new.reshape(given.p.shape)


def step_numbers(options: AdamwOptions, step: int) -> tuple[object, ...]:
    """Return the numbers of a step in the order of the struct `Step` of `adamw.cuh`."""
    o = options
    numbers = (
        o.beta1, 1 - o.beta1, o.beta2, 1 - o.beta2, 1 - o.lr * o.weight_decay, o.lr,
        bias_correction(o.beta1, step), bias_correction(o.beta2, step), o.eps,
    )  # fmt: skip
    return *map(np.float64, numbers), np.int32(NONFINITE[o.nonfinite])


def rounding_arguments(run: Operation, random_bits: Array | None, unread: Array) -> tuple[object, ...]:
    """Return the random bits, or a pointer that is not read, and the number of the rounding."""
    if random_bits is None:
        return unread, np.int32(ROUNDINGS.index("ties_to_even"))
    return flat_items(run, random_bits), np.int32(ROUNDINGS.index("stochastic"))


def bias_correction(beta: float, step: int) -> float:
    """Return 1 − β^t without cancelling digits: −expm1(t·log β).

    Notes
    -----
    Clause ``[adamw.parameter]``.
    """
    if beta == 0 or step == 1:
        return 1.0 - beta
    return -expm1(step * (log(beta) if beta < 0.5 else log1p(-(1 - beta))))
