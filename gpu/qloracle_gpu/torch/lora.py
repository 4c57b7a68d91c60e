"""LoRA: a frozen weight and a trained low-rank correction, forward and backward.

With W (d_out, d_in), A (r, d_in), B (d_out, r), s = alpha/r (rsLoRA: alpha/√r) and x_d = x·mask/(1 − p), 0 for p = 1:

    y  = x Wᵀ + b + s (x_d Aᵀ) Bᵀ + s b_B
    dB = s dyᵀ (x_d Aᵀ)        dA = s (dy B)ᵀ x_d        db = Σ dy        db_B = s Σ dy
    dx = dy W + s·mask/(1 − p)·((dy B) A), and dy W for p = 1

Operands widen to float32 exactly; products, sums and x_d Aᵀ are float32; one rounding to the output format ends it.
Clauses: ``[lora.scale]``, ``[lora.dropout]``, ``[lora.forward]``, ``[lora.bias]``, ``[lora.fan_in_fan_out]``,
``[lora.backward]``.
"""

from dataclasses import dataclass
from math import isfinite, sqrt

import torch
from torch import Tensor

from qloracle.errors import reject_value, require_positive_integer
from qloracle.formats import FLOAT32
from qloracle_gpu.torch.autocast import ignores_autocast
from qloracle_gpu.torch.formats import dtype_named, require_dtype, require_tensor_format
from qloracle_gpu.torch.matmul import require_float32_matmul


@dataclass(frozen=True)
class LoraGradients:
    """Gradients of a LoRA layer; the frozen weight has none."""

    x: Tensor  # (..., d_in), in the dtype of x
    lora_a: Tensor  # (r, d_in), in the dtype of A
    lora_b: Tensor  # (d_out, r), in the dtype of B
    bias: Tensor  # (d_out,), in the dtype of dy
    lora_bias: Tensor  # (d_out,), likewise


def lora_scale(alpha: float, rank: int, *, rank_stabilized: bool = False) -> float:
    """Return s = alpha/rank, or alpha/√rank for rsLoRA.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If `rank` is no positive integer, `alpha` is not finite, or s is beyond the largest finite float32 number.

    Notes
    -----
    Clause ``[lora.scale]``.
    """
    rank = require_positive_integer("rank", rank)
    if not isfinite(alpha):
        reject_value("alpha", "finite", alpha)
    scale = float(alpha) / (sqrt(rank) if rank_stabilized else rank)
    if abs(scale) > FLOAT32.largest_finite:
        reject_value("alpha", f"such that the scale is at most {FLOAT32.largest_finite!r}, for rank {rank}", alpha)
    return scale


def dropout_factor(mask: Tensor | None, dropout: float, x: Tensor) -> Tensor | None:
    """Return fl32(1/(1 − p)) where the mask keeps, else 0; 0 for p = 1. None, for 1, without a mask.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If p is outside [0, 1] or positive without a mask, or the mask is not bool of the shape of x.

    Notes
    -----
    Clause ``[lora.dropout]``. A factor and not a selection, so that for p < 1 a dropped NaN or infinity stays
    visible; for p = 1 nothing is multiplied, see `dropped_share`.
    """
    if not 0 <= dropout <= 1:
        reject_value("dropout", "a probability from 0 to 1", dropout)
    if mask is None:
        if dropout > 0:
            reject_value("mask", "given when dropout is positive", None)
        return None
    mask = require_dtype("mask", mask, torch.bool)
    if mask.shape != x.shape:
        reject_value("mask", f"of the shape of x {tuple(x.shape)}", tuple(mask.shape))
    return mask.to(torch.float32).mul_(0.0 if dropout == 1 else 1 / (1 - dropout))


@ignores_autocast
def lora_forward(
    x: Tensor,
    weight: Tensor,
    lora_a: Tensor,
    lora_b: Tensor,
    *,
    alpha: float,
    bias: Tensor | None = None,
    lora_bias: Tensor | None = None,
    mask: Tensor | None = None,
    dropout: float = 0.0,
    rank_stabilized: bool = False,
    fan_in_fan_out: bool = False,
    out_dtype: str | None = None,
) -> Tensor:
    """Apply a linear layer with a LoRA adapter.

    y = x Wᵀ + b + s (x_d Aᵀ) Bᵀ + s b_B

    Parameters
    ----------
    x : tensor of float32, float16 or bfloat16, shape (..., d_in)
    weight : tensor of any of the three, shape (d_out, d_in), or (d_in, d_out) with `fan_in_fan_out`
    lora_a : tensor, likewise, shape (r, d_in)
    lora_b : tensor, likewise, shape (d_out, r)
    alpha : float
    bias, lora_bias : tensor, likewise, shape (d_out,), optional
        The bias of the base, and that of the adapter, which is scaled.
    mask : tensor of bool, the shape of x, optional
        True where an element is kept.
    dropout : float
        The probability p of dropping.
    rank_stabilized : bool
        Scale by alpha/√r instead of alpha/r.
    fan_in_fan_out : bool
        The weight is stored as (d_in, d_out).
    out_dtype : {"float32", "float16", "bfloat16"}, optional
        Format of y; by default that of x.

    Returns
    -------
    tensor of `out_dtype`, shape (..., d_out)
        Without gradient history; `lora_backward` gives the gradients.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If a dtype is not float32, float16 or bfloat16, shapes do not belong together, or `out_dtype` is unknown.
    MatmulPrecisionError
        If torch is set to multiply float32 with fewer bits.

    Notes
    -----
    Clause ``[lora.forward]``. Declared roundings: intermediate float32, accumulate float32; then one to `out_dtype`.

    Examples
    --------
    >>> one = torch.ones(1, 1)
    >>> lora_forward(one, 3 * one, one, 2 * one, alpha=16)
    tensor([[35.]])
    """
    rows, w, a, b = layer_operands(x, weight, lora_a, lora_b, fan_in_fan_out)
    target = x.dtype if out_dtype is None else dtype_named(out_dtype, "out_dtype")
    scale = lora_scale(alpha, len(a), rank_stabilized=rank_stabilized)
    dropped = dropped_share(rows, dropout_factor(mask, dropout, rows), dropout)
    offset = None if bias is None else output_vector(bias, len(w), "bias")
    shift = None if lora_bias is None else output_vector(lora_bias, len(w), "lora_bias")
    require_float32_matmul()
    low = dropped @ a.T @ b.T
    y = rows @ w.T + (low if shift is None else low.add_(shift)).mul_(scale)
    return (y if offset is None else y.add_(offset)).to(target)


