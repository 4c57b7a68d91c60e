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
from qloracle_gpu.torch.compiling import compiles_as_operator
from qloracle_gpu.torch.formats import dtype_named, require_tensor_format
from qloracle_gpu.torch.fused_lora import Adapter, fused_backward, fused_forward
from qloracle_gpu.torch.layer_operands import layer_parts, require_gradient, require_mask, widened
from qloracle_gpu.torch.matmul import require_float32_matmul


@dataclass(frozen=True)
class LoraGradients:
    """Gradients of a LoRA layer; the frozen weight has none."""

    x: Tensor  # (..., d_in), in the dtype of x
    lora_a: Tensor  # (r, d_in), in the dtype of A
    lora_b: Tensor  # (d_out, r), in the dtype of B
    bias: Tensor  # (d_out,), float32: a bias is no argument, so nobody knows what to round to
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
    mask = require_mask(mask, dropout, x)
    return None if mask is None else mask.to(torch.float32).mul_(0.0 if dropout == 1 else 1 / (1 - dropout))


@compiles_as_operator
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
    parts = layer_parts(x, weight, lora_a, lora_b, fan_in_fan_out)
    target = x.dtype if out_dtype is None else dtype_named(out_dtype, "out_dtype")
    scale = lora_scale(alpha, len(lora_a), rank_stabilized=rank_stabilized)
    adapter = Adapter(*parts[2:], scale, require_mask(mask, dropout, parts[0]), dropout)
    offset = None if bias is None else output_vector(bias, len(lora_b), "bias")
    shift = None if lora_bias is None else output_vector(lora_bias, len(lora_b), "lora_bias")
    fused = fused_forward(*parts[:2], adapter, target, bias=offset, lora_bias=shift, fan_in_fan_out=fan_in_fan_out)
    if fused is not None:
        return fused
    rows, w, a, b = widened(*parts, fan_in_fan_out)
    dropped = dropped_share(rows, dropout_factor(mask, dropout, rows), dropout)
    require_float32_matmul()
    low = dropped @ a.T @ b.T
    y = rows @ w.T + (low if shift is None else low.add_(shift)).mul_(scale)
    return (y if offset is None else y.add_(offset)).to(target)


@compiles_as_operator
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
        Each in the dtype of what it belongs to; those of the biases in float32, not rounded any further.

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
    parts = layer_parts(x, weight, lora_a, lora_b, fan_in_fan_out)
    given = require_gradient(dy, (*parts[0].shape[:-1], len(lora_b)))
    scale = lora_scale(alpha, len(lora_a), rank_stabilized=rank_stabilized)
    adapter = Adapter(*parts[2:], scale, require_mask(mask, dropout, parts[0]), dropout)
    fused = fused_backward(given, *parts[:2], adapter, fan_in_fan_out=fan_in_fan_out)
    if fused is not None:
        return LoraGradients(*fused, *bias_gradients(given, scale))
    gradient, (wide, w, a, b) = given.to(torch.float32), widened(*parts, fan_in_fan_out)
    factor = dropout_factor(mask, dropout, wide)
    require_float32_matmul()
    count = wide.shape[:-1].numel()
    rows, dy_rows = (part.reshape(count, part.shape[-1]) for part in (dropped_share(wide, factor, dropout), gradient))
    back = dy_rows @ b
    through = dropped_share((back @ a).mul_(scale).reshape(wide.shape), factor, dropout)
    return LoraGradients(
        x=(dy_rows @ w).reshape(wide.shape).add_(through).to(x.dtype),
        lora_a=(back.T @ rows).mul_(scale).to(lora_a.dtype),
        lora_b=(dy_rows.T @ (rows @ a.T)).mul_(scale).to(lora_b.dtype),
        **dict(zip(("bias", "lora_bias"), bias_gradients(given, scale), strict=True)),
    )


def bias_gradients(dy: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Return Σ dy and s Σ dy over all rows as float32."""
    total = dy.reshape(dy.shape[:-1].numel(), dy.shape[-1]).sum(0, dtype=torch.float32)
    return total, total * scale


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
