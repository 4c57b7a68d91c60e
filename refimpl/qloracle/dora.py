"""DoRA: a LoRA layer whose merged rows are brought to trained magnitudes, forward and backward.

With V = W + s B A, its row norms n = √(Σ_k V_k²), a magnitude m for each output, g = m/n (0 where n = 0), and x_d as in
`lora`:

    y  = x Wᵀ + b + (g − 1)∘(x_d Wᵀ) + g∘s (x_d Aᵀ) Bᵀ
    dB = s (dy∘g)ᵀ (x_d Aᵀ)        dA = s ((dy∘g) B)ᵀ x_d        db = Σ dy        dm = Σ dy∘(x_d Vᵀ)/n
    dx = dy W + mask/(1 − p)·[(dy∘(g − 1)) W + s ((dy∘g) B) A], and dy W for p = 1

The norm is detached: in the gradients n is a constant, so that g is one with regard to A and B. A row of V that is 0
has g = 0 and no gradient of its magnitude. The norm is a real number: no square of it can overflow or underflow.
Clauses: ``[dora.norm]``, ``[dora.forward]``, ``[dora.backward]``.
Sources: Liu et al. 2024, "DoRA", sections 4.1 and 4.3 (the detached norm); the form of y under dropout is the one of
the PEFT library, in which the base is never dropped.
"""

from dataclasses import dataclass

import numpy as np

from qloracle.formats import Array
from qloracle.lora import dropout_factor, lora_scale
from qloracle.operands import as_rows, dropped, real_gradient, real_operands, real_vector, real_weight


@dataclass(frozen=True)
class DoraGradients:
    """Gradients of a DoRA layer; the frozen weight has none."""

    x: Array  # (..., d_in)
    lora_a: Array  # (r, d_in)
    lora_b: Array  # (d_out, r)
    magnitude: Array  # (d_out,)
    bias: Array  # (d_out,)


def dora_norm(
    weight: Array,
    lora_a: Array,
    lora_b: Array,
    *,
    alpha: float,
    rank_stabilized: bool = False,
    fan_in_fan_out: bool = False,
) -> Array:
    """Return the norm of every row of the merged weight: n = √(Σ_k (W + s B A)_k²).

    At the start of training the magnitudes are these norms, so that the layer is the base.

    Parameters
    ----------
    weight : array, shape (d_out, d_in), or (d_in, d_out) with `fan_in_fan_out`
    lora_a : array, shape (r, d_in)
    lora_b : array, shape (d_out, r)
    alpha, rank_stabilized, fan_in_fan_out
        As for `lora_forward`.

    Returns
    -------
    array of float64, shape (d_out,)
        The real value up to float64 rounding.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        As `lora_forward`.

    Notes
    -----
    Clause ``[dora.norm]``. A norm is taken over what an output adds up, whatever way round the weight is stored.

    Examples
    --------
    >>> a, b = np.array([[1, 0]], np.float32), np.array([[3], [0]], np.float32)
    >>> dora_norm(np.array([[0, 4], [0, 0]], np.float32), a, b, alpha=1)
    array([5., 0.])
    """
    d_in = real_weight(weight, fan_in_fan_out=fan_in_fan_out).shape[1]
    no_rows = np.zeros((0, d_in), np.float32)
    _, w64, a64, b64 = real_operands(no_rows, weight, lora_a, lora_b, fan_in_fan_out=fan_in_fan_out)
    return row_norms(merged_rows(w64, a64, b64, lora_scale(alpha, len(a64), rank_stabilized=rank_stabilized)))


def merged_rows(weight: Array, lora_a: Array, lora_b: Array, scale: float) -> Array:
    """Return V = W + s B A of float64 matrices."""
    with np.errstate(invalid="ignore", over="ignore"):
        rows: Array = lora_b @ lora_a
        return np.add(np.multiply(rows, scale, out=rows), weight, out=rows)


def row_norms(rows: Array) -> Array:
    """Return √(Σ_k V_k²) of every row, scaled by a power of two on the way, which changes no bit."""
    largest = np.max(np.abs(rows), axis=1, initial=0.0)
    exponent = np.frexp(np.where(np.isfinite(largest), largest, 1.0))[1]
    with np.errstate(invalid="ignore"):
        squares = np.ldexp(rows, -exponent[:, np.newaxis])
        np.square(squares, out=squares)
        norms: Array = np.ldexp(np.sqrt(np.sum(squares, axis=1)), exponent)
    return norms


def over_norms(values: Array, norms: Array) -> Array:
    """Return values/n, 0 where n = 0."""
    with np.errstate(invalid="ignore"):
        return np.where(norms == 0, 0.0, values / np.where(norms == 0, 1.0, norms))


