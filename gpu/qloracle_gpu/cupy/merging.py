"""Merging an adapter into its weight, and taking it out again.

    W' = RN(W + s B A)        b' = RN(b + s b_B)        W = RN(W' − s B A)

Products and sums are float32; one rounding to the format of the weight ends them.
Clauses: ``[lora.merge]``, ``[lora.unmerge]``, ``[lora.merge_safe]``, ``[lora.merge_bias]``.
"""

import numpy as np

from qloracle.errors import reject_value, require_flag
from qloracle_gpu.cupy.launcher import Array, operation
from qloracle_gpu.cupy.lora import product
from qloracle_gpu.cupy.merge_operands import MergeOperands, merge_operands, require_finite, rounded_sum
from qloracle_gpu.cupy.operands import lora_scale, require_operand
from qloracle_gpu.cupy.rounding import widened


def lora_merge(
    weight: Array, lora_a: Array, lora_b: Array, *, alpha: float, rank_stabilized: bool = False,
    fan_in_fan_out: bool = False, fmt: str | None = None, safe: bool = False,
) -> Array:  # fmt: skip
    """Merge an adapter into its weight.

    W' = RN(W + s B A), with (B A)ᵀ for a weight that is stored transposed.

    Parameters
    ----------
    weight : array of float32, float16 or bfloat16, shape (d_out, d_in)
        (d_in, d_out) with `fan_in_fan_out`.
    lora_a : array, likewise, shape (r, d_in)
    lora_b : array, likewise, shape (d_out, r)
    alpha : float
    rank_stabilized : bool
        Scale by alpha/√r instead of alpha/r.
    fan_in_fan_out : bool
        The weight is stored transposed, as an embedding's table and GPT-2's layers are.
    fmt : str, optional
        Format of those arrays that are given as bit patterns.
    safe : bool
        Raise where the result is not finite, which waits for the device.

    Returns
    -------
    array of the weight's shape and format; bfloat16 as uint16 words
        A new one; the weight is as it was.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If a dtype is none of the three, shapes do not belong together, or, with `safe`, an element of the merged weight
        is NaN or infinite.
    MatmulPrecisionError
        If CuPy is set to multiply float32 with fewer bits.

    Notes
    -----
    Clauses ``[lora.merge]``, ``[lora.merge_safe]``. Declared roundings: float32 throughout, then one to the format of
    the weight.
    """
    given = merge_operands(weight, lora_a, lora_b, fan_in_fan_out=fan_in_fan_out, fmt=fmt)
    scale = lora_scale(alpha, given.rank, rank_stabilized=rank_stabilized)
    return _changed("lora_merge", given, scale, safe=require_flag("safe", safe))


def lora_unmerge(
    weight: Array, lora_a: Array, lora_b: Array, *, alpha: float, rank_stabilized: bool = False,
    fan_in_fan_out: bool = False, fmt: str | None = None,
) -> Array:  # fmt: skip
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
        Not always the weight before merging: what its rounding cut off is lost.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError, MatmulPrecisionError
        As `lora_merge`.

    Notes
    -----
    Clause ``[lora.unmerge]``. Declared roundings as for `lora_merge`.
    """
    given = merge_operands(weight, lora_a, lora_b, fan_in_fan_out=fan_in_fan_out, fmt=fmt)
    scale = lora_scale(alpha, given.rank, rank_stabilized=rank_stabilized)
    return _changed("lora_unmerge", given, -scale, safe=False)


def _changed(name: str, given: MergeOperands, scale: np.float32, *, safe: bool) -> Array:
    """Return RN(W + scale·B A) for the operation called `name`."""
    with operation(name, weight=given.weight[0], lora_a=given.lora_a[0], lora_b=given.lora_b[0]) as run:
        a, b = given.factors(run)
        low = product(run, a.T, b.T) if given.fan_in_fan_out else product(run, b, a)
        merged = rounded_sum(run, given.weight, low, scale)
        return require_finite(run, merged, given.weight[1]) if safe else merged


def merge_bias(
    bias: Array, lora_bias: Array, *, alpha: float, rank: int, rank_stabilized: bool = False, fmt: str | None = None,
    unmerge: bool = False,
) -> Array:  # fmt: skip
    """Merge the bias of an adapter into the bias of its layer, or take it out again.

    b' = RN(b + s b_B); with `unmerge` b = RN(b' − s b_B).

    Parameters
    ----------
    bias, lora_bias : array of float32, float16 or bfloat16, shape (d_out,)
        The layer's bias is not scaled, the adapter's is.
    alpha, rank, rank_stabilized
        What the adapter is scaled by.
    fmt : str, optional
        Format of those arrays that are given as bit patterns.
    unmerge : bool

    Returns
    -------
    array of the bias's shape and format; bfloat16 as uint16 words

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If a dtype is none of the three, or the arrays are not vectors of one length.

    Notes
    -----
    Clause ``[lora.merge_bias]``. Declared roundings: the product and the sum to float32; to the format of the bias.
    """
    own, added = require_operand("bias", bias, fmt), require_operand("lora_bias", lora_bias, fmt)
    if own[0].ndim != 1:
        reject_value("bias", "1-d", f"{own[0].ndim}-d")
    if added[0].shape != own[0].shape:
        reject_value("lora_bias", f"of shape {own[0].shape}", added[0].shape)
    scale = lora_scale(alpha, rank, rank_stabilized=rank_stabilized)
    with operation("merge_bias", bias=own[0], lora_bias=added[0]) as run:
        return rounded_sum(run, own, widened(run, *added), -scale if unmerge else scale)
