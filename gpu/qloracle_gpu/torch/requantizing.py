"""Merging an adapter into a quantized weight: two conventions, for every quantizer of this package.

    requantize:  Q(RN(W̃ + s B A)), with W̃ the dequantized weight, which the adapter was trained on
    original:    Q(RN(W₀ + s B A)), with W₀ the weight before it was quantized

Q is the quantizer of the given record; its scales come anew from what is quantized ("fresh"), or stay as they are and
codes saturate ("kept"). Clauses: ``[merge.requantize]``, ``[merge.original]``.
"""

from torch import Tensor

from qloracle.errors import reject_value
from qloracle_gpu.torch.formats import NAMES, require_tensor_format
from qloracle_gpu.torch.merging import lora_merge
from qloracle_gpu.torch.qlora import QuantizedWeight, qlora_weight, shape_of
from qloracle_gpu.torch.quantizing_like import quantize_like


def merge_requantize(
    weight: QuantizedWeight,
    lora_a: Tensor,
    lora_b: Tensor,
    *,
    alpha: float,
    rank_stabilized: bool = False,
    fan_in_fan_out: bool = False,
    scales: str = "fresh",
    safe: bool = False,
) -> QuantizedWeight:
    """Merge an adapter into a quantized weight: dequantize, merge, quantize again.

    Q(RN_dtype(W̃ + s B A)), W̃ dequantized to the format of the original.

    Parameters
    ----------
    weight : QuantizedBlocks, DoubleQuantized, QuantizedInt8 or QuantizedAffine, of a 2-d tensor
    lora_a, lora_b, alpha, rank_stabilized, fan_in_fan_out, safe
        As for `lora_merge`. With `safe` a poisoned block is refused as well: its merged values are NaN.
    scales : {"fresh", "kept"}
        Whether absmax, or scale and zero point, are computed anew from the merged weight.

    Returns
    -------
    record of the type of `weight`, same settings, same shape and format

    Raises
    ------
    ArgumentTypeError, ArgumentValueError, MatmulPrecisionError
        If `weight` is no quantized 2-d tensor, `scales` unknown, or as `lora_merge`.

    Notes
    -----
    Clause ``[merge.requantize]``. Rounding points, in order: those of the dequantization; those of the merge; those of
    the quantization.

    Examples
    --------
    >>> import torch
    >>> from qloracle_gpu.torch import quantize_blockwise
    >>> base = quantize_blockwise(torch.tensor([[1.0, -1.0]]))
    >>> merge_requantize(base, torch.tensor([[1.0, 3.0]]), torch.ones(1, 1), alpha=1).absmax
    tensor([2.])
    """
    shape_of(weight)
    values = qlora_weight(weight, weight_rounding=weight.dtype)
    merged = lora_merge(values, lora_a, lora_b, alpha=alpha, rank_stabilized=rank_stabilized,
                        fan_in_fan_out=fan_in_fan_out, safe=safe)  # fmt: skip
    return quantize_like(merged, weight, scales=scales)


def merge_into_original(
    original: Tensor,
    like: QuantizedWeight,
    lora_a: Tensor,
    lora_b: Tensor,
    *,
    alpha: float,
    rank_stabilized: bool = False,
    fan_in_fan_out: bool = False,
    scales: str = "fresh",
    safe: bool = False,
) -> QuantizedWeight:
    """Merge an adapter into the weight as it was before quantizing, and quantize that.

    Q(RN(W₀ + s B A)); without Q it is `lora_merge` of the original.

    Parameters
    ----------
    original : tensor of float32, float16 or bfloat16, the shape of the quantized tensor
    like : QuantizedBlocks, DoubleQuantized, QuantizedInt8 or QuantizedAffine
        The quantized weight that is replaced: its settings, and with `scales="kept"` its scales, are used.
    lora_a, lora_b, alpha, rank_stabilized, fan_in_fan_out, scales, safe
        As for `merge_requantize` and `lora_merge`.

    Returns
    -------
    record of the type of `like`

    Raises
    ------
    ArgumentTypeError, ArgumentValueError, MatmulPrecisionError
        As `merge_requantize`, and if the original has another shape or format than `like` says.

    Notes
    -----
    Clause ``[merge.original]``. The adapter was trained on W̃; here it is added to another weight. Rounding points:
    those of `lora_merge`, then those of the quantizer.

    Examples
    --------
    >>> import torch
    >>> from qloracle_gpu.torch import quantize_blockwise
    >>> weight = torch.tensor([[1.0, 0.5]])
    >>> like = quantize_blockwise(weight)
    >>> merge_into_original(weight, like, torch.tensor([[1.0, 3.0]]), torch.ones(1, 1), alpha=1).absmax
    tensor([3.5000])
    """
    shape = shape_of(like)
    values = require_tensor_format("original", original)
    name = NAMES[values.dtype]
    if tuple(values.shape) != shape or name != like.dtype:
        got = f"{name} {tuple(values.shape)}"
        reject_value("original", f"{like.dtype} of shape {shape}, as it was quantized", got)
    merged = lora_merge(values, lora_a, lora_b, alpha=alpha, rank_stabilized=rank_stabilized,
                        fan_in_fan_out=fan_in_fan_out, safe=safe)  # fmt: skip
    return quantize_like(merged, like, scales=scales)