def dora_forward(
    x: Array,
    weight: Array,
    lora_a: Array,
    lora_b: Array,
    magnitude: Array,
    *,
    alpha: float,
    bias: Array | None = None,
    mask: Array | None = None,
    dropout: float = 0.0,
    rank_stabilized: bool = False,
    fan_in_fan_out: bool = False,
) -> Array:
    """Apply a linear layer with a DoRA adapter.

    y = x Wᵀ + b + (g − 1)∘(x_d Wᵀ) + g∘s (x_d Aᵀ) Bᵀ, g = m/n, 0 where n = 0

    Parameters
    ----------
    x, weight, lora_a, lora_b, alpha, bias, mask, dropout, rank_stabilized, fan_in_fan_out
        As for `lora_forward`.
    magnitude : array, shape (d_out,)
        The trained magnitude m of each output.

    Returns
    -------
    array of float64, shape (..., d_out)
        The real value up to float64 rounding; `bounds.dora_forward_bound` says which outputs are allowed.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        As `lora_forward`, and if `magnitude` is not of shape (d_out,).

    Notes
    -----
    Clauses ``[dora.norm]``, ``[dora.forward]``. Only the adapter's share of x is dropped. Finite operands never give
    NaN, for a scale that is 0 or at least 2^−149 in magnitude. Rounding points of an implementation are declared by it,
    see `bounds.Roundings`.

    Examples
    --------
    >>> a, b = np.array([[1, 0]], np.float32), np.array([[3], [0]], np.float32)
    >>> w, m = np.array([[0, 4], [0, 0]], np.float32), np.array([10, 7], np.float32)
    >>> dora_forward(np.array([[1, 1]], np.float32), w, a, b, m, alpha=1)
    array([[14.,  0.]])
    """
    x64, w64, a64, b64 = real_operands(x, weight, lora_a, lora_b, fan_in_fan_out=fan_in_fan_out)
    scale = lora_scale(alpha, len(a64), rank_stabilized=rank_stabilized)
    share = dropped(x64, dropout_factor(mask, dropout, x64.shape), dropout)
    gain = over_norms(real_vector(magnitude, len(w64), "magnitude"), row_norms(merged_rows(w64, a64, b64, scale)))
    offset = 0.0 if bias is None else real_vector(bias, len(w64), "bias")
    with np.errstate(invalid="ignore", over="ignore"):
        adapter = scale * ((share @ a64.T) @ b64.T)
        y: Array = x64 @ w64.T + (gain - 1) * (share @ w64.T) + gain * adapter + offset
    return y


def dora_backward(
    dy: Array,
    x: Array,
    weight: Array,
    lora_a: Array,
    lora_b: Array,
    magnitude: Array,
    *,
    alpha: float,
    mask: Array | None = None,
    dropout: float = 0.0,
    rank_stabilized: bool = False,
    fan_in_fan_out: bool = False,
) -> DoraGradients:
    """Differentiate `dora_forward` with the norm detached: gradients of x, A, B, the magnitude and the bias.

    Parameters
    ----------
    dy : array, shape (..., d_out)
        Gradient of the output.
    x, weight, lora_a, lora_b, magnitude, alpha, mask, dropout, rank_stabilized, fan_in_fan_out
        As given to `dora_forward`; the mask is the same one.

    Returns
    -------
    DoraGradients
        Arrays of float64; `bounds.dora_backward_bound` says which outputs are allowed.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        As `dora_forward`, and if `dy` is not of shape (..., d_out).

    Notes
    -----
    Clause ``[dora.backward]``. The formulas stand at the head of this module. Rounding points of an implementation are
    declared by it, see `bounds.Roundings`.

    Examples
    --------
    >>> a, b = np.array([[1, 0]], np.float32), np.array([[3], [0]], np.float32)
    >>> w, m = np.array([[0, 4], [0, 0]], np.float32), np.array([10, 7], np.float32)
    >>> one = np.ones((1, 2), np.float32)
    >>> gradients = dora_backward(one, one, w, a, b, m, alpha=1)
    >>> gradients.x, gradients.magnitude
    (array([[6., 8.]]), array([1.4, 0. ]))
    """
    x64, w64, a64, b64 = real_operands(x, weight, lora_a, lora_b, fan_in_fan_out=fan_in_fan_out)
    dy64 = real_gradient(dy, (*x64.shape[:-1], len(w64)))
    scale = lora_scale(alpha, len(a64), rank_stabilized=rank_stabilized)
    factor = dropout_factor(mask, dropout, x64.shape)
    merged = merged_rows(w64, a64, b64, scale)
    norms = row_norms(merged)
    gain = over_norms(real_vector(magnitude, len(w64), "magnitude"), norms)
    with np.errstate(invalid="ignore", over="ignore"):
        rows, dy_rows, gained = as_rows(dropped(x64, factor, dropout)), as_rows(dy64), dy64 * gain
        back = gained @ b64
        return DoraGradients(
            x=dy64 @ w64 + dropped((dy64 * (gain - 1)) @ w64 + scale * (back @ a64), factor, dropout),
            lora_a=scale * (as_rows(back).T @ rows),
            lora_b=scale * (as_rows(gained).T @ (rows @ a64.T)),
            magnitude=over_norms((dy_rows * (rows @ merged.T)).sum(axis=0), norms),
            bias=dy_rows.sum(axis=0),
        )
