"""AdamW with moments in float32: what one step does to a parameter and to its two moments.

With gradient g, moments m and v, step number t = 1, 2, …, and all hyperparameters real numbers:

    m' = fl32(β₁·m + (1 − β₁)·g)        v' = fl32(β₂·v + (1 − β₂)·g²)
    m̂ = m' / (1 − β₁^t)                 v̂ = v' / (1 − β₂^t)
    p' = RN_f(p·(1 − lr·wd) − lr·c·m̂ / (√v̂ + eps)),   c = 1 without a limit on the norm of the update

The decay is decoupled from the gradient and comes before the update: it multiplies the old parameter, not the new one.
Clauses: ``[adamw.moments]``, ``[adamw.parameter]``, ``[adamw.nonfinite]``, ``[adamw.stochastic]``. Sources: Kingma
and Ba 2015, "Adam", algorithm 1; Loshchilov and Hutter 2019, "Decoupled Weight Decay Regularization", algorithm 2, with
its α folded into lr, and the decay multiplied by lr as in PyTorch's ``torch.optim.AdamW``.
"""

from dataclasses import dataclass

import numpy as np

from qloracle.errors import (
    reject_value,
    require_array_shape,
    require_integer,
    require_positive_integer,
    require_record,
)
from qloracle.formats import Array, from_bits, to_bits
from qloracle.operands import real_operand
from qloracle.optim.clipping import limited_scale
from qloracle.optim.operands import require_moments, require_same_format, round_parameter, to_single
from qloracle.optim.options import AdamwOptions, bias_correction
from qloracle.records import require_fields


@dataclass(frozen=True)
class AdamwState:
    """What AdamW remembers of one parameter tensor."""

    m: Array  # float32, the shape of the parameter: running mean of the gradient
    v: Array  # float32: running mean of its square, ≥ 0
    step: int  # steps done so far

    def __post_init__(self) -> None:
        """Refuse fields of other types."""
        require_fields(self)


def adamw_init(shape: tuple[int, ...]) -> AdamwState:
    """Return the state before the first step: m = v = 0, no step done.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If `shape` is no sequence of integers that are 0 or more.

    Examples
    --------
    >>> adamw_init((2,))
    AdamwState(m=array([0., 0.], dtype=float32), v=array([0., 0.], dtype=float32), step=0)
    """
    sizes = require_array_shape(shape)
    return AdamwState(np.zeros(sizes, np.float32), np.zeros(sizes, np.float32), 0)


def adamw_moments(
    gradient: Array, m: Array, v: Array, options: AdamwOptions, *, fmt: str | None = None
) -> tuple[Array, Array]:
    """Return both moments after a step as real numbers: β₁·m + (1 − β₁)·g and β₂·v + (1 − β₂)·g².

    Parameters
    ----------
    gradient : array of float32, float16 or bfloat16
    m, v : array of float32, the shape of `gradient`
        The moments before the step; no element of `v` below zero.
    options : AdamwOptions
    fmt : str, optional
        Format of `gradient` where it is given as bit patterns.

    Returns
    -------
    tuple of two arrays of float64
        The real values up to float64 rounding; `adamw_bounds.adamw_moments_bound` says which outputs are allowed.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If a dtype or shape does not fit, or an element of `v` is negative.

    Notes
    -----
    Clauses ``[adamw.moments]``, ``[adamw.nonfinite]``. Rounding points of an implementation: see the bound; 1 − β is
    the real number, not the difference of rounded ones.

    Examples
    --------
    >>> zero = np.zeros(1, np.float32)
    >>> adamw_moments(np.array([0.5], np.float32), zero, zero, AdamwOptions(beta1=0.75, beta2=0.5))
    (array([0.125]), array([0.125]))
    """
    require_record("options", options, AdamwOptions)
    g = real_operand(gradient, "gradient", fmt)
    old_m, old_v = require_moments(m, v, g.shape)
    with np.errstate(invalid="ignore"):
        new_m = options.beta1 * old_m + (1 - options.beta1) * g
        new_v = options.beta2 * old_v + (1 - options.beta2) * (g * g)
    if options.nonfinite == "propagate":
        return np.asarray(new_m), np.asarray(new_v)
    kept_m, kept_v = (old_m, old_v) if options.nonfinite == "skip" else (np.zeros(()), np.zeros(()))
    return np.where(np.isfinite(g), new_m, kept_m), np.where(np.isfinite(g), new_v, kept_v)


