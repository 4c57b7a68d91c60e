"""AdamW with moments in float32: what one step does to a parameter and to its two moments.

With gradient g, moments m and v, step number t = 1, 2, …, and all hyperparameters real numbers:

    m' = β₁·m + (1 − β₁)·g        v' = β₂·v + (1 − β₂)·g²
    m̂ = m' / (1 − β₁^t)           v̂ = v' / (1 − β₂^t)
    p' = RN_f(p·(1 − lr·wd) − lr·c·m̂ / (√v̂ + eps)),   c = 1 without a limit on the norm of the update

The decay is decoupled from the gradient and comes before the update: it multiplies the old parameter, not the new one.
In which float32 operations that is computed, stands in `update`.
Clauses: ``[adamw.moments]``, ``[adamw.parameter]``, ``[adamw.nonfinite]``, ``[adamw.stochastic]``, ``[clip.update]``.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from qloracle.errors import require_array_shape, require_positive_integer, require_record
from qloracle_gpu.torch.formats import require_tensor_format
from qloracle_gpu.torch.optim.operands import (
    flat,
    flat_copy,
    require_moments,
    require_random_bits,
    require_same_format,
    require_steps,
)
from qloracle_gpu.torch.optim.options import AdamwOptions, step_constants
from qloracle_gpu.torch.optim.update import (
    FlatStep,
    limit_of,
    new_moments,
    new_parameter,
    step_in_place,
    sum_of_squares,
    update_of,
)


@dataclass(frozen=True)
class AdamwState:
    """What AdamW remembers of one parameter tensor."""

    m: Tensor  # float32, the shape of the parameter: running mean of the gradient
    v: Tensor  # float32: running mean of its square, ≥ 0
    step: int  # steps done so far


def adamw_init(shape: tuple[int, ...]) -> AdamwState:
    """Return the state before the first step, on torch's default device: m = v = 0, no step done.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If `shape` is no sequence of integers that are 0 or more.

    Examples
    --------
    >>> adamw_init((2,))
    AdamwState(m=tensor([0., 0.]), v=tensor([0., 0.]), step=0)
    """
    sizes = require_array_shape(shape)
    return AdamwState(torch.zeros(sizes, dtype=torch.float32), torch.zeros(sizes, dtype=torch.float32), 0)


def adamw_moments(gradient: Tensor, m: Tensor, v: Tensor, options: AdamwOptions) -> tuple[Tensor, Tensor]:
    """Return both moments after a step: β₁·m + (1 − β₁)·g and β₂·v + (1 − β₂)·g².

    Parameters
    ----------
    gradient : tensor of float32, float16 or bfloat16
    m, v : tensor of float32, the shape of `gradient`
        The moments before the step; no element of `v` below zero, which is looked at on a CPU only.
    options : AdamwOptions

    Returns
    -------
    tuple of two tensors of float32

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If a dtype, shape or device does not fit, or an element of `v` is negative.

    Notes
    -----
    Clauses ``[adamw.moments]``, ``[adamw.nonfinite]``. Rounding points: both products, three for v', and the sum, each
    to float32; 1 − β is rounded once from the real number.

    Examples
    --------
    >>> zero = torch.zeros(1)
    >>> adamw_moments(torch.tensor([0.5]), zero, zero, AdamwOptions(beta1=0.75, beta2=0.5))
    (tensor([0.1250]), tensor([0.1250]))
    """
    require_record("options", options, AdamwOptions)
    g = require_tensor_format("gradient", gradient)
    m, v = require_moments(m, v, g)
    return new_moments(g, m, v, step_constants(options, 1))


def adamw_parameter(p: Tensor, m: Tensor, v: Tensor, options: AdamwOptions, *, step: int) -> Tensor:
    """Return the parameter after a step, before it is rounded to its format, given the moments after that step.

    p' = p·(1 − lr·wd) − lr·c·m̂ / (√v̂ + eps), with m̂ = m/(1 − β₁^t) and v̂ = v/(1 − β₂^t). c keeps
    ‖m̂/(√v̂ + eps)‖ to at most max_update_norm·‖p‖; it is 1 without that option.

    Parameters
    ----------
    p : tensor of float32, float16 or bfloat16
        The parameter before the step.
    m, v : tensor of float32, the shape of `p`
        The moments *after* the step.
    options : AdamwOptions
    step : int
        The number t of this step, from 1.

    Returns
    -------
    tensor of float32, the shape of `p`

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If a dtype, shape or device does not fit, or `step` is no positive integer.

    Notes
    -----
    Clauses ``[adamw.parameter]``, ``[clip.update]``. eps is added after the root and after the bias correction. With
    weight_decay 0 a moment m of 0 moves nothing, whatever v is. Rounding points: every operation that `update` lists,
    to float32.

    Examples
    --------
    >>> one, options = torch.ones(1), AdamwOptions(lr=0.25, weight_decay=0.5, beta1=0, beta2=0, eps=1.0)
    >>> adamw_parameter(one, one, one, options, step=1)
    tensor([0.7500])
    """
    require_record("options", options, AdamwOptions)
    values, step = require_tensor_format("p", p), require_positive_integer("step", step)
    m, v = require_moments(m, v, values)
    constants = step_constants(options, step)
    update = update_of(m, v, constants)
    limit = limit_of([sum_of_squares(update)], [sum_of_squares(values)], constants)
    return new_parameter(values, update, constants, None if limit is None else limit.to(m.device))


def adamw_step(
    p: Tensor, gradient: Tensor, state: AdamwState, options: AdamwOptions, *, random_bits: Tensor | None = None
) -> tuple[Tensor, AdamwState]:
    """Return the parameter and its state after one step of AdamW.

    Parameters
    ----------
    p : tensor of float32, float16 or bfloat16, any strides
    gradient : dense tensor of the format and shape of `p`
    state : AdamwState
        Float32 moments of the shape of `p`.
    options : AdamwOptions
    random_bits : tensor of uint32, the shape of `p`, optional
        Round p' stochastically with these bits, see `rounding.encode`; for 16-bit parameters only.

    Returns
    -------
    tuple of tensor and AdamwState
        p' in the format of `p`, and the state with one step more: new tensors.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If a dtype, shape or device does not fit, or random bits are given for a float32 parameter.

    Notes
    -----
    Clauses ``[adamw.moments]``, ``[adamw.parameter]``, ``[adamw.nonfinite]``, ``[adamw.stochastic]``,
    ``[clip.update]``. Rounding points: every operation that `update` lists, to float32; p' then to its format, to
    nearest or stochastically.

    Examples
    --------
    >>> p, state = torch.ones(1), adamw_init((1,))
    >>> p, state = adamw_step(p, torch.tensor([0.5]), state, AdamwOptions(lr=0.1, weight_decay=0.1))
    >>> p, state.step
    (tensor([0.8900]), 1)
    """
    require_record("state", state, AdamwState)
    require_record("options", options, AdamwOptions)
    values, other = require_same_format(p, gradient)
    done = require_steps(state.step)
    m, v = (flat_copy(moment) for moment in require_moments(state.m, state.v, values))
    bits = require_random_bits(random_bits, values)
    given = FlatStep(flat_copy(values), flat(other), None if bits is None else flat(bits))
    step_in_place(given, m, v, step_constants(options, done + 1))
    return given.p.view(values.shape), AdamwState(m.view(values.shape), v.view(values.shape), done + 1)
