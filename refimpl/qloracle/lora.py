"""LoRA: a frozen weight and a trained low-rank correction, forward and backward.

With W (d_out, d_in), A (r, d_in), B (d_out, r), s = alpha/r (rsLoRA: alpha/√r) and x_d = x·mask/(1 − p), 0 for p = 1:

    y  = x Wᵀ + b + s (x_d Aᵀ) Bᵀ + s b_B
    dB = s dyᵀ (x_d Aᵀ)        dA = s (dy B)ᵀ x_d        db = Σ dy        db_B = s Σ dy
    dx = dy W + s·mask/(1 − p)·((dy B) A), and dy W for p = 1

Clauses: ``[lora.scale]``, ``[lora.dropout]``, ``[lora.forward]``, ``[lora.bias]``, ``[lora.fan_in_fan_out]``,
``[lora.backward]``.
Sources: Hu et al. 2021, "LoRA", section 4.1; Kalajdzievski 2023, "A Rank Stabilization Scaling Factor" (α/√r).
"""

from dataclasses import dataclass
from math import sqrt

import numpy as np

from qloracle.errors import reject_value, require_dtype, require_flag, require_number, require_positive_integer
from qloracle.formats import FLOAT32, Array
from qloracle.operands import as_rows, dropped, real_gradient, real_operands, real_vector


@dataclass(frozen=True)
class LoraGradients:
    """Gradients of a LoRA layer; the frozen weight has none."""

    x: Array  # (..., d_in)
    lora_a: Array  # (r, d_in)
    lora_b: Array  # (d_out, r)
    bias: Array  # (d_out,)
    lora_bias: Array  # (d_out,)


def lora_scale(alpha: float, rank: int, *, rank_stabilized: bool = False) -> float:
    """Return s = alpha/rank, or alpha/√rank for rsLoRA.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If `rank` is no positive integer, `alpha` no finite number, s is beyond the largest finite float32 number, or
        `rank_stabilized` no bool.

    Notes
    -----
    Clause ``[lora.scale]``. Rounding points of an implementation: the quotient, for rsLoRA the root too; the
    reference's own are in float64.

    Examples
    --------
    >>> lora_scale(16, 8), lora_scale(16, 16, rank_stabilized=True)
    (2.0, 4.0)
    """
    rank = require_positive_integer("rank", rank)
    alpha = require_number("alpha", alpha)
    if not np.isfinite(alpha):
        reject_value("alpha", "finite", alpha)
    scale = alpha / (sqrt(rank) if require_flag("rank_stabilized", rank_stabilized) else rank)
    if abs(scale) > FLOAT32.largest_finite:
        reject_value("alpha", f"such that the scale is at most {FLOAT32.largest_finite!r}, for rank {rank}", alpha)
    return scale


def dropout_factor(mask: Array | None, dropout: float, shape: tuple[int, ...]) -> Array:
    """Return mask/(1 − p) as float64, broadcastable to `shape`; 0 for p = 1, and 1 without a mask.

    Parameters
    ----------
    mask : array of bool, the shape of x, or None
        True where an element is kept. It is an argument: the same mask belongs to forward and backward.
    dropout : float
        The probability p of dropping, 0 ≤ p ≤ 1; positive only together with a mask.
    shape : tuple of int
        The shape of x.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If p is outside [0, 1] or positive without a mask, or the mask is not bool of the shape of x.

    Notes
    -----
    Clause ``[lora.dropout]``. An element that the mask drops for p < 1 is multiplied by 0: NaN or an infinity stays
    visible as NaN. For p = 1 nothing is multiplied: x_d is 0, whatever x is. Rounding points of an implementation: the
    difference, the quotient and the product; the reference's own are in float64.
    """
    dropout = require_number("dropout", dropout)
    if not 0 <= dropout <= 1:
        reject_value("dropout", "a probability from 0 to 1", dropout)
    if mask is None:
        if dropout > 0:
            reject_value("mask", "given when dropout is positive", None)
        return np.ones((), np.float64)
    require_dtype("mask", mask, "bool")
    if mask.shape != shape:
        reject_value("mask", f"of the shape of x {shape}", mask.shape)
    return mask * (0.0 if dropout == 1 else 1 / (1 - dropout))


