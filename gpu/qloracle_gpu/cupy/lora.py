"""LoRA: a frozen weight and a trained low-rank correction, forward and backward.

With W (d_out, d_in), A (r, d_in), B (d_out, r), s = alpha/r (rsLoRA: alpha/√r) and x_d = x·mask/(1 − p), 0 for p = 1:

    y  = x Wᵀ + b + s (x_d Aᵀ) Bᵀ + s b_B
    dB = s dyᵀ (x_d Aᵀ)        dA = s (dy B)ᵀ x_d        db = Σ dy        db_B = s Σ dy
    dx = dy W + s·mask/(1 − p)·((dy B) A), and dy W for p = 1

Operands widen to float32 exactly; products (cuBLAS's), sums and x_d Aᵀ are float32; one rounding to the output format
ends it. Clauses: ``[lora.scale]``, ``[lora.dropout]``, ``[lora.forward]``, ``[lora.bias]``,
``[lora.fan_in_fan_out]``, ``[lora.backward]``.
"""

from dataclasses import dataclass

import numpy as np

from qloracle.formats import Format
from qloracle_gpu.cupy.arrays import carrier
from qloracle_gpu.cupy.launcher import Array, Operation, operation
from qloracle_gpu.cupy.operands import (
    Dropout,
    LoraOperands,
    dropped,
    lora_operands,
    lora_scale,
    matrix,
    optional_vector,
    output_format,
    require_dropout,
    require_gradient,
    scaled,
    summed_rows,
    zeros,
)
from qloracle_gpu.cupy.rounding import widened

HAS_LOW, HAS_SHIFT, HAS_BIAS = 1, 2, 4  # flags of the kernels `combine_*`


@dataclass(frozen=True)
class LoraGradients:
    """Gradients of a LoRA layer; the frozen weight has none."""

    x: Array  # (..., d_in), in the format of x
    lora_a: Array  # (r, d_in), in the format of A
    lora_b: Array  # (d_out, r), in the format of B
    bias: Array  # (d_out,), in the format of dy
    lora_bias: Array  # (d_out,), likewise


def lora_forward(
    x: Array, weight: Array, lora_a: Array, lora_b: Array, *, alpha: float, bias: Array | None = None,
    lora_bias: Array | None = None, mask: Array | None = None, dropout: float = 0.0, rank_stabilized: bool = False,
    fan_in_fan_out: bool = False, out_dtype: str | None = None, fmt: str | None = None,
) -> Array:  # fmt: skip
    """Apply a linear layer with a LoRA adapter.

    y = x Wᵀ + b + s (x_d Aᵀ) Bᵀ + s b_B

    Parameters
    ----------
    x : array of float32, float16 or bfloat16, shape (..., d_in)
    weight : array of any of the three, shape (d_out, d_in), or (d_in, d_out) with `fan_in_fan_out`
    lora_a : array, likewise, shape (r, d_in)
    lora_b : array, likewise, shape (d_out, r)
    alpha : float
    bias, lora_bias : array, likewise, shape (d_out,), optional
        The bias of the base, and that of the adapter, which is scaled.
    mask : array of bool, the shape of x, optional
        True where an element is kept.
    dropout : float
        The probability p of dropping.
    rank_stabilized : bool
        Scale by alpha/√r instead of alpha/r.
    fan_in_fan_out : bool
        The weight is stored as (d_in, d_out).
    out_dtype : {"float32", "float16", "bfloat16"}, optional
        Format of y; by default that of x.
    fmt : str, optional
        Format of the operands that are given as bit patterns.

    Returns
    -------
    array of `out_dtype`, shape (..., d_out)

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If a format is not float32, float16 or bfloat16, shapes do not belong together, or `out_dtype` is unknown.
    MatmulPrecisionError
        If CuPy is set to multiply float32 with fewer bits.

    Notes
    -----
    Clause ``[lora.forward]``. Declared roundings: intermediate float32, accumulate float32; then one to `out_dtype`.
    """
    given = lora_operands(x, weight, lora_a, lora_b, fan_in_fan_out, fmt)
    target = output_format(out_dtype, given.x[1])
    _, _, d_out, rank = given.sizes
    scale = lora_scale(alpha, rank, rank_stabilized=rank_stabilized)
    drop = require_dropout(mask, dropout, given.x[0].shape)
    offset, shift = optional_vector("bias", bias, d_out, fmt), optional_vector("lora_bias", lora_bias, d_out, fmt)
    with operation("lora_forward", x=given.x[0], weight=given.weight[0], lora_b=given.lora_b[0]) as run:
        x32, w, a, b = matrices(run, given)
        low = product(run, product(run, dropped(run, x32, drop), a.T), b.T)
        base = product(run, x32, w.T)
        y = combined(run, base, target, low=low, shift=shift, bias=offset, scale=scale)
        return y.reshape(*given.x[0].shape[:-1], d_out)


