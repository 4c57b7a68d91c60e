"""LoRA of an embedding: a frozen table of vectors and a trained low-rank correction of the rows that are looked up.

With a table W (d_num, d_dim), A (r, d_num), B (d_dim, r), s = alpha/r (rsLoRA: alpha/√r) and indices i of any shape:

    y  = W[i] + s Aᵀ[i] Bᵀ
    dB = s dyᵀ Aᵀ[i]        dAᵀ[t] = s Σ over all i = t of dy B

Operands widen to float32 exactly; products are float32, sums over one index float64; one rounding to the output format
ends it. Clauses: ``[embedding.forward]``, ``[embedding.backward]``.
"""

from dataclasses import dataclass

import numpy as np

from qloracle.errors import reject_type, reject_value
from qloracle.formats import Format
from qloracle_gpu.cupy.arrays import carrier, flat_items, flat_words
from qloracle_gpu.cupy.launcher import Array, Operation, operation, require_array
from qloracle_gpu.cupy.lora import combined, product
from qloracle_gpu.cupy.operands import (
    lora_scale,
    matrix,
    output_format,
    require_gradient,
    require_matrix_operand,
    scaled,
)

Operand = tuple[Array, Format]


@dataclass(frozen=True)
class EmbeddingGradients:
    """Gradients of an embedding with LoRA; the frozen table and the indices have none."""

    lora_a: Array  # (r, d_num), in the format of A
    lora_b: Array  # (d_dim, r), in the format of B


def embedding_lora_forward(
    ids: Array, weight: Array, lora_a: Array, lora_b: Array, *, alpha: float, rank_stabilized: bool = False,
    out_dtype: str | None = None, fmt: str | None = None,
) -> Array:  # fmt: skip
    """Look rows up in an embedding with a LoRA adapter.

    y = W[i] + s Aᵀ[i] Bᵀ

    Parameters
    ----------
    ids : array of any integer dtype, any shape
        Indices from 0 to d_num − 1. Looking at them waits for the device.
    weight : array of float32, float16 or bfloat16, shape (d_num, d_dim)
    lora_a : array, likewise, shape (r, d_num)
    lora_b : array, likewise, shape (d_dim, r)
    alpha : float
    rank_stabilized : bool
        Scale by alpha/√r instead of alpha/r.
    out_dtype : {"float32", "float16", "bfloat16"}, optional
        Format of y; by default that of the table.
    fmt : str, optional
        Format of operands given as bit patterns.

    Returns
    -------
    array of `out_dtype`, shape (*ids.shape, d_dim)

    Raises
    ------
    ArgumentTypeError, ArgumentValueError, MatmulPrecisionError
        If `ids` are no integers or leave the table, a dtype is not float32, float16 or bfloat16, or shapes do not
        belong together.

    Notes
    -----
    Clause ``[embedding.forward]``. Negative indices do not count from the end. Declared roundings: float32 throughout;
    then one to `out_dtype`.
    """
    table, a, b = _operands(weight, lora_a, lora_b, fmt)
    target, (count, width), rank = output_format(out_dtype, table[1]), table[0].shape, len(a[0])
    scale = lora_scale(alpha, rank, rank_stabilized=rank_stabilized)
    index = checked_ids(ids, count)
    with operation("embedding_lora_forward", ids=index, weight=table[0], lora_b=b[0]) as run:
        flat = _flat_ids(run, index)
        rows, low = _looked_up(run, flat, table, width, width, 1), _looked_up(run, flat, a, rank, 1, count)
        change = product(run, low, matrix(run, b, width, rank).T)
        return combined(run, rows, target, low=change, scale=scale).reshape(*index.shape, width)


