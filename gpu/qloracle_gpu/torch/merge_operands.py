"""Operands of merges as float32, checked at the door, and what becomes of their sums."""

import torch
from torch import Tensor

from qloracle.errors import reject_value, require_flag
from qloracle_gpu.torch.autocast import ignores_autocast
from qloracle_gpu.torch.formats import require_tensor_format
from qloracle_gpu.torch.lora import lora_scale
from qloracle_gpu.torch.matmul import require_float32_matmul


def merge_operands(
    weight: Tensor, lora_a: Tensor, lora_b: Tensor, *, fan_in_fan_out: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Return W as (d_out, d_in), A and B as float32, after checking that their shapes belong together."""
    wide = require_tensor_format("weight", weight).to(torch.float32)
    if wide.ndim != 2:
        reject_value("weight", "2-d", f"{wide.ndim}-d")
    w = wide.T if require_flag("fan_in_fan_out", fan_in_fan_out) else wide
    (d_out, d_in), a, b = w.shape, matrix("lora_a", lora_a), matrix("lora_b", lora_b)
    if a.shape[1] != d_in:
        reject_value("lora_a", f"of shape (r, {d_in}) for a weight of shape {tuple(weight.shape)}", tuple(a.shape))
    if b.shape != (d_out, len(a)):
        reject_value("lora_b", f"of shape {(d_out, len(a))}", tuple(b.shape))
    return w, a, b


def matrix(argument: str, value: Tensor) -> Tensor:
    """Return a 2-d operand as float32."""
    wide = require_tensor_format(argument, value).to(torch.float32)
    if wide.ndim != 2:
        reject_value(argument, "2-d", f"{wide.ndim}-d")
    return wide


@ignores_autocast
def weight_and_change(
    weight: Tensor, lora_a: Tensor, lora_b: Tensor, *, alpha: float, rank_stabilized: bool, fan_in_fan_out: bool
) -> tuple[Tensor, Tensor]:
    """Return W and s B A as float32 of shape (d_out, d_in)."""
    w, a, b = merge_operands(weight, lora_a, lora_b, fan_in_fan_out=fan_in_fan_out)
    scale = lora_scale(alpha, len(a), rank_stabilized=rank_stabilized)
    require_float32_matmul()
    return w, (b @ a).mul_(scale)


def stored_as(weight: Tensor, values: Tensor, *, fan_in_fan_out: bool) -> Tensor:
    """Return values of shape (d_out, d_in) in the orientation and the format of a weight, contiguous."""
    return (values.T if fan_in_fan_out else values).to(weight.dtype).contiguous()


def require_finite(merged: Tensor) -> Tensor:
    """Return a merged weight, or raise `ArgumentValueError` that names its first element that is NaN or infinite."""
    wrong = (~merged.isfinite()).nonzero()
    if len(wrong):
        place = tuple(wrong[0].tolist())
        reject_value("the merged weight", "finite", f"{merged[place].item()} at {place}; the weight is as it was")
    return merged
