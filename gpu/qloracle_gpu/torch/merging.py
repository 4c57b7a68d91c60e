"""Merging an adapter into its weight, and taking it out again.

    W' = RN(W + s B A)        b' = RN(b + s b_B)        W = RN(W' − s B A)

Products and sums are float32; one rounding to the format of the weight ends them.
Clauses: ``[lora.merge]``, ``[lora.unmerge]``, ``[lora.merge_safe]``, ``[lora.merge_bias]``.
"""

import torch
from torch import Tensor

from qloracle.errors import reject_value, require_flag
from qloracle_gpu.torch.formats import require_tensor_format
from qloracle_gpu.torch.lora import lora_scale
from qloracle_gpu.torch.merge_operands import require_finite, stored_as, weight_and_change


def lora_merge(
    weight: Tensor,
    lora_a: Tensor,
    lora_b: Tensor,
    *,
    alpha: float,
    rank_stabilized: bool = False,
    fan_in_fan_out: bool = False,
    safe: bool = False,
) -> Tensor:
    """Merge an adapter into its weight.

    W' = RN(W + s B A), with (B A)ᵀ for a weight that is stored transposed.

    Parameters
    ----------
    weight : tensor of float32, float16 or bfloat16, shape (d_out, d_in)
        (d_in, d_out) with `fan_in_fan_out`.
    lora_a : tensor, likewise, shape (r, d_in)
    lora_b : tensor, likewise, shape (d_out, r)
    alpha : float
    rank_stabilized : bool
        Scale by alpha/√r instead of alpha/r.
    fan_in_fan_out : bool
        The weight is stored transposed, as an embedding's table and GPT-2's layers are.
    safe : bool
        Raise where the result is not finite, which waits for the device.

    Returns
    -------
    tensor of the weight's shape and dtype
        A new one; the weight is as it was.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If a dtype is none of the three, shapes do not belong together, or, with `safe`, an element of the merged weight
        is NaN or infinite.
    MatmulPrecisionError
        If torch is set to multiply float32 with fewer bits.

    Notes
    -----
    Clauses ``[lora.merge]``, ``[lora.merge_safe]``. Declared roundings: float32 throughout, then one to the format of
    the weight.

    Examples
    --------
    >>> column, row = torch.tensor([[1.0], [3.0]]), torch.tensor([[1.0, 2.0, 3.0]])
    >>> lora_merge(torch.zeros(2, 3), row, column, alpha=1)
    tensor([[1., 2., 3.],
            [3., 6., 9.]])
    """
    w, change = weight_and_change(
        weight, lora_a, lora_b, alpha=alpha, rank_stabilized=rank_stabilized, fan_in_fan_out=fan_in_fan_out
    )
    merged = stored_as(weight, change.add_(w), fan_in_fan_out=fan_in_fan_out)
    return require_finite(merged) if require_flag("safe", safe) else merged


def lora_unmerge(
    weight: Tensor,
    lora_a: Tensor,
    lora_b: Tensor,
    *,
    alpha: float,
    rank_stabilized: bool = False,
    fan_in_fan_out: bool = False,
) -> Tensor:
    """Take an adapter out of a merged weight.

    W = RN(W' − s B A).

    Parameters
    ----------
    weight : tensor
        The merged weight W', of the shape that `lora_merge` takes.
    lora_a, lora_b, alpha, rank_stabilized, fan_in_fan_out
        As for `lora_merge`.

    Returns
    -------
    tensor of the weight's shape and dtype
        Not always the weight before merging: what its rounding cut off is lost.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError, MatmulPrecisionError
        As `lora_merge`.

    Notes
    -----
    Clause ``[lora.unmerge]``. Declared roundings as for `lora_merge`.

    Examples
    --------
    >>> one = torch.ones(1, 1)
    >>> lora_unmerge(lora_merge(3 * one, one, 2 * one, alpha=16), one, 2 * one, alpha=16)
    tensor([[3.]])
    """
    w, change = weight_and_change(
        weight, lora_a, lora_b, alpha=alpha, rank_stabilized=rank_stabilized, fan_in_fan_out=fan_in_fan_out
    )
    return stored_as(weight, w - change, fan_in_fan_out=fan_in_fan_out)


def merge_bias(
    bias: Tensor,
    lora_bias: Tensor,
    *,
    alpha: float,
    rank: int,
    rank_stabilized: bool = False,
    unmerge: bool = False,
) -> Tensor:
    """Merge the bias of an adapter into the bias of its layer, or take it out again.

    b' = RN(b + s b_B); with `unmerge` b = RN(b' − s b_B).

    Parameters
    ----------
    bias, lora_bias : tensor of float32, float16 or bfloat16, shape (d_out,)
        The layer's bias is not scaled, the adapter's is.
    alpha, rank, rank_stabilized
        What the adapter is scaled by.
    unmerge : bool

    Returns
    -------
    tensor of the bias's shape and dtype

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If a dtype is none of the three, or the tensors are not vectors of one length.

    Notes
    -----
    Clause ``[lora.merge_bias]``. Declared roundings: the product and the sum to float32; to the format of the bias.

    Examples
    --------
    >>> merge_bias(torch.tensor([1.0]), torch.tensor([3.0]), alpha=32, rank=8)
    tensor([13.])
    """
    real = require_tensor_format("bias", bias).to(torch.float32)
    added = require_tensor_format("lora_bias", lora_bias).to(torch.float32)
    if real.ndim != 1:
        reject_value("bias", "1-d", f"{real.ndim}-d")
    if added.shape != real.shape:
        reject_value("lora_bias", f"of shape {tuple(real.shape)}", tuple(added.shape))
    scale = lora_scale(alpha, rank, rank_stabilized=rank_stabilized)
    return (real + added * (-scale if unmerge else scale)).to(bias.dtype)