def embedding_lora_backward(
    dy: Array, ids: Array, weight: Array, lora_a: Array, lora_b: Array, *, alpha: float,
    rank_stabilized: bool = False, fmt: str | None = None,
) -> EmbeddingGradients:  # fmt: skip
    """Differentiate `embedding_lora_forward`: gradients of A and B; the table is frozen.

    dB = s dyᵀ Aᵀ[i], dAᵀ[t] = s Σ over all i = t of dy B.

    Parameters
    ----------
    dy : array of float32, float16 or bfloat16, shape (*ids.shape, d_dim)
        Gradient of the output.
    ids, weight, lora_a, lora_b, alpha, rank_stabilized, fmt
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
    Occurrences are sorted by index and added in the order of their positions, so that equal inputs give equal bits.
    """
    table, a, b = _operands(weight, lora_a, lora_b, fmt)
    (count, width), rank = table[0].shape, len(a[0])
    scale = lora_scale(alpha, rank, rank_stabilized=rank_stabilized)
    index = checked_ids(ids, count)
    gradient = require_gradient(dy, (*index.shape, width), fmt)
    with operation("embedding_lora_backward", dy=gradient[0], ids=index, weight=table[0]) as run:
        flat, rows = _flat_ids(run, index), matrix(run, gradient, index.size, width)
        back = product(run, rows, matrix(run, b, width, rank))
        looked_up = _looked_up(run, flat, a, rank, 1, count)
        return EmbeddingGradients(
            lora_a=_gathered(run, flat, back, count, scale, a[1]),
            lora_b=scaled(run, product(run, rows.T, looked_up), scale, b[1]),
        )


def _operands(weight: object, lora_a: object, lora_b: object, fmt: str | None) -> tuple[Operand, Operand, Operand]:
    """Return table, A and B after checking that their shapes belong together."""
    named = (("weight", weight), ("lora_a", lora_a), ("lora_b", lora_b))
    table, a, b = (require_matrix_operand(argument, value, fmt) for argument, value in named)
    (count, width), rank = table[0].shape, len(a[0])
    if a[0].shape != (rank, count):
        reject_value("lora_a", f"of shape {(rank, count)} for a table of shape {table[0].shape}", a[0].shape)
    if b[0].shape != (width, rank):
        reject_value("lora_b", f"of shape {(width, rank)}", b[0].shape)
    return table, a, b


def checked_ids(ids: object, count: int) -> Array:
    """Return indices after checking that they are integers from 0 to `count` − 1."""
    index = require_array("ids", ids)
    if index.dtype.kind not in "iu":
        reject_type("ids", "an integer array", index.dtype)
    with operation("checked_ids", ids=index):
        wrong = ((index < 0) | (index >= count)).reshape(-1)
        if wrong.size and bool(wrong.any()):
            first = int(index.reshape(-1)[int(wrong.argmax())])
            reject_value("ids", f"indices from 0 to {count - 1} for a table of {count} rows", first)
    return index


def _flat_ids(run: Operation, index: Array) -> Array:
    return flat_items(run, index if index.dtype == np.int64 else index.astype("int64"))


def _looked_up(run: Operation, ids: Array, table: Operand, width: int, step: int, pitch: int) -> Array:
    """Return float32 lines of a table: their items lie `pitch` apart and begin at index · step."""
    out = run.empty((ids.size, width), "float32")
    layout = map(np.int64, (step, pitch))
    arguments = (ids, np.int64(out.size), np.int64(max(width, 1)), flat_words(run, table[0]), *layout, out)
    run.launch("embedding", f"look_up_{table[1].name}", out.size, arguments)
    return out


def _gathered(run: Operation, ids: Array, rows: Array, count: int, scale: np.float32, target: Format) -> Array:
    """Return RN_target(scale·Σ of the rows of each index), one column for each index."""
    size, width = rows.shape
    keys, out = run.empty(size, "int64"), run.empty((width, count), carrier(target))
    run.launch("embedding", "occurrence_keys", size, (ids, np.int64(size), keys))
    arguments = (run.sort(keys), np.int64(size), rows, np.int64(count), np.int64(width), scale, out)
    run.launch("embedding", f"gather_rows_{target.name}", 32 * count if width else 0, arguments)
    return out