def lora_backward(
    dy: Array, x: Array, weight: Array, lora_a: Array, lora_b: Array, *, alpha: float, mask: Array | None = None,
    dropout: float = 0.0, rank_stabilized: bool = False, fan_in_fan_out: bool = False, fmt: str | None = None,
) -> LoraGradients:  # fmt: skip
    """Differentiate `lora_forward`: gradients of x, A, B and the two biases; the weight is frozen.

    dB = s dyᵀ(x_d Aᵀ), dA = s (dy B)ᵀ x_d, dx = dy W + s·mask/(1 − p)·((dy B) A), db = Σ dy and db_B = s Σ dy, sums
    over all rows.

    Parameters
    ----------
    dy : array of float32, float16 or bfloat16, shape (..., d_out)
        Gradient of the output.
    x, weight, lora_a, lora_b, alpha, mask, dropout, rank_stabilized, fan_in_fan_out, fmt
        As given to `lora_forward`; the mask is the same one.

    Returns
    -------
    LoraGradients
        Each in the format of what it belongs to, those of the biases in that of `dy`.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError, MatmulPrecisionError
        As `lora_forward`, and if `dy` is not of shape (..., d_out).

    Notes
    -----
    Clause ``[lora.backward]``. Declared roundings: as `lora_forward`; dy B is float32 too.
    """
    given = lora_operands(x, weight, lora_a, lora_b, fan_in_fan_out, fmt)
    rows, d_in, d_out, rank = given.sizes
    gradient = require_gradient(dy, (*given.x[0].shape[:-1], d_out), fmt)
    scale = lora_scale(alpha, rank, rank_stabilized=rank_stabilized)
    drop = require_dropout(mask, dropout, given.x[0].shape)
    with operation("lora_backward", dy=gradient[0], x=given.x[0], weight=given.weight[0]) as run:
        x32, w, a, b = matrices(run, given)
        dy32 = matrix(run, gradient, rows, d_out)
        share, back, total = dropped(run, x32, drop), product(run, dy32, b), summed_rows(run, dy32)
        through = zeros(run, (rows, d_in)) if drop.everything else product(run, back, a)
        dx = combined_gradient(run, product(run, dy32, w), through, drop, given.x[1], scale=scale)
        return LoraGradients(
            x=dx.reshape(given.x[0].shape),
            lora_a=scaled(run, product(run, back.T, share), scale, given.lora_a[1]),
            lora_b=scaled(run, product(run, dy32.T, product(run, share, a.T)), scale, given.lora_b[1]),
            bias=scaled(run, total, np.float32(1), gradient[1]),
            lora_bias=scaled(run, total, scale, gradient[1]),
        )


def product(run: Operation, left: Array, right: Array) -> Array:
    """Return a product of float32 matrices, contiguous."""
    return run.contiguous(run.matmul(left, right))


def combined(
    run: Operation, base: Array, target: Format, *, low: Array | None = None, shift: tuple[Array, Format] | None = None,
    bias: tuple[Array, Format] | None = None, scale: np.float32 | None = None,
) -> Array:  # fmt: skip
    """Return RN_target(base + (low + shift)·scale + bias), every step before in float32."""
    out = run.empty(base.shape, carrier(target))
    flags = HAS_LOW * (low is not None) | HAS_SHIFT * (shift is not None) | HAS_BIAS * (bias is not None)
    vectors = [base if vector is None else widened(run, *vector) for vector in (shift, bias)]
    arguments = (
        base, base if low is None else low, *vectors, np.int32(flags), np.int64(base.size),
        np.int64(max(base.shape[-1], 1)), np.float32(1) if scale is None else scale, out,
    )  # fmt: skip
    run.launch("layers", f"combine_{target.name}", base.size, arguments)
    return out


def combined_gradient(
    run: Operation, base: Array, low: Array, drop: Dropout, target: Format, *, scale: np.float32 | None = None
) -> Array:
    """Return RN_target(base + mask/(1 − p)·(low·scale)), every step before in float32."""
    out = run.empty(base.shape, carrier(target))
    masked = drop.mask is not None and not drop.everything
    arguments = (
        base, low, run.contiguous(drop.mask) if masked else low, np.int32(masked), np.int64(out.size),
        np.float32(1) if scale is None else scale, drop.factor, out,
    )  # fmt: skip
    run.launch("layers", f"combine_gradient_{target.name}", out.size, arguments)
    return out


def matrices(run: Operation, given: LoraOperands) -> tuple[Array, Array, Array, Array]:
    """Return x, W of shape (d_out, d_in), A and B as float32 matrices."""
    rows, d_in, d_out, rank = given.sizes
    w = matrix(run, given.weight, *given.weight[0].shape)
    low = (matrix(run, given.lora_a, rank, d_in), matrix(run, given.lora_b, d_out, rank))
    return matrix(run, given.x, rows, d_in), w.T if given.fan_in_fan_out else w, *low
