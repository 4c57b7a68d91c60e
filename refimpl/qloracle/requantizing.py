"""Merging an adapter into a quantized weight: two conventions, for every quantizer of this specification.

    requantize:  Q(RN(W̃ + s B A)), with W̃ the dequantized weight, which the adapter was trained on
    original:    Q(RN(W₀ + s B A)), with W₀ the weight before it was quantized

They differ by what quantizing lost: W₀ − W̃. Q is the quantizer of the given record: same codebook or code range, same
blocks or groups, same format; its scales come anew from what is quantized ("fresh"), or stay as they are and codes
saturate ("kept"). Clauses: ``[merge.requantize]``, ``[merge.original]``.
Source: the PEFT library merges into bitsandbytes layers by the first convention, with fresh scales; reloading the base
in 16 bits and merging there is the second, before its Q.
"""

from qloracle.errors import reject_value
from qloracle.formats import Array, format_of
from qloracle.merging import lora_merge
from qloracle.qlora import QuantizedWeight
from qloracle.quantizing_like import dequantized_weight, quantize_like, shape_of


def merge_requantize(
    weight: QuantizedWeight,
    lora_a: Array,
    lora_b: Array,
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
        `bounds.requantize` says which scales and codes are allowed.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If `weight` is no quantized 2-d tensor, `scales` unknown, or as `lora_merge`.

    Notes
    -----
    Clause ``[merge.requantize]``. Rounding points, in order: those of the dequantization; those of the merge; those of
    the quantization.

    Examples
    --------
    >>> import numpy as np
    >>> from qloracle import dequantize_blockwise, quantize_blockwise
    >>> one = np.ones((1, 1), np.float32)
    >>> base = quantize_blockwise(np.array([[1, -1]], np.float32))
    >>> merged = merge_requantize(base, np.array([[1, 3]], np.float32), one, alpha=1)
    >>> merged.absmax, dequantize_blockwise(merged)
    (array([2.], dtype=float32), array([[2., 2.]], dtype=float32))
    """
    values = dequantized_weight(weight)
    merged = lora_merge(values, lora_a, lora_b, alpha=alpha, rank_stabilized=rank_stabilized,
                        fan_in_fan_out=fan_in_fan_out, fmt=weight.dtype, safe=safe)  # fmt: skip
    return quantize_like(merged, weight, scales=scales, fmt=weight.dtype)


def merge_into_original(
    original: Array,
    like: QuantizedWeight,
    lora_a: Array,
    lora_b: Array,
    *,
    alpha: float,
    rank_stabilized: bool = False,
    fan_in_fan_out: bool = False,
    fmt: str | None = None,
    scales: str = "fresh",
    safe: bool = False,
) -> QuantizedWeight:
    """Merge an adapter into the weight as it was before quantizing, and quantize that.

    Q(RN(W₀ + s B A)); without Q it is `lora_merge` of the original.

    Parameters
    ----------
    original : array of float32, float16 or bfloat16, the shape of the quantized tensor
    like : QuantizedBlocks, DoubleQuantized, QuantizedInt8 or QuantizedAffine
        The quantized weight that is replaced: its settings, and with `scales="kept"` its scales, are used.
    lora_a, lora_b, alpha, rank_stabilized, fan_in_fan_out, fmt, scales, safe
        As for `merge_requantize` and `lora_merge`.

    Returns
    -------
    record of the type of `like`

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        As `merge_requantize`, and if the original has another shape or format than `like` says.

    Notes
    -----
    Clause ``[merge.original]``. The adapter was trained on W̃; here it is added to another weight. Rounding points of
    an implementation: those of `lora_merge`, then those of the quantizer.

    Examples
    --------
    >>> import numpy as np
    >>> from qloracle import quantize_blockwise
    >>> weight, one = np.array([[1, 0.6]], np.float32), np.ones((1, 1), np.float32)
    >>> made = merge_into_original(weight, quantize_blockwise(weight), np.array([[1, 3]], np.float32), one, alpha=1)
    >>> made.absmax
    array([3.6], dtype=float32)
    """
    shape = shape_of(like)
    name = format_of(original, fmt, "original", f"{like.dtype}, as it was quantized").name
    if original.shape != shape or name != like.dtype:
        reject_value("original", f"{like.dtype} of shape {shape}, as it was quantized", f"{name} {original.shape}")
    merged = lora_merge(original, lora_a, lora_b, alpha=alpha, rank_stabilized=rank_stabilized,
                        fan_in_fan_out=fan_in_fan_out, fmt=fmt, safe=safe)  # fmt: skip
    return quantize_like(merged, like, scales=scales, fmt=name)
