"""AdamW with moments in float32.

    m' = fl32(β₁·m + (1 − β₁)·g)        v' = fl32(β₂·v + (1 − β₂)·g²)
    m̂ = m' / (1 − β₁^t)                 v̂ = v' / (1 − β₂^t)
    p' = RN_f(p·(1 − lr·wd) − lr·m̂ / (√v̂ + eps))

Computed in float64 from exact operands. Clauses: ``[adamw.moments]``, ``[adamw.parameter]``, ``[adamw.nonfinite]``,
``[adamw.stochastic]``.
"""

from dataclasses import dataclass

import numpy as np

from qloracle.errors import (
    reject_type,
    reject_value,
    require_array_shape,
    require_integer,
    require_record,
)
from qloracle_gpu.cupy.adamw_options import AdamwOptions
from qloracle_gpu.cupy.adamw_rule import StepOperands, limited_step, rounding_arguments, step_numbers
from qloracle_gpu.cupy.arrays import carrier, flat_items, flat_words, format_of, require_dtype, require_tensor
from qloracle_gpu.cupy.launcher import Array, Operation, operation, require_array
from qloracle_gpu.cupy.operands import zeros


@dataclass(frozen=True)
class AdamwState:
    """What AdamW remembers of one parameter tensor."""

    m: Array  # float32, the shape of the parameter: running mean of the gradient
    v: Array  # float32: running mean of its square, ≥ 0
    step: int  # steps done so far


def adamw_init(shape: tuple[int, ...]) -> AdamwState:
    """Return the state before the first step: m = v = 0, no step done.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If `shape` is no sequence of integers that are 0 or more.
    """
    sizes = require_array_shape(shape)
    with operation("adamw_init") as run:
        return AdamwState(zeros(run, sizes), zeros(run, sizes), 0)


def adamw_step(
    p: Array, gradient: Array, state: AdamwState, options: AdamwOptions, *, fmt: str | None = None,
    random_bits: Array | None = None,
) -> tuple[Array, AdamwState]:  # fmt: skip
    """Return the parameter and its state after one step of AdamW.

    Parameters
    ----------
    p : array of float32, float16 or bfloat16
    gradient : array of the format and shape of `p`
    state : AdamwState
        Float32 moments of the shape of `p`, v without a negative element (this is not looked at).
    options : AdamwOptions
        With max_update_norm a step takes three passes instead of one; none of them waits for the device.
    fmt : str, optional
        Format of `p` and `gradient` where they are given as bit patterns.
    random_bits : array of uint32, the shape of `p`, optional
        Round p' stochastically with these bits; for 16-bit parameters only.

    Returns
    -------
    tuple of array and AdamwState
        p' in the format of `p` (bfloat16 as uint16 words), and the state with one step more.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If a dtype or shape does not fit, or random bits are given for a float32 parameter.

    Notes
    -----
    Clauses ``[adamw.moments]``, ``[adamw.parameter]``, ``[adamw.nonfinite]``, ``[adamw.stochastic]``. Rounding points,
    in order: m' and v' to float32; p' to the format of `p`.
    """
    require_record("state", state, AdamwState)
    given = require_step(p, gradient, state.step, options, fmt, random_bits)
    for name, moment in (("m", state.m), ("v", state.v)):
        if require_dtype(name, moment, "float32").shape != given.p.shape:
            reject_value(name, f"of the shape of p {given.p.shape}", moment.shape)
    with operation("adamw_step", p=given.p, gradient=given.gradient, random_bits=given.random_bits) as run:
        moments = (flat_items(run, state.m), flat_items(run, state.v))
        if options.max_update_norm is None:
            new, m, v = stepped(run, "adamw", given, (*moments, np.int64(given.p.size)), options)
        else:
            new, m, v = limited_step(run, given, moments, options)
        return new, AdamwState(m, v, given.number)


def require_step(
    p: object, gradient: object, done: object, options: object, fmt: str | None, random_bits: object
) -> StepOperands:
    """Return the operands of a step if they belong together, else raise."""
    require_record("options", options, AdamwOptions)
    array, named = require_tensor("p", p, fmt)
    other = require_array("gradient", gradient)
    same = format_of(other, fmt, "gradient", f"of the format of p, {named.name}")
    if same is not named:
        reject_type("gradient", f"of the format of p, {named.name}", same.name)
    if other.shape != array.shape:
        reject_value("gradient", f"of the shape of p {array.shape}", other.shape)
    steps = require_integer("step", done, "a number of steps, 0 or more")
    if steps < 0:
        reject_value("step", "a number of steps, 0 or more", steps)
    if random_bits is None:
        return StepOperands(array, other, named, steps + 1, None)
    if named.name == "float32":
        reject_value("random_bits", "None for float32 parameters", "bits")
    bits = require_dtype("random_bits", random_bits, "uint32")
    if bits.shape != array.shape:
        reject_value("random_bits", f"of the shape of p {array.shape}", bits.shape)
    return StepOperands(array, other, named, steps + 1, bits)


def stepped(
    run: Operation, kind: str, given: StepOperands, moments: tuple[object, ...], options: AdamwOptions
) -> tuple[Array, Array, Array]:
    """Launch a step in one pass; return p', m' and v' in the shape of p."""
    p, gradient, shape = flat_words(run, given.p), flat_words(run, given.gradient), given.p.shape
    new = run.empty(p.size, carrier(given.named))
    m, v = run.empty(p.size, "float32"), run.empty(p.size, "float32")
    numbers, rounding = step_numbers(options, given.number), rounding_arguments(run, given.random_bits, p)
    run.launch("adamw", f"{kind}_{given.named.name}", p.size, (p, gradient, *moments, *numbers, *rounding, new, m, v))
    return new.reshape(shape), m.reshape(shape), v.reshape(shape)
