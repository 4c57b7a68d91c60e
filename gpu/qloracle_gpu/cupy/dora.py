"""DoRA: a LoRA layer whose merged rows are brought to trained magnitudes, forward and backward.

With V = W + s B A, its row norms n = √(Σ_k V_k²), a magnitude m for each output, g = m/n (0 where n = 0), and x_d as in
`lora`:

    y  = x Wᵀ + b + (g − 1)∘(x_d Wᵀ) + g∘s (x_d Aᵀ) Bᵀ
    dB = s (dy∘g)ᵀ (x_d Aᵀ)        dA = s ((dy∘g) B)ᵀ x_d        db = Σ dy        dm = Σ dy∘(x_d Vᵀ)/n
    dx = dy W + mask/(1 − p)·[(dy∘(g − 1)) W + s ((dy∘g) B) A], and dy W for p = 1

The norm is a constant in the gradients. Its squares, g and the products with g are float64, where none over- or
underflows.
Clauses: ``[dora.norm]``, ``[dora.forward]``, ``[dora.backward]``.
"""

from dataclasses import dataclass

import numpy as np

from qloracle.formats import FLOAT32, Format
from qloracle_gpu.cupy.arrays import carrier
from qloracle_gpu.cupy.launcher import Array, Operation, operation
from qloracle_gpu.cupy.lora import combined, combined_gradient, matrices, product
from qloracle_gpu.cupy.merge_operands import merge_operands
from qloracle_gpu.cupy.operands import (
    dropped,
    lora_operands,
    lora_scale,
    matrix,
    optional_vector,
    output_format,
    require_dropout,
    require_gradient,
    require_vector_operand,
    scaled,
    summed_rows,
    zeros,
)
from qloracle_gpu.cupy.rounding import widened


@dataclass(frozen=True)
class DoraGradients:
    """Gradients of a DoRA layer; the frozen weight has none."""

    x: Array  # (..., d_in), in the format of x
    lora_a: Array  # (r, d_in), in the format of A
    lora_b: Array  # (d_out, r), in the format of B
    magnitude: Array  # (d_out,), in the format of the magnitude
    bias: Array  # (d_out,), in the format of dy


def dora_norm(
    weight: Array, lora_a: Array, lora_b: Array, *, alpha: float, rank_stabilized: bool = False,
    fan_in_fan_out: bool = False, fmt: str | None = None,
) -> Array:  # fmt: skip
    """Return the norm of every row of the merged weight: n = √(Σ_k (W + s B A)_k²).

    At the start of training the magnitudes are these norms, so that the layer is the base.

    Parameters
    ----------
    weight, lora_a, lora_b, alpha, rank_stabilized, fan_in_fan_out, fmt
        As for `lora_merge`.

    Returns
    -------
    array of float32, shape (d_out,)

    Raises
    ------
    ArgumentTypeError, ArgumentValueError, MatmulPrecisionError
        As `lora_merge`.

    Notes
    -----
    Clause ``[dora.norm]``. Declared roundings: W + s B A to float32; the norm to float32.
    """
    given = merge_operands(weight, lora_a, lora_b, fan_in_fan_out=fan_in_fan_out, fmt=fmt)
    scale = lora_scale(alpha, given.rank, rank_stabilized=rank_stabilized)
    with operation("dora_norm", weight=given.weight[0], lora_b=given.lora_b[0]) as run:
        w, a, b = given.matrices(run)
        return row_norms(run, merged_rows(run, w, a, b, scale))


def merged_rows(run: Operation, w: Array, a: Array, b: Array, scale: np.float32) -> Array:
    """Return V = W + s B A of float32 matrices."""
    return combined(run, run.contiguous(w), FLOAT32, low=product(run, b, a), scale=scale)


def row_norms(run: Operation, rows: Array) -> Array:
    """Return √(Σ_k V_k²) of every row as float32."""
    norms = run.empty(rows.shape[0], "float32")
    run.launch("dora", "row_norms", 32 * len(rows), (rows, np.int64(len(rows)), np.int64(rows.shape[1]), norms))
    return norms


def gains(run: Operation, magnitude: tuple[Array, Format], norms: Array) -> tuple[Array, Array]:
    """Return g = m/n, 0 where n = 0, and g − 1 as float64."""
    gain, less_one = run.empty(norms.size, "float64"), run.empty(norms.size, "float64")
    arguments = (widened(run, *magnitude), norms, np.int64(norms.size), gain, less_one)
    run.launch("dora", "gains", norms.size, arguments)
    return gain, less_one


