"""Merging a DoRA adapter into its weight, and taking it out again.

With V = W + s B A, its row norms n, and g = m/n (0 where n = 0), all of `dora`:

    W' = RN(g∘V)        W = RN((n/m)∘W' − s B A), with n/m = 0 where n = 0

The norms belong to the unmerged weight: merging returns them, unmerging takes them.
Clauses: ``[dora.merge]``, ``[dora.unmerge]``.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from qloracle.errors import reject_value, require_flag, require_record
from qloracle_gpu.torch.dora import gains, row_norms
from qloracle_gpu.torch.formats import require_tensor_format
from qloracle_gpu.torch.merge_operands import require_finite, stored_as, weight_and_change


@dataclass(frozen=True)
class MergedDora:
    """A merged weight, and what unmerging it needs."""

    weight: Tensor  # of the shape and dtype of the weight
    norms: Tensor  # float32, (d_out,): the row norms of W + s B A


def dora_merge(
    weight: Tensor,
    lora_a: Tensor,
    lora_b: Tensor,
    magnitude: Tensor,
    *,
    alpha: float,
    rank_stabilized: bool = False,
    fan_in_fan_out: bool = False,
    safe: bool = False,
) -> MergedDora:
    """Merge a DoRA adapter into its weight.

    W' = RN(g∘(W + s B A)), g = m/n, 0 where n = 0.

    Parameters
    ----------
    weight, lora_a, lora_b, alpha, rank_stabilized, fan_in_fan_out, safe
        As for `lora_merge`. With `fan_in_fan_out` a norm is that of a column of what is stored.
    magnitude : tensor of float32, float16 or bfloat16, shape (d_out,)

    Returns
    -------
    MergedDora

    Raises
    ------
    ArgumentTypeError, ArgumentValueError, MatmulPrecisionError
        As `lora_merge`, and if `magnitude` is not of shape (d_out,).

    Notes
    -----
    Clause ``[dora.merge]``. Declared roundings: float32 throughout, then one to the format of the weight.

    Examples
    --------
    >>> a, b = torch.tensor([[1.0, 0.0]]), torch.tensor([[3.0], [0.0]])
    >>> w, m = torch.tensor([[0.0, 4.0], [0.0, 0.0]]), torch.tensor([10.0, 7.0])
    >>> merged = dora_merge(w, a, b, m, alpha=1)
    >>> merged.weight.tolist(), merged.norms.tolist()
    ([[6.0, 8.0], [0.0, 0.0]], [5.0, 0.0])
    """
    w, change = weight_and_change(
        weight, lora_a, lora_b, alpha=alpha, rank_stabilized=rank_stabilized, fan_in_fan_out=fan_in_fan_out
    )
    m = magnitudes(magnitude, len(w))
    rows = change.add_(w)
    norms = row_norms(rows)
    merged = stored_as(weight, rows.mul_(gains(m, norms)[:, None]), fan_in_fan_out=fan_in_fan_out)
    return MergedDora(require_finite(merged) if require_flag("safe", safe) else merged, norms)


def dora_unmerge(
    merged: MergedDora,
    lora_a: Tensor,
    lora_b: Tensor,
    magnitude: Tensor,
    *,
    alpha: float,
    rank_stabilized: bool = False,
    fan_in_fan_out: bool = False,
) -> Tensor:
    """Take a DoRA adapter out of a merged weight.

    W = RN((n/m)∘W' − s B A), with n/m = 0 where n = 0.

    Parameters
    ----------
    merged : MergedDora
        As `dora_merge` returned it: the norms are not those of the merged weight.
    lora_a, lora_b, magnitude, alpha, rank_stabilized, fan_in_fan_out
        As for `dora_merge`.

    Returns
    -------
    tensor of the weight's shape and dtype

    Raises
    ------
    ArgumentTypeError, ArgumentValueError, MatmulPrecisionError
        As `dora_merge`, and if the norms are not of shape (d_out,), or a magnitude is 0 where the norm is not: that row
        was merged to zeros, and nothing of it is left.

    Notes
    -----
    Clause ``[dora.unmerge]``. Declared roundings as for `dora_merge`.

    Examples
    --------
    >>> a, b = torch.tensor([[1.0, 0.0]]), torch.tensor([[3.0], [0.0]])
    >>> w, m = torch.tensor([[0.0, 4.0], [0.0, 0.0]]), torch.tensor([10.0, 7.0])
    >>> dora_unmerge(dora_merge(w, a, b, m, alpha=1), a, b, m, alpha=1).tolist()
    [[0.0, 4.0], [0.0, 0.0]]
    """
    require_record("merged", merged, MergedDora)
    w, change = weight_and_change(
        merged.weight, lora_a, lora_b, alpha=alpha, rank_stabilized=rank_stabilized, fan_in_fan_out=fan_in_fan_out
    )
    factor = unmerge_factor(merged.norms, magnitude, len(w))
    return stored_as(merged.weight, w * factor[:, None] - change, fan_in_fan_out=fan_in_fan_out)


def magnitudes(magnitude: Tensor, d_out: int) -> Tensor:
    """Return the magnitudes as float32, after checking their shape."""
    wide = require_tensor_format("magnitude", magnitude).to(torch.float32)
    if wide.shape != (d_out,):
        reject_value("magnitude", f"of shape ({d_out},)", tuple(wide.shape))
    return wide


def unmerge_factor(norms: Tensor, magnitude: Tensor, d_out: int) -> Tensor:
    """Return n/m as float32, 0 where n = 0; a magnitude of 0 against another norm is refused."""
    n, m = require_tensor_format("norms", norms).to(torch.float32), magnitudes(magnitude, d_out)
    if n.shape != (d_out,):
        reject_value("norms", f"of shape ({d_out},)", tuple(n.shape))
    lost = ((m == 0) & (n != 0)).nonzero()
    if len(lost):
        reject_value("magnitude", "not 0 where the norm is not, to be unmerged", f"0 at {lost[0].item()}")
    return (n / m.masked_fill(m == 0, 1.0)).masked_fill(n == 0, 0.0)