@ignores_autocast
def lora_backward(
    dy: Tensor,
    x: Tensor,
    weight: Tensor,
    lora_a: Tensor,
    lora_b: Tensor,
    *,
    alpha: float,
    mask: Tensor | None = None,
    dropout: float = 0.0,
    rank_stabilized: bool = False,
    fan_in_fan_out: bool = False,
) -> LoraGradients:
    """Differentiate `lora_forward`: gradients of x, A, B and the two biases; the weight is frozen.

    dB = s dyᵀ(x_d Aᵀ), dA = s (dy B)ᵀ x_d, dx = dy W + s·mask/(1 − p)·((dy B) A), db = Σ dy and db_B = s Σ dy, sums
    over all rows.

    Parameters
    ----------
    dy : tensor of float32, float16 or bfloat16, shape (..., d_out)
        Gradient of the output.
    x, weight, lora_a, lora_b, alpha, mask, dropout, rank_stabilized, fan_in_fan_out
        As given to `lora_forward`; the mask is the same one.

    Returns
    -------
    LoraGradients
        Each in the dtype of what it belongs to, those of the biases in that of `dy`.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError, MatmulPrecisionError
        As `lora_forward`, and if `dy` is not of shape (..., d_out).

    Notes
    -----
    Clause ``[lora.backward]``. Declared roundings: as `lora_forward`; dy B is float32 too.

    Examples
    --------
    >>> one = torch.ones(1, 1)
    >>> lora_backward(one, one, 3 * one, one, 2 * one, alpha=16).x
    tensor([[35.]])
    """
    wide, w, a, b = layer_operands(x, weight, lora_a, lora_b, fan_in_fan_out)
    gradient = require_tensor_format("dy", dy).to(torch.float32)
    expected = (*wide.shape[:-1], len(w))
    if gradient.shape != expected:
        reject_value("dy", f"of shape {expected}", tuple(gradient.shape))
    scale = lora_scale(alpha, len(a), rank_stabilized=rank_stabilized)
    factor = dropout_factor(mask, dropout, wide)
    require_float32_matmul()
    count = wide.shape[:-1].numel()
    rows, dy_rows = (part.reshape(count, part.shape[-1]) for part in (dropped_share(wide, factor, dropout), gradient))
    back = dy_rows @ b
    total = dy_rows.sum(0)
    through = dropped_share((back @ a).mul_(scale).reshape(wide.shape), factor, dropout)
    return LoraGradients(
        x=(dy_rows @ w).reshape(wide.shape).add_(through).to(x.dtype),
        lora_a=(back.T @ rows).mul_(scale).to(lora_a.dtype),
        lora_b=(dy_rows.T @ (rows @ a.T)).mul_(scale).to(lora_b.dtype),
        bias=total.to(dy.dtype),
        lora_bias=(total * scale).to(dy.dtype),
    )


def layer_operands(
    x: Tensor, weight: Tensor, lora_a: Tensor, lora_b: Tensor, fan_in_fan_out: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the four operands as float32, after checking that their shapes belong together."""
    named = (("x", x), ("weight", weight), ("lora_a", lora_a), ("lora_b", lora_b))
    rows, w, a, b = (require_tensor_format(argument, tensor).to(torch.float32) for argument, tensor in named)
    if rows.ndim < 1:
        reject_value("x", "at least 1-d", "0-d")
    for argument, tensor in (("weight", w), ("lora_a", a), ("lora_b", b)):
        if tensor.ndim != 2:
            reject_value(argument, "2-d", f"{tensor.ndim}-d")
    d_in, rank = rows.shape[-1], len(a)
    d_out = w.shape[1] if fan_in_fan_out else len(w)
    stored = (d_in, d_out) if fan_in_fan_out else (d_out, d_in)
    for argument, tensor, shape in (("weight", w, stored), ("lora_a", a, (rank, d_in))):
        if tensor.shape != shape:
            reject_value(argument, f"of shape {shape} for x of shape {tuple(rows.shape)}", tuple(tensor.shape))
    if b.shape != (d_out, rank):
        reject_value("lora_b", f"of shape {(d_out, rank)}", tuple(b.shape))
    return rows, w.T if fan_in_fan_out else w, a, b


def dropped_share(values: Tensor, factor: Tensor | None, dropout: float) -> Tensor:
    """Return values·mask/(1 − p), exactly 0 for p = 1."""
    if dropout == 1:
        return torch.zeros_like(values)
    return values if factor is None else values * factor


def output_vector(bias: Tensor, d_out: int, argument: str) -> Tensor:
    """Return a vector with one number for each output as float32, after checking its shape."""
    vector = require_tensor_format(argument, bias).to(torch.float32)
    if vector.shape != (d_out,):
        reject_value(argument, f"of shape ({d_out},)", tuple(vector.shape))
    return vector