def dora_forward(
    x: Array, weight: Array, lora_a: Array, lora_b: Array, magnitude: Array, *, alpha: float,
    bias: Array | None = None, mask: Array | None = None, dropout: float = 0.0, rank_stabilized: bool = False,
    fan_in_fan_out: bool = False, out_dtype: str | None = None, fmt: str | None = None,
) -> Array:  # fmt: skip
    """Apply a linear layer with a DoRA adapter.

    y = x Wᵀ + b + (g − 1)∘(x_d Wᵀ) + g∘s (x_d Aᵀ) Bᵀ, g = m/n, 0 where n = 0

    Parameters
    ----------
    x, weight, lora_a, lora_b, alpha, bias, mask, dropout, rank_stabilized, fan_in_fan_out, out_dtype, fmt
        As for `lora_forward`.
    magnitude : array of float32, float16 or bfloat16, shape (d_out,)
        The trained magnitude m of each output.

    Returns
    -------
    array of `out_dtype`, shape (..., d_out)

    Raises
    ------
    ArgumentTypeError, ArgumentValueError, MatmulPrecisionError
        As `lora_forward`, and if `magnitude` is not of shape (d_out,).

    Notes
    -----
    Clauses ``[dora.norm]``, ``[dora.forward]``. Only the adapter's share of x is dropped. Declared roundings: float32
    or finer throughout; then one to `out_dtype`.
    """
    given = lora_operands(x, weight, lora_a, lora_b, fan_in_fan_out, fmt)
    target, (_, _, d_out, rank) = output_format(out_dtype, given.x[1]), given.sizes
    scale = lora_scale(alpha, rank, rank_stabilized=rank_stabilized)
    drop = require_dropout(mask, dropout, given.x[0].shape)
    m = require_vector_operand("magnitude", magnitude, d_out, fmt)
    offset = optional_vector("bias", bias, d_out, fmt)
    with operation("dora_forward", x=given.x[0], weight=given.weight[0], lora_b=given.lora_b[0]) as run:
        x32, w, a, b = matrices(run, given)
        gain, less_one = gains(run, m, row_norms(run, merged_rows(run, w, a, b, scale)))
        share, base = dropped(run, x32, drop), product(run, x32, w.T)
        own = base if share is x32 else product(run, share, w.T)  # without dropout both are the same product
        y = run.empty(base.shape, carrier(target))
        arguments = (
            base, own, product(run, product(run, share, a.T), b.T), gain, less_one,
            base if offset is None else widened(run, *offset), np.int32(offset is not None), np.int64(y.size),
            np.int64(max(d_out, 1)), scale, y,
        )  # fmt: skip
        run.launch("dora", f"combine_dora_{target.name}", y.size, arguments)
        return y.reshape(*given.x[0].shape[:-1], d_out)


def dora_backward(
    dy: Array, x: Array, weight: Array, lora_a: Array, lora_b: Array, magnitude: Array, *, alpha: float,
    mask: Array | None = None, dropout: float = 0.0, rank_stabilized: bool = False, fan_in_fan_out: bool = False,
    fmt: str | None = None,
) -> DoraGradients:  # fmt: skip
    """Differentiate `dora_forward` with the norm detached: gradients of x, A, B, the magnitude and the bias.

    Parameters
    ----------
    dy : array of float32, float16 or bfloat16, shape (..., d_out)
        Gradient of the output.
    x, weight, lora_a, lora_b, magnitude, alpha, mask, dropout, rank_stabilized, fan_in_fan_out, fmt
        As given to `dora_forward`; the mask is the same one.

    Returns
    -------
    DoraGradients

    Raises
    ------
    ArgumentTypeError, ArgumentValueError, MatmulPrecisionError
        As `dora_forward`, and if `dy` is not of shape (..., d_out).

    Notes
    -----
    Clause ``[dora.backward]``. Declared roundings: float32 throughout; then one to the format of each gradient.
    """
    given = lora_operands(x, weight, lora_a, lora_b, fan_in_fan_out, fmt)
    rows, d_in, d_out, rank = given.sizes
    gradient = require_gradient(dy, (*given.x[0].shape[:-1], d_out), fmt)
    scale = lora_scale(alpha, rank, rank_stabilized=rank_stabilized)
    drop = require_dropout(mask, dropout, given.x[0].shape)
    m = require_vector_operand("magnitude", magnitude, d_out, fmt)
    with operation("dora_backward", dy=gradient[0], x=given.x[0], weight=given.weight[0]) as run:
        x32, w, a, b = matrices(run, given)
        merged, dy32 = merged_rows(run, w, a, b, scale), matrix(run, gradient, rows, d_out)
        norms = row_norms(run, merged)
        gained, rescaled = (_by_column(run, dy32, factor) for factor in gains(run, m, norms))
        share, back = dropped(run, x32, drop), product(run, gained, b)
        through = zeros(run, (rows, d_in))
        if not drop.everything:
            own, low = product(run, rescaled, w), product(run, back, a)
            through = combined(run, own, FLOAT32, low=low, scale=scale)
        dx = combined_gradient(run, product(run, dy32, w), through, drop, given.x[1])
        return DoraGradients(
            x=dx.reshape(given.x[0].shape),
            lora_a=scaled(run, product(run, back.T, share), scale, given.lora_a[1]),
            lora_b=scaled(run, product(run, gained.T, product(run, share, a.T)), scale, given.lora_b[1]),
            magnitude=_magnitude_gradient(run, dy32, product(run, share, merged.T), norms, m[1]),
            bias=scaled(run, summed_rows(run, dy32), np.float32(1), gradient[1]),
        )


def _by_column(run: Operation, x: Array, factors: Array) -> Array:
    out = run.empty(x.shape, "float32")
    columns = np.int64(max(x.shape[1], 1))
    run.launch("dora", "scale_columns", x.size, (x, factors, np.int64(x.size), columns, out))
    return out


def _magnitude_gradient(run: Operation, dy: Array, merged: Array, norms: Array, target: Format) -> Array:
    """Return RN_target(Σ dy∘(x_d Vᵀ)/n), 0 where n = 0."""
    products, out = run.empty(dy.shape, "float32"), run.empty(norms.size, carrier(target))
    run.launch("dora", "multiply", dy.size, (dy, merged, np.int64(dy.size), products))
    arguments = (summed_rows(run, products), norms, np.int64(norms.size), out)
    run.launch("dora", f"over_norms_{target.name}", norms.size, arguments)
    return out
