"""LoRA of an embedding: a frozen table of vectors and a trained low-rank correction of the rows that are looked up.

With a table W (d_num, d_dim), A (r, d_num), B (d_dim, r), s = alpha/r (rsLoRA: alpha/√r) and indices i of any shape:

    y  = W[i] + s Aᵀ[i] Bᵀ
    dB = s dyᵀ Aᵀ[i]        dAᵀ[t] = s Σ over all i = t of dy B

An index that occurs several times adds up all its gradients; one that does not occur has gradient 0. There is no
dropout and no bias. Clauses: ``[embedding.forward]``, ``[embedding.backward]``.
Source: Hu et al. 2021, "LoRA", section 4.1, with a one-hot x; the PEFT library's embedding layer.
"""

from dataclasses import dataclass

import numpy as np

from qloracle.errors import reject_type, reject_value
from qloracle.formats import Array
from qloracle.lora import lora_scale
from qloracle.operands import as_rows, real_gradient, real_matrix


@dataclass(frozen=True)
class EmbeddingGradients:
    """Gradients of an embedding with LoRA; the frozen table and the indices have none."""

    lora_a: Array  # (r, d_num)
    lora_b: Array  # (d_dim, r)


def embedding_lora_forward(
    ids: Array, weight: Array, lora_a: Array, lora_b: Array, *, alpha: float, rank_stabilized: bool = False
) -> Array:
    """Look rows up in an embedding with a LoRA adapter.

    y = W[i] + s Aᵀ[i] Bᵀ

    Parameters
    ----------
    ids : array of any integer dtype, any shape
        Indices from 0 to d_num − 1.
    weight : array, shape (d_num, d_dim)
    lora_a : array, shape (r, d_num)
    lora_b : array, shape (d_dim, r)
    alpha : float
    rank_stabilized : bool
        Scale by alpha/√r instead of alpha/r.

    Returns
    -------
    array of float64, shape (*ids.shape, d_dim)
        The real value up to float64 rounding; `bounds.embedding_lora_forward_bound` says which outputs are allowed.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If `ids` are no integers or leave the table, a dtype is not float32, float16 or bfloat16, or shapes do not
        belong together.

    Notes
    -----
    Clause ``[embedding.forward]``. Negative indices do not count from the end. Rounding points of an implementation are
    declared by it, see `bounds.Roundings`.

    Examples
    --------
    >>> table, a = np.array([[1, 2], [3, 4]], np.float32), np.array([[10, 100]], np.float32)
    >>> embedding_lora_forward(np.array([1, 1, 0]), table, a, np.array([[1], [0]], np.float32), alpha=2)
    array([[203.,   4.],
           [203.,   4.],
           [ 21.,   2.]])
    """
    w64, a64, b64 = embedding_operands(weight, lora_a, lora_b)
    scale = lora_scale(alpha, len(a64), rank_stabilized=rank_stabilized)
    index = checked_ids(ids, len(w64))
    with np.errstate(invalid="ignore", over="ignore"):
        y: Array = w64[index] + scale * (a64.T[index] @ b64.T)
    return y


def embedding_lora_backward(
    dy: Array,
    ids: Array,
    weight: Array,
    lora_a: Array,
    lora_b: Array,
    *,
    alpha: float,
    rank_stabilized: bool = False,
) -> EmbeddingGradients:
    """Differentiate `embedding_lora_forward`: gradients of A and B; the table is frozen.

    dB = s dyᵀ Aᵀ[i], dAᵀ[t] = s Σ over all i = t of dy B.

    Parameters
    ----------
    dy : array, shape (*ids.shape, d_dim)
        Gradient of the output.
    ids, weight, lora_a, lora_b, alpha, rank_stabilized
        As given to `embedding_lora_forward`.

    Returns
    -------
    EmbeddingGradients
        Arrays of float64; `bounds.embedding_lora_backward_bound` says which outputs are allowed.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        As `embedding_lora_forward`, and if `dy` is not of shape (*ids.shape, d_dim).

    Notes
    -----
    Clause ``[embedding.backward]``. Rounding points of an implementation are declared by it, see `bounds.Roundings`.

    Examples
    --------
    >>> table, a = np.array([[1, 2], [3, 4]], np.float32), np.array([[10, 100]], np.float32)
    >>> dy = np.array([[1, 0], [1, 0], [1, 0]], np.float32)
    >>> embedding_lora_backward(dy, np.array([1, 1, 0]), table, a, np.array([[1], [0]], np.float32), alpha=2)
    EmbeddingGradients(lora_a=array([[2., 4.]]), lora_b=array([[420.],
           [  0.]]))
    """
    w64, a64, b64 = embedding_operands(weight, lora_a, lora_b)
    scale = lora_scale(alpha, len(a64), rank_stabilized=rank_stabilized)
    index = checked_ids(ids, len(w64))
    rows = as_rows(real_gradient(dy, (*index.shape, w64.shape[1])))
    scattered = np.zeros(a64.T.shape)
    with np.errstate(invalid="ignore", over="ignore"):
        np.add.at(scattered, index.reshape(-1), rows @ b64)
        return EmbeddingGradients(
            lora_a=scale * scattered.T, lora_b=scale * (rows.T @ a64.T[index.reshape(-1)].reshape(-1, len(a64)))
        )


def embedding_operands(weight: Array, lora_a: Array, lora_b: Array) -> tuple[Array, Array, Array]:
    """Return table, A and B as float64, after checking that their shapes belong together."""
    w64, a64, b64 = (
        real_matrix(array, name) for name, array in (("weight", weight), ("lora_a", lora_a), ("lora_b", lora_b))
    )
    rank, count, dimension = len(a64), *w64.shape
    if a64.shape != (rank, count):
        reject_value("lora_a", f"of shape {(rank, count)} for a table of shape {w64.shape}", a64.shape)
    if b64.shape != (dimension, rank):
        reject_value("lora_b", f"of shape {(dimension, rank)}", b64.shape)
    return w64, a64, b64


def checked_ids(ids: Array, count: int) -> Array:
    """Return indices as int64, after checking that they are integers from 0 to `count` − 1."""
    dtype = getattr(ids, "dtype", None)
    if not isinstance(dtype, np.dtype) or dtype.kind not in "iu":
        reject_type("ids", "an integer array", dtype or type(ids).__name__)
    index = np.asarray(ids)
    outside = index[(index < 0) | (index >= count)]
    if outside.size:
        reject_value("ids", f"indices from 0 to {count - 1} for a table of {count} rows", int(outside[0]))
    return index.astype(np.int64)
