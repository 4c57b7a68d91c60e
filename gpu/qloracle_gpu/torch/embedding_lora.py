"""LoRA of an embedding: a frozen table of vectors and a trained low-rank correction of the rows that are looked up.

With a table W (d_num, d_dim), A (r, d_num), B (d_dim, r), s = alpha/r (rsLoRA: alpha/√r) and indices i of any shape:

    y  = W[i] + s Aᵀ[i] Bᵀ
    dB = s dyᵀ Aᵀ[i]        dAᵀ[t] = s Σ over all i = t of dy B

Operands widen to float32 exactly; products and sums are float32; one rounding to the output format ends it.
Clauses: ``[embedding.forward]``, ``[embedding.backward]``.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from qloracle.errors import reject_type, reject_value
from qloracle_gpu.torch.autocast import ignores_autocast
from qloracle_gpu.torch.compiling import compiles_as_operator
from qloracle_gpu.torch.dora import output_gradient
from qloracle_gpu.torch.formats import dtype_named, require_tensor
from qloracle_gpu.torch.lora import lora_scale
from qloracle_gpu.torch.matmul import require_float32_matmul
from qloracle_gpu.torch.merge_operands import matrix

INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


@dataclass(frozen=True)
class EmbeddingGradients:
    """Gradients of an embedding with LoRA; the frozen table and the indices have none."""

    lora_a: Tensor  # (r, d_num), in the dtype of A
    lora_b: Tensor  # (d_dim, r), in the dtype of B


@compiles_as_operator
@ignores_autocast
def embedding_lora_forward(
    ids: Tensor,
    weight: Tensor,
    lora_a: Tensor,
    lora_b: Tensor,
    *,
    alpha: float,
    rank_stabilized: bool = False,
    out_dtype: str | None = None,
) -> Tensor:
    """Look rows up in an embedding with a LoRA adapter.

    y = W[i] + s Aᵀ[i] Bᵀ

    Parameters
    ----------
    ids : tensor of int64, int32, int16, int8 or uint8, any shape
        Indices from 0 to d_num − 1.
    weight : tensor of float32, float16 or bfloat16, shape (d_num, d_dim)
    lora_a : tensor, likewise, shape (r, d_num)
    lora_b : tensor, likewise, shape (d_dim, r)
    alpha : float
    rank_stabilized : bool
        Scale by alpha/√r instead of alpha/r.
    out_dtype : {"float32", "float16", "bfloat16"}, optional
        Format of y; by default that of the table.

    Returns
    -------
    tensor of `out_dtype`, shape (*ids.shape, d_dim)
        Without gradient history; `embedding_lora_backward` gives the gradients.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If `ids` are no integers, a dtype is not float32, float16 or bfloat16, or shapes do not belong together; on a
        CPU also if an index leaves the table.
    MatmulPrecisionError
        If torch is set to multiply float32 with fewer bits.

    Notes
    -----
    Clause ``[embedding.forward]``. Negative indices do not count from the end. On other devices an index outside the
    table is the device's own assertion, because looking at the indices would wait for them. Declared roundings:
    float32 throughout; then one to `out_dtype`.

    Examples
    --------
    >>> table, a = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[10.0, 100.0]])
    >>> embedding_lora_forward(torch.tensor([1, 0]), table, a, torch.tensor([[1.0], [0.0]]), alpha=2)
    tensor([[203.,   4.],
            [ 21.,   2.]])
    """
    a, b = _adapter(weight, lora_a, lora_b)
    target = weight.dtype if out_dtype is None else dtype_named(out_dtype, "out_dtype")
    scale = lora_scale(alpha, len(a), rank_stabilized=rank_stabilized)
    index = checked_ids(ids, len(weight))
    require_float32_matmul()
    rows, low = _looked_up(index, weight.detach()), _looked_up(index, a.T)
    return rows.to(torch.float32).add((low @ b.T).mul_(scale)).to(target)


@compiles_as_operator
@ignores_autocast
def embedding_lora_backward(
    dy: Tensor,
    ids: Tensor,
    weight: Tensor,
    lora_a: Tensor,
    lora_b: Tensor,
    *,
    alpha: float,
    rank_stabilized: bool = False,
) -> EmbeddingGradients:
    """Differentiate `embedding_lora_forward`: gradients of A and B; the table is frozen.

    dB = s dyᵀ Aᵀ[i], dAᵀ[t] = s Σ over all i = t of dy B.

    Parameters
    ----------
    dy : tensor of float32, float16 or bfloat16, shape (*ids.shape, d_dim)
        Gradient of the output.
    ids, weight, lora_a, lora_b, alpha, rank_stabilized
        As given to `embedding_lora_forward`.

    Returns
    -------
    EmbeddingGradients

    Raises
    ------
    ArgumentTypeError, ArgumentValueError, MatmulPrecisionError
        As `embedding_lora_forward`, and if `dy` is not of shape (*ids.shape, d_dim).

    Notes
    -----
    Clause ``[embedding.backward]``. Declared roundings: float32 throughout; then one to the format of each gradient.
    Repeated indices are added by sorting them first, so that equal inputs give equal bits on every device.

    Examples
    --------
    >>> table, a = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[10.0, 100.0]])
    >>> dy, b = torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([[1.0], [0.0]])
    >>> embedding_lora_backward(dy, torch.tensor([1, 1]), table, a, b, alpha=2).lora_a
    tensor([[0., 4.]])
    """
    a, b = _adapter(weight, lora_a, lora_b)
    scale = lora_scale(alpha, len(a), rank_stabilized=rank_stabilized)
    index = checked_ids(ids, len(weight))
    rows = output_gradient(dy, (*index.shape, weight.shape[1])).reshape(-1, weight.shape[1])
    require_float32_matmul()
    flat = index.reshape(-1)
    scattered = torch.zeros_like(a.T, memory_format=torch.contiguous_format)
    # With accumulate=True torch sorts the indices on a GPU; index_add_ would add in the order of arrival.
    scattered.index_put_((flat,), rows @ b, accumulate=True)
    return EmbeddingGradients(
        lora_a=scattered.T.mul(scale).contiguous().to(lora_a.dtype),
        lora_b=(rows.T @ a.T[flat]).mul_(scale).to(lora_b.dtype),
    )


def _adapter(weight: Tensor, lora_a: Tensor, lora_b: Tensor) -> tuple[Tensor, Tensor]:
    """Return A and B as float32, after checking that they belong to the table, which is left as it is."""
    table, a, b = matrix("weight", weight[:0]), matrix("lora_a", lora_a), matrix("lora_b", lora_b)
    count, dimension = len(weight), table.shape[1]
    if a.shape[1] != count:
        reject_value("lora_a", f"of shape {(len(a), count)} for a table of shape {(count, dimension)}", tuple(a.shape))
    if b.shape != (dimension, len(a)):
        reject_value("lora_b", f"of shape {(dimension, len(a))}", tuple(b.shape))
    return a, b


def checked_ids(ids: Tensor, count: int) -> Tensor:
    """Return indices as int64, after checking that they are integers, and on a CPU from 0 to `count` − 1."""
    index = require_tensor("ids", ids)
    if index.dtype not in INTEGERS:
        reject_type("ids", "an integer tensor", index.dtype)
    wide = index.to(torch.int64)
    if wide.device.type == "cpu":
        outside = wide[(wide < 0) | (wide >= count)]
        if outside.numel():
            reject_value("ids", f"indices from 0 to {count - 1} for a table of {count} rows", int(outside[0]))
    return wide


def _looked_up(index: Tensor, table: Tensor) -> Tensor:
    return torch.nn.functional.embedding(index, table)