def lora_forward(
    x: Array,
    weight: Array,
    lora_a: Array,
    lora_b: Array,
    *,
    alpha: float,
    bias: Array | None = None,
    lora_bias: Array | None = None,
    mask: Array | None = None,
    dropout: float = 0.0,
    rank_stabilized: bool = False,
    fan_in_fan_out: bool = False,
) -> Array:
    """Apply a linear layer with a LoRA adapter.

    y = x Wᵀ + b + s (x_d Aᵀ) Bᵀ + s b_B

    Parameters
    ----------
    x : array, shape (..., d_in)
    weight : array, shape (d_out, d_in), or (d_in, d_out) with `fan_in_fan_out`
    lora_a : array, shape (r, d_in)
        A rank r above min(d_in, d_out) is legal: concatenated adapters have it.
    lora_b : array, shape (d_out, r)
    alpha : float
    bias : array, shape (d_out,), optional
    lora_bias : array, shape (d_out,), optional
        The bias b_B of the adapter, scaled as the adapter is.
    mask : array of bool, the shape of x, optional
    dropout : float
        The probability p of dropping.
    rank_stabilized : bool
        Scale by alpha/√r instead of alpha/r.
    fan_in_fan_out : bool
        The weight is stored as (d_in, d_out).

    Returns
    -------
    array of float64, shape (..., d_out)
        The real value up to float64 rounding; `bounds.lora_forward_bound` says which outputs are allowed.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If a dtype is not float32, float16 or bfloat16 (ml_dtypes), or shapes do not belong together.

    Notes
    -----
    Clauses ``[lora.forward]``, ``[lora.bias]``, ``[lora.fan_in_fan_out]``. Rounding points of an implementation are
    declared by it, see `bounds.Roundings`.

    Examples
    --------
    >>> one = np.ones((1, 1), np.float32)
    >>> lora_forward(one, 3 * one, one, 2 * one, alpha=16)
    array([[35.]])
    """
    x64, w64, a64, b64 = real_operands(x, weight, lora_a, lora_b, fan_in_fan_out=fan_in_fan_out)
    scale = lora_scale(alpha, a64.shape[0], rank_stabilized=rank_stabilized)
    share = dropped(x64, dropout_factor(mask, dropout, x64.shape), dropout)
    offset = 0.0 if bias is None else real_vector(bias, w64.shape[0], "bias")
    shift = 0.0 if lora_bias is None else real_vector(lora_bias, w64.shape[0], "lora_bias")
    with np.errstate(invalid="ignore", over="ignore"):
        y: Array = x64 @ w64.T + scale * ((share @ a64.T) @ b64.T + shift) + offset
    return y


def lora_backward(
    dy: Array,
    x: Array,
    weight: Array,
    lora_a: Array,
    lora_b: Array,
    *,
    alpha: float,
    mask: Array | None = None,
    dropout: float = 0.0,
    rank_stabilized: bool = False,
    fan_in_fan_out: bool = False,
) -> LoraGradients:
    """Differentiate `lora_forward`: gradients of x, A, B and the two biases; the weight is frozen.

    dB = s dyᵀ(x_d Aᵀ), dA = s (dy B)ᵀ x_d, dx = dy W + s·mask/(1 − p)·((dy B) A), db = Σ dy and db_B = s Σ dy, sums
    over all rows.

    Parameters
    ----------
    dy : array, shape (..., d_out)
        Gradient of the output.
    x, weight, lora_a, lora_b, alpha, mask, dropout, rank_stabilized, fan_in_fan_out
        As given to `lora_forward`; the mask is the same one.

    Returns
    -------
    LoraGradients
        Arrays of float64; `bounds.lora_backward_bound` says which outputs are allowed.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        As `lora_forward`, and if `dy` is not of shape (..., d_out).

    Notes
    -----
    Clause ``[lora.backward]``. Rounding points of an implementation are declared by it, see `bounds.Roundings`.

    Examples
    --------
    >>> one = np.ones((1, 1), np.float32)
    >>> lora_backward(one, one, 3 * one, one, 2 * one, alpha=16).x
    array([[35.]])
    """
    x64, w64, a64, b64 = real_operands(x, weight, lora_a, lora_b, fan_in_fan_out=fan_in_fan_out)
    dy64 = real_gradient(dy, (*x64.shape[:-1], w64.shape[0]))
    scale = lora_scale(alpha, a64.shape[0], rank_stabilized=rank_stabilized)
    factor = dropout_factor(mask, dropout, x64.shape)
    with np.errstate(invalid="ignore", over="ignore"):
        rows, dy_rows, back = as_rows(dropped(x64, factor, dropout)), as_rows(dy64), dy64 @ b64
        return LoraGradients(
            x=dy64 @ w64 + scale * dropped(back @ a64, factor, dropout),
            lora_a=scale * (as_rows(back).T @ rows),
            lora_b=scale * (dy_rows.T @ (rows @ a64.T)),
            bias=dy_rows.sum(axis=0),
            lora_bias=scale * dy_rows.sum(axis=0),
        )