def adamw_parameter(p: Array, m: Array, v: Array, options: AdamwOptions, *, step: int, fmt: str | None = None) -> Array:
    """Return the parameter after a step as real numbers, given the moments after that step.

    p' = p·(1 − lr·wd) − lr·c·m̂ / (√v̂ + eps), with m̂ = m/(1 − β₁^t) and v̂ = v/(1 − β₂^t). c is the factor of
    `clipping.limited_scale` that keeps ‖m̂/(√v̂ + eps)‖ to at most max_update_norm·‖p‖; 1 without that option.

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
    array of float64
        The real value up to float64 rounding; `adamw_bounds.adamw_parameter_bound` says which outputs are allowed.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If a dtype or shape does not fit, or `step` is no positive integer.

    Notes
    -----
    Clauses ``[adamw.parameter]``, ``[clip.update]``. eps is added after the root and after the bias correction. With
    weight_decay 0 a moment m of 0 moves nothing, whatever v is. Rounding points of an implementation: see the bound.

    Examples
    --------
    >>> one, options = np.ones(1, np.float32), AdamwOptions(lr=0.25, weight_decay=0.5, beta1=0, beta2=0, eps=1.0)
    >>> adamw_parameter(one, one, one, options, step=1)
    array([0.75])
    """
    require_record("options", options, AdamwOptions)
    p64 = real_operand(p, "p", fmt)
    step = require_positive_integer("step", step)
    m64, v64 = require_moments(m, v, p64.shape)
    with np.errstate(invalid="ignore"):
        root = np.sqrt(v64 / bias_correction(options.beta2, step))
        update = m64 / bias_correction(options.beta1, step) / (root + options.eps)
        if options.max_update_norm is not None:
            update = update * limited_scale(update, options.max_update_norm, p64)
        return np.asarray(p64 * (1 - options.lr * options.weight_decay) - options.lr * update)


def adamw_step(
    p: Array,
    gradient: Array,
    state: AdamwState,
    options: AdamwOptions,
    *,
    fmt: str | None = None,
    random_bits: Array | None = None,
) -> tuple[Array, AdamwState]:
    """Return the parameter and its state after one step of AdamW.

    Parameters
    ----------
    p : array of float32, float16 or bfloat16
    gradient : array of the format and shape of `p`
    state : AdamwState
        Float32 moments of the shape of `p`.
    options : AdamwOptions
    fmt : str, optional
        Format of `p` and `gradient` where they are given as bit patterns.
    random_bits : array of uint32, the shape of `p`, optional
        Round p' stochastically with these bits, see `rounding.encode`; for 16-bit parameters only.

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
    in order: m' and v' to float32; p', which is computed from the rounded moments, to the format of `p`: to nearest, or
    stochastically. Real numbers are held in float64, so one that lies within a few 2^−53 of a tie may go either way.

    Examples
    --------
    >>> p, state = np.ones(1, np.float32), adamw_init((1,))
    >>> p, state = adamw_step(p, np.array([0.5], np.float32), state, AdamwOptions(lr=0.1, weight_decay=0.1))
    >>> p, state.step
    (array([0.89], dtype=float32), 1)
    """
    require_record("state", state, AdamwState)
    require_record("options", options, AdamwOptions)
    named = require_same_format(p, gradient, fmt)
    done = require_integer("step", state.step, "a number of steps, 0 or more")
    if done < 0:
        reject_value("step", "a number of steps, 0 or more", done)
    moments = adamw_moments(gradient, state.m, state.v, options, fmt=fmt)
    m, v = (to_single(moment) for moment in moments)
    real = adamw_parameter(p, m, v, options, step=done + 1, fmt=fmt)
    new = round_parameter(real, named, random_bits)
    if options.nonfinite != "propagate":
        new = np.where(np.isfinite(real_operand(gradient, "gradient", fmt)), new, from_bits(to_bits(p, fmt), named))
    return new, AdamwState(m, v, done + 1)
