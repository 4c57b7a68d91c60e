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

from qloracle.blocks import CHUNK
from qloracle.errors import (
    reject_value,
    require_array_shape,
    require_integer,
    require_record,
)
from qloracle.formats import Array, format_named, from_bits, to_bits
from qloracle.operands import real_operand
from qloracle.optim.adamw_rule import adamw_moments, adamw_parameter
from qloracle.optim.operands import (
    require_moments,
    require_random_bits,
    require_same_format,
    round_parameter,
    to_single,
)
from qloracle.optim.options import AdamwOptions
from qloracle.records import require_fields

__all__ = ["AdamwOptions", "AdamwState", "adamw_init", "adamw_moments", "adamw_parameter", "adamw_step"]


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
    require_moments(state.m, state.v, p.shape)
    require_random_bits(random_bits, named, p.shape)
    given = [p, gradient, state.m, state.v] + ([] if random_bits is None else [random_bits])
    how = _Step(options, done + 1, fmt, named)
    if options.max_update_norm is not None:
        new, m, v = _step_of(how, *given)  # the norm is that of all elements
        return np.asarray(new), AdamwState(m, v, done + 1)
    made = (np.empty(p.shape, format_named(named).carrier), *(np.empty(p.shape, np.float32) for _ in range(2)))
    flat, out = ([array.reshape(-1) for array in arrays] for arrays in (given, made))
    for start in range(0, p.size, CHUNK):
        part = slice(start, start + CHUNK)
        for array, result in zip(out, _step_of(how, *(array[part] for array in flat)), strict=True):
            array[part] = result
    return made[0], AdamwState(made[1], made[2], done + 1)


@dataclass(frozen=True)
class _Step:
    options: AdamwOptions
    number: int  # of the step, from 1
    fmt: str | None  # of bit patterns
    name: str  # of the format of the parameter


def _step_of(
    how: _Step, p: Array, gradient: Array, m: Array, v: Array, random_bits: Array | None = None
) -> tuple[Array, Array, Array]:
    """Return parameter and moments of some elements after a step."""
    real_m, real_v = adamw_moments(gradient, m, v, how.options, fmt=how.fmt)
    new_m, new_v = to_single(real_m), to_single(real_v)
    real = adamw_parameter(p, new_m, new_v, how.options, step=how.number, fmt=how.fmt)
    new = round_parameter(real, how.name, random_bits)
    if how.options.nonfinite != "propagate":
        old = from_bits(to_bits(p, how.fmt), how.name)
        new = np.where(np.isfinite(real_operand(gradient, "gradient", how.fmt)), new, old)
    return new, new_m, new_v
