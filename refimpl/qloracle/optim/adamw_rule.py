"""What one step of AdamW makes of its operands, as real numbers; the formulas stand at the head of `adamw`."""

import numpy as np

from qloracle.errors import require_positive_integer, require_record
from qloracle.formats import Array
from qloracle.operands import real_operand
from qloracle.optim.clipping import limited_scale
from qloracle.optim.operands import real_moments
from qloracle.optim.options import AdamwOptions, bias_correction


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
    old_m, old_v = real_moments(m, v, g.shape)
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
    m64, v64 = real_moments(m, v, p64.shape)
    with np.errstate(invalid="ignore"):
        denominator = np.sqrt(v64 / bias_correction(options.beta2, step)) + options.eps
        update = m64 / bias_correction(options.beta1, step) / denominator
        del m64, v64, denominator
        if options.max_update_norm is not None:
            update = update * limited_scale(update, options.max_update_norm, p64)
        return np.asarray(p64 * (1 - options.lr * options.weight_decay) - options.lr * update)
