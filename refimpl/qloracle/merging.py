"""Merging an adapter into its weight, and taking it out again.

    W' = RN(W + s B A)        b' = RN(b + s b_B)        W = RN(W' − s B A)

An embedding's table (num_embeddings, dim) is merged as a weight that is stored transposed: with `fan_in_fan_out`, A of
shape (r, num_embeddings) and B of shape (dim, r). Of biases only the adapter's own, b_B, is merged; one that trained in
place (bias modes "all" and "lora_only") belongs to the base by then, and neither merging nor unmerging touches it.

Clauses: ``[lora.merge]``, ``[lora.unmerge]``, ``[lora.merge_safe]``, ``[lora.merge_bias]``.
Source: Hu et al. 2021, "LoRA", section 4.1; the ``merge`` and ``unmerge`` of the PEFT library.
"""

import numpy as np

from qloracle.errors import require_flag
from qloracle.formats import Array, format_of
from qloracle.lora import lora_scale
from qloracle.merge_operands import bias_operands, change_of, require_finite, rounded_sum


def lora_merge(
    weight: Array,
    lora_a: Array,
    lora_b: Array,
    *,
    alpha: float,
    rank_stabilized: bool = False,
    fan_in_fan_out: bool = False,
    fmt: str | None = None,
    safe: bool = False,
) -> Array:
    """Merge an adapter into its weight.

    W' = RN(W + s B A), with (B A)ᵀ for a weight that is stored transposed.

    Parameters
    ----------
    weight : array of float32, float16 or bfloat16, shape (d_out, d_in)
        (d_in, d_out) with `fan_in_fan_out`.
    lora_a : array, shape (r, d_in)
        A rank r above min(d_in, d_out) is legal: concatenated adapters have it.
    lora_b : array, shape (d_out, r)
    alpha : float
    rank_stabilized : bool
        Scale by alpha/√r instead of alpha/r.
    fan_in_fan_out : bool
        The weight is stored transposed, as an embedding's table and GPT-2's layers are.
    fmt : str, optional
        Format of those arrays that are given as bit patterns.
    safe : bool
        Raise where the result is not finite. The input is never modified: the caller still has the weight.

    Returns
    -------
    array of the weight's shape and format; bfloat16 as uint16 words
        The sum in float64, rounded to the format; `bounds_merge.lora_merge_bound` says which numbers are allowed.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If a dtype is none of the three, shapes do not belong together, or, with `safe`, an element of the merged weight
        is NaN or infinite.

    Notes
    -----
    Clauses ``[lora.merge]``, ``[lora.merge_safe]``. Rounding points of an implementation are declared by it; the last
    one is to the format of the weight.

    Examples
    --------
    >>> import numpy as np
    >>> weight, column, row = np.zeros((2, 3), np.float32), np.array([[1], [3]]), np.array([[1, 2, 3]])
    >>> lora_merge(weight, row.astype(np.float32), column.astype(np.float32), alpha=1)
    array([[1., 2., 3.],
           [3., 6., 9.]], dtype=float32)
    """
    change = change_of(weight, lora_a, lora_b, alpha=alpha, rank_stabilized=rank_stabilized,
                       fan_in_fan_out=fan_in_fan_out, fmt=fmt)  # fmt: skip
    name = format_of(weight, fmt, "weight").name
    merged = rounded_sum(weight, fmt, change, name, transpose=fan_in_fan_out)
    if require_flag("safe", safe):
        require_finite(merged, name, "the merged weight")
    return merged


def lora_unmerge(
    weight: Array,
    lora_a: Array,
    lora_b: Array,
    *,
    alpha: float,
    rank_stabilized: bool = False,
    fan_in_fan_out: bool = False,
    fmt: str | None = None,
) -> Array:
    """Take an adapter out of a merged weight.

    W = RN(W' − s B A).

    Parameters
    ----------
    weight : array of float32, float16 or bfloat16
        The merged weight W', of the shape that `lora_merge` takes.
    lora_a, lora_b, alpha, rank_stabilized, fan_in_fan_out, fmt
        As for `lora_merge`.

    Returns
    -------
    array of the weight's shape and format; bfloat16 as uint16 words
        Not always the weight before merging: what its rounding cut off is lost. `bounds_merge.merge_cycles_bound` says
        how far off a number of cycles may end.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        As `lora_merge`.

    Notes
    -----
    Clause ``[lora.unmerge]``. Rounding points as in `lora_merge`.

    Examples
    --------
    >>> import numpy as np
    >>> one = np.ones((1, 1), np.float32)
    >>> lora_unmerge(lora_merge(3 * one, one, 2 * one, alpha=16), one, 2 * one, alpha=16)
    array([[3.]], dtype=float32)
    """
    change = change_of(weight, lora_a, lora_b, alpha=alpha, rank_stabilized=rank_stabilized,
                       fan_in_fan_out=fan_in_fan_out, fmt=fmt)  # fmt: skip
    np.negative(change, out=change)
    name = format_of(weight, fmt, "weight").name
    return rounded_sum(weight, fmt, change, name, transpose=fan_in_fan_out)


def merge_bias(
    bias: Array,
    lora_bias: Array,
    *,
    alpha: float,
    rank: int,
    rank_stabilized: bool = False,
    fmt: str | None = None,
    unmerge: bool = False,
) -> Array:
    """Merge the bias of an adapter into the bias of its layer, or take it out again.

    b' = RN(b + s b_B); with `unmerge` b = RN(b' − s b_B).

    Parameters
    ----------
    bias, lora_bias : array of float32, float16 or bfloat16, shape (d_out,)
        Both scaled alike in no case: the layer's bias is not scaled, the adapter's is.
    alpha, rank, rank_stabilized
        What the adapter is scaled by.
    fmt : str, optional
        Format of those arrays that are given as bit patterns.
    unmerge : bool

    Returns
    -------
    array of the bias's shape and format; bfloat16 as uint16 words
        `bounds_merge.merge_bias_bound` says which numbers are allowed.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If a dtype is none of the three, or the arrays are not vectors of one length.

    Notes
    -----
    Clause ``[lora.merge_bias]``. The last rounding is to the format of the bias. Rounding points of an implementation:
    those of s·b_B and of the sum, then one to the format of the bias.

    Examples
    --------
    >>> import numpy as np
    >>> merge_bias(np.array([1], np.float32), np.array([3], np.float32), alpha=32, rank=8)
    array([13.], dtype=float32)
    """
    _, added = bias_operands(bias, lora_bias, fmt)
    scale = lora_scale(alpha, rank, rank_stabilized=rank_stabilized)
    with np.errstate(invalid="ignore", over="ignore"):
        change = (-scale if unmerge else scale) * added
    return rounded_sum(bias, fmt, change, format_of(bias, fmt, "bias").name)
