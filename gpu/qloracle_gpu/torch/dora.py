"""DoRA: a LoRA layer whose merged rows are brought to trained magnitudes, forward and backward.

With V = W + s B A, its row norms n = √(Σ_k V_k²), a magnitude m for each output, g = m/n (0 where n = 0), and x_d as in
`lora`:

    y  = x Wᵀ + b + (g − 1)∘(x_d Wᵀ) + g∘s (x_d Aᵀ) Bᵀ
    dB = s (dy∘g)ᵀ (x_d Aᵀ)        dA = s ((dy∘g) B)ᵀ x_d        db = Σ dy        dm = Σ dy∘(x_d Vᵀ)/n
    dx = dy W + mask/(1 − p)·[(dy∘(g − 1)) W + s ((dy∘g) B) A], and dy W for p = 1

The norm is a constant in the gradients. Its squares are added in float64, where none over- or underflows. g saturates
at the largest float32 number: an infinite one would make NaN of a zero, and finite operands never give NaN.
Clauses: ``[dora.norm]``, ``[dora.forward]``, ``[dora.backward]``.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from qloracle.formats import FLOAT32
from qloracle_gpu.torch.autocast import ignores_autocast
from qloracle_gpu.torch.compiling import compiles_as_operator
from qloracle_gpu.torch.formats import dtype_named, float64_device
from qloracle_gpu.torch.layer_operands import layer_operands, require_gradient
from qloracle_gpu.torch.lora import dropout_factor, dropped_share, lora_scale, output_vector
from qloracle_gpu.torch.matmul import require_float32_matmul
from qloracle_gpu.torch.merge_operands import weight_and_change


@dataclass(frozen=True)
class DoraGradients:
    """Gradients of a DoRA layer; the frozen weight has none."""

    x: Tensor  # (..., d_in), in the dtype of x
    lora_a: Tensor  # (r, d_in), in the dtype of A
    lora_b: Tensor  # (d_out, r), in the dtype of B
    magnitude: Tensor  # (d_out,), in the dtype of the magnitude
    bias: Tensor  # (d_out,), float32


def dora_norm(
    weight: Tensor,
    lora_a: Tensor,
    lora_b: Tensor,
    *,
    alpha: float,
    rank_stabilized: bool = False,
    fan_in_fan_out: bool = False,
) -> Tensor:
    """Return the norm of every row of the merged weight: n = √(Σ_k (W + s B A)_k²).

    At the start of training the magnitudes are these norms, so that the layer is the base.

    Parameters
    ----------
    weight, lora_a, lora_b, alpha, rank_stabilized, fan_in_fan_out
        As for `lora_merge`.

    Returns
    -------
    tensor of float32, shape (d_out,)

    Raises
    ------
    ArgumentTypeError, ArgumentValueError, MatmulPrecisionError
        As `lora_merge`.

    Notes
    -----
    Clause ``[dora.norm]``. Declared roundings: W + s B A to float32; the norm to float32.

    Examples
    --------
    >>> a, b = torch.tensor([[1.0, 0.0]]), torch.tensor([[3.0], [0.0]])
    >>> dora_norm(torch.tensor([[0.0, 4.0], [0.0, 0.0]]), a, b, alpha=1)
    tensor([5., 0.])
    """
    w, change = weight_and_change(
        weight, lora_a, lora_b, alpha=alpha, rank_stabilized=rank_stabilized, fan_in_fan_out=fan_in_fan_out
    )
    return row_norms(change.add_(w))


def row_norms(rows: Tensor) -> Tensor:
    """Return √(Σ_k V_k²) of every row as float32."""
    capable = float64_device(rows.device)
    return rows.to(capable).to(torch.float64).square().sum(1).sqrt().to(torch.float32).to(rows.device)


def over_norms(values: Tensor, norms: Tensor) -> Tensor:
    """Return values/n, 0 where n = 0."""
    empty = norms == 0
    return (values / norms.masked_fill(empty, 1.0)).masked_fill(empty, 0.0)


def gains(magnitude: Tensor, norms: Tensor) -> Tensor:
    """Return g = m/n, 0 where n = 0; of a finite m a finite g."""
    gain = over_norms(magnitude, norms)
    beyond = gain.isinf() & magnitude.isfinite()
    return torch.where(beyond, torch.full_like(gain, FLOAT32.largest_finite).copysign(gain), gain)


@compiles_as_operator
@ignores_autocast
def dora_forward(
    x: Tensor,
    weight: Tensor,
    lora_a: Tensor,
    lora_b: Tensor,
    magnitude: Tensor,
    *,
    alpha: float,
    bias: Tensor | None = None,
    mask: Tensor | None = None,
    dropout: float = 0.0,
    rank_stabilized: bool = False,
    fan_in_fan_out: bool = False,
    out_dtype: str | None = None,
) -> Tensor:
    """Apply a linear layer with a DoRA adapter.

    y = x Wᵀ + b + (g − 1)∘(x_d Wᵀ) + g∘s (x_d Aᵀ) Bᵀ, g = m/n, 0 where n = 0

    Parameters
    ----------
    x, weight, lora_a, lora_b, alpha, bias, mask, dropout, rank_stabilized, fan_in_fan_out, out_dtype
        As for `lora_forward`.
    magnitude : tensor of float32, float16 or bfloat16, shape (d_out,)
        The trained magnitude m of each output.

    Returns
    -------
    tensor of `out_dtype`, shape (..., d_out)
        Without gradient history; `dora_backward` gives the gradients.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError, MatmulPrecisionError
        As `lora_forward`, and if `magnitude` is not of shape (d_out,).

    Notes
    -----
    Clauses ``[dora.norm]``, ``[dora.forward]``. Only the adapter's share of x is dropped. Declared roundings: float32
    throughout; then one to `out_dtype`.

    Examples
    --------
    >>> a, b = torch.tensor([[1.0, 0.0]]), torch.tensor([[3.0], [0.0]])
    >>> w, m = torch.tensor([[0.0, 4.0], [0.0, 0.0]]), torch.tensor([10.0, 7.0])
    >>> dora_forward(torch.ones(1, 2), w, a, b, m, alpha=1)
    tensor([[14.,  0.]])
    """
    rows, w, a, b = layer_operands(x, weight, lora_a, lora_b, fan_in_fan_out)
    target = x.dtype if out_dtype is None else dtype_named(out_dtype, "out_dtype")
    scale = lora_scale(alpha, len(a), rank_stabilized=rank_stabilized)
    share = dropped_share(rows, dropout_factor(mask, dropout, rows), dropout)
    m = output_vector(magnitude, len(w), "magnitude")
    offset = None if bias is None else output_vector(bias, len(w), "bias")
    require_float32_matmul()
    gain = gains(m, row_norms((b @ a).mul_(scale).add_(w)))
    base = rows @ w.T
    # Without dropout both shares are the same product.
    dropped_base = base if mask is None else share @ w.T
    y = base + (gain - 1) * dropped_base + gain * (share @ a.T @ b.T).mul_(scale)
    return (y if offset is None else y.add_(offset)).to(target)


@compiles_as_operator
@ignores_autocast
def dora_backward(
    dy: Tensor,
    x: Tensor,
    weight: Tensor,
    lora_a: Tensor,
    lora_b: Tensor,
    magnitude: Tensor,
    *,
    alpha: float,
    mask: Tensor | None = None,
    dropout: float = 0.0,
    rank_stabilized: bool = False,
    fan_in_fan_out: bool = False,
) -> DoraGradients:
    """Differentiate `dora_forward` with the norm detached: gradients of x, A, B, the magnitude and the bias.

    Parameters
    ----------
    dy : tensor of float32, float16 or bfloat16, shape (..., d_out)
        Gradient of the output.
    x, weight, lora_a, lora_b, magnitude, alpha, mask, dropout, rank_stabilized, fan_in_fan_out
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
    Clause ``[dora.backward]``. Declared roundings: float32 throughout; then one to the format of each gradient, but
    for the bias.

    Examples
    --------
    >>> a, b = torch.tensor([[1.0, 0.0]]), torch.tensor([[3.0], [0.0]])
    >>> w, m = torch.tensor([[0.0, 4.0], [0.0, 0.0]]), torch.tensor([10.0, 7.0])
    >>> dora_backward(torch.ones(1, 2), torch.ones(1, 2), w, a, b, m, alpha=1).x
    tensor([[6., 8.]])
    """
    wide, w, a, b = layer_operands(x, weight, lora_a, lora_b, fan_in_fan_out)
    gradient = output_gradient(dy, (*wide.shape[:-1], len(w)))
    scale = lora_scale(alpha, len(a), rank_stabilized=rank_stabilized)
    factor = dropout_factor(mask, dropout, wide)
    m = output_vector(magnitude, len(w), "magnitude")
    require_float32_matmul()
    merged = (b @ a).mul_(scale).add_(w)
    norms = row_norms(merged)
    gain = gains(m, norms)
    count = wide.shape[:-1].numel()
    share = dropped_share(wide, factor, dropout).reshape(count, wide.shape[-1])
    dy_rows = gradient.reshape(count, len(w))
    gained = dy_rows * gain
    back = gained @ b
    through = ((dy_rows * (gain - 1)) @ w).add_((back @ a).mul_(scale)).reshape(wide.shape)
    return DoraGradients(
        x=(dy_rows @ w).reshape(wide.shape).add_(dropped_share(through, factor, dropout)).to(x.dtype),
        lora_a=(back.T @ share).mul_(scale).to(lora_a.dtype),
        lora_b=(gained.T @ (share @ a.T)).mul_(scale).to(lora_b.dtype),
        magnitude=over_norms((dy_rows * (share @ merged.T)).sum(0), norms).to(magnitude.dtype),
        bias=dy_rows.sum(0),
    )


def output_gradient(dy: Tensor, expected: tuple[int, ...]) -> Tensor:
    """Return the gradient of an output as float32, after checking its shape."""
    return require_gradient(dy, expected).to(torch.float32)
